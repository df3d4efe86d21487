"""A device is named by a key: real tokens and certificates whose claims, keys and proofs do not belong together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes

from tests.support.devices import HEAD, LAPTOP, NOW, SPEC, inventory, record, table
from tests.support.pki import ISSUER, Signer, b64, jwks, presented, private_key, root
from tests.support.policies import request, snapshot
from tests.unit.authn.test_dpop import CLIENT, OTHER, asking, proof, token_of
from zta_authz.errors import Reason
from zta_authz.facts.devices import DeviceTables
from zta_authz.model.facts import FactViews
from zta_authz.model.request import NO_EVIDENCE, Evidence
from zta_authz.pdp.decide import evaluate

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision
    from zta_authz.model.request import RequestAttributes

ROOT = root()
LEAF = ROOT.issue(uris=(LAPTOP,))
OTHER_NAME = "spiffe://cluster.local/device/other"
THIS, SAME_NAME = Evidence(LAPTOP, presented(LEAF)), ROOT.issue(uris=(LAPTOP,), key=private_key("P-256", 5))
STRANGER = ROOT.issue(uris=(OTHER_NAME,), key=private_key("P-256", 6))
POLICY = """apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: p, namespace: default}
spec: {rules: [{require: {device: {managed: true}}}]}
"""
LOGIN = {
    "apiVersion": "security.istio.io/v1",
    "kind": "RequestAuthentication",
    "metadata": {"name": "login", "namespace": "default"},
    "spec": {"jwtRules": [{"issuer": ISSUER, "jwks": jwks()}]},
}
BUNDLE = {
    "apiVersion": "zta.dev/v1",
    "kind": "TrustBundle",
    "metadata": {"name": "cluster-local", "namespace": "istio-system"},
    "spec": {"trustDomain": "cluster.local", "x509Authorities": ROOT.pem},
}
COMPILED = snapshot(POLICY, HEAD + SPEC, json.dumps(LOGIN), json.dumps(BUNDLE))
DEVICES = DeviceTables({"default/fleet": (inventory().source, table(record(), record("laptop-2", spiffe="")))})


def decided(asked: RequestAttributes, evidence: Evidence = NO_EVIDENCE) -> Decision:
    return evaluate(COMPILED, asked, evidence, NOW, views=FactViews(devices=DEVICES))


def bearer(**claims: Any) -> RequestAttributes:
    token = Signer().token(**claims)
    return request(headers={"authorization": f"Bearer {token}"})


def thumbprint(certificate: Any) -> str:
    return b64(certificate.fingerprint(hashes.SHA256()))


def dpop(client: Signer = CLIENT, prover: Signer = CLIENT, **claims: Any) -> RequestAttributes:
    """A token that is bound to the key of `client`, with a proof by `prover`."""
    token = token_of(client, **claims)
    return asking(proof(prover, token=token), token=token)


def test_the_controls_are_allowed() -> None:
    assert decided(request(), THIS).allowed
    assert decided(dpop(device_id="laptop-1")).allowed
    bound = bearer(device_id="laptop-1", cnf={"x5t#S256": thumbprint(LEAF)})
    assert decided(bound, THIS).allowed
    stranger = Evidence(OTHER_NAME, presented(STRANGER))
    assert decided(bearer(device_id="laptop-1", cnf={"x5t#S256": thumbprint(STRANGER)}), stranger).allowed


@pytest.mark.parametrize(
    "cnf",
    [
        None,
        {},
        {"kid": "k1"},
        {"jwk": CLIENT.jwk()},
        {"x5t#S256": thumbprint(SAME_NAME)},
        {"x5t#s256": thumbprint(LEAF)},
        {"x5t#S256": thumbprint(LEAF), "jkt": thumbprint(LEAF)},
        pytest.param(thumbprint(LEAF), id="the-thumbprint-itself"),  # an ID that no process makes up anew
        [],
    ],
)
def test_a_claim_without_a_key_of_this_connection_names_no_device(cnf: Any) -> None:
    stranger = Evidence(OTHER_NAME, presented(STRANGER))
    for evidence in (NO_EVIDENCE, stranger):
        assert not decided(bearer(device_id="laptop-1", cnf=cnf), evidence).allowed


def test_a_token_bound_to_another_key_is_refused_and_names_no_device() -> None:
    assert decided(dpop(prover=OTHER, device_id="laptop-1")).reason is Reason.TOKEN_BINDING
    token = token_of(device_id="laptop-1")
    assert not decided(asking(token=token)).allowed
    assert not decided(asking(token=token, scheme="Bearer")).allowed
    elsewhere = asking(proof(token=token, htu="https://other.example/orders/7"), token=token)
    assert not decided(elsewhere).allowed


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(LAPTOP),
        Evidence(LAPTOP, presented(STRANGER)),
        Evidence(LAPTOP, presented(root("someone else").issue(uris=(LAPTOP,)))),
        Evidence(LAPTOP, presented(ROOT.issue(uris=(LAPTOP + "x",)))),
        Evidence(OTHER_NAME, presented(STRANGER)),
    ],
)
def test_no_certificate_but_the_devices_own_is_the_device(evidence: Evidence) -> None:
    assert not decided(request(), evidence).allowed


def test_a_bound_token_of_another_device_does_not_help_a_device_that_is_known() -> None:
    bound = {"cnf": {"x5t#S256": thumbprint(LEAF)}}
    assert decided(bearer(device_id="laptop-1", **bound), THIS).allowed
    assert not decided(bearer(device_id="laptop-2", **bound), THIS).allowed
    assert not decided(bearer(device_id="laptop-9", **bound), THIS).allowed
