"""The devices of one inventory file, in columns: they take half the memory that an object for each device takes.

Another thread may read a table while it is released, but not while it is built.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import isnan, nan
from typing import TYPE_CHECKING, Any, Final, NamedTuple, overload

from zta_authz.policy.rules.device_identity import BY_CERTIFICATE, BY_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.model.facts import FactValue
    from zta_authz.model.pace import Pause

_CONFLICTING: Final = 1
_SHARED: Final = 2
_CUT: Final = "\0"
"""Begins a name of a certificate without the beginning that most names share."""
_WHOLE: Final = "\1"
"""Begins any other name of a certificate."""

Values = tuple["FactValue | None", ...]


class Device(NamedTuple):
    """One device. `values` are in the order of the inventory's fields, None for unknown; times are epoch seconds.

    `conflicting`: two records contradict each other. `shared`: another device has the same certificate.
    """

    device_id: str
    values: Values
    posture_at: float | None
    seen_at: float | None
    conflicting: bool
    shared: bool


class _Names:
    """Distinct names, numbered from 0 as they are added: a hash table with open addressing.

    It takes 14 to 20 bytes for each name, and a dict with its numbers, 70.
    """

    __slots__ = ("_names", "_slots")

    def __init__(self) -> None:
        self._names: list[str] = []
        self._slots = array("i", [-1]) * 8  # numbers; at most two thirds of the slots are in use

    def add(self, name: str) -> int:
        """The number of `name`. It is new if its number is the length before."""
        slot = self._slot(name)
        number = self._slots[slot]
        if number >= 0:
            return number
        number = self._slots[slot] = len(self._names)
        self._names.append(name)
        if 3 * len(self._names) > 2 * len(self._slots):
            self._grow()
        return number

    def number(self, name: str) -> int:
        """The number of `name`, -1 if it was not added."""
        return self._slots[self._slot(name)]

    def _slot(self, name: str) -> int:
        """The slot of `name`, or the free one where it belongs."""
        names, slots = self._names, self._slots
        last = len(slots) - 1
        slot = hash(name) & last
        while (number := slots[slot]) >= 0 and names[number] != name:
            slot = (slot + 1) & last
        return slot

    def _grow(self) -> None:
        self._slots = array("i", [-1]) * (2 * len(self._slots))
        for number, name in enumerate(self._names):
            self._slots[self._slot(name)] = number

    def release(self, pause: Pause) -> None:
        """Release the names one by one. From now on, none is found."""
        for number in range(len(self._names)):
            self._names[number] = ""
            pause()

    def __getitem__(self, number: int) -> str:
        return self._names[number]

    def __len__(self) -> int:
        return len(self._names)


class DeviceRows(Mapping[str, Device]):
    """Devices by identifier: `BY_ID` and the id, or `BY_CERTIFICATE` and the name of the certificate.

    A device is a row, and each column is one sequence. Equal tuples of values are kept once, and so is the beginning of
    the certificates' names, up to the last slash of the first one. `newest` is the time of the latest posture of all
    records, None if none has one.
    """

    __slots__ = (
        "_certificate_rows",
        "_certificates",
        "_ids",
        "_interned",
        "_posture",
        "_prefix",
        "_seen",
        "_states",
        "_values",
        "newest",
    )

    def __init__(self) -> None:
        self._ids = _Names()
        self._certificates = _Names()
        self._certificate_rows = array("i")
        self._prefix = ""
        self._values: list[Values] = []
        self._posture, self._seen = array("d"), array("d")
        self._states = bytearray()
        self._interned: dict[Values, Values] = {}
        self.newest: float | None = None

    @property
    def size(self) -> int:
        """The number of devices."""
        return len(self._states)

    def add(self, device_id: str, values: Values, posture: float | None, seen: float | None, certificate: str) -> int:
        """Add a record and return its row. A second one of the same device makes the device conflicting.

        Two devices with one `certificate` ("" for none) are both conflicting: it identifies neither.
        """
        if posture is not None and (self.newest is None or posture > self.newest):
            self.newest = posture
        row = self._ids.add(device_id)
        if row < len(self._states):
            self.mark_conflicting(row)
        else:
            self._values.append(self._interned.setdefault(values, values))
            self._posture.append(nan if posture is None else posture)
            self._seen.append(nan if seen is None else seen)
            self._states.append(0)
        if certificate:  # also of a second record: what the certificate leads to is conflicting then, not absent
            self._add_certificate(certificate, row)
        return row

    def _add_certificate(self, certificate: str, row: int) -> None:
        rows = self._certificate_rows
        if not rows:
            self._prefix = certificate[: certificate.rfind("/") + 1]
        number = self._certificates.add(self._short(certificate))
        if number == len(rows):
            rows.append(row)
        elif rows[number] != row:
            self._states[rows[number]] = self._states[row] = _CONFLICTING | _SHARED

    def mark_conflicting(self, row: int) -> None:
        """The device's records contradict each other."""
        self._states[row] |= _CONFLICTING

    def _short(self, certificate: str) -> str:
        """The name of a certificate without the beginning that most names share. No two names become one."""
        prefix = self._prefix
        return _CUT + certificate[len(prefix) :] if certificate.startswith(prefix) else _WHOLE + certificate

    def _row(self, identifier: str) -> int:
        """The row of the device with this identifier, -1 without one."""
        if identifier.startswith(BY_ID):
            return self._ids.number(identifier[len(BY_ID) :])
        if not identifier.startswith(BY_CERTIFICATE):
            return -1
        number = self._certificates.number(self._short(identifier[len(BY_CERTIFICATE) :]))
        return self._certificate_rows[number] if number >= 0 else -1

    def _device(self, row: int) -> Device:
        posture, seen, state = self._posture[row], self._seen[row], self._states[row]
        return Device(
            self._ids[row],
            self._values[row],
            None if isnan(posture) else posture,
            None if isnan(seen) else seen,
            bool(state & _CONFLICTING),
            bool(state & _SHARED),
        )

    def release(self, pause: Pause) -> None:
        """Release the devices of a table that is not in force any more in pieces: at once, it would take too long."""
        self._certificates.release(pause)
        self._ids.release(pause)

    @overload
    def get(self, key: str, /) -> Device | None: ...
    @overload
    def get(self, key: str, /, default: Any) -> Any: ...
    def get(self, key: str, /, default: Any = None) -> Any:
        """The device with this identifier, else `default`."""
        row = self._row(key)
        return default if row < 0 else self._device(row)

    def __getitem__(self, identifier: str) -> Device:
        row = self._row(identifier)
        if row < 0:
            raise KeyError(identifier)
        return self._device(row)

    def __iter__(self) -> Iterator[str]:
        yield from (BY_ID + self._ids[row] for row in range(len(self._ids)))
        for number in range(len(self._certificates)):
            name = self._certificates[number]
            yield BY_CERTIFICATE + (self._prefix if name.startswith(_CUT) else "") + name[1:]

    def __len__(self) -> int:
        return len(self._ids) + len(self._certificates)


class DeviceTable:
    """The devices of one file by identifier. `skipped` counts malformed records that were left out.

    `newest` is the time of the latest posture of all devices, None if no device has one.
    """

    __slots__ = ("devices", "newest", "size", "skipped")

    def __init__(self, devices: DeviceRows, skipped: int) -> None:
        self.devices = devices
        self.newest = devices.newest
        self.size = devices.size
        self.skipped = skipped
