"""The JWT rules that apply to the workload, and which tokens of a request they accept, in both readings.

Strict: every token that stands in any rule's place must be one that a rule with that place and the token's issuer
accepts. Istio: rules are tried in order of issuer, and the first whose places hold valid tokens only decides; the
request goes on without a token if no place holds any.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from zta_authz.authn.binding import judge_binding
from zta_authz.authn.cache import BoundedCache
from zta_authz.authn.jwt import (
    ISTIO,
    STRICT,
    judge_times,
    normal_audiences,
    parse_token,
    verify_signature,
)
from zta_authz.authn.limits import NO_LIMITS
from zta_authz.authn.locations import Places, TokenFinder
from zta_authz.authn.outputs import changes_for, headers_from
from zta_authz.errors import Reason, Refused
from zta_authz.model.identity import NO_CHANGES, Identity, Token

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zta_authz.authn.jwt import UnverifiedToken, VerifiedToken
    from zta_authz.authn.keys import KeySlot
    from zta_authz.authn.limits import IssuerLimits
    from zta_authz.authn.locations import Found, Place
    from zta_authz.authn.revocation import Revocations
    from zta_authz.model.documents import JwtRule
    from zta_authz.model.identity import Binding, Changes, Peer
    from zta_authz.model.request import RequestAttributes

_PREFLIGHT: Final = ("origin", "access-control-request-method")
MAX_CACHED_TOKENS: Final = 8192
MAX_CACHED_BYTES: Final = 16 * 1024 * 1024
"""Token text behind the cached results, in all. A parsed token weighs about five times its text."""
MAX_CACHED_GRANTS: Final = 16
"""Outcomes kept on one cached token: one for each rule and combination of places it was accepted at."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenRule:
    """One compiled entry of `jwtRules`, with its issuer's limits. Without `audiences` (normalised) any will do."""

    source: JwtRule
    audiences: frozenset[str]
    keys: KeySlot
    places: tuple[Place, ...]
    limits: IssuerLimits


@dataclass(frozen=True, slots=True, eq=False)
class _Cached:
    token: VerifiedToken
    grants: dict[tuple[TokenRule, Place], _Grant] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Grant:
    """One accepted token at one place: what the identity and the request get from it, alone."""

    token: Token
    verified: VerifiedToken
    rule: TokenRule
    place: Place
    changes: Changes


def compile_rule(rule: JwtRule, keys: KeySlot, places: Places, limits: IssuerLimits) -> TokenRule:
    """The rule with its audiences and places made ready."""
    return TokenRule(rule, normal_audiences(rule.audiences), keys, places.of(rule), limits)


class TokenCache(BoundedCache[bytes, _Cached]):
    """Verified tokens by the digest of their text; the verifiers of all workloads share one."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(MAX_CACHED_TOKENS, MAX_CACHED_BYTES)


@dataclass(frozen=True, slots=True, eq=False)
class Common:
    """What the verifiers of all workloads share. `strip` are the headers that clients may not send."""

    strict: bool
    strip: frozenset[str]
    revocations: Revocations
    cache: TokenCache = field(default_factory=TokenCache)


class TokenVerifier:
    """Accepts or refuses the tokens of requests, by the rules that apply to one workload."""

    def __init__(self, rules: Iterable[TokenRule], common: Common) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: rule.source.issuer))
        strict = common.strict
        self.strip_headers = common.strip
        self._revocations = common.revocations
        self._strict = strict
        self._reading = STRICT if strict else ISTIO
        self._finder = TokenFinder((place for rule in self.rules for place in rule.places), strict=strict)
        self._accept = self._accept_strictly if strict else self._accept_as_istio
        self._skips = _never if strict else _jwt_authn_skips
        self._no_token = changes_for((), (), self.strip_headers) if self.strip_headers else NO_CHANGES
        self._cache = common.cache

    def verify(self, request: RequestAttributes, peer: Peer | None, now: float) -> Identity:
        """The identity of `peer` with the tokens of `request`. Raises `Refused` for a token that does not hold."""
        if not self.rules:
            return Identity(peer, changes=self._no_token)
        if self._skips(request):
            return Identity(peer)
        found = self._finder.find(request)
        if not found:
            return Identity(peer, changes=self._no_token)
        grants = self._accept(found, now)
        if not grants:
            return Identity(peer, changes=self._no_token)
        bindings = [self._bind(grant, peer) for grant in grants]
        if len(grants) == 1:
            grant = grants[0]
            return Identity(peer, grant.token, (grant.token,), grant.changes, bindings[0])
        tokens = {(grant.verified, grant.rule): grant.token for grant in grants}  # one token may stand in two places
        return Identity(peer, grants[0].token, tuple(tokens.values()), self._changes(grants), bindings[0])

    def _bind(self, grant: _Grant, peer: Peer | None) -> Binding | None:
        """What ties the token to `peer`. Raises `Refused` where it is tied to somebody else, or should be tied."""
        binding = judge_binding(grant.verified, peer, "", strict=self._strict)
        grant.rule.limits.judge_binding(binding)
        return binding

    def _accept_strictly(self, found: Found, now: float) -> list[_Grant]:
        grants = [self._accept_one(text, place, self.rules, now) for place, text in found]
        if len(grants) > 1:
            order = {rule: number for number, rule in enumerate(self.rules)}
            grants.sort(key=lambda grant: order[grant.rule])  # stable: within a rule the places keep their order
        return grants

    def _accept_as_istio(self, found: Found, now: float) -> list[_Grant]:
        refused: Refused | None = None
        for rule in self.rules:
            presented = [(place, text) for place in rule.places for at, text in found if at is place]
            if not presented:
                continue
            try:
                return [self._accept_one(text, place, (rule,), now) for place, text in presented]
            except Refused as error:
                if refused is None or refused.reason is Reason.TOKEN_ISSUER_UNKNOWN:
                    refused = error
        if refused is not None:
            raise refused
        return []

    def _accept_one(self, text: str, place: Place, rules: Sequence[TokenRule], now: float) -> _Grant:
        """The token `text` at `place` under the first of `rules` that takes it. Raises the first rule's refusal."""
        reading = self._reading
        digest, cached = self._look_up(text)
        unverified: UnverifiedToken | None = None
        if cached is None:
            unverified = parse_token(text, reading)
            issuer = unverified.issuer
        else:
            issuer = cached.token.issuer
        refused: Refused | None = None
        for rule in rules:
            if rule.source.issuer != issuer or place not in rule.places:
                continue
            try:
                if cached is None or cached.token.keys is not rule.keys.current:
                    unverified = unverified or parse_token(text, reading)
                    cached = _Cached(verify_signature(unverified, rule.keys.current, reading))
                    self._cache.put(digest, cached, len(text))
                self._judge(cached.token, rule, now)
            except Refused as error:
                if error.reason is Reason.TOKEN_KEY_UNKNOWN:
                    rule.keys.key_unknown()
                refused = refused or error
            else:
                return cached.grants.get((rule, place)) or self._grant(cached, rule, place)
        raise refused or Refused(Reason.TOKEN_ISSUER_UNKNOWN, "no rule for this issuer has a token in this place")

    def _judge(self, token: VerifiedToken, rule: TokenRule, now: float) -> None:
        """What is judged on every call, whatever is known of the token. Raises `Refused`."""
        limits = rule.limits
        judge_times(token, self._reading, now, needs_expiry=not limits.allow_missing_exp)
        if limits is not NO_LIMITS:
            limits.judge(token, now)
        if rule.audiences and rule.audiences.isdisjoint(token.audiences):
            raise Refused(Reason.TOKEN_AUDIENCE, "none of the token's audiences is the rule's")
        if self._revocations.of_tokens:
            self._revocations.check_token(rule.source.issuer, token, now)

    def _look_up(self, text: str) -> tuple[bytes, _Cached | None]:
        if len(text) > self._reading.max_bytes:
            raise Refused(Reason.TOKEN_TOO_LARGE, f"{len(text)} characters, more than {self._reading.max_bytes}")
        try:
            digest = hashlib.sha256(text.encode("ascii")).digest()
        except UnicodeEncodeError:
            raise Refused(Reason.TOKEN_MALFORMED, "characters that no token has") from None
        return digest, self._cache.get(digest)

    def _grant(self, cached: _Cached, rule: TokenRule, place: Place) -> _Grant:
        verified = cached.token
        source = rule.source
        token = Token(
            verified.issuer,
            verified.subject,
            verified.claims,
            source.policy,
            source.space_delimited_claims,
            verified.issued_at,
        )
        consumed = () if rule.source.forward_original_token else (place,)
        changes = changes_for(headers_from(rule.source, verified), consumed, self.strip_headers)
        grant = _Grant(token, verified, rule, place, changes)
        if len(cached.grants) < MAX_CACHED_GRANTS:
            cached.grants[(rule, place)] = grant
        return grant

    def _changes(self, grants: Sequence[_Grant]) -> Changes:
        return changes_for(
            (pair for grant in grants for pair in headers_from(grant.rule.source, grant.verified)),
            (grant.place for grant in grants if not grant.rule.source.forward_original_token),
            self.strip_headers,
        )


def _never(_request: RequestAttributes) -> bool:
    return False


def _jwt_authn_skips(request: RequestAttributes) -> bool:
    """Envoy's filter does not look at CORS preflights nor, its rule being the prefix `/`, at other paths."""
    if not request.path.startswith("/"):
        return True
    headers = request.headers
    return request.method == "OPTIONS" and all(headers.joined(name) for name in _PREFLIGHT)
