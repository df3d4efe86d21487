"""What a client may send to seem to have a better device, network or trust, each beside the control that works."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.devices import LAPTOP, NOW, SPEC, inventory, record, table
from tests.support.policies import request, snapshot
from zta_authz.facts.devices import DeviceTables
from zta_authz.facts.networks import NetworkDatabases, NetworkSources
from zta_authz.model.facts import FactViews, NetworkFacts, known
from zta_authz.model.identity import Binding, Identity, Peer, PeerTrust, Token
from zta_authz.model.spiffe import SpiffeId
from zta_authz.pdp.decide import Caller, decide

if TYPE_CHECKING:
    from zta_authz.model.addresses import Ip
    from zta_authz.model.decision import Decision

POLICY = """apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: p, namespace: default}
spec:
  rules:
  - to: [{operation: {paths: [/device]}}]
    require: {device: {managed: true, encrypted: true, seenWithin: 24h}}
  - to: [{operation: {paths: [/country]}}]
    require: {network: {countries: [DE], anonymous: false}}
"""
INVENTORY = "apiVersion: zta.dev/v1\nkind: DeviceInventory\nmetadata: {name: fleet, namespace: default}\nspec:\n" + SPEC
COMPILED = snapshot(POLICY, INVENTORY)
OTHER = "spiffe://cluster.local/device/other"


class Germany:
    """Knows 193.99.144.80 as German, and every other address as anonymous and Korean."""

    def look_up(self, address: Ip, now: float) -> NetworkFacts:
        del now
        good = str(address) == "193.99.144.80"
        return NetworkFacts(country=known("DE" if good else "KP"), anonymous=known(not good))


def peer(name: str = LAPTOP, trust: PeerTrust = PeerTrust.CERTIFICATE) -> Peer:
    return Peer((name,), SpiffeId.parse(name), trust, bytes(32))


def decided(
    path: str = "/device",
    caller: Peer | None = None,
    claims: dict[str, Any] | None = None,
    binding: Binding | None = None,
    now: float = NOW,
    records: tuple[dict[str, Any], ...] = (record(),),
    **asked: Any,
) -> Decision:
    token = None if claims is None else Token("https://i", "u", claims)
    who = Identity(caller, token, (token,) if token else (), binding=binding)
    tables = DeviceTables({"default/fleet": (inventory().source, table(*records))})
    views = FactViews(networks=Germany(), devices=tables)
    return decide(COMPILED, request(path=path, **asked), Caller(who), now, views=views)


def test_the_control_is_allowed() -> None:
    assert decided(caller=peer()).allowed
    assert decided(claims={"device_id": "laptop-1"}, binding=Binding.DPOP).allowed
    assert decided("/country", source_ip="193.99.144.80").allowed


EMBEDDING = ["2002:a01:101::1", "64:ff9b::10.1.1.1", "64:ff9b:1::10.1.1.1", "::10.1.1.1", "::ffff:0:10.1.1.1"]
OFFICE = snapshot(POLICY.replace("{countries: [DE], anonymous: false}", "{corporate: true}"))


@pytest.mark.parametrize(("address", "allowed"), [("::ffff:10.1.1.1", True), *((one, False) for one in EMBEDDING)])
@pytest.mark.parametrize("header", [False, True])
def test_an_ipv6_address_of_another_network_is_not_the_ipv4_address_that_it_embeds(
    address: str, allowed: bool, header: bool
) -> None:
    views = FactViews(networks=NetworkDatabases(NetworkSources(corporate=(ip_network("10.0.0.0/8"),))))
    given: dict[str, Any] = {"headers": {"x-forwarded-for": address}} if header else {"source_ip": address}
    decision = decide(OFFICE, request(path="/country", **given), Caller(Identity(None)), NOW, views=views)
    assert decision.allowed is allowed


@pytest.mark.parametrize(
    "name", ["x-device-id", "device_id", "x-zta-device-id", "x-zta-trust-level", "x-forwarded-client-cert", "cookie"]
)
@pytest.mark.parametrize("value", ["laptop-1", LAPTOP, f"URI={LAPTOP}", "HIGH", "device_id=laptop-1"])
def test_no_header_stands_for_a_device(name: str, value: str) -> None:
    assert not decided(headers={name: value}).allowed
    assert not decided(caller=peer(OTHER), headers={name: value}).allowed


def test_the_proxys_word_and_a_claim_without_binding_stand_for_no_device() -> None:
    assert not decided(caller=peer(trust=PeerTrust.PROXY)).allowed
    assert not decided(claims={"device_id": "laptop-1"}).allowed
    assert not decided(caller=peer(OTHER), claims={"device_id": "laptop-1"}).allowed
    assert not decided(
        caller=peer(OTHER, PeerTrust.PROXY), claims={"device_id": "laptop-1"}, binding=Binding.SPIFFE_ID
    ).allowed


@pytest.mark.parametrize(
    "claim",
    [
        ["laptop-1"],
        {"id": "laptop-1"},
        "LAPTOP-1",
        "laptop-1 ",
        "laptop-1\x00",
        "id:laptop-1",
        "certificate:" + LAPTOP,
        1,
        True,
        None,
    ],
)
def test_no_other_spelling_of_a_claim_names_the_device(claim: object) -> None:
    assert not decided(claims={"device_id": claim}, binding=Binding.DPOP).allowed


def test_a_good_certificate_with_the_token_of_another_device_is_refused() -> None:
    both = (record(), record("laptop-2", spiffe=OTHER))
    assert decided(caller=peer(), claims={"device_id": "laptop-1"}, binding=Binding.DPOP, records=both).allowed
    assert not decided(caller=peer(), claims={"device_id": "laptop-2"}, binding=Binding.DPOP, records=both).allowed


@pytest.mark.parametrize("step", [-3600.0, -NOW, 86400.0, 10 * 86400.0, 1e15, float("inf")])
def test_a_replayed_posture_and_a_stepped_clock_make_nothing_fresh(step: float) -> None:
    assert not decided(caller=peer(), now=NOW + step).allowed


@pytest.mark.parametrize(
    "records", [(record(), record()), (record(), record(disk="disabled")), (record("a"), record("b"))]
)
def test_a_device_that_is_listed_twice_is_not_the_better_one(records: tuple[dict[str, Any], ...]) -> None:
    assert not decided(caller=peer(), records=records).allowed


@pytest.mark.parametrize(
    "forwarded",
    [
        "193.99.144.80",
        "193.99.144.80, 8.8.8.8",
        "8.8.8.8,193.99.144.80 ,9.9.9.9",
        "193.99.144.80:80",
        "::ffff:8.8.8.8",
        "",
        "unknown",
    ],
)
def test_no_forwarded_address_of_the_client_moves_it_to_another_country(forwarded: str) -> None:
    """The last entry is what a trusted proxy wrote; with the default settings none is trusted but the direct peer's."""
    denied = decided("/country", source_ip="8.8.8.8", headers={"x-forwarded-for": f"{forwarded}, 9.9.9.9"})
    assert not denied.allowed
