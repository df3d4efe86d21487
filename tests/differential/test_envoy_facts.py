"""Rules on facts against a real Envoy that enforces the same in its own terms: networks as addresses, devices as principals.

A database gives fixed networks a country, a number or a flag, so a rule on the fact equals a rule on `remoteIpBlocks`; a
device that is identified by its SPIFFE ID equals `principals`. What is unknown is outside every network.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.differential.case import Connection, Peer, PolicySet, Request
from tests.differential.credentials import ca_pem
from tests.differential.envoy_runner import envoy_binary, running
from tests.support.mmdb import write_mmdb
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.facts.device_files import parse_inventory
from zta_authz.facts.networks import ListSource, NetworkDatabases, NetworkSources
from zta_authz.model.facts import FactViews
from zta_authz.model.options import Options, Workload
from zta_authz.pdp.decide import evaluate
from zta_authz.pdp.snapshot import SourceText, compile_snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from zta_authz.facts.device_table import DeviceTable
    from zta_authz.model.device_documents import InventorySource
    from zta_authz.model.facts import DeviceRecord

Json = dict[str, Any]
_COUNTRIES = {
    "DE": ("193.99.0.0/16", "2a02:100::/24"),
    "FR": ("80.10.0.0/15", "80.12.128.0/17"),
    "KP": ("175.45.176.0/22",),
}
_NUMBERS = {"64500": ("193.99.144.0/20", "80.10.0.0/16"), "64501": ("2a02:100::/32", "8.8.8.0/24")}
_ANONYMOUS = ("185.220.101.0/24", "193.99.200.0/24", "2a02:100:ff::/48")
_BAD = ("80.10.3.0/24", "9.9.9.9/32", "175.45.176.0/23")
_CORPORATE = ("80.11.0.0/16", "10.0.0.0/8", "2a02:100:1::/48")
_PRIVATE = (
    "10.0.0.0/8", "127.0.0.0/8", "192.168.0.0/16", "169.254.0.0/16", "203.0.113.0/24", "100.64.0.0/10", "fc00::/7", "fe80::/10",
)  # fmt: skip
_EVERYWHERE = ("0.0.0.0/0", "::/0")
_DEVICES = {"a": True, "b": False, "c": None, "d": True}
_PEERS = tuple(f"spiffe://cluster.local/ns/foo/sa/{name}" for name in (*_DEVICES, "stranger"))
_SETS = 40
_REQUESTS = 12


def _of(networks: dict[str, tuple[str, ...]], *names: str) -> list[str]:
    return [block for name in names for block in networks[name]]


def _but(blocks: list[str], *others: str) -> Json:
    return {"remoteIpBlocks": blocks, "notRemoteIpBlocks": list(others)}


def _network_rules(rng: random.Random) -> tuple[Json, Json]:
    """`require.network`, and the same as a source."""
    country, number = rng.choice(tuple(_COUNTRIES)), rng.choice(tuple(_NUMBERS))
    others = [name for name in _COUNTRIES if name != country]
    online = [*_PRIVATE, *_CORPORATE]
    return rng.choice(
        (
            ({"countries": [country]}, _but(_of(_COUNTRIES, country), *_CORPORATE)),
            ({"countries": others}, _but(_of(_COUNTRIES, *others), *_CORPORATE)),
            ({"notCountries": [country]}, _but(_of(_COUNTRIES, *others), *_CORPORATE)),
            ({"asns": [int(number)]}, _but(_of(_NUMBERS, number), *_CORPORATE)),
            ({"anonymous": True}, _but(list(_ANONYMOUS), *_CORPORATE)),
            ({"anonymous": False}, _but(list(_EVERYWHERE), *_ANONYMOUS, *online)),
            ({"corporate": True}, {"remoteIpBlocks": list(_CORPORATE)}),
            ({"corporate": False}, _but(list(_EVERYWHERE), *_CORPORATE)),
            ({"reputationAtLeast": 50}, _but(list(_EVERYWHERE), *_BAD, *online)),
            ({"reputationAtLeast": 10}, _but(list(_EVERYWHERE), *online)),
        )
    )


def _key_rules(rng: random.Random) -> tuple[Json, Json]:
    """A condition of a DENY on a key `zta.*`, and the addresses that a source of a DENY is not to have."""
    country, number = rng.choice(tuple(_COUNTRIES)), rng.choice(tuple(_NUMBERS))
    others = [name for name in _COUNTRIES if name != country]
    known = rng.choice(
        (
            ({"key": "zta.remote.country", "values": [country]}, _of(_COUNTRIES, *others)),
            ({"key": "zta.remote.country", "notValues": [country]}, _of(_COUNTRIES, country)),
            ({"key": "zta.remote.asn", "notValues": [number]}, _of(_NUMBERS, number)),
            ({"key": "zta.remote.corporate", "values": ["false"]}, list(_CORPORATE)),
            ({"key": "zta.remote.anonymous", "notValues": ["true"]}, list(_ANONYMOUS)),
        )
    )
    return known[0], {"notRemoteIpBlocks": known[1]}


def _device_rules(rng: random.Random) -> tuple[Json, Json]:
    wanted = rng.random() < 0.7
    names = [f"cluster.local/ns/foo/sa/{name}" for name, managed in _DEVICES.items() if managed is wanted]
    return {"managed": wanted}, {"principals": names}


def _policies(rng: random.Random) -> tuple[list[Json], list[Json]]:
    """The same rules on facts and in Istio's terms."""
    ours: list[Json] = []
    istio: list[Json] = []
    for number in range(rng.choice((1, 1, 2))):
        required: Json = {}
        source: Json = {}
        if rng.random() < 0.75:
            required["network"], part = _network_rules(rng)
            source |= part
        if not required or rng.random() < 0.3:
            required["device"], part = _device_rules(rng)
            source |= part
        ours.append(_document("AccessPolicy", f"p{number}", {"rules": [{"require": required}]}))
        istio.append(_document("AuthorizationPolicy", f"p{number}", {"rules": [{"from": [{"source": source}]}]}))
    if rng.random() < 0.4:
        condition, source = _key_rules(rng)
        ours.append(_document("AccessPolicy", "deny", {"action": "DENY", "rules": [{"when": [condition]}]}))
        spec = {"action": "DENY", "rules": [{"from": [{"source": source}]}]}
        istio.append(_document("AuthorizationPolicy", "deny", spec))
        if "corporate" not in condition["key"]:  # such an address has no other facts, so a DENY on them matches
            corporate = {"action": "DENY", "rules": [{"from": [{"source": {"remoteIpBlocks": list(_CORPORATE)}}]}]}
            istio.append(_document("AuthorizationPolicy", "deny-corporate", corporate))
    return ours, istio


def _document(kind: str, name: str, spec: Json) -> Json:
    version = "zta.dev/v1" if kind != "AuthorizationPolicy" else "security.istio.io/v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "foo"}, "spec": spec}


def _request(rng: random.Random) -> Request:
    """A request from an address in one of the networks, just outside of it, or anywhere."""
    blocks = [
        *_of(_COUNTRIES, *_COUNTRIES),
        *_of(_NUMBERS, *_NUMBERS),
        *_ANONYMOUS,
        *_BAD,
        *_CORPORATE,
        *_PRIVATE,
        "1.1.1.0/24",
    ]
    network = ip_network(rng.choice(blocks))
    first, last = int(network.network_address), int(network.broadcast_address)
    number = rng.choice((first, last, first - 1, last + 1, rng.randint(first, last)))
    address = type(network.network_address)(min(max(number, 1), 2**network.max_prefixlen - 1))
    forwarded = rng.choice((f"{address}", f"{address}", f"8.8.8.8, {address}", f"193.99.144.80,{address}"))
    peer = Peer(uris=(rng.choice(_PEERS),))
    connection = Connection(tls=True, peer=peer, port=47443)
    return Request(headers=(("host", "example.com"), ("x-forwarded-for", forwarded)), connection=connection)


class _Devices:
    """The devices of the test, by the SPIFFE ID of their certificate."""

    def __init__(self, table: DeviceTable) -> None:
        self._table = table

    def find(self, inventory: str, source: InventorySource, identifier: str) -> DeviceRecord | None:
        del inventory, source
        return self._table.devices.get(identifier)


_INVENTORY = _document(
    "DeviceInventory",
    "fleet",
    {
        "source": {"file": "devices.csv", "format": "csv"},
        "id": "id",
        "identify": {"certificate": "spiffeId", "certificateField": "spiffe"},
        "fields": {"managed": "managed"},
        "times": {"posture": "at"},
    },
)


def _networks(folder: Path, now: float) -> NetworkDatabases:
    countries = {block: {"country": {"iso_code": name}} for name, blocks in _COUNTRIES.items() for block in blocks}
    numbers = {block: {"autonomous_system_number": int(name)} for name, blocks in _NUMBERS.items() for block in blocks}
    anonymous = {block: {"is_anonymous": True} for block in _ANONYMOUS}
    (folder / "bad.txt").write_text("\n".join(_BAD))
    return NetworkDatabases(
        NetworkSources(
            str(write_mmdb(folder / "country.mmdb", countries, built_at=now)),
            str(write_mmdb(folder / "asn.mmdb", numbers, built_at=now)),
            str(write_mmdb(folder / "anonymous.mmdb", anonymous, built_at=now)),
            (ListSource(str(folder / "bad.txt"), 10, 1e9),),
            tuple(ip_network(block) for block in _CORPORATE),
        )
    )


async def test_a_rule_on_facts_decides_as_envoy_does_on_the_same_addresses_and_principals(tmp_path: Path) -> None:
    binary = envoy_binary()
    if binary is None:
        pytest.skip("no Envoy: `make setup` installs one, or ZTA_ENVOY names one")
    now = time.time()
    drawn = [_policies(random.Random(f"facts {number}")) for number in range(_SETS)]
    requests = [[_request(random.Random(f"facts {n} {m}")) for m in range(_REQUESTS)] for n in range(_SETS)]
    bundle = _document("TrustBundle", "mesh", {"trustDomain": "cluster.local", "x509Authorities": ca_pem()})
    bundle["metadata"]["namespace"] = "istio-system"
    options = replace(Options(), workload=Workload("foo", {"app": "web", "version": "v1"}))
    networks, seen = _networks(tmp_path, now), {True: 0, False: 0}
    rows = [
        f"{name},{_PEERS[at]},{'' if managed is None else managed},{now}"
        for at, (name, managed) in enumerate(_DEVICES.items())
    ]
    async with running(binary, [PolicySet(tuple(istio), name=str(n)) for n, (_, istio) in enumerate(drawn)]) as envoy:
        for number, (ours, istio) in enumerate(drawn):
            text = yaml.safe_dump_all([*ours, _INVENTORY, bundle])
            compiled = compile_snapshot([SourceText("facts.yaml", text)], options)
            content = "\n".join(("id,spiffe,managed,at", *rows)).encode()
            table = parse_inventory("devices.csv", content, compiled.models.inventories[0].source)
            views = FactViews(networks, _Devices(table))
            for request, outcome in zip(requests[number], await envoy.ask(number, requests[number]), strict=True):
                assert outcome.check is not None
                asked, evidence, *more = parse_check_request(outcome.check)
                decision = evaluate(compiled, asked, evidence, now, *more, views=views)
                assert decision.allowed is outcome.allowed, f"{outcome.status}\n{decision}\n{request}\n{ours}\n{istio}"
                seen[decision.allowed] += 1
    assert min(seen.values()) > _SETS * _REQUESTS // 8, seen


def test_addresses_of_this_test_are_on_the_internet_or_known_not_to_be() -> None:
    for block in (*_of(_COUNTRIES, *_COUNTRIES), *_of(_NUMBERS, *_NUMBERS), *_ANONYMOUS, *_BAD):
        assert ip_address(ip_network(block).network_address).is_global
