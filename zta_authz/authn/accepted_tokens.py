"""Accepted tokens: what one gives to rules and changes on the request, and the cache of tokens that verified."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from zta_authz.authn.dpop import HEADER as PROOF_HEADER, ReplayMemory
from zta_authz.authn.outputs import changes_for
from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import Reason
from zta_authz.model.identity import Token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zta_authz.authn.dpop import Replays
    from zta_authz.authn.jwt_limits import IssuerLimits
    from zta_authz.authn.jwt_svid import SvidRules
    from zta_authz.authn.keys import KeySet
    from zta_authz.authn.locations import Place, Presented
    from zta_authz.authn.revocation import Revocations
    from zta_authz.authn.token import VerifiedToken
    from zta_authz.authn.token_rule import TokenRule
    from zta_authz.model.identity import Changes, Identity

MAX_CACHED_TOKENS: Final = 8192
MAX_CACHED_BYTES: Final = 16 * 1024 * 1024
"""Token text behind the cached results, in all. A parsed token weighs about five times its text."""
MAX_CACHED_RESULTS: Final = 4
"""Key sets whose results are kept on one cached token."""

Failure = tuple[Reason, str]
"""Why a signature did not verify: reason and detail."""


@dataclass(slots=True, eq=False)
class Grant:
    """One accepted token at one place: what the identity and the request get from it, alone.

    `strip` are the headers that clients may not send. `identity` is the last one that it gave: most calls of a caller
    come from one peer.
    """

    token: Token
    verified: VerifiedToken
    rule: TokenRule
    place: Place
    dpop: bool
    strip: frozenset[str]
    changes: Changes
    identity: Identity | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """What must still be true for `grant` to be given again without asking each rule.

    `rules` are those of the verifier that asked, of which `grant.rule` was the first to accept the token, with `keys`.
    Where `plain`, only the time can change the answer: the token is in force from `begins` to `ends`, where `ends`
    includes the leeway and `begins` does not.
    """

    rules: Sequence[TokenRule]
    keys: KeySet
    grant: Grant
    plain: bool
    begins: float
    ends: float


@dataclass(slots=True, eq=False)
class CachedToken:
    """One token's text: the result of verifying its signature with each key set that was tried, and its last grant.

    Two workloads may have different key sets for one issuer; which of them fits a token is found out once.
    """

    issuer: str
    subject: str
    results: dict[KeySet, VerifiedToken | Failure] = field(default_factory=dict)
    last: Grant | None = None
    repeat: Repeat | None = None

    def note(self, keys: KeySet, result: VerifiedToken | Failure) -> None:
        """Keep the result, and few others: else replaced key sets would be kept for good."""
        if len(self.results) >= MAX_CACHED_RESULTS:
            self.results.clear()
            self.last = self.repeat = None
        self.results[keys] = result

    def grant(self, verified: VerifiedToken, rule: TokenRule, presented: Presented, strip: frozenset[str]) -> Grant:
        """What `verified` grants under `rule` where it is presented; `strip` are headers that clients may not send."""
        last = self.last  # read once: an explanation's thread may replace it
        if (
            last is not None
            and last.verified is verified
            and last.rule is rule
            and last.place is presented.place
            and last.dpop is presented.dpop
            and last.strip == strip
        ):
            return last
        grant = self.last = _grant(verified, rule, presented, strip)
        return grant


def _grant(verified: VerifiedToken, rule: TokenRule, presented: Presented, strip: frozenset[str]) -> Grant:
    source = rule.source
    claims: Mapping[str, Any] = verified.claims
    issuer = verified.issuer
    if rule.svid:  # its `iss` is whatever the signer wrote; the trust domain is what vouches for it
        issuer = source.issuer
        claims = MappingProxyType({**claims, "iss": issuer})
    token = Token(issuer, verified.subject, claims, source.policy, source.space_delimited_claims, verified.issued_at)
    changes = _changes([(rule, verified, presented.place, presented.dpop)], strip)
    return Grant(token, verified, rule, presented.place, presented.dpop, strip, changes)


def joint_changes(
    grants: Sequence[Grant], strip: frozenset[str], headers: Sequence[tuple[str, str]] | None = None
) -> Changes:
    """What several tokens together ask of the request. `headers`, where given, are set instead of the tokens' own."""
    return _changes([(grant.rule, grant.verified, grant.place, grant.dpop) for grant in grants], strip, headers)


def _changes(
    accepted: Sequence[tuple[TokenRule, VerifiedToken, Place, bool]],
    strip: frozenset[str],
    headers: Sequence[tuple[str, str]] | None = None,
) -> Changes:
    consumed = [(place, dpop) for rule, _, place, dpop in accepted if not rule.source.forward_original_token]
    if any(dpop for _, dpop in consumed):
        strip |= {PROOF_HEADER}  # a proof without its token proves nothing, and this one is used up
    places = [place for place, _ in consumed]
    if headers is not None:
        return changes_for(headers, places, strip, repeat=True)
    pairs = (pair for rule, verified, _, _ in accepted for pair in rule.headers(verified))
    return changes_for(pairs, places, strip)


class TokenCache(BoundedCache[bytes, CachedToken]):
    """Verified tokens by the SHA-256 digest of their text; the verifiers of all workloads share one."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(MAX_CACHED_TOKENS, MAX_CACHED_BYTES)


@dataclass(slots=True, eq=False)
class Common:
    """What the verifiers of all workloads share. `strip` are the headers that clients may not send.

    `svids` is None where JWT-SVIDs are not accepted. `limits` are those of each issuer, for rules that name none.
    """

    strict: bool
    strip: frozenset[str]
    revocations: Revocations
    svids: SvidRules | None = None
    limits: Mapping[str, IssuerLimits] = field(default_factory=dict)
    cache: TokenCache = field(default_factory=TokenCache)
    replays: Replays = field(default_factory=ReplayMemory)
