"""Request changes caused by a verified token: headers set from it, and removal of the token itself.

Implements Istio's `outputPayloadToHeader`, `outputClaimToHeaders` and `forwardOriginalToken`. Every header that a rule
may set is removed from the client's request, whether or not it is set now, so that no client can forge it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.authn.locations import Kind, TokenLocation
from zta_authz.model.claims import claim_at, claim_text
from zta_authz.model.identity import Changes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.authn.token import VerifiedToken
    from zta_authz.model.documents import JwtRule

Outputs = tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
"""Headers, each with the paths of its claims; the first claim that has a value is used."""


def headers_set_by(rule: JwtRule) -> frozenset[str]:
    """All headers (lower case) that `rule` may set."""
    names = {output.header.lower() for output in rule.output_claim_to_headers}
    if rule.output_payload_to_header:
        names.add(rule.output_payload_to_header.lower())
    return frozenset(names)


def compile_outputs(rule: JwtRule, *, strict: bool) -> Outputs:
    """Compile `outputClaimToHeaders`. Dots separate the names of nested claims, as in Envoy.

    With strict semantics, a claim whose own name contains the dots is used if there is no nested one.
    """
    outputs = []
    for output in rule.output_claim_to_headers:
        path = tuple(output.claim.split("."))
        paths = (path, (output.claim,)) if strict and len(path) > 1 else (path,)
        outputs.append((output.header.lower(), paths))
    return tuple(outputs)


def headers_from(payload_header: str, outputs: Outputs, token: VerifiedToken) -> tuple[tuple[str, str], ...]:
    """The (name, value) pairs set from `token`, without claims that have no value.

    A value may contain control characters. Rules compare it, but it is not sent.
    """
    headers: list[tuple[str, str]] = []
    if payload_header:
        headers.append((payload_header.lower(), token.payload))
    for header, paths in outputs:
        value = next((text for path in paths if (text := claim_text(claim_at(token.claims, path)))), "")
        if value:
            headers.append((header, value))
    return tuple(headers)


def changes_for(
    set_headers: Iterable[tuple[str, str]],
    consumed: Iterable[TokenLocation],
    strip: frozenset[str],
    *,
    repeat: bool = False,
) -> Changes:
    """Combine the changes: set headers, remove those in `strip` and the `consumed` token locations.

    Of several values for a header the first is used; `repeat` keeps all, as Envoy adds one for each token.
    A header that is set is not also removed, because Envoy removes last. Cookies are never removed, as in Istio.
    """
    pairs = tuple(set_headers)
    chosen = dict(reversed(pairs))
    first = tuple((name, chosen[name]) for name in dict.fromkeys(name for name, _ in pairs))
    locations = list(consumed)
    remove = strip.union(location.name for location in locations if location.kind is Kind.HEADER).difference(chosen)
    return Changes(
        set_headers=pairs if repeat else first,
        remove_headers=tuple(sorted(remove)),
        remove_query=tuple(sorted({location.name for location in locations if location.kind is Kind.PARAM})),
    )
