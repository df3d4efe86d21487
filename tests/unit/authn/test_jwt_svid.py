"""Hostile JWT-SVIDs and the reasons of their refusal; each has a valid twin that lacks only the one defect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pki import FRONTEND, HERE, ISSUER, NOW, Signer, presented, root
from tests.unit.authn.support import ISTIO, STRICT, accept, bearer, bundle, refusal, request, rule, verifier
from zta_authz.authn.chain import Authorities
from zta_authz.authn.keys import NO_KEYS, read_jwks
from zta_authz.errors import Reason
from zta_authz.model.documents import FromHeader, IssuerPolicy, Revocation, RevocationList, Revoked
from zta_authz.model.identity import Binding
from zta_authz.model.request import Evidence
from zta_authz.model.spiffe import TrustDomain
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier

ROOT = root()
SIGNER, PARTNER = Signer(kid="s1", number=31), Signer(kid="p1", number=32)
ED, RSA = Signer("EdDSA", "e1", "Ed25519", 31), Signer("PS256", "r1", "RSA-2048", 31)
AUDIENCE = "spiffe://cluster.local/ns/default/sa/orders"
PARTNER_ID = "spiffe://partner.example/robot"


def keys(*signers: Signer) -> dict[str, Any]:
    return {"keys": [signer.jwk(use="jwt-svid") for signer in signers]}


OWN_BUNDLE = bundle(ROOT.pem, jwt_authorities=keys(SIGNER, ED, RSA), jwt_svid_audiences=(AUDIENCE, "https://orders/"))
FEDERATED = bundle("", "partner.example", jwt_authorities=keys(PARTNER), jwt_svid_audiences=(AUDIENCE,))


def subject(*rules: Any, **more: Any) -> IdentityVerifier:
    return verifier(*rules, bundles=more.pop("bundles", (OWN_BUNDLE, FEDERATED)), **more)


def svid(signer: Signer = SIGNER, header: dict[str, Any] | None = None, **claims: Any) -> str:
    return signer.token(header, **({"iss": None, "sub": FRONTEND, "aud": [AUDIENCE]} | claims))


@dataclass(frozen=True)
class Case:
    """`bad` is refused for `reason`; `good` is accepted."""

    reason: Reason
    bad: str
    good: str = svid()


HEAD, BODY, TAIL = svid().split(".")
SVIDS = {
    "for nobody": Case(Reason.TOKEN_AUDIENCE, svid(aud=None)),
    "for an empty list": Case(Reason.TOKEN_AUDIENCE, svid(aud=[])),
    "for others": Case(Reason.TOKEN_AUDIENCE, svid(aud=["other"]), svid(aud=["other", AUDIENCE])),
    "for an audience with a slash more": Case(Reason.TOKEN_AUDIENCE, svid(aud=AUDIENCE + "/"), svid(aud=AUDIENCE)),
    "for an audience without its scheme": Case(Reason.TOKEN_AUDIENCE, svid(aud="orders/"), svid(aud="https://orders/")),
    "that never expires": Case(Reason.TOKEN_EXPIRY_MISSING, svid(exp=None), svid(exp=NOW + 1)),
    "that has expired": Case(Reason.TOKEN_EXPIRED, svid(exp=NOW - 31), svid(exp=NOW - 30)),
    "without kid": Case(Reason.TOKEN_HEADER, svid(replace(RSA, kid="")), svid(RSA)),
    "of an unknown kid": Case(Reason.TOKEN_KEY_UNKNOWN, svid(header={"kid": "s2"})),
    "signed with EdDSA": Case(Reason.TOKEN_ALGORITHM, svid(ED), svid(RSA)),
    "signed with an HMAC": Case(Reason.TOKEN_ALGORITHM, svid(Signer("HS256", "s1", secret=b"x" * 32))),
    "signed with nothing": Case(Reason.TOKEN_ALGORITHM, svid(header={"alg": "none"})),
    "of another type": Case(Reason.TOKEN_HEADER, svid(header={"typ": "at+jwt"}), svid(header={"typ": "JOSE"})),
    "signed by the partner": Case(Reason.TOKEN_KEY_UNKNOWN, svid(PARTNER), svid(PARTNER, sub=PARTNER_ID)),
    "of the partner, signed by us": Case(Reason.TOKEN_KEY_UNKNOWN, svid(sub=PARTNER_ID), svid(PARTNER, sub=PARTNER_ID)),
    "of the partner's kid, signed by us": Case(
        Reason.TOKEN_SIGNATURE, svid(header={"kid": "p1"}, sub=PARTNER_ID), svid(PARTNER, sub=PARTNER_ID)
    ),
    "of a foreign trust domain": Case(Reason.TOKEN_ISSUER_UNKNOWN, svid(sub="spiffe://evil.example/ns/a")),
    "of a trust domain as a whole": Case(Reason.TOKEN_CLAIM_INVALID, svid(sub="spiffe://cluster.local")),
    "in upper case": Case(Reason.TOKEN_CLAIM_INVALID, svid(sub="spiffe://Cluster.local/ns/a")),
    "with a newline": Case(Reason.TOKEN_CLAIM_INVALID, svid(sub=FRONTEND + "\n")),
    "with a path upwards": Case(Reason.TOKEN_CLAIM_INVALID, svid(sub="spiffe://cluster.local/a/../b")),
    "changed": Case(Reason.TOKEN_SIGNATURE, f"{HEAD}.{svid(sub=FRONTEND + 'x').split('.')[1]}.{TAIL}"),
    "cut short": Case(Reason.TOKEN_MALFORMED, f"{HEAD}.{BODY}"),
}


@pytest.mark.parametrize("case", SVIDS.values(), ids=SVIDS.keys())
@pytest.mark.parametrize("rules", [(), (rule(),)], ids=["no rules", "an issuer besides"])
def test_an_svid_with_one_defect_is_refused_for_it_and_its_twin_is_accepted(case: Case, rules: Any) -> None:
    one = subject(*rules)
    for _ in range(2):
        assert refusal(one, bearer(case.bad)) is case.reason
        assert accept(one, bearer(case.good)).token is not None


def test_the_trust_domain_selects_the_keys_whatever_the_svids_issuer_is() -> None:
    token = accept(subject(), bearer(svid(PARTNER, sub=PARTNER_ID, iss="https://idp.example"))).token
    assert token is not None
    assert (token.issuer, token.subject, token.policy) == ("spiffe://partner.example", PARTNER_ID, "default/bundle")
    inputs = Inputs(request(), accept(subject(), bearer(svid(iss=None))), STRICT)
    assert inputs.claim(("iss",)) == ("spiffe://cluster.local",)


def test_a_token_of_an_issuer_with_a_rule_is_verified_by_that_rule() -> None:
    one = subject(rule())
    assert refusal(one, bearer(svid(iss=ISSUER))) is Reason.TOKEN_KEY_UNKNOWN
    token = accept(one, bearer(Signer().token(sub=FRONTEND))).token
    assert token is not None
    assert token.issuer == ISSUER


def test_an_svid_presented_by_the_workload_it_names_is_bound_to_it() -> None:
    peer = Evidence(FRONTEND, presented(ROOT.issue()))
    assert accept(subject(), bearer(svid()), peer).binding is Binding.SPIFFE_ID
    assert accept(subject(), bearer(svid(sub=FRONTEND + "2")), peer).binding is None


def test_if_no_rule_reads_bearer_tokens_other_tokens_are_ignored() -> None:
    elsewhere = rule(from_headers=(FromHeader("x-token"),))
    for one in (subject(), subject(elsewhere)):
        for other in ("opaque", Signer().token(), "a.b.c", "", Signer().token(sub=7)):
            identity = accept(one, bearer(other))
            assert identity.token is None
            assert identity.changes.remove_headers == ()
    both = request(authorization=f"Bearer {svid()}", x_token=Signer().token())
    assert [token.issuer for token in accept(subject(elsewhere), both).tokens] == [ISSUER, "spiffe://cluster.local"]


def test_if_a_rule_reads_bearer_tokens_every_token_must_verify() -> None:
    assert refusal(subject(rule()), bearer("opaque")) is Reason.TOKEN_MALFORMED
    assert refusal(subject(rule()), bearer(Signer().token(iss="https://x"))) is Reason.TOKEN_ISSUER_UNKNOWN


def test_an_svid_is_removed_from_the_request_like_other_tokens() -> None:
    assert accept(subject(), bearer(svid())).changes.remove_headers == ("authorization",)
    assert accept(subject(), request(path=f"/?access_token={svid()}")).token is None


def test_without_audiences_no_svid_is_accepted() -> None:
    silent = replace(OWN_BUNDLE, jwt_svid_audiences=())
    assert accept(subject(bundles=(silent,)), bearer(svid())).token is None
    assert refusal(subject(rule(), bundles=(silent,)), bearer(svid())) is Reason.TOKEN_ISSUER_UNKNOWN


def test_audiences_of_several_bundles_of_one_domain_are_merged() -> None:
    one = subject(bundles=(OWN_BUNDLE, replace(OWN_BUNDLE, jwt_authorities=None, jwt_svid_audiences=("second",))))
    assert accept(one, bearer(svid(aud="second"))).token is not None
    assert accept(one, bearer(svid())).token is not None


def policy(**limits: Any) -> list[IssuerPolicy]:
    return [IssuerPolicy("svids", "default", HERE, "spiffe://cluster.local", **limits)]


def test_an_issuer_policy_for_the_trust_domain_limits_its_svids() -> None:
    old, young = bearer(svid(iat=NOW - 601)), bearer(svid(iat=NOW - 600))
    one = subject(issuer_policies=policy(max_token_age=600.0))
    assert refusal(one, old) is Reason.TOKEN_TOO_OLD
    assert accept(one, young).token is not None
    waived = subject(issuer_policies=policy(allow_missing_exp=True))
    assert refusal(waived, bearer(svid(exp=None))) is Reason.TOKEN_EXPIRY_MISSING
    narrowed = subject(issuer_policies=policy(audiences=("https://orders/",)))
    assert refusal(narrowed, bearer(svid())) is Reason.TOKEN_AUDIENCE
    assert accept(narrowed, bearer(svid(aud="https://orders/"))).token is not None


def test_keys_from_settings_are_used_if_an_issuer_policy_has_the_audiences() -> None:
    one = verifier(issuer_policies=policy(audiences=(AUDIENCE,)))
    assert refusal(one, bearer(svid())) is Reason.TOKEN_KEY_UNKNOWN
    jwt_keys, wrong = read_jwks(keys(SIGNER), uses=frozenset(("jwt-svid",)))
    assert wrong == ()
    domain = TrustDomain("cluster.local")
    one.bundle_slot.current = MappingProxyType({"cluster.local": Authorities(domain, (), (), jwt_keys)})
    assert accept(one, bearer(svid())).token is not None
    one.bundle_slot.current = MappingProxyType({"cluster.local": Authorities(domain, (), (), NO_KEYS)})
    assert refusal(one, bearer(svid())) is Reason.TOKEN_KEY_UNKNOWN


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        (Revocation(Revoked.SPIFFE_ID, FRONTEND), Revocation(Revoked.SPIFFE_ID, FRONTEND + "x")),
        (
            Revocation(Revoked.KEY, "s1", "spiffe://cluster.local"),
            Revocation(Revoked.KEY, "s1", "spiffe://partner.example"),
        ),
        (
            Revocation(Revoked.SUBJECT, FRONTEND, "spiffe://cluster.local"),
            Revocation(Revoked.SUBJECT, FRONTEND, ISSUER),
        ),
    ],
)
def test_svids_are_revoked_by_their_trust_domain(bad: Revocation, good: Revocation) -> None:
    def revoking(entry: Revocation) -> IdentityVerifier:
        return subject(revocations=[RevocationList("l", "default", HERE, (entry,))])

    assert refusal(revoking(bad), bearer(svid())) is Reason.TOKEN_REVOKED
    assert accept(revoking(good), bearer(svid())).token is not None


def test_istio_semantics_do_not_know_svids() -> None:
    assert accept(subject(options=ISTIO), bearer(svid())).token is None


def test_a_trust_domains_keys_are_not_fetched_like_an_issuers() -> None:
    assert [slot.issuer for slot in subject(rule()).key_slots] == [ISSUER]
