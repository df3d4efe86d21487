"""Which device is behind a request: only a key says so. And how old what is known of it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.devices import LAPTOP, NOW, SPEC, inventory, record, table
from tests.support.policies import request
from zta_authz.facts.devices import DeviceTables
from zta_authz.model.identity import Binding, CertificateNames, Identity, Peer, PeerTrust, Token
from zta_authz.model.options import Options
from zta_authz.model.spiffe import SpiffeId
from zta_authz.policy.rules.device_identity import InventoryDevices
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.facts import DeviceFacts

DIGEST = bytes(range(32))


def peer(name: str = LAPTOP, trust: PeerTrust = PeerTrust.CERTIFICATE, digest: bytes | None = DIGEST) -> Peer:
    return Peer((name,), SpiffeId.parse(name), trust, digest)


def identified(
    *records: dict[str, Any],
    spec: str = SPEC,
    caller: Peer | None = None,
    claims: dict[str, Any] | None = None,
    binding: Binding | None = None,
    now: float = NOW,
    headers: dict[str, str] | None = None,
) -> DeviceFacts:
    token = None if claims is None else Token("https://i", "u", claims)
    identity = Identity(caller, token, (token,) if token else (), binding=binding)
    inputs = Inputs(request(headers=headers), identity, Options(), now)
    view = DeviceTables({"default/fleet": (inventory(spec).source, table(*records, spec=spec))})
    return InventoryDevices(inventory(spec)).identify(inputs, view)


def states(facts: DeviceFacts) -> set[str]:
    return {fact.state for name, fact in (facts.fields or {}).items() if name != "lastSeen"}


def test_the_verified_certificate_identifies_the_device() -> None:
    facts = identified(record(), caller=peer())
    assert (facts.device_id, facts.identified_by, facts.inventory) == ("laptop-1", "certificate", "default/fleet")
    assert (facts.field("managed").value, facts.field("os").value) == (True, "macOS")
    assert (facts.field("managed").observed_at, facts.field("lastSeen").value) == (NOW - 60, int(NOW) - 10)


def test_the_proxys_word_identifies_no_device() -> None:
    for caller in (peer(trust=PeerTrust.PROXY), peer(digest=None), None, peer("spiffe://cluster.local/device/other")):
        facts = identified(record(), caller=caller)
        assert (facts.device_id, facts.inventory, facts.fields) == ("", "default/fleet", None)


def test_a_fingerprint_may_identify_it() -> None:
    spec = SPEC.replace("spiffeId", "sha256")
    assert identified(record(spiffe=DIGEST.hex().upper()), spec=spec, caller=peer()).device_id == "laptop-1"
    assert identified(record(spiffe="00" * 32), spec=spec, caller=peer()).device_id == ""


@pytest.mark.parametrize("binding", list(Binding))
def test_a_bound_tokens_claim_identifies_it(binding: Binding) -> None:
    facts = identified(record(spiffe=""), caller=peer(), claims={"device_id": "laptop-1"}, binding=binding)
    assert (facts.device_id, facts.identified_by) == ("laptop-1", "token")


def test_an_unbound_tokens_claim_identifies_it_only_where_the_operator_says_so() -> None:
    claims = {"device_id": "laptop-1"}
    assert identified(record(), claims=claims).device_id == ""
    spec = SPEC.replace("tokenClaim: device_id", "tokenClaim: device_id, acceptUnbound: true")
    assert identified(record(), spec=spec, claims=claims).device_id == "laptop-1"


@pytest.mark.parametrize("claim", [5, None, ["laptop-1"], {"id": "laptop-1"}, "", "certificate:" + LAPTOP])
def test_a_claim_that_is_no_id_identifies_nothing(claim: object) -> None:
    assert identified(record(), claims={"device_id": claim}, binding=Binding.DPOP).device_id == ""


def test_no_header_identifies_a_device() -> None:
    headers = {"x-device-id": "laptop-1", "device_id": "laptop-1", "x-zta-device": "laptop-1"}
    assert identified(record(), headers=headers).device_id == ""


@pytest.mark.parametrize("claimed", ["laptop-2", "unheard-of"])
def test_a_certificate_and_a_token_that_name_two_devices_are_conflicting(claimed: str) -> None:
    other = record("laptop-2", spiffe="")
    facts = identified(record(), other, caller=peer(), claims={"device_id": claimed}, binding=Binding.DPOP)
    assert (facts.device_id, states(facts)) == ("", {"conflicting"})
    same = identified(record(), caller=peer(), claims={"device_id": "laptop-1"}, binding=Binding.DPOP)
    assert same.identified_by == "certificate"


@pytest.mark.parametrize(
    ("changes", "now", "state"),
    [
        ({}, NOW + 86_400 - 61, {"known", "true"}),
        ({}, NOW + 86_400, {"stale"}),  # the posture is too old
        ({"checked": NOW + 6 * 86_400}, NOW + 7 * 86_400, {"stale"}),  # it no longer reports
        ({"checked": None}, NOW, {"stale"}),
        ({"seen": None}, NOW, {"stale"}),
        ({"checked": NOW + 299}, NOW, {"known", "true"}),
        ({"checked": NOW + 301}, NOW, {"conflicting"}),
        ({"seen": NOW + 301}, NOW, {"conflicting"}),
        ({}, NOW - 3600, {"conflicting"}),  # our clock was set back
    ],
)
def test_what_is_known_of_a_device_ages(changes: dict[str, Any], now: float, state: set[str]) -> None:
    assert states(identified(record(**changes), caller=peer(), now=now)) == state


def test_a_device_that_the_inventory_has_twice_is_conflicting() -> None:
    assert states(identified(record(), record(), caller=peer())) == {"conflicting"}


def test_a_token_bound_to_a_name_that_the_proxy_asserts_is_not_bound_to_a_key() -> None:
    claims = {"device_id": "laptop-1"}
    caller = peer(trust=PeerTrust.PROXY, digest=None)
    assert identified(record(), caller=caller, claims=claims, binding=Binding.SPIFFE_ID).device_id == ""
    assert identified(record(), caller=caller, claims=claims, binding=Binding.DPOP).device_id == "laptop-1"


def test_a_certificate_of_two_devices_names_neither() -> None:
    facts = identified(record("a"), record("b"), caller=peer())
    assert (facts.device_id, states(facts)) == ("", {"conflicting"})


ISSUER = "CN=Device CA,O=Shop"
BY_SERIAL = SPEC.replace(
    "certificate: spiffeId", f'certificate: serial, certificateIssuer: "{ISSUER}", serialFormat: FORMAT'
)


def certified(
    *uris: str,
    name: str | None = LAPTOP,
    issuer: str = ISSUER,
    serial: int = 0x0A1B,
    trust: PeerTrust = PeerTrust.CERTIFICATE,
) -> Peer:
    spiffe_id = None if name is None else SpiffeId.parse(name)
    names = CertificateNames(uris or (() if name is None else (name,)), issuer, serial)
    return Peer((name or uris[0],), spiffe_id, trust, DIGEST, names)


@pytest.mark.parametrize(
    ("written", "as_text", "found"),
    [
        ("0A:1B", "hex", True),
        ("0x0a1b", "hex", True),
        (" a1b ", "hex", True),
        (0x0A1B, "hex", True),
        (0x0A1B, "decimal", True),
        ("2587", "decimal", True),
        ("2587", "hex", False),  # the number 0x2587
        ("a1b", "decimal", False),
        ("0A1B0", "hex", False),
        (True, "hex", False),
        ("", "hex", False),
        (None, "hex", False),
    ],
)
def test_a_serial_number_identifies_it_in_the_format_that_the_inventory_names(
    written: object, as_text: str, found: bool
) -> None:
    spec = BY_SERIAL.replace("FORMAT", as_text)
    facts = identified(record(spiffe=written), spec=spec, caller=certified())
    assert facts.device_id == ("laptop-1" if found else "")


@pytest.mark.parametrize(
    "caller",
    [
        certified(issuer="CN=Other CA,O=Shop"),
        certified(issuer=""),
        certified(serial=0x0A1C),
        certified(name="spiffe://partner.example/device/laptop-1"),  # its authorities may use any issuer name
        certified("urn:laptop-1", name=None),
        certified(trust=PeerTrust.PROXY),
        peer(),  # a name without the certificate
    ],
)
def test_a_serial_number_counts_only_with_its_issuer_and_in_the_own_trust_domain(caller: Peer) -> None:
    spec = BY_SERIAL.replace("FORMAT", "hex")
    assert identified(record(spiffe="0A1B"), spec=spec, caller=caller).device_id == ""


def test_one_serial_number_of_two_devices_names_neither() -> None:
    spec = BY_SERIAL.replace("FORMAT", "hex")
    facts = identified(record("a", spiffe="0a1b"), record("b", spiffe="A:1B"), spec=spec, caller=certified())
    assert (facts.device_id, states(facts)) == ("", {"conflicting"})


BY_URI = SPEC.replace("spiffeId", "sanUri")
URN = "urn:uuid:5f0c1f5e-8d5c-4f0e-9d5e-0c9d1d0b7a11"


def test_a_uri_of_the_certificate_identifies_it() -> None:
    caller = certified(LAPTOP, URN)
    assert identified(record(spiffe=URN), spec=BY_URI, caller=caller).device_id == "laptop-1"
    assert identified(record(spiffe=LAPTOP), spec=BY_URI, caller=caller).device_id == "laptop-1"
    assert identified(record(spiffe="urn:other"), spec=BY_URI, caller=caller).device_id == ""


def test_certificates_of_other_trust_domains_have_only_their_spiffe_id() -> None:
    partner = "spiffe://partner.example/device/laptop-1"
    assert identified(record(spiffe=URN), spec=BY_URI, caller=certified(partner, URN, name=partner)).device_id == ""
    assert identified(record(spiffe=URN), spec=BY_URI, caller=certified(URN, name=None)).device_id == ""
    assert (
        identified(record(spiffe=partner), spec=BY_URI, caller=certified(partner, name=partner)).device_id == "laptop-1"
    )


def test_uris_of_two_devices_are_conflicting() -> None:
    facts = identified(record("a", spiffe=URN), record("b"), spec=BY_URI, caller=certified(LAPTOP, URN))
    assert (facts.device_id, states(facts)) == ("", {"conflicting"})
