"""Accepted tokens: their part of the identity, their changes to the request, and the cache of verified tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from zta_authz.authn.dpop import HEADER as PROOF_HEADER, ReplayMemory
from zta_authz.authn.outputs import changes_for
from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import Reason, Refused
from zta_authz.model.identity import Token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zta_authz.authn.dpop import Replays
    from zta_authz.authn.jwt_limits import IssuerLimits
    from zta_authz.authn.jwt_svid import SvidRules
    from zta_authz.authn.keys import KeySet
    from zta_authz.authn.locations import RawToken, TokenLocation
    from zta_authz.authn.revocation import Revocations
    from zta_authz.authn.token import VerifiedToken
    from zta_authz.authn.token_rule import TokenRule
    from zta_authz.model.identity import Changes, Identity

MAX_CACHED_TOKENS: Final = 8192
MAX_CACHED_BYTES: Final = 16 * 1024 * 1024
"""The total length of the cached tokens' texts. A parsed token uses about five times as much memory."""
MAX_CACHED_RESULTS: Final = 4
"""The number of key sets whose results are kept for one cached token."""

Failure = tuple[Reason, str]
"""Why a signature is not valid: reason and detail."""


@dataclass(slots=True, eq=False)
class AcceptedToken:
    """One accepted token at one location, with its part of the identity and its changes to the request.

    `strip` are the headers that clients may not send. `identity` is the last identity with this token, because most
    calls with a token come from one peer.
    """

    token: Token
    verified: VerifiedToken
    rule: TokenRule
    location: TokenLocation
    dpop: bool
    strip: frozenset[str]
    changes: Changes
    identity: Identity | None = None


@dataclass(slots=True, eq=False)
class RepeatCondition:
    """The conditions under which a cached token is accepted again without checking each rule.

    `rules` are the verifier's rules, of which `accepted.rule` was the first to accept the token, with `keys`. If
    `plain`, only the time can change the result: the token is valid from `begins` to `ends` (seconds since the epoch),
    where `ends` includes the leeway and `begins` does not. Revocations can change it too, unless `unconcerned` is their
    version: in this one, none is about the token.
    """

    rules: Sequence[TokenRule]
    keys: KeySet
    accepted: AcceptedToken
    plain: bool
    begins: float
    ends: float
    unconcerned: int = 0

    def is_unconcerned(self, revocations: Revocations) -> bool:
        """Whether no revocation is about the token. If so, this is remembered."""
        version = revocations.version  # first: a revocation that comes meanwhile begins another version
        if self.unconcerned == version:
            return True
        rule, token = self.accepted.rule, self.accepted.verified
        if revocations.concerns_token(rule.source.issuer or token.issuer, token):
            return False
        self.unconcerned = version
        return True


@dataclass(slots=True, eq=False)
class CachedToken:
    """The cached state of one token: the result of each key set that was tried, and the last acceptance.

    Two workloads may have different key sets for one issuer; the signature is verified once with each.
    """

    issuer: str
    subject: str
    results: dict[KeySet, VerifiedToken | Failure] = field(default_factory=dict)
    last: AcceptedToken | None = None
    repeat: RepeatCondition | None = None

    def add_result(self, keys: KeySet, result: VerifiedToken | Failure) -> None:
        """Add a result. The number of results is limited, so that replaced key sets are not kept for ever."""
        if len(self.results) >= MAX_CACHED_RESULTS:
            self.results.clear()
            self.last = self.repeat = None
        self.results[keys] = result

    def accept(
        self, verified: VerifiedToken, rule: TokenRule, presented: RawToken, strip: frozenset[str]
    ) -> AcceptedToken:
        """Return the token as accepted by `rule` at its location; `strip` are headers that clients may not send."""
        last = self.last  # read once: the thread of an explanation may replace it
        if (
            last is not None
            and last.verified is verified
            and last.rule is rule
            and last.location is presented.location
            and last.dpop is presented.dpop
            and last.strip == strip
        ):
            return last
        accepted = self.last = _build_accepted(verified, rule, presented, strip)
        return accepted


def _build_accepted(
    verified: VerifiedToken, rule: TokenRule, presented: RawToken, strip: frozenset[str]
) -> AcceptedToken:
    source = rule.source
    claims: Mapping[str, Any] = verified.claims
    issuer = verified.issuer
    if rule.svid:  # its `iss` is arbitrary; the trust domain is its issuer
        issuer = source.issuer
        claims = MappingProxyType({**claims, "iss": issuer})
    token = Token(issuer, verified.subject, claims, source.policy, source.space_delimited_claims, verified.issued_at)
    changes = _changes([(rule, verified, presented.location, presented.dpop)], strip)
    return AcceptedToken(token, verified, rule, presented.location, presented.dpop, strip, changes)


def joint_changes(
    accepted_tokens: Sequence[AcceptedToken], strip: frozenset[str], headers: Sequence[tuple[str, str]] | None = None
) -> Changes:
    """Combine the request changes of several tokens. `headers`, if given, replace the tokens' own headers."""
    return _changes(
        [(accepted.rule, accepted.verified, accepted.location, accepted.dpop) for accepted in accepted_tokens],
        strip,
        headers,
    )


def _changes(
    accepted: Sequence[tuple[TokenRule, VerifiedToken, TokenLocation, bool]],
    strip: frozenset[str],
    headers: Sequence[tuple[str, str]] | None = None,
) -> Changes:
    consumed = [(location, dpop) for rule, _, location, dpop in accepted if not rule.source.forward_original_token]
    if any(dpop for _, dpop in consumed):
        strip |= {PROOF_HEADER}  # without its token the proof is useless, and it is used up
    locations = [location for location, _ in consumed]
    if headers is not None:
        return changes_for(headers, locations, strip, repeat=True)
    pairs = (pair for rule, verified, _, _ in accepted for pair in rule.headers(verified))
    return changes_for(pairs, locations, strip)


class TokenCache(BoundedCache[bytes, CachedToken]):
    """Verified tokens by the SHA-256 digest of their text. The verifiers of all workloads share one cache."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(MAX_CACHED_TOKENS, MAX_CACHED_BYTES)


@dataclass(slots=True, eq=False)
class VerifierContext:
    """The state that the verifiers of all workloads share. `strip` are the headers that clients may not send.

    `svids` is None if JWT-SVIDs are not accepted. `limits` are the limits by issuer, for rules without an issuer.
    Tokens of `own_issuer` are refused: they were minted here.
    """

    strict: bool
    strip: frozenset[str]
    revocations: Revocations
    svids: SvidRules | None = None
    limits: Mapping[str, IssuerLimits] = field(default_factory=dict)
    cache: TokenCache = field(default_factory=TokenCache)
    replays: Replays = field(default_factory=ReplayMemory)
    own_issuer: str | None = None

    def refuse_own(self, issuer: str) -> None:
        """Raise `Refused` for a token that was minted here. It has no rule, so it is never verified nor cached."""
        if issuer == self.own_issuer:
            raise Refused(Reason.TOKEN_ISSUER_UNKNOWN, "the token was minted here, and is for applications only")
