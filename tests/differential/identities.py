"""Who calls: peers' and tokens' principals to Envoy's matchers, with the mesh's trust domain aliases.

Sources: Istio `authz/model/generator.go` and `trustdomain/bundle.go`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.differential.matchers import metadata, quote, regex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.differential.case import PolicySet

Json = dict[str, Any]


def _authenticated(match: Json) -> Json:
    return {"authenticated": {"principal_name": match}}


def principals(values: Sequence[str], policies: PolicySet) -> list[Json]:
    matches = []
    for value in migrated(values, [policies.trust_domain, *policies.trust_domain_aliases]):
        if value == "*":
            matches.append(regex(".+"))
        elif value.startswith("*"):
            matches.append(regex("spiffe://.*" + quote(value[1:])))
        elif value.endswith("*"):
            matches.append({"prefix": "spiffe://" + value[:-1]})
        else:
            matches.append({"exact": "spiffe://" + value})
    return [_authenticated(match) for match in matches]


def migrated(principals: Sequence[str], domains: list[str]) -> list[str]:
    """The principals with the trust domain's aliases (Istio's `ReplaceTrustDomainAliases`)."""
    result: list[str] = []
    for principal in principals:
        domain, *rest = principal.split("/")
        known = domain == "cluster.local" or any(_loosely(candidate, domain) for candidate in domains)
        if len(rest) != 4 or domain == "*" or not known:
            result.append(principal)
            continue
        replaced: list[str] = []
        for candidate in domains:
            kept = domain.startswith("*") and candidate.endswith(domain[1:])
            new = principal if kept else "/".join([candidate, *rest])
            if new not in replaced:
                replaced.append(new)
        result += replaced
    return result


def _loosely(domain: str, pattern: str) -> bool:
    """Istio's `stringMatch` of one trust domain with the one a principal names."""
    by_prefix = pattern.endswith("*") and domain.startswith(pattern[:-1])
    by_suffix = pattern.startswith("*") and domain.endswith(pattern[1:])
    return domain in (pattern, "*") or by_prefix or by_suffix or _listed(domain, pattern)


def _listed(domain: str, pattern: str) -> bool:
    """The mesh's own list may hold wildcards too."""
    by_prefix = domain.endswith("*") and pattern.startswith(domain[:-1])
    by_suffix = domain.startswith("*") and pattern.endswith(domain[1:])
    return by_prefix or by_suffix


def namespaces(values: Sequence[str]) -> list[Json]:
    quoted = [".*".join(quote(part) for part in value.split("*")) for value in values]
    return [_authenticated(regex(f".*/ns/{pattern}/.*")) for pattern in quoted]


def service_accounts(values: Sequence[str], namespace: str) -> list[Json]:
    matches = []
    for value in values:
        space, slash, account = value.partition("/")
        if not slash:
            space, account = namespace, value
        matches.append(regex(f"spiffe://.+/ns/{quote(space)}/(.+/|)sa/{quote(account)}(/.+)?"))
    return [_authenticated(match) for match in matches]


def trust_domains(values: Sequence[str], policies: PolicySet) -> list[Json]:
    domains = [policies.trust_domain, *policies.trust_domain_aliases]
    expanded: list[str] = []
    for value in values:
        expanded += [name for name in (domains if value in domains else [value]) if name not in expanded]
    matches: list[Json] = []
    for value in expanded:
        if value == "*":
            matches.append({"prefix": "spiffe://"})
        elif "*" in value:
            pattern = "[^/]*".join(quote(part) for part in value.split("*"))
            matches.append(regex(f"spiffe://{pattern}/.*"))
        else:
            matches.append({"prefix": f"spiffe://{value}/"})
    return [_authenticated(match) for match in matches]


def request_principals(values: Sequence[str]) -> list[Json]:
    matches = []
    for value in values:
        issuer, subject = request_principal(value)
        parts = [
            metadata("envoy.filters.http.jwt_authn", ["payload", name], {"string_match": match})
            for name, match in (("iss", issuer), ("sub", subject))
        ]
        matches.append({"and_ids": {"ids": parts}})
    return matches


def request_principal(value: str) -> tuple[Json, Json]:
    """How `iss` and `sub` are matched for one request principal."""
    anything = regex(".+")
    issuer, slash, subject = value.rpartition("/")
    if not slash:
        issuer, subject = value, ""
    if value == "*":
        return anything, anything
    if value.startswith("*"):
        if not slash:
            return anything, {"suffix": value[1:]}
        return (anything if issuer == "*" else {"suffix": issuer[1:]}), {"exact": subject}
    if value.endswith("*"):
        if not slash:
            return {"prefix": value[:-1]}, anything
        return {"exact": issuer}, (anything if subject == "*" else {"prefix": subject[:-1]})
    return {"exact": issuer}, {"exact": subject}
