"""Inventory files: every format, and what becomes of records and files that are malformed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.devices import LAPTOP, NOW, inventory, record, table
from zta_authz.errors import SettingsErrors
from zta_authz.facts import device_files as module, device_formats
from zta_authz.facts.device_files import parse_inventory

if TYPE_CHECKING:
    from zta_authz.facts.device_table import DeviceTable

IDENTIFY = "  identify: {tokenClaim: device_id}\n"


def parsed(content: str | bytes, spec: str) -> DeviceTable:
    data = content if isinstance(content, bytes) else content.encode()
    return parse_inventory("f", data, inventory(spec + IDENTIFY).source)


def fields(found: DeviceTable, spec: str, device_id: str) -> dict[str, Any]:
    names = [name for name, _ in inventory(spec + IDENTIFY).source.fields]
    return dict(zip(names, found.devices["id:" + device_id].values, strict=True))


def test_a_json_line_is_a_device() -> None:
    found = table(record(), b"", record("laptop-2", spiffe=""))
    assert (found.size, found.skipped) == (2, 0)
    device = found.devices["id:laptop-1"]
    assert device == found.devices["certificate:" + LAPTOP]
    assert device.values == (True, True, True, "macOS", "26.1")
    assert (device.posture_at, device.seen_at, device.conflicting) == (NOW - 60, NOW - 10, False)


def test_csv_has_a_header_row() -> None:
    spec = (
        "  source: {file: d.csv, format: csv}\n  id: Serial.No\n  fields: {managed: Managed}\n  times: {posture: At}\n"
    )
    found = parsed('\ufeffSerial.No,Managed,At\n"a, b",yes,2026-11-30T10:00:00Z\nc,no,x\n', spec)
    assert fields(found, spec, "a, b") == {"managed": True}
    assert found.devices["id:a, b"].posture_at == 1796032800.0
    assert (fields(found, spec, "c"), found.devices["id:c"].posture_at) == ({"managed": False}, None)


def test_fleets_hosts_need_no_paths() -> None:
    spec = "  source: {file: hosts.json, format: fleet}\n"
    host = {
        "uuid": "U-1", "platform": "darwin", "os_version": "macOS 26.1", "disk_encryption_enabled": True,
        "mdm": {"enrollment_status": "On (automatic)"}, "detail_updated_at": "2026-11-30T10:00:00Z",
        "seen_time": "2026-11-30T11:00:00Z",
    }  # fmt: skip
    found = parsed(json.dumps({"hosts": [host]}), spec)
    assert fields(found, spec, "U-1") == {"encrypted": True, "managed": True, "os": "darwin", "osVersion": "macOS 26.1"}
    assert found.devices["id:U-1"].seen_at == 1796036400.0


def test_of_osquerys_log_the_newest_record_of_a_host_counts() -> None:
    spec = "  source: {file: results.log, format: osquery}\n  fields: {encrypted: columns.encrypted}\n"
    lines = [
        {"hostIdentifier": "h", "unixTime": time, "columns": {"encrypted": value}}
        for time, value in ((NOW - 60, "1"), (NOW - 30, "0"), (NOW - 90, "1"))
    ]
    found = parsed("\n".join(map(json.dumps, lines)), spec)
    assert fields(found, spec, "h") == {"encrypted": False}
    assert not found.devices["id:h"].conflicting


def test_a_json_array_of_objects() -> None:
    spec = "  source: {file: d.json, format: json}\n  id: a.b\n  fields: {managed: m}\n"
    assert fields(parsed(json.dumps([{"a": {"b": "x"}, "m": 1}]), spec), spec, "x") == {"managed": True}


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (True, True), ("On", True), (1, True), ("0", False), ("noncompliant", False), ("inGracePeriod", None),
        ("", None), (None, None), (2, 2), (2**70, None), (1.5, None), ([], None), ({"a": 1}, None), ("macOS 26", "macOS 26"),
        ("x" * 1000, "x" * 256),
    ],
)  # fmt: skip
def test_values_are_booleans_numbers_or_short_texts(value: object, read: object) -> None:
    spec = "  source: {file: d.json, format: json}\n  id: id\n  fields: {state: s}\n"
    found = fields(parsed(json.dumps([{"id": "x", "s": value}]), spec), spec, "x")["state"]
    assert found == read
    assert type(found) is type(read)


def test_a_device_in_its_grace_period_may_count_as_compliant() -> None:
    spec = "  source: {file: d.json, format: json}\n  id: id\n  fields: {compliant: s}\n  graceAs: compliant\n"
    assert fields(parsed('[{"id": "x", "s": "inGracePeriod"}]', spec), spec, "x") == {"compliant": True}


@pytest.mark.parametrize("time", ["yesterday", "2026-11-30T10:00:00", -5, 0, 1e300, True, None, [], "9" * 39])
def test_what_is_no_time_is_none(time: object) -> None:
    assert table(record(checked=time)).devices["id:laptop-1"].posture_at is None


def test_two_records_of_one_device_are_conflicting_not_the_last_one() -> None:
    found = table(record(), record(disk="disabled"))
    assert found.devices["id:laptop-1"].conflicting
    assert found.size == 1


def test_two_devices_with_one_certificate_are_both_conflicting() -> None:
    found = table(record("a"), record("b"))
    assert found.devices["id:a"].conflicting
    assert found.devices["id:b"].conflicting


def test_a_fingerprint_is_found_in_any_spelling() -> None:
    digest = "AB" * 32
    found = table(record(spiffe=":".join(["AB"] * 32)))
    assert "certificate:" + digest.lower() in found.devices


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"5", b'"x"', b'{"id": NaN}', b"\xff\xfe", b'{"id": 5.5}', b'{"id": "a\\u0000"}', b'{"id": "a", "id": "a"}', b'{"id": true}', b'{"id": ""}', b"{}", b"[" * 100_000, b'{"id": "\\ud800"}']
)  # fmt: skip
def test_a_few_malformed_records_are_left_out_and_many_refuse_the_file(line: bytes) -> None:
    good = [record(f"d{number}", spiffe="") for number in range(200)]
    found = table(*good, line)
    assert (found.size, found.skipped) == (200, 1)
    with pytest.raises(SettingsErrors, match=r"devices\.jsonl:2:1: .*; correct or remove the record"):
        table(record(), line)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("json", b"{", "is not a list of objects"), ("json", b"[{", "is not JSON"), ("json", b"{}", "is not a list of objects"), ("json", b"[1]", "a record is not an object"),
        ("fleet", b"[]", "is not an object with the list `hosts`"), ("fleet", b'{"hosts": 5}', "is not an object with"),
        ("csv", b"", "the header row is empty"), ("csv", b"a,a\n", "names a column twice"), ("csv", b"\xff", "is not UTF-8"),
        ("csv", b'a\n"x', "is not CSV"), ("csv", b"a\nx,y\n", "another number of columns"), ("csv", b"a\n" + b"x" * 200_000, "is not CSV"),
        ("json", b"[" * 200_000, "is nested too deeply"),
    ],
)  # fmt: skip
def test_a_file_of_another_shape_is_refused(kind: str, content: bytes, message: str) -> None:
    with pytest.raises(SettingsErrors, match=message):
        parsed(content, f"  source: {{file: d, format: {kind}}}\n  id: a\n")


def test_devices_and_faults_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsErrors) as caught:
        table(*[b"x"] * 500)
    assert len(caught.value.faults) == module.MAX_FAULTS
    monkeypatch.setattr(module, "MAX_DEVICES", 3)
    with pytest.raises(SettingsErrors, match="has more than 3 devices"):
        table(*(record(f"d{number}") for number in range(4)))
    monkeypatch.setattr(module, "MAX_RECORDS", 4)
    with pytest.raises(SettingsErrors, match="has more than 4 records"):
        table(*[record("d")] * 6)
    monkeypatch.setattr(device_formats, "MAX_LINE", 10)
    with pytest.raises(SettingsErrors, match="the line has more than 10 bytes"):
        table(record())


OSQUERY = "  source: {file: results.log, format: osquery}\n  fields: {encrypted: columns.encrypted, firewall: columns.firewall}\n"


def result(age: float, action: str = "added", **columns: str) -> dict[str, Any]:
    return {"hostIdentifier": "h", "unixTime": str(int(NOW - age)), "action": action, "columns": columns}


def osquery(*results: dict[str, Any]) -> tuple[dict[str, Any], float | None, bool]:
    found = parsed("\n".join(map(json.dumps, results)), OSQUERY)
    device = found.devices["id:h"]
    return fields(found, OSQUERY, "h"), device.posture_at, device.conflicting


def test_results_of_several_queries_make_one_device_as_old_as_the_oldest() -> None:
    found = osquery(result(60, encrypted="1"), result(30, firewall="0"), result(90, encrypted="0"))
    assert found == ({"encrypted": True, "firewall": False}, NOW - 60, False)


@pytest.mark.parametrize("turn", [1, -1])
def test_a_removed_row_of_a_differential_log_is_not_a_state(turn: int) -> None:
    rows = (result(60, "removed", encrypted="1"), result(60, "added", encrypted="0"))
    assert osquery(*rows[::turn])[0] == {"encrypted": False, "firewall": None}
    assert osquery(result(90, encrypted="1"), result(60, "removed", encrypted="1"))[0]["encrypted"] is None


def test_rows_of_one_time_that_disagree_are_conflicting() -> None:
    assert osquery(result(60, encrypted="1"), result(60, encrypted="0"))[2]
    assert not osquery(result(60, encrypted="1"), result(60, encrypted="0"), result(30, encrypted="1"))[2]


def test_snapshots_and_batches_of_osquery_are_read_row_by_row() -> None:
    head = {"hostIdentifier": "h", "unixTime": int(NOW - 60)}
    snapshot = {**head, "action": "snapshot", "snapshot": [{"encrypted": "1"}]}
    batch = {**head, "diffResults": {"added": [{"firewall": "1"}], "removed": [{"firewall": "0"}]}}
    assert osquery(snapshot, batch) == ({"encrypted": True, "firewall": True}, NOW - 60, False)


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("managed", "Pending", None), ("managed", 7, None), ("managed", 1, True), ("managed", "off", False),
        ("osVersion", "1", "1"), ("osVersion", 14, "14"), ("osVersion", True, None), ("os", "on", "on"),
        ("owner", "ann\x00", None), ("owner", "\ud800", None), ("owner", "yes", True), ("owner", 10**400, None),
    ],
)  # fmt: skip
def test_a_field_that_is_a_boolean_is_never_a_text_nor_the_other_way_round(
    field: str, value: object, read: object
) -> None:
    spec = f"  source: {{file: d, format: json}}\n  id: id\n  fields: {{{field}: s}}\n"
    assert fields(parsed(json.dumps([{"id": "x", "s": value}]), spec), spec, "x")[field] == read


def test_a_key_that_is_written_twice_has_no_value() -> None:
    line = json.dumps(record()).replace('"enrolled": true', '"enrolled": false, "enrolled": true').encode()
    names = [name for name, _ in inventory().source.fields]
    assert dict(zip(names, table(line).devices["id:laptop-1"].values, strict=True))["managed"] is None


def test_a_second_record_with_another_certificate_is_no_way_round_the_conflict() -> None:
    found = table(record(), record(spiffe=LAPTOP + "-b", disk="disabled"))
    assert found.devices["certificate:" + LAPTOP + "-b"].conflicting
    assert found.devices["certificate:" + LAPTOP].conflicting


def test_a_list_is_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [{"uuid": f"\u00e9-{number}", "platform": "\U0001f600", "n": number} for number in range(12)]
    content = json.dumps({"software": {"id": 1}, "hosts": hosts, "x": 12}, indent=1, ensure_ascii=False).encode()
    for window in (7, 64, 4096):
        monkeypatch.setattr(device_formats, "_WINDOW", window)
        assert parsed(content, "  source: {file: d, format: fleet}\n").size == 12
        for cut in range(0, len(content), 397):
            with pytest.raises(SettingsErrors, match=r"f:\d+"):
                parsed(content[:cut], "  source: {file: d, format: fleet}\n")


@pytest.mark.parametrize(
    "content",
    [
        b'{"hosts": [], "hosts": []}', b'{"hosts": []} x', b"{}", b'{"x": 1}', b'{"hosts": [],}', b'{"hosts": [{}{}]}', b'{5: 1}', b"\xff",
        b'{"hosts": [' + b"[" * 100_000, b'{"hosts": [' + b"9" * 5000 + b"]}", b'{"hosts": ["' + b"x" * 5_000_000 + b'"]}',
    ],
)  # fmt: skip
def test_what_is_no_list_of_hosts_is_refused(content: bytes) -> None:
    with pytest.raises(SettingsErrors):
        parsed(content, "  source: {file: d, format: fleet}\n")
