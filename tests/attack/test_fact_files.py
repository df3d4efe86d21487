"""Data of facts that are old, forged, emptied or built to cost: what an attacker near the files, or the clock, can do."""

from __future__ import annotations

import contextlib
import json
import os
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.devices import LAPTOP, NOW, SPEC, inventory, record, table
from tests.support.mmdb import write_mmdb
from tests.support.policies import faults
from zta_authz.errors import SettingsErrors
from zta_authz.facts import device_files
from zta_authz.facts.address_lists import parse_address_list
from zta_authz.facts.device_files import parse_inventory
from zta_authz.facts.devices import DeviceRefresher, DeviceTables
from zta_authz.facts.networks import ListSource, NetworkDatabases, NetworkSources
from zta_authz.facts.refresher import NetworkRefresher
from zta_authz.model.facts import FactSlot, Unknown
from zta_authz.model.identity import Identity, Peer, PeerTrust
from zta_authz.model.options import Options
from zta_authz.model.request import RequestAttributes
from zta_authz.model.spiffe import SpiffeId
from zta_authz.policy.rules.device_identity import CLOCK_SKEW, InventoryDevices
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zta_authz.facts.device_table import DeviceTable
    from zta_authz.model.facts import Fact

ADDRESS = ip_address("193.99.144.80")
DAY = 86400.0
SECONDS = 10.0
"""The most that any of the costly files may take, on a machine that does much else."""


def managed(held: DeviceTable, now: float = NOW) -> Fact:
    """What is known about whether the laptop with its own certificate is managed."""
    name = SpiffeId.parse(LAPTOP)
    inputs = Inputs(
        RequestAttributes(), Identity(Peer((LAPTOP,), name, PeerTrust.CERTIFICATE, bytes(32))), Options(), now
    )
    tables = DeviceTables({"default/fleet": (inventory().source, held)})
    return InventoryDevices(inventory()).identify(inputs, tables).field("managed")


OLD = {"mdm": {"enrolled": True}, "checked": NOW - 20 * 3600, "seen": NOW - 20 * 3600}
NEW = {"mdm": {"enrolled": False}, "checked": NOW - 60, "seen": NOW - 60}


@pytest.mark.parametrize("records", [(NEW, OLD), (OLD, NEW), (NEW, NEW, OLD), (OLD, OLD)])
def test_an_older_copy_of_a_record_never_counts_beside_a_newer_one(records: tuple[dict[str, Any], ...]) -> None:
    """Nobody knows which of two copies a writer of the file put there."""
    assert managed(table(record(**NEW))).value is False
    assert managed(table(record(**OLD))).value is True
    fact = managed(table(*(record(**each) for each in records)))
    assert (fact.value, fact.unknown) == (None, Unknown.CONFLICTING)


@pytest.mark.parametrize("order", [1, -1])
def test_in_osquerys_log_the_older_result_never_counts_wherever_it_is(order: int) -> None:
    spec = SPEC.replace("devices.jsonl", "devices.log, format: osquery")
    spec = spec.replace("fields: {managed: mdm.enrolled", "fields: {managed: columns.enrolled")
    source = inventory(spec).source
    rows = [
        {
            "id": "laptop-1",
            "spiffe": LAPTOP,
            "columns": {"enrolled": enrolled},
            "checked": at,
            "seen": at,
            "action": "added",
        }
        for enrolled, at in (("1", NOW - 7200), ("0", NOW - 60))
    ][::order]
    held = parse_inventory("devices.log", b"\n".join(json.dumps(row).encode() for row in rows), source)
    device = held.devices["id:laptop-1"]
    assert device.values[[name for name, _ in source.fields].index("managed")] is False


@pytest.mark.parametrize("ahead", [CLOCK_SKEW + 1, 3600.0, 30 * DAY, 400 * 365 * DAY])
@pytest.mark.parametrize("times", [("checked",), ("seen",), ("checked", "seen")])
def test_a_report_from_the_future_is_not_fresh_before_its_time_nor_for_longer(
    ahead: float, times: tuple[str, ...]
) -> None:
    held = table(record(**dict.fromkeys(times, NOW + ahead)))
    fact = managed(held)
    assert (fact.value, fact.unknown) == (None, Unknown.CONFLICTING)
    for later in (25 * 3600.0, 8 * DAY):
        if "checked" not in times or later > DAY:
            assert managed(held, NOW + ahead + later).value is None


@pytest.mark.parametrize(
    "at",
    [
        1e300,
        -1.0,
        0,
        NOW * 1000,
        NOW * 1e9,
        "9999-12-31T23:59:59Z",
        "2027-01-15",
        "now",
        True,
        [NOW],
        {"at": NOW},
        "NaN",
    ],
)
def test_no_other_writing_of_a_time_makes_a_report_fresh(at: Any) -> None:
    assert managed(table(record(checked=at))).value is None


def test_a_clock_that_steps_back_and_forth_makes_no_old_report_fresh_again() -> None:
    """Facts are kept by what they depend on: each step is judged anew."""
    held = table(record())
    seen = [managed(held, NOW + step).value for step in (0.0, 3 * DAY, 0.0, -3600.0, -3 * DAY, 0.0, 3 * DAY)]
    assert seen == [True, None, True, None, None, True, None]


def sources(folder: Path, **more: Any) -> NetworkSources:
    path = write_mmdb(folder / "country.mmdb", {"193.99.0.0/16": {"country": "DE"}}, built_at=NOW)
    bad = folder / "bad.txt"
    bad.write_text("203.0.113.0/24\n")
    os.utime(bad, (NOW, NOW))
    return NetworkSources(str(path), reputation=(ListSource(str(bad), 10, 7 * DAY),), max_age=30 * DAY, **more)


@pytest.mark.parametrize(
    ("now", "country", "reputation"),
    [
        (NOW, "DE", 100),
        (NOW - DAY + 60, "DE", 100),
        (NOW - 2 * DAY, None, None),
        (NOW + 8 * DAY, "DE", None),
        (NOW + 31 * DAY, None, None),
        (0.0, None, None),
        (1e15, None, None),
        (float("inf"), None, None),
    ],
)
def test_the_clock_decides_whether_network_data_count_however_it_stepped(
    tmp_path: Path, now: float, country: str | None, reputation: int | None
) -> None:
    databases = NetworkDatabases(sources(tmp_path))
    for before in (NOW, NOW + 40 * DAY, now):  # what was looked up at another time is no answer now
        databases.look_up(ADDRESS, before)
    facts = databases.look_up(ADDRESS, now)
    assert (facts.country.value, facts.reputation.value) == (country, reputation)


async def test_a_list_restored_from_a_backup_is_as_old_as_its_file(tmp_path: Path) -> None:
    given = sources(tmp_path)
    slot = FactSlot()
    refresher = NetworkRefresher(given, slot, lambda _: None)
    refresher.load()
    assert slot.views.networks is not None
    assert slot.views.networks.look_up(ADDRESS, NOW).reputation.value == 100
    backup = tmp_path / "backup"
    backup.write_text("198.51.100.0/24\n")
    os.utime(backup, (NOW - 30 * DAY, NOW - 30 * DAY))
    os.replace(backup, tmp_path / "bad.txt")
    await refresher.refresh()
    fact = slot.views.networks.look_up(ADDRESS, NOW).reputation
    assert (fact.value, fact.unknown) == (None, Unknown.STALE)


async def test_an_inventory_restored_from_a_backup_is_as_old_as_its_reports(tmp_path: Path) -> None:
    """The file is new, but what counts is when a device reported: that is in the record."""
    file = tmp_path / "devices.jsonl"
    file.write_text(json.dumps(record(**NEW)))
    slot = FactSlot()
    devices = DeviceRefresher(str(tmp_path), slot, lambda _: None)
    devices.load([inventory()])
    file.write_text(json.dumps(record(checked=NOW - 2 * DAY, seen=NOW - 60)))
    await devices.refresh()
    assert isinstance(slot.views.devices, DeviceTables)
    fact = managed(slot.views.devices.tables["default/fleet"][1])
    assert (fact.value, fact.unknown) == (None, Unknown.STALE)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"   ", b"\xef\xbb\xbf"])
async def test_an_inventory_that_shrinks_to_nothing_knows_no_device(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "devices.jsonl"
    file.write_text(json.dumps(record()))
    slot = FactSlot()
    devices = DeviceRefresher(str(tmp_path), slot, lambda _: None)
    devices.load([inventory()])
    file.write_bytes(content)
    await devices.refresh()
    assert isinstance(slot.views.devices, DeviceTables)
    held = slot.views.devices.tables["default/fleet"][1]
    assert (held.size, managed(held).value) == (0, None)


@pytest.mark.parametrize(
    "code",
    [
        "de",
        "D",
        "DEU",
        "DE ",
        " DE",
        "DE\n",
        "D\u0415",
        "\uff24\uff25",
        "DE\x00",
        "",
        49,
        True,
        None,
        ["DE"],
        {"DE": 1},
        "[A-Z]{2}",
        "*",
    ],
)
def test_no_other_writing_of_a_country_in_a_database_is_that_country(tmp_path: Path, code: Any) -> None:
    record_of = {} if code is None else {"country": {"iso_code": code}}
    path = write_mmdb(tmp_path / "country.mmdb", {"193.99.0.0/16": record_of or {"city": "x"}})
    fact = NetworkDatabases(NetworkSources(str(path))).look_up(ADDRESS, time.time()).country
    assert (fact.value, fact.state) == (None, "absent")


@pytest.mark.parametrize("code", ["DEU", "de", "*", "D*", "", "XX\\n", "1", "[A-Z]{2}"])
@pytest.mark.parametrize("field", ["countries", "notCountries"])
def test_a_rule_names_countries_only_by_their_codes(code: str, field: str) -> None:
    text = f"""apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: p, namespace: default}}
spec: {{rules: [{{require: {{network: {{{field}: ["{code}"]}}}}}}]}}
"""
    assert faults(text)


def deep(depth: int) -> bytes:
    return b'{"id": "x", "mdm": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


@contextlib.contextmanager
def bounded_faults() -> Iterator[None]:
    """A file may be refused, with few and short faults."""
    try:
        yield
    except SettingsErrors as refused:
        texts = [str(fault) for fault in refused.faults]
        if len(texts) > device_files.MAX_FAULTS or max(map(len, texts)) > 1000:
            raise AssertionError(texts) from refused


COSTLY = {
    "deep": b"\n".join([deep(100_000)] * 9),
    "a long line": b'{"id": "' + b"x" * (8 << 20) + b'"}',
    "many keys": json.dumps({"id": "x"} | {f"k{number}": 1 for number in range(60_000)}).encode(),
    "one long number": b'{"id": "x", "checked": ' + b"9" * 900_000 + b"}",
    "many malformed lines": b"{\n" * 50_000,
    "blank lines": b"\n" * 4_000_000,
    "one long text": json.dumps({"id": "x", "os": {"version": "1." * 400_000}}).encode(),
    "escapes": b'{"id": "' + b"\\ud800" * 100_000 + b'"}',
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_inventory_is_refused_or_read_in_bounded_time(name: str) -> None:
    started = time.process_time()
    with bounded_faults():
        assert managed(parse_inventory("devices.jsonl", COSTLY[name], inventory().source)).value is None
    assert time.process_time() - started < SECONDS


COSTLY_LISTS = {
    "long lines": (b"1" * 10_000_000 + b"\n") * 3,
    "malformed": b"x\n" * 3_000_000,
    "comments": b"# nothing\n" * 500_000 + b"203.0.113.7",
    "everything": b"0.0.0.0/0\n::/0\n" * 20_000,
    "zone": b"fe80::1%" + b"a" * 400 + b"\n203.0.113.7",
    "zeros": b"203.0.113.7/" + b"0" * 400,
    "digits of other scripts": "٢٠٣.0.113.7\n".encode(),
}


@pytest.mark.parametrize("name", COSTLY_LISTS)
def test_a_costly_list_is_refused_or_read_in_bounded_time(name: str) -> None:
    started = time.process_time()
    with bounded_faults():
        assert ip_address("203.0.113.7") in parse_address_list("bad.txt", COSTLY_LISTS[name])
    assert time.process_time() - started < SECONDS
