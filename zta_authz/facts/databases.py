"""Databases about addresses in MaxMind DB format, each read whole into memory.

A reader that maps a file is killed by SIGBUS when the file is truncated, which copying a new version over it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.facts.files import read_file
from zta_authz.facts.mmdb import InvalidDatabaseError, Reader

if TYPE_CHECKING:
    from zta_authz.model.addresses import Ip

MAX_DATABASE_BYTES: Final = 1024 * 1024 * 1024


class Database:
    """One database. `built_at` is when its publisher built it (seconds since the epoch); `type` its own name."""

    __slots__ = ("_reader", "built_at", "size", "type")

    def __init__(self, path: str, setting: str) -> None:
        """Read the file. Raises `SettingsErrors` if it is not a database, or lists nothing."""
        content, _ = read_file(path, MAX_DATABASE_BYTES, setting)
        self.size = len(content)
        try:
            self._reader = Reader(content)
            self.built_at = float(self._reader.build_epoch)
        except InvalidDatabaseError as error:
            fault = Fault(path, 0, 0, f"is not a valid MaxMind database: it {error}", "download it again")
            raise SettingsErrors([fault]) from error
        self.type = str(self._reader.metadata.get("database_type", ""))[:100]
        if not self._reader.lists_anything():
            raise SettingsErrors([Fault(path, 0, 0, "lists no network", f"download it again, or remove `{setting}`")])

    def look_up(self, address: Ip) -> dict[str, Any] | None:
        """The record of `address`, empty if the database does not list it. Never raises.

        None if the database cannot say: a damaged record, no map, or an IPv6 address in a database for IPv4.
        """
        try:
            record = self._reader.get(address)
        except InvalidDatabaseError:
            return None
        if record is None:
            return {}
        return record if isinstance(record, dict) else None
