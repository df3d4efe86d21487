"""Tokens that only one caller may present: the kinds of binding, and presentations by the wrong caller."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes

from tests.support.pki import FRONTEND, HERE, ISSUER, NOW, Signer, b64, presented, private_key, root
from tests.unit.authn.support import ISTIO, STRICT, accept, bearer, bundle, refusal, request, rule, verifier
from zta_authz.authn.jwt_limits import IssuerLimits, compile_limits
from zta_authz.authn.verify import compile_verifier
from zta_authz.errors import Fault, Reason
from zta_authz.model.documents import IssuerPolicy
from zta_authz.model.identity import Binding
from zta_authz.model.request import NO_EVIDENCE, Evidence

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.model.options import Options

ROOT = root()
LEAF = ROOT.issue()
OTHER_LEAF = ROOT.issue(key=private_key("P-256", 5))
PEER = Evidence(FRONTEND, presented(LEAF))
SIGNER = Signer()
THUMBPRINT = b64(LEAF.fingerprint(hashes.SHA256()))
OTHER_THUMBPRINT = b64(OTHER_LEAF.fingerprint(hashes.SHA256()))
RSA = Signer("RS256", "r1", "RSA-2048")


def subject(options: Options = STRICT, **limits: Any) -> IdentityVerifier:
    policies = [IssuerPolicy("p", "default", HERE, ISSUER, **limits)] if limits else []
    return verifier(rule(), bundles=(bundle(ROOT.pem),), options=options, issuer_policies=policies)


def bound_to(thumbprint: Any, **more: Any) -> str:
    return SIGNER.token(cnf={"x5t#S256": thumbprint}, **more)


@dataclass(frozen=True)
class Case:
    """`bad` is refused for `reason` and `good` is accepted, both presented by the peer of `evidence`."""

    reason: Reason
    bad: str
    good: str
    evidence: Evidence = PEER


B, INVALID = Reason.TOKEN_BINDING, Reason.TOKEN_CLAIM_INVALID
BINDINGS = {
    "another certificate": Case(B, bound_to(OTHER_THUMBPRINT), bound_to(THUMBPRINT)),
    "a certificate, and none was presented": Case(B, bound_to(THUMBPRINT), SIGNER.token(), NO_EVIDENCE),
    "a key without proof": Case(B, SIGNER.token(cnf={"jkt": THUMBPRINT}), SIGNER.token()),
    "the certificate, and a key without proof": Case(
        B, SIGNER.token(cnf={"x5t#S256": THUMBPRINT, "jkt": THUMBPRINT}), bound_to(THUMBPRINT)
    ),
    "only an unsupported member": Case(
        B, SIGNER.token(cnf={"kid": "x"}), SIGNER.token(cnf={"kid": "x", "x5t#S256": THUMBPRINT})
    ),
    "a key given whole": Case(B, SIGNER.token(cnf={"jwk": SIGNER.jwk()}), SIGNER.token()),
    "nothing": Case(B, SIGNER.token(cnf={}), SIGNER.token()),
    "the name of the digest in lower case": Case(B, SIGNER.token(cnf={"x5t#s256": THUMBPRINT}), bound_to(THUMBPRINT)),
    "a SHA-1": Case(INVALID, bound_to(b64(bytes(20))), bound_to(THUMBPRINT)),
    "half a digest": Case(INVALID, bound_to(THUMBPRINT[:21]), bound_to(THUMBPRINT)),
    "a padded digest": Case(INVALID, bound_to(THUMBPRINT + "="), bound_to(THUMBPRINT)),
    "a digest in hex": Case(INVALID, bound_to(LEAF.fingerprint(hashes.SHA256()).hex()), bound_to(THUMBPRINT)),
    "a list of digests": Case(INVALID, bound_to([THUMBPRINT]), bound_to(THUMBPRINT)),
    "an empty digest": Case(INVALID, bound_to(""), bound_to(THUMBPRINT)),
    "a cnf that is text": Case(INVALID, SIGNER.token(cnf=THUMBPRINT), bound_to(THUMBPRINT)),
    "a jkt that is not a digest": Case(INVALID, SIGNER.token(cnf={"jkt": "x"}), SIGNER.token()),
}


@pytest.mark.parametrize("case", BINDINGS.values(), ids=BINDINGS.keys())
def test_a_token_bound_to_something_else_is_refused_whether_or_not_a_rule_asks(case: Case) -> None:
    assert refusal(subject(), bearer(case.bad), case.evidence) is case.reason
    assert accept(subject(), bearer(case.good), case.evidence).token is not None


@pytest.mark.parametrize("case", BINDINGS.values(), ids=BINDINGS.keys())
def test_istio_accepts_a_token_bound_to_something_else_as_unbound(case: Case) -> None:
    identity = accept(subject(ISTIO), bearer(case.bad), case.evidence)
    assert identity.token is not None
    assert identity.binding is None


def test_the_binding_is_checked_again_for_every_peer_that_presents_the_token() -> None:
    one, asked = subject(), bearer(bound_to(THUMBPRINT))
    other = Evidence(FRONTEND, presented(OTHER_LEAF))
    for _ in range(2):
        assert accept(one, asked, PEER).binding is Binding.CERTIFICATE
        assert refusal(one, asked, other) is Reason.TOKEN_BINDING
        assert refusal(one, asked) is Reason.TOKEN_BINDING


def test_a_token_whose_subject_is_the_peers_spiffe_id_is_bound_to_it() -> None:
    own, foreign = bearer(SIGNER.token(sub=FRONTEND)), bearer(SIGNER.token(sub=FRONTEND + "2"))
    for options in (STRICT, ISTIO):
        assert accept(subject(options), own, PEER).binding is Binding.SPIFFE_ID
        assert accept(subject(options), foreign, PEER).binding is None
        assert accept(subject(options), own).binding is None


def test_a_bearer_token_is_bound_to_nobody() -> None:
    assert accept(subject(), bearer(SIGNER.token()), PEER).binding is None
    assert accept(subject(), request(), PEER).binding is None


def test_a_name_from_the_proxy_alone_binds_no_token() -> None:
    believing = replace(STRICT, trust_proxy=True)
    assert refusal(subject(believing), bearer(bound_to(THUMBPRINT)), Evidence(FRONTEND)) is Reason.TOKEN_BINDING


def test_every_presented_token_must_be_bound_to_the_caller() -> None:
    """A second token, in the query, that is bound to another certificate."""
    good, bad = SIGNER.token(), bound_to(OTHER_THUMBPRINT)
    both = request(path=f"/?access_token={bad}", authorization=f"Bearer {good}")
    assert refusal(subject(), both, PEER) is Reason.TOKEN_BINDING
    fine = request(path=f"/?access_token={bound_to(THUMBPRINT)}", authorization=f"Bearer {good}")
    assert len(accept(subject(), fine, PEER).tokens) == 2


LIMITS: dict[str, tuple[Reason, dict[str, Any], str, str]] = {
    "too old": (
        Reason.TOKEN_TOO_OLD,
        {"max_token_age": 60.0},
        SIGNER.token(iat=NOW - 61),
        SIGNER.token(iat=NOW - 60),
    ),
    "of unknown age": (Reason.TOKEN_TOO_OLD, {"max_token_age": 60.0}, SIGNER.token(iat=None), SIGNER.token(iat=NOW)),
    "unbound": (Reason.TOKEN_BINDING, {"require_bound": True}, SIGNER.token(), bound_to(THUMBPRINT)),
    "an algorithm that is not allowed": (
        Reason.TOKEN_ALGORITHM,
        {"algorithms": ("RS256", "ES384")},
        SIGNER.token(),
        RSA.token(),
    ),
    "another type": (
        Reason.TOKEN_HEADER,
        {"types": ("at+jwt",)},
        SIGNER.token({"typ": "JWT"}),
        SIGNER.token({"typ": "AT+JWT"}),
    ),
    "no type": (
        Reason.TOKEN_HEADER,
        {"types": ("application/at+jwt",)},
        SIGNER.token({"typ": None}),
        SIGNER.token({"typ": "application/at+jwt"}),
    ),
    "no kid": (Reason.TOKEN_HEADER, {"require_kid": True}, replace(RSA, kid="").token(), RSA.token()),
    "no exp and no waiver": (
        Reason.TOKEN_EXPIRY_MISSING,
        {"require_kid": True},
        SIGNER.token(exp=None),
        SIGNER.token(exp=NOW + 1),
    ),
}


@pytest.mark.parametrize(("reason", "limits", "bad", "good"), LIMITS.values(), ids=LIMITS.keys())
def test_an_issuer_policy_limits_the_issuers_tokens(
    reason: Reason, limits: dict[str, Any], bad: str, good: str
) -> None:
    keys = rule(jwks=f'{{"keys": [{_json(SIGNER)}, {_json(RSA)}]}}')
    policy = IssuerPolicy("p", "default", HERE, ISSUER, **limits)
    one = verifier(keys, bundles=(bundle(ROOT.pem),), issuer_policies=[policy])
    for _ in range(2):
        assert refusal(one, bearer(bad), PEER) is reason
        assert accept(one, bearer(good), PEER).token is not None


def _json(signer: Signer) -> str:
    return str(signer.jwk()).replace("'", '"')


def test_the_age_is_checked_on_every_call() -> None:
    one, asked = subject(max_token_age=900.0), bearer(SIGNER.token(iat=NOW))
    assert accept(one, asked, now=NOW + 900).token is not None
    assert refusal(one, asked, now=NOW + 901) is Reason.TOKEN_TOO_OLD


def test_an_issuer_policy_may_allow_tokens_without_expiry() -> None:
    endless = bearer(SIGNER.token(exp=None))
    assert refusal(subject(), endless) is Reason.TOKEN_EXPIRY_MISSING
    assert accept(subject(allow_missing_exp=True), endless).token is not None
    assert refusal(subject(allow_missing_exp=True), bearer(SIGNER.token(exp=NOW - 60))) is Reason.TOKEN_EXPIRED


def test_limits_apply_with_istio_semantics_too() -> None:
    assert refusal(subject(ISTIO, max_token_age=10.0), bearer(SIGNER.token())) is Reason.TOKEN_TOO_OLD
    assert refusal(subject(ISTIO, require_bound=True), bearer(SIGNER.token()), PEER) is Reason.TOKEN_BINDING
    assert accept(subject(ISTIO, require_bound=True), bearer(bound_to(THUMBPRINT)), PEER).token is not None


def test_another_issuers_policy_has_no_effect() -> None:
    policy = IssuerPolicy("p", "default", HERE, ISSUER + "/", max_token_age=1.0)
    assert accept(verifier(rule(), issuer_policies=[policy]), bearer(SIGNER.token())).token is not None


def test_two_policies_for_one_issuer_both_apply() -> None:
    one = IssuerPolicy("a", "x", HERE, ISSUER, 60.0, allow_missing_exp=True, algorithms=("ES256", "RS256"))
    two = IssuerPolicy("b", "x", HERE, ISSUER, 90.0, require_bound=True, algorithms=("RS256",), types=("JWT",))
    assert compile_limits([one, two]) == {
        ISSUER: IssuerLimits(60.0, False, True, False, frozenset(("RS256",)), frozenset(("jwt",)))
    }


def test_a_policy_for_an_issuer_without_a_rule_causes_a_warning() -> None:
    warnings: list[Fault] = []
    slip = IssuerPolicy("p", "shop", HERE, ISSUER + "/", max_token_age=1.0)
    trust_domain = IssuerPolicy("q", "shop", HERE, "spiffe://cluster.local", max_token_age=1.0)
    compile_verifier([], [], STRICT, [], issuer_policies=[slip, trust_domain], warnings=warnings)
    [warning] = warnings
    assert str(warning).startswith(f"test.yaml:7:3: IssuerPolicy `shop/p` is for `{ISSUER}/`, which no")


OTHER_TYPES = ["dpop+jwt", "logout+jwt", "secevent+jwt", "application/secevent+jwt", "LOGOUT+JWT", 7, ["JWT"], None]


@pytest.mark.parametrize("kind", OTHER_TYPES[:-1])
def test_a_jwt_for_another_purpose_is_not_an_access_token(kind: Any) -> None:
    forged = bearer(SIGNER.token({"typ": kind}))
    assert refusal(subject(), forged) is Reason.TOKEN_HEADER
    assert accept(subject(ISTIO), forged).token is not None


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", "entitlements+jwt", None])
def test_other_types_are_accepted(kind: str | None) -> None:
    assert accept(subject(), bearer(SIGNER.token({"typ": kind}))).token is not None


def test_a_token_issued_in_the_future_is_not_valid_yet() -> None:
    assert refusal(subject(), bearer(SIGNER.token(iat=NOW + 31))) is Reason.TOKEN_NOT_YET_VALID
    assert accept(subject(), bearer(SIGNER.token(iat=NOW + 30))).token is not None
    assert accept(subject(ISTIO), bearer(SIGNER.token(iat=NOW + 9999))).token is not None
