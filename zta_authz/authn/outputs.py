"""What a verified token asks of the request that goes on: headers to set from it, and its own removal.

Istio's `outputPayloadToHeader`, `outputClaimToHeaders` and `forwardOriginalToken`. Every header that a rule may set is
removed from what the client sent, whether or not it is set now, so that nobody can speak in a token's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.authn.locations import Kind, Place
from zta_authz.model.claims import claim_at, claim_text
from zta_authz.model.identity import Changes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.authn.token import VerifiedToken
    from zta_authz.model.documents import JwtRule

Outputs = tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
"""Headers, each with the paths of the claims it may be set from; the first that is there counts."""


def headers_set_by(rule: JwtRule) -> frozenset[str]:
    """Every header name (lower case) that `rule` may set."""
    names = {output.header.lower() for output in rule.output_claim_to_headers}
    if rule.output_payload_to_header:
        names.add(rule.output_payload_to_header.lower())
    return frozenset(names)


def compile_outputs(rule: JwtRule, *, strict: bool) -> Outputs:
    """What `outputClaimToHeaders` names: dots lead into nested claims, as in Envoy.

    In the strict reading a claim whose own name has the dots counts, where there is no nested one.
    """
    found = []
    for output in rule.output_claim_to_headers:
        path = tuple(output.claim.split("."))
        paths = (path, (output.claim,)) if strict and len(path) > 1 else (path,)
        found.append((output.header.lower(), paths))
    return tuple(found)


def headers_from(payload_header: str, outputs: Outputs, token: VerifiedToken) -> tuple[tuple[str, str], ...]:
    """The (name, value) pairs set from `token`; claims without a value are left out.

    A value may have control characters: rules compare it, and the answer to the proxy leaves it out.
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
    set_headers: Iterable[tuple[str, str]], consumed: Iterable[Place], strip: frozenset[str], *, repeat: bool = False
) -> Changes:
    """The changes: headers to set, `strip` and the `consumed` places to remove.

    The first value of a header counts; with `repeat` all stay, as Envoy adds one for each of several tokens.
    A header that is set is not also removed, because Envoy removes last. Cookies are never removed, as in Istio.
    """
    pairs = tuple(set_headers)
    chosen = dict(reversed(pairs))
    first = tuple((name, chosen[name]) for name in dict.fromkeys(name for name, _ in pairs))
    places = list(consumed)
    remove = strip.union(place.name for place in places if place.kind is Kind.HEADER).difference(chosen)
    return Changes(
        set_headers=pairs if repeat else first,
        remove_headers=tuple(sorted(remove)),
        remove_query=tuple(sorted({place.name for place in places if place.kind is Kind.PARAM})),
    )
