"""JWT-SVIDs (SPIFFE JWT-SVID specification): tokens whose subject is a SPIFFE ID, signed by its trust domain.

The trust domain of `sub` selects the bundle with the keys, whatever `iss` says, so that no authority can sign for
another domain. JWT-SVIDs are accepted only for configured audiences.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from zta_authz.authn.encoding import base64url_decode
from zta_authz.authn.jwt_limits import NO_LIMITS, raw_audiences, wrong_audience
from zta_authz.authn.keys import ASYMMETRIC, NO_KEYS
from zta_authz.authn.token_rule import TokenRule
from zta_authz.errors import Reason, Refused, quoted
from zta_authz.model.documents import JwtRule
from zta_authz.model.spiffe import SCHEME, SpiffeId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zta_authz.authn.bundles import BundleSlot
    from zta_authz.authn.jwt_limits import IssuerLimits
    from zta_authz.authn.keys import KeySet
    from zta_authz.authn.locations import TokenLocation
    from zta_authz.authn.token import VerifiedToken
    from zta_authz.model.documents import IssuerPolicy, TrustBundle

ALGORITHMS: Final = ASYMMETRIC - {"EdDSA"}
"""Section 2.1 of the specification: RS, ES and PS with 256, 384 and 512 bits."""
_TYPES: Final = frozenset(("", "jwt", "jose"))


class TrustDomainKeys:
    """The JWT-SVID keys of one trust domain, from the bundle in force."""

    __slots__ = ("_name", "_slot")

    def __init__(self, slot: BundleSlot, name: str) -> None:
        self._slot = slot
        self._name = name

    @property
    def current(self) -> KeySet:
        """The keys in force; empty without a bundle."""
        authorities = self._slot.current.get(self._name)
        return NO_KEYS if authorities is None else authorities.jwt_keys

    def key_unknown(self) -> None:
        """Do nothing: bundles are refreshed on their own schedule."""


class SvidRules:
    """A rule for each trust domain whose JWT-SVIDs are accepted, at one token location only."""

    __slots__ = ("_rules", "location")

    def __init__(self, rules: Mapping[str, TokenRule], location: TokenLocation) -> None:
        self._rules = rules
        self.location = location

    def __bool__(self) -> bool:
        return bool(self._rules)

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers of these tokens, as rules name them."""
        return tuple(f"{SCHEME}{domain}" for domain in self._rules)

    def rule_for(self, subject: str) -> TokenRule | None:
        """The rule of the subject's trust domain; None if it has none, or if `subject` is not a SPIFFE ID.

        Raises `Refused` for an invalid SPIFFE ID, and for one that is not a workload's.
        """
        if not subject.startswith(SCHEME):
            return None
        try:
            spiffe_id = SpiffeId.parse(subject)
        except ValueError:
            raise Refused(Reason.TOKEN_CLAIM_INVALID, f"`sub` is {quoted((subject,))}, not a SPIFFE ID") from None
        if not spiffe_id.path:
            raise Refused(Reason.TOKEN_CLAIM_INVALID, "`sub` is the SPIFFE ID of a trust domain, not of a workload")
        return self._rules.get(spiffe_id.trust_domain.name)


def compile_svid_rules(
    bundles: Iterable[TrustBundle],
    policies: Iterable[IssuerPolicy],
    limits: Mapping[str, IssuerLimits],
    slot: BundleSlot,
    location: TokenLocation,
) -> SvidRules:
    """Compile the rules of trust domains with audiences, from a TrustBundle or an IssuerPolicy for `spiffe://…`."""
    named: dict[str, tuple[TrustBundle | IssuerPolicy, frozenset[str]]] = {}
    for bundle in bundles:
        _, before = named.get(bundle.trust_domain.name, (bundle, frozenset()))
        if bundle.jwt_svid_audiences:
            named[bundle.trust_domain.name] = (bundle, before | frozenset(bundle.jwt_svid_audiences))
    for policy in policies:
        domain = policy.issuer.removeprefix(SCHEME)
        if policy.audiences and policy.issuer.startswith(SCHEME) and domain not in named:
            named[domain] = (policy, frozenset(policy.audiences))
    rules = {}
    for domain, (source, audiences) in named.items():
        issuer = f"{SCHEME}{domain}"
        rule = JwtRule(f"{source.namespace}/{source.name}", source.position, issuer)
        keys = TrustDomainKeys(slot, domain)
        rules[domain] = TokenRule(rule, audiences, keys, (location,), limits.get(issuer, NO_LIMITS), svid=True)
    return SvidRules(rules, location)


def check_svid(token: VerifiedToken, rule: TokenRule) -> None:
    """Check that a token is a valid JWT-SVID (sections 2 and 3 of the specification). Raises `Refused`."""
    if token.algorithm not in ALGORITHMS:
        raise Refused(Reason.TOKEN_ALGORITHM, f"`{token.algorithm}` is not for JWT-SVIDs")
    if token.type not in _TYPES:
        raise Refused(Reason.TOKEN_HEADER, f"`typ` is {quoted((token.type,))}, not that of a JWT-SVID")
    if not token.kid:
        raise Refused(Reason.TOKEN_HEADER, "a JWT-SVID without `kid`")
    if token.expires is None:
        raise Refused(Reason.TOKEN_EXPIRY_MISSING, "a JWT-SVID without `exp`")
    if rule.audiences.isdisjoint(raw_audiences(token)):
        raise Refused(Reason.TOKEN_AUDIENCE, wrong_audience(raw_audiences(token), rule.audiences, "trust domain"))


def looks_like_svid(text: str) -> bool:
    """Whether the subject of an unverified token starts with `spiffe://`.

    Looser than verification, so that a malformed JWT-SVID is refused, and not ignored as a token of another issuer.
    """
    segments = text.split(".", 2)
    try:
        claims = json.loads(base64url_decode(segments[1], canonical=False), parse_int=float)
    except (ValueError, IndexError, RecursionError):
        return False
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return isinstance(subject, str) and subject.startswith(SCHEME)
