"""The JWT rules that apply to the workload, and which tokens of a request they accept, in both readings.

Strict: every token that stands in any rule's place must be one that a rule with that place and the token's issuer
accepts. Istio: as jwt_authn tries the requirement that Istio writes for them.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from zta_authz.authn.accepted_tokens import CachedToken, Repeat, joint_changes
from zta_authz.authn.binding import judge_binding
from zta_authz.authn.dpop import verify_proof
from zta_authz.authn.jwt import ISTIO, STRICT, judge_times, parse_token, verify_signature
from zta_authz.authn.jwt_limits import NO_LIMITS, wrong_audience
from zta_authz.authn.jwt_svid import judge_svid, looks_like_svid
from zta_authz.authn.locations import Kind, TokenFinder
from zta_authz.authn.outputs import changes_for, headers_set_by
from zta_authz.authn.token import VerifiedToken
from zta_authz.errors import Reason, Refused, quoted
from zta_authz.model.identity import NO_CHANGES, Identity, NamedToken, RefusedCaller

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zta_authz.authn.accepted_tokens import Common, Failure, Grant
    from zta_authz.authn.jwt import UnverifiedToken
    from zta_authz.authn.jwt_limits import IssuerLimits
    from zta_authz.authn.keys import KeySet
    from zta_authz.authn.locations import Found, Place, Presented
    from zta_authz.authn.token_rule import TokenRule
    from zta_authz.model.identity import Binding, Peer
    from zta_authz.model.request import RequestAttributes

_PREFLIGHT: Final = ("origin", "access-control-request-method")


_Accepted = tuple[list[tuple["Grant", str]], list[tuple[str, str]] | None]
"""Grants with their tokens' texts, the one that rules read first; and the headers to set, where not just theirs."""


class _Attempts:
    """What jwt_authn has done to one request so far: tokens that are `left`, those it took, headers it set."""

    __slots__ = ("grants", "headers", "left")

    def __init__(self, found: Found) -> None:
        self.left = found
        self.grants: list[tuple[Grant, str]] = []
        self.headers: list[tuple[str, str]] = []


class TokenVerifier:
    """Accepts or refuses the tokens of requests, by the rules that apply to one workload."""

    def __init__(self, rules: Iterable[TokenRule], common: Common) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: rule.source.issuer))
        self._common = common
        strict = common.strict
        self._reading = STRICT if strict else ISTIO
        self._svids = common.svids
        places = [place for rule in self.rules for place in rule.places]
        self._others_place = None if self._svids is None or self._svids.place in places else self._svids.place
        if self._others_place is not None:
            places.append(self._others_place)
        self._reads_tokens = bool(places)
        self._required = tuple(rule for rule in self.rules if rule.source.required)
        self._finder = TokenFinder(places, strict=strict)
        # not bound: a method of our own would be a cycle, and what is frozen after a reload ends by counting only
        self._accept = TokenVerifier._accept_strictly if strict else TokenVerifier._accept_as_istio
        self._strict = strict
        own: frozenset[str] = frozenset().union(*(headers_set_by(rule.source) for rule in self.rules))
        self._strip = common.strip if strict else own  # all rules' headers; as Istio does, those of these rules
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
        """The identity of `peer` with the tokens of `request`. Raises `Refused` for a token that does not hold.

        A `trial` neither asks nor notes whether a DPoP proof was seen before. Of `assumed_issuer` no token is required:
        an explanation assumes one.
        """
        if not self._reads_tokens:
            return Identity(peer, changes=self._no_token)
        if not self._strict and _jwt_authn_skips(request):
            return Identity(peer, changes=self._no_token)
        found = self._finder.find(request)
        required = self._required
        if assumed_issuer is not None:
            required = tuple(rule for rule in required if rule.source.issuer not in ("", assumed_issuer))
        if not found:
            if required:
                raise Refused(Reason.TOKEN_MISSING, "no token, and a rule requires one")
            return Identity(peer, changes=self._no_token)
        if len(found) == 1 and self._strict and found[0].place is not self._others_place and not self._required:
            presented = found[0]
            return self._identify(
                self._accept_one(presented, self.rules, now), request, presented.text, peer, now, trial
            )
        grants, headers = self._accept(self, found, now, required)
        if not grants:
            return Identity(peer, changes=self._no_token)
        grant = grants[0][0]
        if len(grants) == 1 and headers is None:
            return self._identify(grant, request, grants[0][1], peer, now, trial)
        bindings = [self._bind(each, request, text, peer, now, trial) for each, text in grants]
        every = [each for each, _ in grants]
        tokens = {(each.verified, each.rule): each.token for each in every}  # one token may stand in two places
        changes = joint_changes(every, self._strip, headers)
        return Identity(peer, grant.token, tuple(tokens.values()), changes, bindings[0])

    def _identify(
        self, grant: Grant, request: RequestAttributes, text: str, peer: Peer | None, now: float, trial: bool
    ) -> Identity:
        """The identity of `peer` with one token. Raises `Refused` where the token is bound to somebody else.

        Without a proof of possession it depends on grant and peer alone: the same two give the same identity again.
        """
        last = grant.identity  # read once: an explanation's thread may replace it with another peer's
        if last is not None and last.peer is peer and not grant.dpop:
            return last
        binding = self._bind(grant, request, text, peer, now, trial)
        identity = grant.identity = Identity(peer, grant.token, (grant.token,), grant.changes, binding)
        return identity

    def _bind(
        self, grant: Grant, request: RequestAttributes, text: str, peer: Peer | None, now: float, trial: bool
    ) -> Binding | None:
        """What ties the token to its presenter. Raises `Refused` where it is tied to another, or should be tied."""
        try:
            return self._bound(grant, request, text, peer, now, trial)
        except Refused as refused:
            issuer, subject = grant.token.issuer, grant.token.subject
            raise RefusedCaller(refused, token=NamedToken(issuer, subject, verified=True)) from None

    def _bound(
        self, grant: Grant, request: RequestAttributes, text: str, peer: Peer | None, now: float, trial: bool
    ) -> Binding | None:
        if not grant.dpop:
            binding = judge_binding(grant.verified, peer, "", strict=self._common.strict)
        else:
            confirmation = grant.verified.confirmation
            if confirmation is None or not confirmation.key_thumbprint:
                raise Refused(Reason.TOKEN_BINDING, "the scheme is DPoP, and the token is not bound to a key")
            proof = verify_proof(request, text, confirmation.key_thumbprint, now)
            binding = judge_binding(grant.verified, peer, proof.thumbprint, strict=True)
            if not trial:
                self._common.replays.remember(proof, now)
        self._limits(grant.rule, grant.verified).judge_binding(binding)
        return binding

    def _limits(self, rule: TokenRule, token: VerifiedToken) -> IssuerLimits:
        """What `rule` asks of the issuer; of one that it does not name, what is asked of it by name."""
        return rule.limits if rule.source.issuer else self._common.limits.get(token.issuer, NO_LIMITS)

    def _accept_strictly(self, found: Found, now: float, required: Sequence[TokenRule]) -> _Accepted:
        if self._others_place is not None:  # no JWT rule reads there: what is no JWT-SVID is not for us
            found = [each for each in found if each.place is not self._others_place or looks_like_svid(each.text)]
        grants = [(self._accept_one(presented, self.rules, now), presented.text) for presented in found]
        if len(grants) > 1:
            order = {rule: number for number, rule in enumerate(self.rules)}
            last = len(order)  # JWT-SVIDs; else stable: within a rule the places keep their order
            grants.sort(key=lambda each: order.get(each[0].rule, last))
        for rule in required:
            if not any(grant.rule is rule for grant, _ in grants):
                self._require(rule, found, now)
        return grants, None

    def _require(self, rule: TokenRule, found: Found, now: float) -> None:
        """Raises `Refused` unless `rule` accepts one of the tokens, which another rule of its issuer has taken."""
        for presented in found:
            if presented.place in rule.places:
                with suppress(Refused):
                    self._accept_one(presented, (rule,), now)
                    return
        raise Refused(Reason.TOKEN_MISSING, f"no token for {_name(rule)}, which requires one")

    def _accept_as_istio(self, found: Found, now: float, required: Sequence[TokenRule]) -> _Accepted:
        """jwt_authn's requirement as Istio writes it: any of {P1, P2, .., all of {P1 or missing, P2 or missing, ..}}.

        Envoy tries it in this order with side effects that stay whatever comes of the attempt: a rule strips the
        headers it may set, then takes its tokens from the last place to the first, and each token that verifies becomes
        the payload, adds its headers and, unless it is to be forwarded, is taken out of the request. So a later attempt
        may find less. Measured, Envoy 1.40.
        """
        run = _Attempts(found)
        if self._required:
            return self._attempt_each(run, now, required)
        refused: Refused | None = None
        for last in (False, True):
            for rule in self.rules:
                try:
                    done = self._attempt(rule, run, now)
                except Refused as error:
                    if refused is None or refused.reason is Reason.TOKEN_ISSUER_UNKNOWN:
                        refused = error
                    if last or len(self.rules) == 1:
                        raise refused from None
                else:
                    if done and not last:
                        return run.grants[::-1], run.headers if len(run.grants) > 1 else None
            if refused is None:
                break
        return run.grants[::-1], run.headers

    def _attempt_each(self, run: _Attempts, now: float, required: Sequence[TokenRule]) -> _Accepted:
        """Where a rule requires a token, Istio writes: all of {P1, P2 or missing, ..}; one alone is never enough."""
        for rule in self.rules:
            if not self._attempt(rule, run, now) and rule in required:
                raise Refused(Reason.TOKEN_MISSING, f"no token for {_name(rule)}, which requires one")
        return run.grants[::-1], run.headers

    def _attempt(self, rule: TokenRule, run: _Attempts, now: float) -> bool:
        """Put the rule to what is left of the request. False: no token in its places. Raises `Refused`."""
        own = headers_set_by(rule.source)
        run.headers = [pair for pair in run.headers if pair[0] not in own]
        presented = [each for place in rule.places for each in run.left if each.place is place]
        for each in reversed(presented):
            grant = self._accept_one(each, (rule,), now)
            run.grants.append((grant, each.text))
            run.headers.extend(rule.headers(grant.verified))
            place = each.place
            if not rule.source.forward_original_token and place.kind is not Kind.COOKIE:
                gone = (place.kind, place.name)
                run.left = [other for other in run.left if (other.place.kind, other.place.name) != gone]
        return bool(presented)

    def _accept_one(self, presented: Presented, rules: Sequence[TokenRule], now: float) -> Grant:
        """What the token grants under the first of `rules` that takes it. Raises the first rule's refusal."""
        text = presented.text
        if len(text) > self._reading.max_bytes:
            raise Refused(Reason.TOKEN_TOO_LARGE, f"{len(text)} characters, more than {self._reading.max_bytes}")
        try:
            digest = hashlib.sha256(text.encode("ascii")).digest()
        except UnicodeEncodeError:
            raise Refused(Reason.TOKEN_MALFORMED, "characters that no token has") from None
        cache = self._common.cache
        cached = cache[digest]
        if cached is None:
            cache.misses += 1
        else:
            cache.hits += 1
            repeat = cached.repeat  # read once: an explanation's thread may remove it
            if repeat is not None:
                grant = self._accept_again(repeat, presented, rules, now)
                if grant is not None:
                    return grant
        return self._accept_anew(presented, rules, now, digest, cached)

    def _accept_anew(
        self, presented: Presented, rules: Sequence[TokenRule], now: float, digest: bytes, cached: CachedToken | None
    ) -> Grant:
        """As `_accept_one`, looking at each rule; `cached` is what is known of the token, by its `digest`."""
        unverified: UnverifiedToken | None = None
        if cached is None:
            unverified = parse_token(presented.text, self._reading)
            cached = CachedToken(unverified.issuer, unverified.claims.get("sub", ""))
        try:
            return self._granted(presented, rules, now, digest, cached, unverified)
        except Refused as refused:
            named = NamedToken(cached.issuer, cached.subject, self._held(cached, rules))
            raise RefusedCaller(refused, token=named) from None

    def _held(self, token: CachedToken, rules: Sequence[TokenRule]) -> bool:
        """Whether the signature is by a key that these rules have for the issuer: another workload's do not count."""
        with suppress(Refused):
            own = self._rules_for(token, rules)
            return any(isinstance(token.results.get(rule.keys.current), VerifiedToken) for rule in own)
        return False

    def _granted(
        self,
        presented: Presented,
        rules: Sequence[TokenRule],
        now: float,
        digest: bytes,
        cached: CachedToken,
        unverified: UnverifiedToken | None,
    ) -> Grant:
        refused: Refused | None = None
        for rule in self._rules_for(cached, rules):
            if presented.place not in rule.places:
                continue
            keys = rule.keys.current
            result = cached.results.get(keys)
            if result is None:
                result = self._verify(unverified or parse_token(presented.text, self._reading), keys)
                cached.note(keys, result)
                if isinstance(result, VerifiedToken):  # what never verified must not crowd out what did
                    self._common.cache.put(digest, cached, len(presented.text) * len(cached.results))
            try:
                grant = cached.grant(self._judge(result, rule, now), rule, presented, self._strip)
                if refused is None:
                    cached.repeat = self._repeat(grant, rules, keys)
                return grant
            except Refused as error:
                if error.reason is Reason.TOKEN_KEY_UNKNOWN:
                    rule.keys.key_unknown()
                refused = refused or error
        raise refused or Refused(Reason.TOKEN_ISSUER_UNKNOWN, _not_accepted(cached.issuer, presented.place, rules))

    def _repeat(self, grant: Grant, rules: Sequence[TokenRule], keys: KeySet) -> Repeat | None:
        """What `_accept_again` needs to accept the token again; None where each rule must be asked each time."""
        rule, token = grant.rule, grant.verified
        if rule.svid or self._reading.lenient:
            return None
        plain = (
            self._limits(rule, token) is NO_LIMITS
            and not self._common.revocations.of_tokens
            and token.expires is not None
        )
        begins = max(token.not_before, token.issued_at or 0.0)
        return Repeat(rules, keys, grant, plain, begins, (token.expires or 0.0) + self._reading.leeway)

    def _accept_again(
        self, repeat: Repeat, presented: Presented, rules: Sequence[TokenRule], now: float
    ) -> Grant | None:
        """The grant of a token that these rules accepted before in this place, judged anew.

        None where each rule must be asked: other rules, another place or other keys, and a token that does not hold
        any more, so that its refusal is the same as a first one. Each time comparison is that of `judge_times`.
        """
        grant = repeat.grant
        if repeat.rules is not rules or grant.place is not presented.place or grant.dpop is not presented.dpop:
            return None
        if grant.rule.keys.current is not repeat.keys:
            return None
        if repeat.plain:
            return None if now > repeat.ends or now + self._reading.leeway < repeat.begins else grant
        try:
            self._judge(grant.verified, grant.rule, now)
        except Refused:
            return None
        return grant

    def _rules_for(self, token: CachedToken, rules: Sequence[TokenRule]) -> Sequence[TokenRule]:
        """Those of `rules` that are for the token's issuer; where there are none, its trust domain's, if it has one.

        Else those that name no issuer: an issuer with rules of its own is not vouched for by the keys of another.
        """
        found = [rule for rule in rules if rule.source.issuer == token.issuer]
        if not found and self._svids is not None:
            svid_rule = self._svids.rule_for(token.subject)
            if svid_rule is not None:
                return (svid_rule,)
        return found or [rule for rule in rules if not rule.source.issuer]

    def _verify(self, unverified: UnverifiedToken, keys: KeySet) -> VerifiedToken | Failure:
        try:
            return verify_signature(unverified, keys, self._reading)
        except Refused as refused:
            return refused.reason, refused.detail

    def _judge(self, token: VerifiedToken | Failure, rule: TokenRule, now: float) -> VerifiedToken:
        """The token, judged as it is on every call, whatever is known of it. Raises `Refused`."""
        if isinstance(token, tuple):
            raise Refused(*token)
        limits, revocations = self._limits(rule, token), self._common.revocations
        judge_times(token, self._reading, now, needs_expiry=not limits.allow_missing_exp)
        if limits is not NO_LIMITS:
            limits.judge(token, now)
        if rule.svid:
            judge_svid(token, rule)
        elif rule.audiences and rule.audiences.isdisjoint(token.audiences):
            raise Refused(Reason.TOKEN_AUDIENCE, wrong_audience(token.audiences, rule.audiences, "rule"))
        if revocations.of_tokens:
            revocations.check_token(rule.source.issuer or token.issuer, token, now)
        return token


def _name(rule: TokenRule) -> str:
    issuer = rule.source.issuer
    return f"issuer `{issuer}`" if issuer else "the rule without issuer"


def _not_accepted(issuer: str, place: Place, rules: Sequence[TokenRule]) -> str:
    """Why no rule is for the token: its issuer has none, or stands elsewhere."""
    seen = f"the token in {place} is of issuer {quoted((issuer,))}"
    elsewhere = [each for rule in rules if rule.source.issuer == issuer for each in rule.places]
    if elsewhere:
        return f"{seen}, whose tokens are taken from {quoted(elsewhere)}"
    return f"{seen}, and rules here are for {quoted(dict.fromkeys(rule.source.issuer or 'any' for rule in rules))}"


def _jwt_authn_skips(request: RequestAttributes) -> bool:
    """Envoy's filter does not look at CORS preflights nor, its rule being the prefix `/`, at other paths."""
    if not request.path.startswith("/"):
        return True
    headers = request.headers
    return request.method == "OPTIONS" and all(headers.joined(name) for name in _PREFLIGHT)
