"""What a verified token asks of the request that goes on: headers to set from it, and its own removal.

Istio's `outputPayloadToHeader`, `outputClaimToHeaders` and `forwardOriginalToken`. Every header that a rule may set is
removed from what the client sent, whether or not it is set now, so that nobody can speak in a token's name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from zta_authz.authn.locations import Kind, Place
from zta_authz.model.identity import Changes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zta_authz.authn.jwt import VerifiedToken
    from zta_authz.model.documents import JwtRule

MAX_CLAIM_HEADER: Final = 8 * 1024
"""Characters of a claim that go into a header; a longer claim is not sent, as the proxy might refuse the request."""

_HEADER_SAFE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def headers_set_by(rule: JwtRule) -> frozenset[str]:
    """Every header name (lower case) that `rule` may set."""
    names = {output.header.lower() for output in rule.output_claim_to_headers}
    if rule.output_payload_to_header:
        names.add(rule.output_payload_to_header.lower())
    return frozenset(names)


def headers_from(rule: JwtRule, token: VerifiedToken) -> tuple[tuple[str, str], ...]:
    """The (name, value) pairs that `rule` sets from `token`; claims without a value fit for a header are left out."""
    headers: list[tuple[str, str]] = []
    if rule.output_payload_to_header:
        headers.append((rule.output_payload_to_header.lower(), token.payload))
    for output in rule.output_claim_to_headers:
        value = _as_text(_claim(token.claims, output.claim))
        if len(value) <= MAX_CLAIM_HEADER and _HEADER_SAFE.fullmatch(value):
            headers.append((output.header.lower(), value))
    return tuple(headers)


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim called `name`, else the one that the dots in `name` lead to through nested objects."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for step in name.split("."):
        value = value.get(step) if hasattr(value, "get") else None
    return value


def _as_text(value: Any) -> str:
    """A string, number or boolean as Istio writes it into a header; "" for everything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value) if -(2**63) <= value < 2**64 else ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else f"{value:f}"
    return ""


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
