"""Any inventory file in any format gives devices whose facts are typed and bounded, or faults that say what is wrong.

The first byte chooses the format. A device is found by its own id; facts that rules read as booleans are never texts; one
record more never makes a device that was conflicting known again, except in osquery's log, where the newest counts.
"""

from __future__ import annotations

import functools
import json
import math
from typing import TYPE_CHECKING

from tests.fuzz.target import Target, assert_telling, split_mode
from tests.support.policies import snapshot
from zta_authz.errors import SettingsErrors
from zta_authz.facts.device_files import BOOLEANS, MAX_TEXT, TEXTS, parse_inventory
from zta_authz.model.device_documents import InventoryFormat, InventorySource
from zta_authz.policy.rules.device_identity import BY_ID

if TYPE_CHECKING:
    from zta_authz.facts.device_table import DeviceTable

INVARIANT = "any file gives typed and bounded facts, or faults that say what is wrong, and a conflict stays one"
_FORMATS = tuple(InventoryFormat)
_ID = {InventoryFormat.FLEET: "uuid", InventoryFormat.OSQUERY: "hostIdentifier"}


@functools.cache
def _source(kind: InventoryFormat) -> InventorySource:
    prefix = "columns." if kind is InventoryFormat.OSQUERY else ""
    spec = (
        "apiVersion: zta.dev/v1\nkind: DeviceInventory\nmetadata: {name: d, namespace: default}\nspec:\n"
        f"  source: {{file: d, format: {kind}}}\n  id: {_ID.get(kind, 'id')}\n"
        "  identify: {certificate: spiffeId, certificateField: spiffe}\n"
        f"  fields: {{managed: {prefix}managed, os: {prefix}os, owner: {prefix}owner}}\n"
        "  times: {posture: at, seen: at}\n  graceAs: compliant\n"
    )
    return snapshot(spec).models.inventories[0].source


def check(data: bytes) -> None:
    """Read the file as it is, and, where records are lines, with every line twice."""
    mode, content = split_mode(data, len(_FORMATS))
    kind = _FORMATS[mode]
    table = _read(content, kind)
    if table is None:
        return
    _assert_sound(table, _source(kind))
    if kind is InventoryFormat.JSONL:
        twice = _read(content + b"\n" + content, kind)
        assert twice is not None
        assert all(device.conflicting for device in twice.devices.values()), "a device that is listed twice is known"
        assert twice.devices.keys() == table.devices.keys()


def _read(content: bytes, kind: InventoryFormat) -> DeviceTable | None:
    try:
        return parse_inventory("devices", content, _source(kind))
    except SettingsErrors as error:
        assert_telling(error.faults)
        return None


def _assert_sound(table: DeviceTable, source: InventorySource) -> None:
    for device in table.devices.values():
        assert table.devices[BY_ID + device.device_id] == device
        assert device.device_id.isprintable()
        assert len(device.device_id) <= MAX_TEXT
        for at in (device.posture_at, device.seen_at):
            assert at is None or math.isfinite(at)
        for (name, _), value in zip(source.fields, device.values, strict=True):
            assert value is None or isinstance(value, bool) or name not in BOOLEANS
            assert value is None or isinstance(value, str) or name not in TEXTS
            assert not isinstance(value, str) or (len(value) <= MAX_TEXT and value.isprintable())


def seeds() -> dict[str, bytes]:
    """A sound file of each format, and known traps."""
    record = {"id": "a", "spiffe": "spiffe://d/a", "managed": True, "os": "macOS", "owner": "ann", "at": 1_800_000_000}
    host = {
        "uuid": "a",
        "platform": "darwin",
        "mdm": {"enrollment_status": "On (manual)"},
        "seen_time": "2026-11-30T10:00:00Z",
    }
    result = {"hostIdentifier": "a", "unixTime": "1800000000", "at": 5, "action": "added", "columns": {"managed": "1"}}
    shot = {**result, "action": "snapshot", "snapshot": [{"managed": "1"}, {"managed": "0"}]}
    batch = {**result, "diffResults": {"added": [{"os": "x"}], "removed": [{"managed": "1"}]}}
    files = {
        "jsonl": [json.dumps(record), json.dumps({**record, "id": "b"})],
        "json": [json.dumps([record])],
        "csv": ["id,spiffe,managed,os,owner,at", 'a,,yes,"mac, OS",x,2026-11-30T10:00:00+01:00'],
        "fleet": [json.dumps({"software": None, "hosts": [host], "x": 1})],
        "osquery": [
            json.dumps(result),
            json.dumps({**result, "action": "removed"}),
            json.dumps(shot),
            json.dumps(batch),
        ],
    }
    sound = {name: _file(name, "\n".join(lines).encode()) for name, lines in files.items()}
    return sound | {
        "twice": _file("jsonl", b'{"id": "a", "managed": false, "managed": true}'),
        "nan": _file("jsonl", b'{"id": "a", "at": NaN}'),
        "huge-time": _file("jsonl", b'{"id": "a", "at": 1' + b"0" * 400 + b"}"),
        "float": _file("jsonl", b'{"id": "a", "at": 1e400, "owner": 1e400}'),
        "nul": _file("csv", b"id,managed\na\x00,1\n"),
        "surrogate": _file("jsonl", b'{"id": "\\ud800"}'),
        "deep": _file("json", b"[" * 3000),
        "cut": _file("fleet", b'{"hosts": [{"uuid": "a"}'),
        "quote": _file("csv", b'id\n"a'),
        "empty": _file("jsonl", b""),
        "lists": _file("json", b"[[],[],[]]"),
    }


def _file(kind: str, content: bytes) -> bytes:
    return bytes([_FORMATS.index(InventoryFormat(kind))]) + content


WORDS = (
    b'"id"', b'"uuid"', b'"hosts"', b'"hostIdentifier"', b'"snapshot"', b'"diffResults"', b'"removed"', b'"columns"', b'"managed"', b'"at"',
    b'"spiffe"', b'"inGracePeriod"', b"true", b"null", b"NaN", b"1e400", b"9" * 400, b"{}", b"[]", b"\n", b",", b'"', b"\\ud800", b"\x00",
    b"2026-11-30T10:00:00Z", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59", b"\xef\xbb\xbf", b"\r\n",
)  # fmt: skip

TARGET = Target("inventories", INVARIANT, check, seeds, WORDS)
