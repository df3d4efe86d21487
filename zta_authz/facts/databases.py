"""Databases in MaxMind DB format (mmdb), each copied into sealed memory.

A reader that maps a file is killed by SIGBUS when the file is truncated, which copying a new version over it does. So
each file is read once into an anonymous memory file that is sealed against every change, and that is mapped.
Source: MaxMind DB File Format Specification, version 2.0.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Any, Final

import maxminddb

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.facts.files import read_file

if TYPE_CHECKING:
    from zta_authz.model.addresses import Ip

MAX_DATABASE_BYTES: Final = 1024 * 1024 * 1024
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Database:
    """One database. `built_at` is when its publisher built it (seconds since the epoch); `type` its own name."""

    __slots__ = ("_reader", "built_at", "size", "type")

    def __init__(self, path: str, setting: str) -> None:
        """Read the file. Raises `SettingsErrors` if it is not a database, or if only the slow reader is installed."""
        content, _ = read_file(path, MAX_DATABASE_BYTES, setting)
        self.size = len(content)
        self._reader, metadata = _open(path, content)
        self.built_at = float(metadata.build_epoch)
        self.type = str(metadata.database_type)[:100]
        if not self._lists_anything():
            raise SettingsErrors([Fault(path, 0, 0, "lists no network", f"download it again, or remove `{setting}`")])

    def look_up(self, address: Ip) -> dict[str, Any] | None:
        """The record of `address`, empty if the database does not list it. Never raises.

        None if the database cannot say: a damaged record, no map, or an IPv6 address in a database for IPv4.
        """
        try:
            record = self._reader.get(address)
        except (ValueError, maxminddb.InvalidDatabaseError):
            return None
        if record is None:
            return {}
        return record if isinstance(record, dict) else None

    def _lists_anything(self) -> bool:
        """Whether the database has a record. A damaged one may have: its look-ups give None."""
        try:
            return next(iter(self._reader), None) is not None
        except (ValueError, maxminddb.InvalidDatabaseError):
            return True


def _open(path: str, content: bytes) -> tuple[maxminddb.Reader, Any]:
    """The reader and its metadata, which it decodes only when asked."""
    number = os.memfd_create("mmdb", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(number, view) :]
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, _SEALS)
        reader = maxminddb.open_database(f"/proc/self/fd/{number}", maxminddb.MODE_MMAP_EXT)
        return reader, reader.metadata()
    except (maxminddb.InvalidDatabaseError, OSError, UnicodeDecodeError) as error:
        fault = Fault(path, 0, 0, f"is not a valid MaxMind database: {error}"[:300], "download it again")
        raise SettingsErrors([fault]) from error
    except ValueError as error:
        message = "cannot be opened: the C extension of `maxminddb` is missing, and its Python reader is too slow"
        raise SettingsErrors([Fault(path, 0, 0, message, "install `maxminddb` from a wheel")]) from error
    finally:
        os.close(number)
