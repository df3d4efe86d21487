"""Inventory files to tables of devices. Pure, and bounded in size and cost."""

from __future__ import annotations

import csv
import io
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.model.device_documents import GraceAs, InventoryFormat
from zta_authz.policy.rules.device_identity import BY_CERTIFICATE, BY_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zta_authz.model.device_documents import InventorySource, Path
    from zta_authz.model.facts import FactValue

MAX_INVENTORY_BYTES: Final = 1024 * 1024 * 1024
MAX_DEVICES: Final = 500_000
MAX_LINE: Final = 1024 * 1024
MAX_TEXT: Final = 256
MAX_FAULTS: Final = 20
TOLERATED_SHARE: Final = 100
"""One malformed record in so many is left out; with more of them, the file is refused."""

_TRUE: Final = frozenset(("true", "1", "yes", "on", "enabled", "compliant", "on (automatic)", "on (manual)"))
_FALSE: Final = frozenset(("false", "0", "no", "off", "disabled", "noncompliant", "not_compliant"))
_GRACE: Final = "ingraceperiod"


class Device:
    """One device. `values` are in the order of the inventory's fields, None for unknown; times are epoch seconds."""

    __slots__ = ("conflicting", "device_id", "posture_at", "seen_at", "values")

    def __init__(
        self, device_id: str, values: tuple[FactValue | None, ...], posture_at: float | None, seen_at: float | None
    ) -> None:
        self.device_id = device_id
        self.values = values
        self.posture_at = posture_at
        self.seen_at = seen_at
        self.conflicting = False


class DeviceTable:
    """The devices of one file by identifier. `skipped` counts malformed records that were left out."""

    __slots__ = ("devices", "size", "skipped")

    def __init__(self, devices: dict[str, Device], size: int, skipped: int) -> None:
        self.devices = devices
        self.size = size
        self.skipped = skipped


def parse_inventory(path: str, content: bytes, source: InventorySource) -> DeviceTable:
    """The devices in `content`. Raises `SettingsErrors` if the file, or more than a small share of it, is malformed.

    Two records with one id make a device whose facts are conflicting, except in osquery's log, where the newest counts.
    """
    builder = _TableBuilder(source)
    faults: list[Fault] = []
    total = bad = 0
    for line, record in _READERS[source.format](path, content):
        total += 1
        problem = record if isinstance(record, str) else builder.add(record)
        if problem:
            bad += 1
            if len(faults) < MAX_FAULTS:
                faults.append(Fault(path, line, 1 if line else 0, problem, "correct or remove the record"))
        if len(builder.by_id) > MAX_DEVICES:
            raise SettingsErrors([Fault(path, 0, 0, f"has more than {MAX_DEVICES} devices", "split the inventory")])
    if bad * TOLERATED_SHARE > total:
        raise SettingsErrors(faults)
    return DeviceTable(builder.devices, len(builder.by_id), bad)


class _TableBuilder:
    """Collects devices; equal tuples of values are kept once."""

    def __init__(self, source: InventorySource) -> None:
        self._source = source
        self._newest = source.format is InventoryFormat.OSQUERY
        self._interned: dict[tuple[FactValue | None, ...], tuple[FactValue | None, ...]] = {}
        self.devices: dict[str, Device] = {}
        self.by_id: dict[str, Device] = {}

    def add(self, record: Any) -> str:
        """Add one record; what is wrong with it, "" if nothing is."""
        if not isinstance(record, dict):
            return "a record is not an object"
        source = self._source
        device_id = _at(record, source.id)
        if not isinstance(device_id, str) or not 0 < len(device_id) <= MAX_TEXT:
            return f"a record has no id at `{'.'.join(source.id)}`"
        values = tuple(_value(_at(record, path), source.grace_as) for _, path in source.fields)
        values = self._interned.setdefault(values, values)
        device = Device(
            device_id, values, _time(_at(record, source.posture_time)), _time(_at(record, source.seen_time))
        )
        held = self.by_id.get(device_id)
        if held is not None:
            if not self._newest:
                held.conflicting = True
                return ""
            if (held.posture_at or 0.0) > (device.posture_at or 0.0):
                return ""
        self.by_id[device_id] = self.devices[BY_ID + device_id] = device
        identifier = _at(record, source.certificate) if source.certificate else None
        if isinstance(identifier, str) and identifier:
            self._add_certificate(
                BY_CERTIFICATE + identifier.strip().replace(":", "").lower()
                if _is_digest(identifier)
                else BY_CERTIFICATE + identifier,
                device,
            )
        return ""

    def _add_certificate(self, identifier: str, device: Device) -> None:
        held = self.devices.setdefault(identifier, device)
        if held.device_id != device.device_id:  # two devices with one certificate: neither is known
            held.conflicting = device.conflicting = True
        else:
            self.devices[identifier] = device


def _is_digest(text: str) -> bool:
    digits = text.strip().replace(":", "")
    return len(digits) == 64 and all(digit in "0123456789abcdefABCDEF" for digit in digits)


def _at(record: Any, path: Path) -> Any:
    """The value at a path; None if there is none, and for an empty path."""
    value = record if path else None
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _value(value: Any, grace_as: GraceAs) -> FactValue | None:
    """A field's value: a boolean by its usual spellings, a whole number, or a short text; None for anything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return {0: False, 1: True}.get(value, value) if abs(value) < 2**63 else None
    if not isinstance(value, str):
        return None
    word = value.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    if word == _GRACE:
        return True if grace_as is GraceAs.COMPLIANT else None
    return value[:MAX_TEXT] or None


def _time(value: Any) -> float | None:
    """Seconds since the epoch for RFC 3339 text with an offset, or for a number of seconds; None for anything else."""
    if isinstance(value, str) and len(value) <= 40:
        if value.replace(".", "", 1).isascii() and value.replace(".", "", 1).isdigit():
            value = float(value)
        else:
            try:
                at = datetime.fromisoformat(value)
            except ValueError:
                return None
            return at.timestamp() if at.tzinfo is not None else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value) if 0 < value < 1e11 else None


# --- formats: each gives (line, record), or (line, what is wrong with it) ---


def _json_lines(_: str, content: bytes) -> Iterator[tuple[int, Any]]:
    decode = msgspec.json.Decoder().decode
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE:
            yield number, f"the line has more than {MAX_LINE} bytes"
            continue
        try:
            record = decode(line)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            yield number, "the line is not JSON"
            continue
        yield number, record if isinstance(record, dict) else "a record is not an object"


def _json_array(path: str, content: bytes, key: str = "") -> Iterator[tuple[int, Any]]:
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise SettingsErrors([Fault(path, 0, 0, f"is not JSON: {error}"[:200], "export it again")]) from error
    records = document if not key else document.get(key) if isinstance(document, dict) else None
    if not isinstance(records, list):
        expected = f"an object with the list `{key}`" if key else "a list of objects"
        raise SettingsErrors([Fault(path, 0, 0, f"is not {expected}", "correct `source.format`, or export it again")])
    yield from ((0, record) for record in records)


def _fleet(path: str, content: bytes) -> Iterator[tuple[int, Any]]:
    yield from _json_array(path, content, "hosts")


def _csv(path: str, content: bytes) -> Iterator[tuple[int, Any]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsErrors([Fault(path, 0, 0, "is not UTF-8", "export it as UTF-8")]) from error
    rows = csv.reader(io.StringIO(text), strict=True)
    try:
        header = next(rows, [])
        if len(set(header)) != len(header) or not header:
            raise SettingsErrors([Fault(path, 1, 1, "the header row is empty or names a column twice", "correct it")])
        for row in rows:
            if not row:
                continue
            same = len(row) == len(header)
            yield (
                rows.line_num,
                dict(zip(header, row, strict=True)) if same else "the row has another number of columns",
            )
    except csv.Error as error:
        raise SettingsErrors(
            [Fault(path, rows.line_num, 1, f"is not CSV: {error}"[:200], "export it again")]
        ) from error


_READERS: Final[dict[InventoryFormat, Callable[[str, bytes], Iterator[tuple[int, Any]]]]] = {
    InventoryFormat.JSONL: _json_lines,
    InventoryFormat.OSQUERY: _json_lines,
    InventoryFormat.JSON: _json_array,
    InventoryFormat.FLEET: _fleet,
    InventoryFormat.CSV: _csv,
}
