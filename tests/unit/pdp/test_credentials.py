"""Credentials all the way: documents as operators write them, requests as proxies send them, decisions."""

from __future__ import annotations

import hashlib
import json

from cryptography.hazmat.primitives import hashes

from tests.support.pki import AUDIENCE, FRONTEND, ISSUER, NOW, Signer, b64, jwks, presented, private_key, root
from zta_authz.authn.keys import key_thumbprint
from zta_authz.model.options import Options
from zta_authz.model.request import NO_EVIDENCE, Evidence, Headers, RequestAttributes
from zta_authz.pdp.decide import decide
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


def told(holder: Snapshot, asked: RequestAttributes, evidence: Evidence = NO_EVIDENCE, now: float = NOW) -> str:
    decision = decide(holder, asked, evidence, now)
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


def test_a_bound_token_opens_what_a_bearer_token_does_not() -> None:
    rules = snapshot()
    assert told(rules, by_certificate(), PEER) == "allow_policy 0"
    assert told(rules, by_certificate(), OTHER_PEER) == "token_binding"
    assert told(rules, by_certificate(), NO_EVIDENCE) == "token_binding"
    assert told(rules, by_key()) == "allow_policy 0"
    bearer = asking(authorization=f"Bearer {Signer().token()}")
    assert told(rules, bearer, PEER) == "no_matching_policy"
    assert told(rules, asking(authorization=f"Bearer {Signer().token(sub=FRONTEND)}"), PEER) == "allow_policy 0"
    (miss, *_) = explain(rules, bearer, PEER, NOW).nearest
    assert "require.token.bound: saw a bearer token, which anybody may present" in miss.failed[0]


def test_ages_are_judged_by_rule_and_by_issuer() -> None:
    rules = snapshot()
    assert told(rules, by_certificate(iat=NOW - 300), PEER) == "allow_policy 0"
    assert told(rules, by_certificate(iat=NOW - 301), PEER) == "no_matching_policy"
    assert told(rules, by_certificate(iat=NOW - 3601), PEER) == "token_too_old"


def test_an_api_key_and_a_jwt_svid_open_their_own_rules() -> None:
    rules = snapshot()
    assert told(rules, asking(x_api_key=KEY)) == "allow_policy 1"
    assert told(rules, asking(x_api_key=KEY[::-1])) == "api_key_invalid"
    robot = SVIDS.token(iss="https://idp.example", sub="spiffe://cluster.local/ns/x/sa/robot", aud="orders")
    assert told(rules, asking(authorization=f"Bearer {robot}")) == "allow_policy 2"
    foreign = SVIDS.token(iss=None, sub="spiffe://cluster.local/ns/x/sa/robot", aud=AUDIENCE)
    assert told(rules, asking(authorization=f"Bearer {foreign}")) == "token_audience"


def test_a_reload_takes_credentials_back_at_the_next_call_and_forgets_no_proof() -> None:
    holder = SnapshotHolder()
    holder.publish(snapshot())
    proof, certificate = by_key(), by_certificate()

    def now() -> Snapshot:
        found = holder.current()
        assert found is not None
        return found

    assert told(now(), proof) == "allow_policy 0"
    assert told(now(), certificate, PEER) == "allow_policy 0"
    holder.publish(snapshot(document("RevocationList", "l", tokens=[{"id": "t1"}])))
    assert told(now(), proof) == "dpop_replayed"
    assert told(now(), certificate, PEER) == "token_revoked"
    holder.publish(snapshot(document("RevocationList", "l", spiffeIds=[{"prefix": "spiffe://cluster.local/ns/"}])))
    assert told(now(), certificate, PEER) == "peer_revoked"
    holder.publish(snapshot())
    assert told(now(), certificate, PEER) == "allow_policy 0"
    assert told(now(), by_key("j2")) == "allow_policy 0"


def test_to_explain_a_request_uses_its_proof_up_neither_before_nor_after() -> None:
    rules, asked = snapshot(), by_key()
    for _ in range(2):
        assert explain(rules, asked, NO_EVIDENCE, NOW).decision.allowed
    assert told(rules, asked) == "allow_policy 0"
    assert explain(rules, asked, NO_EVIDENCE, NOW).decision.allowed
    assert told(rules, asked) == "dpop_replayed"
