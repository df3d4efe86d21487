"""What one accepted token gives: claims for the rules and changes to the request; and the cache of verified tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from zta_authz.authn.cache import BoundedCache
from zta_authz.authn.dpop import HEADER as PROOF_HEADER, ReplayMemory
from zta_authz.authn.outputs import changes_for
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
MAX_CACHED_GRANTS: Final = 16
"""Outcomes kept on one cached token: one for each rule and combination of places it was accepted at."""

Failure = tuple[Reason, str]
"""Why a signature did not verify: reason and detail."""


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """One accepted token at one place: what the identity and the request get from it, alone."""

    token: Token
    verified: VerifiedToken
    rule: TokenRule
    place: Place
    dpop: bool
    changes: Changes
    identities: list[Identity] = field(default_factory=list)
    """The last identity that it gave, with a peer of that moment: a caller's calls mostly come from one peer."""


@dataclass(frozen=True, slots=True, eq=False)
class Warm:
    """The grant that a token was last given, and what that hangs on: it counts where all of this is still so.

    `rules` are those of the verifier that asked, of which `grant.rule` was the first to be asked. `plain`: times and
    audience are all there is to judge, and `keys`, `place` and the audience being the same, only times change:
    the token is in force from `begins` to `ends`, leeway aside and included.
    """

    rules: Sequence[TokenRule]
    keys: KeySet
    grant: Grant
    plain: bool
    begins: float
    ends: float


@dataclass(slots=True, eq=False)
class Cached:
    """One token's text: what came of verifying its signature with each key set that was tried, and what it granted.

    Two workloads may have different key sets for one issuer; which of them fits a token is found out once.
    """

    issuer: str
    subject: str
    results: dict[KeySet, VerifiedToken | Failure] = field(default_factory=dict)
    grants: dict[tuple[TokenRule, Place, bool, frozenset[str]], Grant] = field(default_factory=dict)
    warm: Warm | None = None

    def note(self, keys: KeySet, result: VerifiedToken | Failure) -> None:
        """Keep the result, and few others: key sets that are gone would else be held for good."""
        if len(self.results) >= MAX_CACHED_RESULTS:
            self.results.clear()
            self.grants.clear()
            self.warm = None
        self.results[keys] = result

    def grant(self, verified: VerifiedToken, rule: TokenRule, presented: Presented, strip: frozenset[str]) -> Grant:
        """What `verified` grants under `rule` where it is presented; `strip` are headers that clients may not send."""
        key = (rule, presented.place, presented.dpop, strip)
        found = self.grants.get(key)
        if found is None or found.verified is not verified:
            found = self._make(verified, rule, presented, strip)
            if len(self.grants) < MAX_CACHED_GRANTS:
                self.grants[key] = found
        return found

    @staticmethod
    def _make(verified: VerifiedToken, rule: TokenRule, presented: Presented, strip: frozenset[str]) -> Grant:
        source = rule.source
        claims: Mapping[str, Any] = verified.claims
        issuer = verified.issuer
        if rule.svid:  # its `iss` is whatever the signer wrote; who vouches for it is the trust domain
            issuer = source.issuer
            claims = MappingProxyType({**claims, "iss": issuer})
        token = Token(
            issuer, verified.subject, claims, source.policy, source.space_delimited_claims, verified.issued_at
        )
        changes = _changes([(rule, verified, presented.place, presented.dpop)], strip)
        return Grant(token, verified, rule, presented.place, presented.dpop, changes)


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
        strip |= {PROOF_HEADER}  # a proof without its token proves nothing, and this one has been used
    places = [place for place, _ in consumed]
    if headers is not None:
        return changes_for(headers, places, strip, repeat=True)
    pairs = (pair for rule, verified, _, _ in accepted for pair in rule.headers(verified))
    return changes_for(pairs, places, strip)


class TokenCache(BoundedCache[bytes, Cached]):
    """Verified tokens by the digest of their text; the verifiers of all workloads share one."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(MAX_CACHED_TOKENS, MAX_CACHED_BYTES)


@dataclass(slots=True, eq=False)
class Common:
    """What the verifiers of all workloads share. `strip` are the headers that clients may not send.

    `svids` is None where JWT-SVIDs are not taken. `limits` are those of each issuer, for rules that name none.
    """

    strict: bool
    strip: frozenset[str]
    revocations: Revocations
    svids: SvidRules | None = None
    limits: Mapping[str, IssuerLimits] = field(default_factory=dict)
    cache: TokenCache = field(default_factory=TokenCache)
    replays: Replays = field(default_factory=ReplayMemory)
