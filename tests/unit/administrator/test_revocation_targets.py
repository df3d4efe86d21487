"""What operators revoke becomes what decision points compare, and a revocation that none could apply is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes

from tests.support.pki import FRONTEND, ISSUER, NOW, Signer, presented, root
from tests.unit.authn.support import accept, bearer, bundle, refusal, request, rule, verifier
from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.revocation_targets import MAX_BYTES, read_target
from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.errors import Reason, Refused
from zta_authz.model.documents import Revocation, Revoked
from zta_authz.model.request import Evidence

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier

ROOT = root()
LEAF = ROOT.issue()
PEER = Evidence(FRONTEND, presented(LEAF))
TOKEN = Signer().token(jti="t1", sub="alice", sid="s1", email="Alice@Example.com")
SHA256 = LEAF.fingerprint(hashes.SHA256()).hex()
OF_TOKENS = {
    "token": ("t1", ISSUER),
    "token of any issuer": ("t1", ""),
    "session": ("s1", ISSUER),
    "subject": ("alice", ISSUER),
    "email": ("ALICE@example.com", ISSUER),
    "issuer": (ISSUER, ""),
    "key": (Signer().kid, ISSUER),
}
OF_PEERS = {
    "spiffe id": ("SPIFFE://Cluster.Local" + FRONTEND.removeprefix("spiffe://cluster.local"),),
    "spiffe-id": (FRONTEND,),
    "spiffe-prefix": ("spiffe://CLUSTER.local/ns/",),
    "certificate": (f"{LEAF.serial_number:040x}", SHA256.upper(), ":".join(SHA256[i : i + 2] for i in range(0, 64, 2))),
    "serial": (f"{LEAF.serial_number:X}",),
    "sha256": (SHA256,),
}


def put(compiled: IdentityVerifier, what: str, value: str, issuer: str) -> None:
    dynamic = DynamicRevocations()
    compiled.use_revocations(dynamic)
    target = read_target(what, value, issuer)
    dynamic.put("op-1", Revocation(target.what, target.value, target.issuer))


@pytest.mark.parametrize("name", OF_TOKENS)
def test_a_decision_point_applies_every_revocation_of_tokens(name: str) -> None:
    compiled = verifier(rule())
    assert accept(compiled, bearer(TOKEN)).token is not None
    put(compiled, name.split(maxsplit=1)[0], *OF_TOKENS[name])
    assert refusal(compiled, bearer(TOKEN)) is Reason.TOKEN_REVOKED


@pytest.mark.parametrize(
    ("what", "value"),
    [
        pytest.param(what, value, id=f"{what}-{number}")  # the values are new in each process
        for what, values in OF_PEERS.items()
        for number, value in enumerate(values)
    ],
)
def test_a_decision_point_applies_every_revocation_of_peers(what: str, value: str) -> None:
    compiled = verifier(rule(), bundles=(bundle(ROOT.pem),))
    assert accept(compiled, request(), PEER).principal == FRONTEND
    put(compiled, what, value, "")
    assert refusal(compiled, request(), PEER) is Reason.PEER_REVOKED


@pytest.mark.parametrize("inventory", ["", "default/fleet"])
def test_a_decision_point_applies_every_revocation_of_devices(inventory: str) -> None:
    target = read_target("device", "Laptop-1", inventory)
    dynamic = DynamicRevocations()
    dynamic.put("op-1", Revocation(target.what, target.value, target.issuer))
    with pytest.raises(Refused):
        dynamic.check_device("default/fleet", "Laptop-1", NOW)


def test_the_issuer_of_jwt_svids_is_their_trust_domain_in_lower_case() -> None:
    target = read_target("subject", "spiffe://Shop.example/ns/A", "SPIFFE://shop.Example")
    assert (target.issuer, target.value) == ("spiffe://shop.example", "spiffe://shop.example/ns/A")
    assert read_target("issuer", "spiffe://Shop.example", "").value == "spiffe://shop.example"
    assert read_target("key", "K", "https://Shop.example/").issuer == "https://Shop.example/"


@pytest.mark.parametrize(
    ("what", "value", "issuer", "hint"),
    [
        ("everything", "a", "", "write token, session, subject"),
        ("", "a", "", "write token, session, subject"),
        ("subject", "alice", "", "needs the issuer"),
        ("session", "s1", "", "needs the issuer"),
        ("email", "alice@example.com", "", "needs the issuer"),
        ("key", "k", "", "needs the issuer"),
        ("issuer", ISSUER, ISSUER, "leave it out"),
        ("certificate", "0a", ISSUER, "leave it out"),
        ("spiffe-id", FRONTEND, ISSUER, "leave it out"),
        ("certificate", "-1", "", "as `openssl x509` prints it"),
        ("certificate", "1234567890 ", "", "without"),
        ("certificate", "a" * 41, "", "as `openssl x509` prints it"),
        ("certificate", "a" * 63, "", "as `openssl x509` prints it"),
        ("sha256", "a" * 40, "", "as `openssl x509` prints it"),
        ("serial", "a" * 64, "", "as `openssl x509` prints it"),
        ("serial", "0x0a", "", "as `openssl x509` prints it"),
        ("spiffe-id", "cluster.local/ns/a", "", "write it like `spiffe://"),
        ("spiffe-id", "spiffe://cluster.local", "", "has a path"),
        ("spiffe-id", "spiffe://cluster.local/ns//a", "", "write it like `spiffe://"),
        ("spiffe-id", "spiffe://cluster.local/ns/%61", "", "write it like `spiffe://"),
        ("spiffe-prefix", "spiffe://cluster.local/ns", "", "ends with `/`"),
        ("spiffe-prefix", "spiffe://", "", "write it like `spiffe://"),
        ("spiffe-prefix", "spiffe:///", "", "write it like `spiffe://"),
        ("spiffe-prefix", "spiffe://*/", "", "write it like `spiffe://"),
        ("device", "laptop", "fleet", "`namespace/name`"),
        ("device", "laptop", ISSUER, "`namespace/name`"),
        ("subject", "alice", "spiffe://cluster.local", "write it like `spiffe://"),
        ("subject", "spiffe://other.example/a", "spiffe://cluster.local", "its SPIFFE IDs"),
        ("key", "k", "spiffe://cluster.local/ns", "their trust domain"),
        ("subject", "", ISSUER, "1 to 2048"),
        ("subject", "a" * (MAX_BYTES + 1), ISSUER, "1 to 2048"),
        ("subject", "\ud800", ISSUER, "surrogates"),
        ("subject", "alice", "\ud800", "surrogates"),
        ("subject", " alice", ISSUER, "without"),
        ("subject", "alice", ISSUER + "\n", "without"),
    ],
)
def test_a_revocation_that_no_decision_point_could_apply_is_refused_with_what_to_write(
    what: str, value: str, issuer: str, hint: str
) -> None:
    with pytest.raises(OperationRefused) as refused:
        read_target(what, value, issuer)
    assert refused.value.refusal is Refusal.INVALID
    assert hint in str(refused.value)


def test_every_kind_of_revocation_can_be_made() -> None:
    made = {read_target(name.split()[0], *args).what for name, args in OF_TOKENS.items()}
    made |= {read_target(what, values[0], "").what for what, values in OF_PEERS.items()}
    assert made | {Revoked.DEVICE} == set(Revoked)
