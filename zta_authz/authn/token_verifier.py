"""Verification of a request's tokens by the JWT rules of one workload.

With strict semantics, every token at a location of any rule must be accepted by a rule with that location and the
token's issuer. With Istio semantics, tokens are verified as by jwt_authn with the requirement that Istio configures.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from zta_authz.authn.accepted_tokens import CachedToken, RepeatCondition, joint_changes
from zta_authz.authn.binding import check_binding
from zta_authz.authn.dpop import verify_proof
from zta_authz.authn.jwt import ISTIO, STRICT, check_times, parse_token, verify_signature
from zta_authz.authn.jwt_limits import NO_LIMITS, wrong_audience
from zta_authz.authn.jwt_svid import check_svid, looks_like_svid
from zta_authz.authn.locations import Kind, TokenFinder
from zta_authz.authn.outputs import changes_for, headers_set_by
from zta_authz.authn.token import VerifiedToken
from zta_authz.errors import Reason, Refused, quoted
from zta_authz.model.identity import NO_CHANGES, Identity, NamedToken, RefusedCaller

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zta_authz.authn.accepted_tokens import AcceptedToken, Failure, VerifierContext
    from zta_authz.authn.jwt import UnverifiedToken
    from zta_authz.authn.jwt_limits import IssuerLimits
    from zta_authz.authn.keys import KeySet
    from zta_authz.authn.locations import RawToken, RawTokens, TokenLocation
    from zta_authz.authn.token_rule import TokenRule
    from zta_authz.model.identity import Binding, Peer
    from zta_authz.model.request import RequestAttributes

_PREFLIGHT: Final = ("origin", "access-control-request-method")

_AcceptedTokens = tuple[list[tuple["AcceptedToken", str]], list[tuple[str, str]] | None]
"""Accepted tokens with their texts, the one that rules read first; and headers to set instead of the tokens' own."""


class _EnvoyState:
    """The state of jwt_authn for one request: the tokens that are left, those it accepted, and the headers it set."""

    __slots__ = ("accepted", "headers", "left")

    def __init__(self, raw: RawTokens) -> None:
        self.left = raw
        self.accepted: list[tuple[AcceptedToken, str]] = []
        self.headers: list[tuple[str, str]] = []


class TokenVerifier:
    """Accepts or refuses the tokens of requests by the rules of one workload."""

    def __init__(self, rules: Iterable[TokenRule], context: VerifierContext) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: rule.source.issuer))
        self._context = context
        strict = context.strict
        self._semantics = STRICT if strict else ISTIO
        self._svids = context.svids
        locations = [location for rule in self.rules for location in rule.locations]
        self._svid_location = None if self._svids is None or self._svids.location in locations else self._svids.location
        if self._svid_location is not None:
            locations.append(self._svid_location)
        self._reads_tokens = bool(locations)
        self._required = tuple(rule for rule in self.rules if rule.source.required)
        self._finder = TokenFinder(locations, strict=strict)
        # unbound: a bound method would be a reference cycle, and a frozen snapshot is freed by reference counts only
        self._accept = TokenVerifier._accept_strictly if strict else TokenVerifier._accept_as_istio
        self._strict = strict
        own: frozenset[str] = frozenset().union(*(headers_set_by(rule.source) for rule in self.rules))
        self._strip = context.strip if strict else own  # strict: headers of all rules; Istio: headers of these rules
        self._no_token = changes_for((), (), self._strip) if self._strip else NO_CHANGES

    def verify(
        self,
        request: RequestAttributes,
        peer: Peer | None,
        now: float,
        *,
        trial: bool = False,
        assumed_issuer: str | None = None,
    ) -> Identity:
        """Verify the tokens of `request`, and return the identity of `peer` with them. Raises `Refused`.

        A `trial` neither checks nor records the use of a DPoP proof. No token of `assumed_issuer` is required.
        """
        if not self._reads_tokens:
            return Identity(peer, changes=self._no_token)
        if not self._strict and _jwt_authn_skips(request):
            return Identity(peer, changes=self._no_token)
        raw = self._finder.find(request)
        required = self._required
        if assumed_issuer is not None:
            required = tuple(rule for rule in required if rule.source.issuer not in ("", assumed_issuer))
        if not raw:
            if required:
                raise Refused(Reason.TOKEN_MISSING, "no token, and a rule requires one")
            return Identity(peer, changes=self._no_token)
        if len(raw) == 1 and self._strict and raw[0].location is not self._svid_location and not self._required:
            accepted = self._accept_one(raw[0], self.rules, now)
            return self._identify(accepted, request, raw[0].text, peer, now, trial)
        accepted_tokens, headers = self._accept(self, raw, now, required)
        if not accepted_tokens:
            return Identity(peer, changes=self._no_token)
        accepted = accepted_tokens[0][0]
        if len(accepted_tokens) == 1 and headers is None:
            return self._identify(accepted, request, accepted_tokens[0][1], peer, now, trial)
        bindings = [self._bind(token, request, text, peer, now, trial) for token, text in accepted_tokens]
        every = [token for token, _ in accepted_tokens]
        tokens = {(token.verified, token.rule): token.token for token in every}  # one token may be at two locations
        changes = joint_changes(every, self._strip, headers)
        return Identity(peer, accepted.token, tuple(tokens.values()), changes, bindings[0])

    def _identify(
        self, accepted: AcceptedToken, request: RequestAttributes, text: str, peer: Peer | None, now: float, trial: bool
    ) -> Identity:
        """Return the identity of `peer` with one token. Raises `Refused` if the token is bound to another presenter.

        Without a proof of possession the identity depends only on token and peer, so the last one is reused.
        """
        last = accepted.identity  # read once: the thread of an explanation may replace it
        if last is not None and last.peer is peer and not accepted.dpop:
            return last
        binding = self._bind(accepted, request, text, peer, now, trial)
        identity = accepted.identity = Identity(peer, accepted.token, (accepted.token,), accepted.changes, binding)
        return identity

    def _bind(
        self, accepted: AcceptedToken, request: RequestAttributes, text: str, peer: Peer | None, now: float, trial: bool
    ) -> Binding | None:
        """Return the token's binding. Raises `Refused` if it is bound to another presenter, or unbound but must be."""
        try:
            return self._check_binding(accepted, request, text, peer, now, trial)
        except Refused as refused:
            issuer, subject = accepted.token.issuer, accepted.token.subject
            raise RefusedCaller(refused, token=NamedToken(issuer, subject, verified=True)) from None

    def _check_binding(
        self, accepted: AcceptedToken, request: RequestAttributes, text: str, peer: Peer | None, now: float, trial: bool
    ) -> Binding | None:
        if not accepted.dpop:
            binding = check_binding(accepted.verified, peer, "", strict=self._context.strict)
        else:
            confirmation = accepted.verified.confirmation
            if confirmation is None or not confirmation.key_thumbprint:
                raise Refused(Reason.TOKEN_BINDING, "the scheme is DPoP, but the token is not bound to a key")
            proof = verify_proof(request, text, confirmation.key_thumbprint, now)
            binding = check_binding(accepted.verified, peer, proof.thumbprint, strict=True)
            if not trial:
                self._context.replays.remember(proof, now)
        self._limits(accepted.rule, accepted.verified).check_binding(binding)
        return binding

    def _limits(self, rule: TokenRule, token: VerifiedToken) -> IssuerLimits:
        """The limits of the rule or, if the rule names no issuer, those of the token's issuer."""
        return rule.limits if rule.source.issuer else self._context.limits.get(token.issuer, NO_LIMITS)

    def _accept_strictly(self, raw: RawTokens, now: float, required: Sequence[TokenRule]) -> _AcceptedTokens:
        if self._svid_location is not None:  # no JWT rule reads it: ignore tokens that are not JWT-SVIDs
            raw = [token for token in raw if token.location is not self._svid_location or looks_like_svid(token.text)]
        accepted_tokens = [(self._accept_one(presented, self.rules, now), presented.text) for presented in raw]
        if len(accepted_tokens) > 1:
            order = {rule: number for number, rule in enumerate(self.rules)}
            last = len(order)  # JWT-SVIDs; the sort is stable, so locations of a rule keep their order
            accepted_tokens.sort(key=lambda pair: order.get(pair[0].rule, last))
        for rule in required:
            if not any(accepted.rule is rule for accepted, _ in accepted_tokens):
                self._require(rule, raw, now)
        return accepted_tokens, None

    def _require(self, rule: TokenRule, raw: RawTokens, now: float) -> None:
        """Check that `rule` accepts a token that another rule of its issuer has accepted. Raises `Refused`."""
        for presented in raw:
            if presented.location in rule.locations:
                with suppress(Refused):
                    self._accept_one(presented, (rule,), now)
                    return
        raise Refused(Reason.TOKEN_MISSING, f"no token for {_name(rule)}, which requires one")

    def _accept_as_istio(self, raw: RawTokens, now: float, required: Sequence[TokenRule]) -> _AcceptedTokens:
        """Apply Istio's requirement for jwt_authn: any of {P1, P2, .., all of {P1 or missing, P2 or missing, ..}}.

        Envoy tries the parts in this order, and side effects of failed attempts stay: a rule strips the headers that it
        may set, then verifies its tokens from the last location to the first. Each valid token becomes the payload,
        adds its headers and, unless it is forwarded, is removed from the request. So a later attempt may find fewer
        tokens (measured with Envoy 1.40).
        """
        state = _EnvoyState(raw)
        if self._required:
            return self._attempt_all_rules(state, now, required)
        refused: Refused | None = None
        for last in (False, True):
            for rule in self.rules:
                try:
                    done = self._attempt(rule, state, now)
                except Refused as error:
                    if refused is None or refused.reason is Reason.TOKEN_ISSUER_UNKNOWN:
                        refused = error
                    if last or len(self.rules) == 1:
                        raise refused from None
                else:
                    if done and not last:
                        return state.accepted[::-1], state.headers if len(state.accepted) > 1 else None
            if refused is None:
                break
        return state.accepted[::-1], state.headers

    def _attempt_all_rules(self, state: _EnvoyState, now: float, required: Sequence[TokenRule]) -> _AcceptedTokens:
        """Apply Istio's requirement if a rule requires a token: all of {P1, P2 or missing, ..}."""
        for rule in self.rules:
            if not self._attempt(rule, state, now) and rule in required:
                raise Refused(Reason.TOKEN_MISSING, f"no token for {_name(rule)}, which requires one")
        return state.accepted[::-1], state.headers

    def _attempt(self, rule: TokenRule, state: _EnvoyState, now: float) -> bool:
        """Apply the rule to the remaining tokens; False if none is at its locations. Raises `Refused`."""
        own = headers_set_by(rule.source)
        state.headers = [pair for pair in state.headers if pair[0] not in own]
        presented = [token for location in rule.locations for token in state.left if token.location is location]
        for token in reversed(presented):
            accepted = self._accept_one(token, (rule,), now)
            state.accepted.append((accepted, token.text))
            state.headers.extend(rule.headers(accepted.verified))
            location = token.location
            if not rule.source.forward_original_token and location.kind is not Kind.COOKIE:
                removed = (location.kind, location.name)
                state.left = [other for other in state.left if (other.location.kind, other.location.name) != removed]
        return bool(presented)

    def _accept_one(self, presented: RawToken, rules: Sequence[TokenRule], now: float) -> AcceptedToken:
        """Accept the token by the first of `rules` that accepts it. Raises the first rule's `Refused`."""
        text = presented.text
        if len(text) > self._semantics.max_bytes:
            raise Refused(Reason.TOKEN_TOO_LARGE, f"{len(text)} characters, more than {self._semantics.max_bytes}")
        try:
            digest = hashlib.sha256(text.encode("ascii")).digest()
        except UnicodeEncodeError:
            raise Refused(Reason.TOKEN_MALFORMED, "characters that no token contains") from None
        cache = self._context.cache
        cached = cache[digest]
        if cached is None:
            cache.misses += 1
        else:
            cache.hits += 1
            repeat = cached.repeat  # read once: the thread of an explanation may remove it
            if repeat is not None:
                accepted = self._accept_again(repeat, presented, rules, now)
                if accepted is not None:
                    return accepted
        return self._accept_anew(presented, rules, now, digest, cached)

    def _accept_anew(
        self, presented: RawToken, rules: Sequence[TokenRule], now: float, digest: bytes, cached: CachedToken | None
    ) -> AcceptedToken:
        """As `_accept_one`, checking each rule. `cached` is the cache entry of `digest`, if any."""
        unverified: UnverifiedToken | None = None
        if cached is None:
            unverified = parse_token(presented.text, self._semantics)
            self._context.refuse_own(unverified.issuer)
            cached = CachedToken(unverified.issuer, unverified.claims.get("sub", ""))
        try:
            return self._accept_by_rules(presented, rules, now, digest, cached, unverified)
        except Refused as refused:
            named_token = NamedToken(cached.issuer, cached.subject, self._signature_verified(cached, rules))
            raise RefusedCaller(refused, token=named_token) from None

    def _signature_verified(self, token: CachedToken, rules: Sequence[TokenRule]) -> bool:
        """Whether a key of these rules verified the signature; other workloads' keys don't count."""
        with suppress(Refused):
            own = self._rules_for(token, rules)
            return any(isinstance(token.results.get(rule.keys.current), VerifiedToken) for rule in own)
        return False

    def _accept_by_rules(
        self,
        presented: RawToken,
        rules: Sequence[TokenRule],
        now: float,
        digest: bytes,
        cached: CachedToken,
        unverified: UnverifiedToken | None,
    ) -> AcceptedToken:
        refused: Refused | None = None
        for rule in self._rules_for(cached, rules):
            if presented.location not in rule.locations:
                continue
            keys = rule.keys.current
            result = cached.results.get(keys)
            if result is None:
                result = self._verify(unverified or parse_token(presented.text, self._semantics), keys)
                cached.add_result(keys, result)
                if isinstance(result, VerifiedToken):  # invalid tokens must not evict valid ones
                    self._context.cache.put(digest, cached, len(presented.text) * len(cached.results))
            try:
                accepted = cached.accept(self._check_token(result, rule, now), rule, presented, self._strip)
                if refused is None:
                    cached.repeat = self._repeat(accepted, rules, keys)
                return accepted
            except Refused as error:
                if error.reason is Reason.TOKEN_KEY_UNKNOWN:
                    rule.keys.key_unknown()
                refused = refused or error
        raise refused or Refused(Reason.TOKEN_ISSUER_UNKNOWN, _not_accepted(cached.issuer, presented.location, rules))

    def _repeat(self, accepted: AcceptedToken, rules: Sequence[TokenRule], keys: KeySet) -> RepeatCondition | None:
        """The conditions for `_accept_again`; None if each rule must be checked each time."""
        rule, token = accepted.rule, accepted.verified
        if rule.svid or self._semantics.lenient:
            return None
        plain = self._limits(rule, token) is NO_LIMITS and token.expires is not None
        begins = max(token.not_before, token.issued_at or 0.0)
        return RepeatCondition(rules, keys, accepted, plain, begins, (token.expires or 0.0) + self._semantics.leeway)

    def _accept_again(
        self, repeat: RepeatCondition, presented: RawToken, rules: Sequence[TokenRule], now: float
    ) -> AcceptedToken | None:
        """Check a token again that these rules accepted at this location before. Compare times as `check_times` does.

        Return None if each rule must be checked: for other rules, another location or other keys, and for a token that
        is no longer valid, so that it is refused as a new one.
        """
        accepted = repeat.accepted
        if (
            repeat.rules is not rules
            or accepted.location is not presented.location
            or accepted.dpop is not presented.dpop
        ):
            return None
        if accepted.rule.keys.current is not repeat.keys:
            return None
        revocations = self._context.revocations  # one may have come since
        if repeat.plain and (not revocations.revokes_tokens or repeat.is_unconcerned(revocations)):
            return None if now > repeat.ends or now + self._semantics.leeway < repeat.begins else accepted
        try:
            self._check_token(accepted.verified, accepted.rule, now)
        except Refused:
            return None
        return accepted

    def _rules_for(self, token: CachedToken, rules: Sequence[TokenRule]) -> Sequence[TokenRule]:
        """The rules of the token's issuer, else that of its trust domain, else those without an issuer.

        So the keys of a rule without an issuer never verify tokens of an issuer that has its own rules.
        """
        issuer_rules = [rule for rule in rules if rule.source.issuer == token.issuer]
        if not issuer_rules and self._svids is not None:
            svid_rule = self._svids.rule_for(token.subject)
            if svid_rule is not None:
                return (svid_rule,)
        return issuer_rules or [rule for rule in rules if not rule.source.issuer]

    def _verify(self, unverified: UnverifiedToken, keys: KeySet) -> VerifiedToken | Failure:
        try:
            return verify_signature(unverified, keys, self._semantics)
        except Refused as refused:
            return refused.reason, refused.detail

    def _check_token(self, token: VerifiedToken | Failure, rule: TokenRule, now: float) -> VerifiedToken:
        """Check all conditions that may change between calls; return the token. Raises `Refused`."""
        if isinstance(token, tuple):
            raise Refused(*token)
        limits, revocations = self._limits(rule, token), self._context.revocations
        check_times(token, self._semantics, now, needs_expiry=not limits.allow_missing_exp)
        if limits is not NO_LIMITS:
            limits.check(token, now)
        if rule.svid:
            check_svid(token, rule)
        elif rule.audiences and rule.audiences.isdisjoint(token.audiences):
            raise Refused(Reason.TOKEN_AUDIENCE, wrong_audience(token.audiences, rule.audiences, "rule"))
        if revocations.revokes_tokens:
            revocations.check_token(rule.source.issuer or token.issuer, token, now)
        return token


def _name(rule: TokenRule) -> str:
    issuer = rule.source.issuer
    return f"issuer `{issuer}`" if issuer else "the rule without issuer"


def _not_accepted(issuer: str, location: TokenLocation, rules: Sequence[TokenRule]) -> str:
    """Describe why no rule applies: the token's issuer has none, or not at this location."""
    prefix = f"the token in {location} is of issuer {quoted((issuer,))}"
    other_locations = [other for rule in rules if rule.source.issuer == issuer for other in rule.locations]
    if other_locations:
        return f"{prefix}, whose tokens are accepted from {quoted(other_locations)}"
    return f"{prefix}, and rules here are for {quoted(dict.fromkeys(rule.source.issuer or 'any' for rule in rules))}"


def _jwt_authn_skips(request: RequestAttributes) -> bool:
    """Whether Envoy's filter ignores the request: a CORS preflight, or a path outside its prefix `/`."""
    if not request.path.startswith("/"):
        return True
    headers = request.headers
    return request.method == "OPTIONS" and all(headers.joined(name) for name in _PREFLIGHT)
