"""JWT rules that require a token, and those without an issuer: as in Istio, and never laxer with strict semantics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pki import HERE, ISSUER, NOW, Signer, jwks
from tests.unit.authn.support import ISTIO, STRICT, accept, bearer, refusal, request, rule, verifier
from zta_authz.errors import Reason
from zta_authz.model.documents import FromHeader, IssuerPolicy, Revocation, RevocationList, Revoked

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.model.documents import JwtRule

OTHER_ISSUER = "https://other.example"
OTHER = Signer("RS256", "r1", "RSA-2048")
TOKEN, OTHER_TOKEN = Signer().token(), OTHER.token(iss=OTHER_ISSUER, sub="bob")
IN_X = (FromHeader("x-token"),)
READINGS = pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])


def other(**changed: Any) -> JwtRule:
    """A rule for `OTHER_ISSUER`, which reads `x-token`."""
    defaults: dict[str, Any] = {"issuer": OTHER_ISSUER, "jwks": jwks([OTHER]), "from_headers": IN_X}
    return rule(**(defaults | changed))


@READINGS
def test_without_the_required_token_every_request_is_refused(reading: Any) -> None:
    required = verifier(rule(required=True), options=reading)
    assert refusal(required, request()) is Reason.TOKEN_MISSING
    assert refusal(required, request(authorization="Basic eDp5")) is Reason.TOKEN_MISSING
    assert refusal(required, bearer("garbage")) is Reason.TOKEN_MALFORMED
    for _ in range(2):
        assert accept(required, bearer(TOKEN)).token is not None
    optional = verifier(rule(), options=reading)
    assert accept(optional, request()).token is None


@READINGS
def test_another_rules_token_does_not_replace_the_required_one(reading: Any) -> None:
    subject = verifier(rule(required=True), other(), options=reading)
    assert refusal(subject, request(x_token=OTHER_TOKEN)) is Reason.TOKEN_MISSING
    assert [token.subject for token in accept(subject, bearer(TOKEN)).tokens] == ["alice"]
    both = accept(subject, bearer(TOKEN, x_token=OTHER_TOKEN))
    assert {token.subject for token in both.tokens} == {"alice", "bob"}
    assert refusal(subject, bearer(TOKEN, x_token="garbage")) is Reason.TOKEN_MALFORMED
    twice = verifier(rule(required=True), other(required=True), options=reading)
    assert refusal(twice, bearer(TOKEN)) is Reason.TOKEN_MISSING
    assert refusal(twice, request(x_token=OTHER_TOKEN)) is Reason.TOKEN_MISSING
    assert len(accept(twice, bearer(TOKEN, x_token=OTHER_TOKEN)).tokens) == 2


def test_one_token_may_satisfy_two_rules_of_its_issuer_in_strict() -> None:
    plain, strictly = rule(policy="default/one"), rule(policy="default/two", audiences=("a",), required=True)
    subject = verifier(plain, strictly)
    assert accept(subject, bearer(Signer().token(aud="a"))).token is not None
    assert refusal(subject, bearer(Signer().token(aud="b"))) is Reason.TOKEN_MISSING


def test_istio_lets_preflights_pass_and_strict_does_not() -> None:
    preflight = request(method="OPTIONS", origin="https://page.example", access_control_request_method="GET")
    assert accept(verifier(rule(required=True), options=ISTIO), preflight).token is None
    assert refusal(verifier(rule(required=True)), preflight) is Reason.TOKEN_MISSING


@READINGS
def test_a_rule_without_issuer_accepts_any_issuer_signed_by_its_keys(reading: Any) -> None:
    subject = verifier(rule(issuer=""), options=reading)
    for issuer in (ISSUER, "https://third.example"):
        token = accept(subject, bearer(Signer().token(iss=issuer))).token
        assert token is not None
        assert token.issuer == issuer
    assert accept(subject, bearer(Signer().token(iss=None))).tokens
    assert refusal(subject, bearer(OTHER_TOKEN)) is Reason.TOKEN_KEY_UNKNOWN
    assert refusal(subject, bearer(Signer().token(iss=7))) is Reason.TOKEN_CLAIM_INVALID


def test_in_strict_an_issuer_with_a_rule_accepts_no_other_keys() -> None:
    forged = OTHER.token(iss=ISSUER)
    rules = rule(), other(issuer="", from_headers=())
    assert refusal(verifier(*rules), bearer(forged)) is Reason.TOKEN_KEY_UNKNOWN
    assert accept(verifier(*rules, options=ISTIO), bearer(forged)).token is not None  # as Envoy, measured with 1.40
    assert accept(verifier(*rules), bearer(OTHER_TOKEN)).token is not None


def policy(**limits: Any) -> IssuerPolicy:
    return IssuerPolicy("limits", "default", HERE, ISSUER, **limits)


def test_issuer_policies_and_revocations_apply_under_a_rule_without_issuer() -> None:
    def subject(**more: Any) -> IdentityVerifier:
        return verifier(rule(issuer=""), **more)

    asked = bearer(Signer().token(iat=NOW - 100))
    assert accept(subject(), asked).token is not None
    limited = subject(issuer_policies=(policy(max_token_age=60.0),))
    for _ in range(2):
        assert refusal(limited, asked) is Reason.TOKEN_TOO_OLD
        assert accept(limited, bearer(Signer().token(iat=NOW - 10))).token is not None
    assert refusal(subject(issuer_policies=(policy(require_bound=True),)), asked) is Reason.TOKEN_BINDING
    revoked = RevocationList("incident", "default", HERE, (Revocation(Revoked.SUBJECT, "alice", ISSUER),))
    assert refusal(subject(revocations=(revoked,)), asked) is Reason.TOKEN_REVOKED
    elsewhere = RevocationList("incident", "default", HERE, (Revocation(Revoked.SUBJECT, "alice", OTHER_ISSUER),))
    assert accept(subject(revocations=(elsewhere,)), asked).token is not None
