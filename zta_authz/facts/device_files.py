"""Inventory files to tables of devices. Pure, and bounded in size and cost."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.facts.device_formats import READERS, REMOVED
from zta_authz.facts.device_table import DeviceRows, DeviceTable
from zta_authz.model.device_documents import GraceAs, InventoryFormat, SerialFormat
from zta_authz.model.pace import no_pause

if TYPE_CHECKING:
    from zta_authz.model.device_documents import InventorySource, Path
    from zta_authz.model.facts import FactValue
    from zta_authz.model.pace import Pause

MAX_INVENTORY_BYTES: Final = 1024 * 1024 * 1024
MAX_DEVICES: Final = 500_000
MAX_RECORDS: Final = 5_000_000
MAX_TEXT: Final = 256
MAX_FAULTS: Final = 20
TOLERATED_SHARE: Final = 100
"""One malformed record in so many is left out; with more of them, the file is refused."""

_TRUE: Final = frozenset(("true", "1", "yes", "on", "enabled", "compliant", "on (automatic)", "on (manual)"))
_FALSE: Final = frozenset(("false", "0", "no", "off", "disabled", "noncompliant", "not_compliant"))
_GRACE: Final = "ingraceperiod"
_MAX_INTEGER: Final = 2**63
_MAX_IDENTIFIER: Final = 2048
_LATEST: Final = 1e11
_HEX: Final = re.compile(r"(?:0[xX])?[0-9A-Fa-f]+|[0-9A-Fa-f]{1,2}(?::[0-9A-Fa-f]{2})+")
_MAX_SERIAL_TEXT: Final = 80
_MAX_SERIAL: Final = 1 << 160  # RFC 5280, section 4.1.2.2: at most 20 octets
BOOLEANS: Final = frozenset(("managed", "encrypted", "firewall", "antivirus", "compliant"))
"""Fields that are true, false or unknown, whatever a file says."""
TEXTS: Final = frozenset(("os", "osVersion"))


def parse_inventory(path: str, content: bytes, source: InventorySource, pause: Pause = no_pause) -> DeviceTable:
    """The devices in `content`. Raises `SettingsErrors` if the file, or more than a small share of it, is malformed.

    Two records with one id make a device whose facts are conflicting, except in osquery's log, where the newest value
    of each field counts.
    """
    builder = _TableBuilder(source)
    faults: list[Fault] = []
    total = bad = 0
    for line, record in READERS[source.format](path, content):
        pause()
        total += 1
        problem = record if isinstance(record, str) else builder.add(record)
        if problem:
            bad += 1
            if len(faults) < MAX_FAULTS:
                faults.append(Fault(path, line, 1 if line else 0, problem, "correct or remove the record"))
        if builder.size > MAX_DEVICES:
            raise SettingsErrors([Fault(path, 0, 0, f"has more than {MAX_DEVICES} devices", "split the inventory")])
        if total > MAX_RECORDS:
            raise SettingsErrors([Fault(path, 0, 0, f"has more than {MAX_RECORDS} records", "use a shorter file")])
    if bad * TOLERATED_SHARE > total:
        raise SettingsErrors(faults)
    builder.finish(pause)
    return DeviceTable(builder.devices, bad)


class _TableBuilder:
    """Collects devices."""

    def __init__(self, source: InventorySource) -> None:
        self._source = source
        self._merged: dict[str, _Merged] | None = {} if source.format is InventoryFormat.OSQUERY else None
        self.devices = DeviceRows()

    @property
    def size(self) -> int:
        """The number of devices so far."""
        return len(self._merged or ()) or self.devices.size

    def add(self, record: dict[str, Any]) -> str:
        """Add one record; what is wrong with it, "" if nothing is."""
        source = self._source
        device_id = _at(record, source.id)
        if isinstance(device_id, int) and not isinstance(device_id, bool) and abs(device_id) < _MAX_INTEGER:
            device_id = str(device_id)
        if not isinstance(device_id, str) or not 0 < len(device_id) <= MAX_TEXT or not device_id.isprintable():
            return f"a record has no id at `{'.'.join(source.id)}`, or one that cannot be printed"
        posture, seen = _time(_at(record, source.posture_time)), _time(_at(record, source.seen_time))
        identifier = certificate_identifier(_at(record, source.certificate), source)
        if self._merged is not None:
            merged = self._merged.get(device_id)
            if merged is None:
                merged = self._merged[device_id] = _Merged()
            merged.add(record, source, (posture, seen), identifier)
            return ""
        values = tuple(field_value(name, _at(record, path), source.grace_as) for name, path in source.fields)
        self.devices.add(device_id, values, posture, seen, identifier)
        return ""

    def finish(self, pause: Pause) -> None:
        """Make devices of what was merged."""
        for device_id, merged in (self._merged or {}).items():
            pause()
            values, posture = merged.values(self._source)
            row = self.devices.add(device_id, values, posture, merged.seen, merged.identifier)
            if merged.conflicting:
                self.devices.mark_conflicting(row)


class _Merged:
    """One host of osquery's log. Each result has some of the fields, and the newest value of each field counts."""

    __slots__ = ("_fields", "_identified_at", "identifier", "seen")

    def __init__(self) -> None:
        self._fields: dict[int, tuple[tuple[float, bool], FactValue | None, bool]] = {}
        self._identified_at = (-1.0, False)
        self.identifier = ""
        self.seen: float | None = None

    def add(
        self,
        record: dict[str, Any],
        source: InventorySource,
        times: tuple[float | None, float | None],
        identifier: str,
    ) -> None:
        """Add one row. A removed row makes its fields unknown, unless one of the same time was added."""
        posture, seen = times
        holds = record.get("action") != REMOVED
        order = (posture or 0.0, holds)
        for number, (name, path) in enumerate(source.fields):
            if not _has(record, path):
                continue
            value = field_value(name, _at(record, path), source.grace_as) if holds else None
            held = self._fields.get(number)
            if held is None or held[0] < order:
                self._fields[number] = (order, value, False)
            elif held[0] == order and held[1] != value:
                self._fields[number] = (order, None, True)
        if identifier and holds and order >= self._identified_at:
            self.identifier, self._identified_at = identifier, order
        if seen is not None:
            self.seen = seen if self.seen is None else max(self.seen, seen)

    @property
    def conflicting(self) -> bool:
        """Whether two rows of one time disagree."""
        return any(clash for _, _, clash in self._fields.values())

    def values(self, source: InventorySource) -> tuple[tuple[FactValue | None, ...], float | None]:
        """The values in the order of the fields, and the time of the oldest of them."""
        held = [self._fields.get(number) for number in range(len(source.fields))]
        times = [entry[0][0] for entry in held if entry is not None and entry[1] is not None]
        return tuple(None if entry is None else entry[1] for entry in held), min(times, default=None) or None


def certificate_identifier(value: Any, source: InventorySource) -> str:
    """How a table has what a certificate is compared with, "" if the value is no such identifier."""
    return _identifier(value) if source.serials is None else _serial(value, source.serials)


def _identifier(value: Any) -> str:
    """What a certificate is compared with, "" if there is none. A digest is written in lower case without colons."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_IDENTIFIER or not value.isprintable():
        return ""
    return value.strip().replace(":", "").lower() if _is_digest(value) else value


def _serial(value: Any, written: SerialFormat) -> str:
    """A serial number in lower-case hex without leading zeros, "" for other values. JSON numbers are decimal."""
    number = value if isinstance(value, int) and not isinstance(value, bool) else 0
    if isinstance(value, str) and len(value) <= _MAX_SERIAL_TEXT:
        digits = value.strip()
        if written is SerialFormat.HEX and _HEX.fullmatch(digits):
            number = int(digits.replace(":", ""), 16)
        elif written is SerialFormat.DECIMAL and digits.isascii() and digits.isdigit():
            number = int(digits)
    return f"{number:x}" if 0 < number < _MAX_SERIAL else ""


def _is_digest(text: str) -> bool:
    digits = text.strip().replace(":", "")
    return len(digits) == 64 and all(digit in "0123456789abcdefABCDEF" for digit in digits)


def _at(record: Any, path: Path) -> Any:
    """The value at a path; None if there is none, and for an empty path."""
    value = record if path else None
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _has(record: Any, path: Path) -> bool:
    """Whether there is a value at a path, null included."""
    value = record
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True


def field_value(name: str, value: Any, grace_as: GraceAs) -> FactValue | None:
    """A field's value: a boolean by its usual spellings, a whole number, or a short text; None for anything else.

    Fields that are booleans by their name are never a text, and texts never a boolean.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= _MAX_INTEGER:
            return None
        value = {0: "0", 1: "1"}.get(value, value) if name not in TEXTS else str(value)
    if isinstance(value, str) and name not in TEXTS:
        word = value.strip().lower()
        if word in _TRUE or word in _FALSE:
            value = word in _TRUE
        elif word == _GRACE:
            value = True if grace_as is GraceAs.COMPLIANT else None
    if isinstance(value, str):
        value = value[:MAX_TEXT] if value.isprintable() and name not in BOOLEANS else None
        return value or None
    if isinstance(value, bool):
        return None if name in TEXTS else value
    return value if isinstance(value, int) and name not in BOOLEANS else None


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
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 < value < _LATEST else None  # compares exactly: also infinity and integers of any size
