"""Credentials end to end: from operators' documents and proxies' requests to decisions."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes

from tests.support.pki import AUDIENCE, FRONTEND, ISSUER, NOW, Signer, b64, jwks, presented, private_key, root
from zta_authz.authn.keys import key_thumbprint
from zta_authz.errors import Reason
from zta_authz.model.options import NamedWorkload, Options, Workload
from zta_authz.model.request import NO_EVIDENCE, Evidence, Headers, RequestAttributes
from zta_authz.pdp.decide import decide, evaluate, identify
from zta_authz.pdp.explain import explain
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot
from zta_authz.policy_sources.files import SnapshotHolder

ROOT = root()
LEAF = ROOT.issue()
PEER = Evidence(FRONTEND, presented(LEAF))
OTHER_PEER = Evidence(FRONTEND, presented(ROOT.issue(key=private_key("P-256", 5))))
CLIENT, SVIDS = Signer(kid="", number=77), Signer(kid="s1", number=31)
KEY = "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg"


def document(kind: str, name: str, version: str = "zta.dev/v1", **spec: object) -> str:
    return json.dumps({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})


POLICIES = [
    document("RequestAuthentication", "jwt", "security.istio.io/v1", jwtRules=[{"issuer": ISSUER, "jwks": jwks()}]),
    document(
        "TrustBundle",
        "ours",
        trustDomain="cluster.local",
        x509Authorities=ROOT.pem,
        jwtAuthorities={"keys": [SVIDS.jwk(use="jwt-svid")]},
        jwtSvidAudiences=["orders"],
    ),
    document("IssuerPolicy", "young", issuer=ISSUER, maxTokenAge="1h"),
    document(
        "ApiKeySet",
        "partners",
        clients=[
            {
                "name": "acme",
                "scopes": ["read"],
                "keys": [{"hash": f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"}],
            }
        ],
    ),
    document(
        "AccessPolicy",
        "orders",
        rules=[
            {"require": {"token": {"bound": True, "maxAge": "5m"}}},
            {"when": [{"key": "zta.apiScopes", "values": ["read"]}]},
            {"condition": "claims.iss == 'spiffe://cluster.local' && token.subject.endsWith('/sa/robot')"},
        ],
    ),
]


def snapshot(*more: str) -> Snapshot:
    texts = [SourceText(f"{number}.yaml", text) for number, text in enumerate((*POLICIES, *more))]
    return compile_snapshot(texts, Options())


def asking(path: str = "/orders", **headers: str) -> RequestAttributes:
    values = {name.replace("_", "-"): (value,) for name, value in headers.items()}
    return RequestAttributes("GET", path, "shop.example", "https", headers=Headers(values, exact=True))


def outcome(holder: Snapshot, asked: RequestAttributes, evidence: Evidence = NO_EVIDENCE, now: float = NOW) -> str:
    decision = decide(holder, asked, identify(holder, asked, evidence, now), now)
    return f"{decision.reason} {decision.rule}" if decision.allowed else decision.reason.value


def by_certificate(**claims: object) -> RequestAttributes:
    digest = b64(LEAF.fingerprint(hashes.SHA256()))
    return asking(authorization=f"Bearer {Signer().token(cnf={'x5t#S256': digest}, jti='t1', **claims)}")


def by_key(jti: str = "j1") -> RequestAttributes:
    token = Signer().token(cnf={"jkt": key_thumbprint(CLIENT.jwk())})
    ath = b64(hashlib.sha256(token.encode()).digest())
    claims = {"jti": jti, "htm": "GET", "htu": "https://shop.example/orders", "iat": NOW, "ath": ath}
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": CLIENT.jwk()}
    return asking(authorization=f"DPoP {token}", dpop=CLIENT.compact(json.dumps(header), json.dumps(claims)))


def test_a_bound_token_gets_access_that_a_bearer_token_does_not() -> None:
    rules = snapshot()
    assert outcome(rules, by_certificate(), PEER) == "allow_policy 0"
    assert outcome(rules, by_certificate(), OTHER_PEER) == "token_binding"
    assert outcome(rules, by_certificate(), NO_EVIDENCE) == "token_binding"
    assert outcome(rules, by_key()) == "allow_policy 0"
    bearer = asking(authorization=f"Bearer {Signer().token()}")
    assert outcome(rules, bearer, PEER) == "no_matching_policy"
    assert outcome(rules, asking(authorization=f"Bearer {Signer().token(sub=FRONTEND)}"), PEER) == "allow_policy 0"
    (miss, *_) = explain(rules, bearer, PEER, NOW).nearest
    assert "require.token.bound: saw a bearer token, which anybody may present" in miss.failed[0]


def test_token_age_is_limited_by_rule_and_by_issuer() -> None:
    rules = snapshot()
    assert outcome(rules, by_certificate(iat=NOW - 300), PEER) == "allow_policy 0"
    assert outcome(rules, by_certificate(iat=NOW - 301), PEER) == "no_matching_policy"
    assert outcome(rules, by_certificate(iat=NOW - 3601), PEER) == "token_too_old"


def test_an_api_key_and_a_jwt_svid_match_their_own_rules() -> None:
    rules = snapshot()
    assert outcome(rules, asking(x_api_key=KEY)) == "allow_policy 1"
    assert outcome(rules, asking(x_api_key=KEY[::-1])) == "api_key_invalid"
    robot = SVIDS.token(iss="https://idp.example", sub="spiffe://cluster.local/ns/x/sa/robot", aud="orders")
    assert outcome(rules, asking(authorization=f"Bearer {robot}")) == "allow_policy 2"
    foreign = SVIDS.token(iss=None, sub="spiffe://cluster.local/ns/x/sa/robot", aud=AUDIENCE)
    assert outcome(rules, asking(authorization=f"Bearer {foreign}")) == "token_audience"


def test_a_reload_revokes_credentials_at_the_next_call_and_keeps_used_proofs() -> None:
    holder = SnapshotHolder()
    holder.publish(snapshot())
    proof, certificate = by_key(), by_certificate()

    def now() -> Snapshot:
        snapshot_in_force = holder.current()
        assert snapshot_in_force is not None
        return snapshot_in_force

    assert outcome(now(), proof) == "allow_policy 0"
    assert outcome(now(), certificate, PEER) == "allow_policy 0"
    holder.publish(snapshot(document("RevocationList", "l", tokens=[{"id": "t1"}])))
    assert outcome(now(), proof) == "dpop_replayed"
    assert outcome(now(), certificate, PEER) == "token_revoked"
    holder.publish(snapshot(document("RevocationList", "l", spiffeIds=[{"prefix": "spiffe://cluster.local/ns/"}])))
    assert outcome(now(), certificate, PEER) == "peer_revoked"
    holder.publish(snapshot())
    assert outcome(now(), certificate, PEER) == "allow_policy 0"
    assert outcome(now(), by_key("j2")) == "allow_policy 0"


def test_explaining_a_request_never_uses_up_its_proof() -> None:
    rules, asked = snapshot(), by_key()
    for _ in range(2):
        assert explain(rules, asked, NO_EVIDENCE, NOW).decision.allowed
    assert outcome(rules, asked) == "allow_policy 0"
    assert explain(rules, asked, NO_EVIDENCE, NOW).decision.allowed
    assert outcome(rules, asked) == "dpop_replayed"


OTHER_SIGNER = Signer(number=4242)
REVOKED = document("RevocationList", "list", tokens=[{"id": "gone"}], spiffeIds=[{"id": FRONTEND + "-gone"}])
GONE = Evidence(FRONTEND + "-gone", presented(ROOT.issue(uris=(FRONTEND + "-gone",))))
JOHN = {"iss": ISSUER, "sub": "john"}


@dataclass(frozen=True)
class Denial:
    """A refused token, and the subject that the record names."""

    token: str
    reason: Reason
    verified: bool
    detail: str


DENIALS = {
    "another's signature": Denial(OTHER_SIGNER.token(**JOHN), Reason.TOKEN_SIGNATURE, verified=False, detail=""),
    "an unknown kid": Denial(
        Signer(kid="k9").token(**JOHN), Reason.TOKEN_KEY_UNKNOWN, verified=False, detail="`k9`, .* have `k1`"
    ),
    "an unknown issuer": Denial(
        Signer().token(sub="john", iss="https://elsewhere"),
        Reason.TOKEN_ISSUER_UNKNOWN,
        verified=False,
        detail=f"header authorization is of issuer `https://elsewhere`, .* for `{ISSUER}`",
    ),
    "revoked": Denial(Signer().token(jti="gone", **JOHN), Reason.TOKEN_REVOKED, verified=True, detail="default/list"),
    "expired": Denial(Signer().token(exp=NOW - 100, **JOHN), Reason.TOKEN_EXPIRED, verified=True, detail="100 s ago"),
    "too old": Denial(Signer().token(iat=NOW - 3601, **JOHN), Reason.TOKEN_TOO_OLD, verified=True, detail="3601 s"),
    "bound to another certificate": Denial(
        Signer().token(cnf={"x5t#S256": b64(bytes(32))}, **JOHN),
        Reason.TOKEN_BINDING,
        verified=True,
        detail=f"`{b64(bytes(32))}`, and the peer has `{b64(LEAF.fingerprint(hashes.SHA256()))}`",
    ),
}


@pytest.mark.parametrize("case", DENIALS.values(), ids=DENIALS.keys())
def test_a_denial_for_a_bad_token_names_the_caller_and_the_tokens_subject(case: Denial) -> None:
    rules = snapshot(REVOKED)
    for evidence, principal in ((PEER, FRONTEND), (PEER, FRONTEND), (NO_EVIDENCE, "")):  # twice: warm too
        if not principal and case.reason is Reason.TOKEN_BINDING:
            continue
        decision = evaluate(rules, asking(authorization=f"Bearer {case.token}"), evidence, NOW)
        assert (decision.reason, decision.identity.principal) == (case.reason, principal)
        assert decision.identity.token is None, "no rule may take it for accepted"
        assert decision.refused_token is not None
        assert (decision.refused_token.subject, decision.refused_token.verified) == ("john", case.verified)
        assert re.search(case.detail, decision.detail), decision.detail
        assert case.token not in decision.detail


def test_an_unreadable_token_names_only_its_presenter() -> None:
    decision = evaluate(snapshot(), asking(authorization="Bearer a.b.c"), PEER, NOW)
    assert (decision.reason, decision.identity.principal) == (Reason.TOKEN_MALFORMED, FRONTEND)
    assert decision.refused_token is None


def test_a_denial_of_a_verified_peer_names_it() -> None:
    held = snapshot(REVOKED)
    revoked = evaluate(held, asking(), GONE, NOW)
    assert (revoked.reason, revoked.identity.principal) == (Reason.PEER_REVOKED, FRONTEND + "-gone")
    other = evaluate(held, asking(), Evidence(FRONTEND + "-gone", PEER.certificate), NOW)
    assert (other.reason, other.identity.principal) == (Reason.PEER_SAN_MISMATCH, FRONTEND)
    assert other.detail == f"the proxy names `{FRONTEND}-gone`, the certificate has `{FRONTEND}`"
    forged = evaluate(held, asking(), Evidence(FRONTEND, presented(root("other").issue())), NOW)
    assert (forged.reason, forged.identity.principal) == (Reason.PEER_CERTIFICATE_UNTRUSTED, "")


def test_a_denial_before_the_workload_is_known_names_the_peer_too() -> None:
    shared = Options(workloads=(NamedWorkload("spiffe://cluster.local/ns/a/sa/proxy", Workload("a")),))
    held = compile_snapshot([SourceText(f"{number}.yaml", text) for number, text in enumerate(POLICIES)], shared)
    asked = msgspec.structs.replace(asking(), destination_principal="spiffe://cluster.local/ns/b/sa/other")
    for evidence, principal in ((PEER, FRONTEND), (Evidence(FRONTEND, presented(root("other").issue())), "")):
        decision = evaluate(held, asked, evidence, NOW)
        assert (decision.reason, decision.identity.principal) == (Reason.WORKLOAD_UNKNOWN, principal)


def test_a_denial_for_a_bad_token_names_the_client_of_a_valid_api_key() -> None:
    decision = evaluate(snapshot(), asking(authorization="Bearer a.b.c", x_api_key=KEY), PEER, NOW)
    assert decision.identity.api_client is not None
    assert (decision.identity.api_client.name, decision.identity.principal) == ("acme", FRONTEND)


def test_a_denial_names_the_tokens_audience_and_the_allowed_ones() -> None:
    rules = [{"issuer": ISSUER, "jwks": jwks(), "audiences": ["orders", "bills"]}]
    wanting = document("RequestAuthentication", "jwt", "security.istio.io/v1", jwtRules=rules)
    held = compile_snapshot([SourceText("a.yaml", wanting)], Options())
    decision = evaluate(
        held, asking(authorization=f"Bearer {Signer().token(aud=['mail', 'x' * 500])}"), NO_EVIDENCE, NOW
    )
    assert decision.detail == f"the audience is `mail`, `{'x' * 80}…`, and the rule has `bills`, `orders`"
