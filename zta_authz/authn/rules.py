"""The JWT rules that apply to the workload, and which tokens of a request they accept, in both readings.

Strict: every token that stands in any rule's place must be one that a rule with that place and the token's issuer
accepts. Istio: rules are tried in order of issuer, and the first whose places hold valid tokens only decides; the
request goes on without a token if no place holds any.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from zta_authz.authn.binding import judge_binding
from zta_authz.authn.dpop import verify_proof
from zta_authz.authn.grants import Cached, joint_changes
from zta_authz.authn.jwt import (
    ISTIO,
    STRICT,
    VerifiedToken,
    judge_times,
    parse_token,
    verify_signature,
)
from zta_authz.authn.jwt_svid import judge_svid, looks_like_svid
from zta_authz.authn.limits import NO_LIMITS
from zta_authz.authn.locations import TokenFinder
from zta_authz.authn.outputs import changes_for
from zta_authz.errors import Reason, Refused
from zta_authz.model.identity import NO_CHANGES, Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zta_authz.authn.grants import Common, Failure, Grant, TokenRule
    from zta_authz.authn.jwt import UnverifiedToken
    from zta_authz.authn.keys import KeySet
    from zta_authz.authn.locations import Found, Presented
    from zta_authz.model.identity import Binding, Peer
    from zta_authz.model.request import RequestAttributes

_PREFLIGHT: Final = ("origin", "access-control-request-method")


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
        self._finder = TokenFinder(places, strict=strict)
        self._accept = self._accept_strictly if strict else self._accept_as_istio
        self._skips = _never if strict else _jwt_authn_skips
        self._no_token = changes_for((), (), common.strip) if common.strip else NO_CHANGES

    def verify(self, request: RequestAttributes, peer: Peer | None, now: float, *, trial: bool = False) -> Identity:
        """The identity of `peer` with the tokens of `request`. Raises `Refused` for a token that does not hold.

        A `trial` neither asks nor notes whether a DPoP proof was seen before.
        """
        if not self._reads_tokens:
            return Identity(peer, changes=self._no_token)
        if self._skips(request):
            return Identity(peer)
        found = self._finder.find(request)
        if not found:
            return Identity(peer, changes=self._no_token)
        grants = self._accept(found, now)
        if not grants:
            return Identity(peer, changes=self._no_token)
        bindings = [self._bind(grant, request, text, peer, now, trial) for grant, text in grants]
        grant = grants[0][0]
        if len(grants) == 1:
            return Identity(peer, grant.token, (grant.token,), grant.changes, bindings[0])
        every = [each for each, _ in grants]
        tokens = {(each.verified, each.rule): each.token for each in every}  # one token may stand in two places
        changes = joint_changes(every, self._common.strip)
        return Identity(peer, grant.token, tuple(tokens.values()), changes, bindings[0])

    def _bind(
        self, grant: Grant, request: RequestAttributes, text: str, peer: Peer | None, now: float, trial: bool
    ) -> Binding | None:
        """What ties the token to its presenter. Raises `Refused` where it is tied to another, or should be tied."""
        if not grant.dpop:
            binding = judge_binding(grant.verified, peer, "", strict=self._common.strict)
        else:
            confirmation = grant.verified.confirmation
            if confirmation is None or not confirmation.key_thumbprint:
                raise Refused(Reason.TOKEN_BINDING, "the scheme is DPoP, and the token is not bound to a key")
            proof = verify_proof(request, text, now)
            binding = judge_binding(grant.verified, peer, proof.thumbprint, strict=True)
            if not trial:
                self._common.replays.remember(proof, now)
        grant.rule.limits.judge_binding(binding)
        return binding

    def _accept_strictly(self, found: Found, now: float) -> list[tuple[Grant, str]]:
        if self._others_place is not None:  # no JWT rule reads there: what is no JWT-SVID is not for us
            found = [each for each in found if each.place is not self._others_place or looks_like_svid(each.text)]
        grants = [(self._accept_one(presented, self.rules, now), presented.text) for presented in found]
        if len(grants) > 1:
            order = {rule: number for number, rule in enumerate(self.rules)}
            last = len(order)  # JWT-SVIDs; else stable: within a rule the places keep their order
            grants.sort(key=lambda each: order.get(each[0].rule, last))
        return grants

    def _accept_as_istio(self, found: Found, now: float) -> list[tuple[Grant, str]]:
        refused: Refused | None = None
        for rule in self.rules:
            here = [presented for place in rule.places for presented in found if presented.place is place]
            if not here:
                continue
            try:
                return [(self._accept_one(presented, (rule,), now), presented.text) for presented in here]
            except Refused as error:
                if refused is None or refused.reason is Reason.TOKEN_ISSUER_UNKNOWN:
                    refused = error
        if refused is not None:
            raise refused
        return []

    def _accept_one(self, presented: Presented, rules: Sequence[TokenRule], now: float) -> Grant:
        """What the token grants under the first of `rules` that takes it. Raises the first rule's refusal."""
        digest, cached = self._look_up(presented.text)
        unverified: UnverifiedToken | None = None
        if cached is None:
            unverified = parse_token(presented.text, self._reading)
            cached = Cached(unverified.issuer, unverified.claims.get("sub", ""))
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
                return cached.grant(self._judge(result, rule, now), rule, presented, self._common.strip)
            except Refused as error:
                if error.reason is Reason.TOKEN_KEY_UNKNOWN:
                    rule.keys.key_unknown()
                refused = refused or error
        raise refused or Refused(Reason.TOKEN_ISSUER_UNKNOWN, "no rule for this issuer has a token in this place")

    def _rules_for(self, token: Cached, rules: Sequence[TokenRule]) -> Sequence[TokenRule]:
        """Those of `rules` that are for the token's issuer; where there are none, its trust domain's, if it has one."""
        found = [rule for rule in rules if rule.source.issuer == token.issuer]
        if not found and self._svids is not None:
            svid_rule = self._svids.rule_for(token.subject)
            if svid_rule is not None:
                return (svid_rule,)
        return found

    def _verify(self, unverified: UnverifiedToken, keys: KeySet) -> VerifiedToken | Failure:
        try:
            return verify_signature(unverified, keys, self._reading)
        except Refused as refused:
            return refused.reason, refused.detail

    def _judge(self, token: VerifiedToken | Failure, rule: TokenRule, now: float) -> VerifiedToken:
        """The token, judged as it is on every call, whatever is known of it. Raises `Refused`."""
        if isinstance(token, tuple):
            raise Refused(*token)
        limits, revocations = rule.limits, self._common.revocations
        judge_times(token, self._reading, now, needs_expiry=not limits.allow_missing_exp)
        if limits is not NO_LIMITS:
            limits.judge(token, now)
        if rule.svid:
            judge_svid(token, rule)
        elif rule.audiences and rule.audiences.isdisjoint(token.audiences):
            raise Refused(Reason.TOKEN_AUDIENCE, "none of the token's audiences is the rule's")
        if revocations.of_tokens:
            revocations.check_token(rule.source.issuer, token, now)
        return token

    def _look_up(self, text: str) -> tuple[bytes, Cached | None]:
        if len(text) > self._reading.max_bytes:
            raise Refused(Reason.TOKEN_TOO_LARGE, f"{len(text)} characters, more than {self._reading.max_bytes}")
        try:
            digest = hashlib.sha256(text.encode("ascii")).digest()
        except UnicodeEncodeError:
            raise Refused(Reason.TOKEN_MALFORMED, "characters that no token has") from None
        return digest, self._common.cache.get(digest)


def _never(_request: RequestAttributes) -> bool:
    return False


def _jwt_authn_skips(request: RequestAttributes) -> bool:
    """Envoy's filter does not look at CORS preflights nor, its rule being the prefix `/`, at other paths."""
    if not request.path.startswith("/"):
        return True
    headers = request.headers
    return request.method == "OPTIONS" and all(headers.joined(name) for name in _PREFLIGHT)
