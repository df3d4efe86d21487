"""A compiled JWT rule: keys, token locations, audiences and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from zta_authz.authn.jwt import normal_audiences
from zta_authz.authn.outputs import compile_outputs, headers_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.authn.jwt_limits import IssuerLimits
    from zta_authz.authn.keys import KeySet, KeySlot
    from zta_authz.authn.locations import TokenLocation, TokenLocations
    from zta_authz.authn.outputs import Outputs
    from zta_authz.authn.token import VerifiedToken
    from zta_authz.model.documents import JwtRule


class SigningKeys(Protocol):
    """The keys that verify a rule's tokens. They change while requests are served."""

    @property
    def current(self) -> KeySet:
        """The keys in force now."""

    @property
    def key_unknown(self) -> Callable[[], None]:
        """Called when `current` lacks a token's key. Returns at once and never raises."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenRule:
    """One compiled entry of `jwtRules`, with its issuer's limits. Empty `audiences` (normalised) allow any.

    `svid` marks a trust domain's rule for JWT-SVIDs, whose `audiences` are not normalised.
    """

    source: JwtRule
    audiences: frozenset[str]
    keys: SigningKeys
    locations: tuple[TokenLocation, ...]
    limits: IssuerLimits
    svid: bool = False
    outputs: Outputs = ()

    def headers(self, token: VerifiedToken) -> tuple[tuple[str, str], ...]:
        """The (name, value) pairs that the rule sets from `token`."""
        return headers_from(self.source.output_payload_to_header, self.outputs, token)


def compile_rule(
    rule: JwtRule, keys: KeySlot, locations: TokenLocations, limits: IssuerLimits, *, strict: bool
) -> TokenRule:
    """Compile the rule's audiences, token locations and output headers."""
    outputs = compile_outputs(rule, strict=strict)
    return TokenRule(rule, normal_audiences(rule.audiences), keys, locations.of(rule), limits, outputs=outputs)
