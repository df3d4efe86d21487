"""Trust-domain aliases: a principal in the mesh's own domain also means the same principal in each alias.

As in Istio's `trustdomain` package, only five-segment principals (`domain/ns/NS/sa/SA`) are expanded whose domain is
`cluster.local` or matches one of the mesh's domains. A domain that starts with `*` is kept for the domains it matches.
"""

from __future__ import annotations

_CLUSTER_LOCAL = "cluster.local"
_SEGMENTS = 5


def expand_aliases(principal: str, domains: tuple[str, ...]) -> tuple[str, ...]:
    """The principals that `principal` (without `spiffe://`) means; `domains` has the trust domain, then its aliases."""
    if principal.count("/") != _SEGMENTS - 1:
        return (principal,)
    domain, _, rest = principal.partition("/")
    if domain != _CLUSTER_LOCAL and not any(_alike(domain, name) for name in domains):
        return (principal,)
    principals: list[str] = []
    for name in domains:
        replaced = principal if _ends(name, domain) else f"{name}/{rest}"
        if replaced not in principals:
            principals.append(replaced)
    return tuple(principals)


def _ends(name: str, pattern: str) -> bool:
    return pattern.startswith("*") and name.endswith(pattern[1:])


def _begins(name: str, pattern: str) -> bool:
    return pattern.endswith("*") and name.startswith(pattern[:-1])


def _alike(one: str, other: str) -> bool:
    return one == other or _ends(one, other) or _ends(other, one) or _begins(one, other) or _begins(other, one)
