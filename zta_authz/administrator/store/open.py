"""Opens the store that a URL names.

    sqlite:///PATH                         a database in a file with this absolute path
    valkey://HOST[:PORT][/DATABASE]        a Valkey or Redis server (also `redis://`)
    valkeys://HOST[:PORT][/DATABASE]       the same with TLS (also `rediss://`)
    unix:///PATH[?db=DATABASE]             the same on a Unix socket

A URL has no credentials, because URLs are logged. They come from a file, or from the environment.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

from zta_authz.administrator.store.port import RETAINED_COMMITS
from zta_authz.administrator.store.sqlite import SqliteStore
from zta_authz.administrator.store.valkey import ValkeyAddress, ValkeyStore
from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.administrator.store.port import Store

USERNAME_VARIABLE: Final = "ZTA_STORE_USERNAME"
PASSWORD_VARIABLE: Final = "ZTA_STORE_PASSWORD"  # noqa: S105 - the name of a variable
_MAX_PASSWORD_BYTES: Final = 4096
_DEFAULT_PORT: Final = 6379
_SQLITE: Final = "sqlite"
_PLAIN: Final = ("valkey", "redis")
_TLS: Final = ("valkeys", "rediss")
_UNIX: Final = "unix"
_FORMS: Final = "write sqlite:///PATH, valkey://HOST:PORT, valkeys://HOST:PORT or unix:///PATH"


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """Files for the connection to a server: the password, the CA of its certificate, and our certificate and key.

    "" stands for a file that is not used. Without `ca`, the system's CAs are trusted.
    """

    password: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""


NO_FILES: Final = StoreFiles()


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where a store is. Exactly one of the two fields is set. Safe to log."""

    sqlite_path: str = ""
    server: ValkeyAddress | None = None
    tls: bool = False

    @property
    def shared(self) -> bool:
        """Whether several hosts can use the store."""
        return self.server is not None


def parse_address(url: str, source: str = "store") -> StoreAddress:
    """Parse the URL of a store. Raises `FaultsError`, whose message never contains credentials."""
    try:
        parts = urlsplit(url)
        username, password, host, port = parts.username, parts.password, parts.hostname or "", parts.port
    except ValueError:
        raise _fault(source, "the URL of the store is not valid", _FORMS) from None
    if username is not None or password is not None:
        message = "the URL of the store contains credentials"
        raise _fault(source, message, f"put the password into a file, or into {PASSWORD_VARIABLE}")
    path, query = unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)
    if parts.fragment or not (set(query) <= {"db"} and (not query or parts.scheme == _UNIX)):
        raise _fault(source, "the URL of the store has a part that is not known", _FORMS)
    if parts.scheme == _SQLITE:
        if host or not path.startswith("/") or path.endswith("/") or "\0" in path:
            raise _fault(
                source, "the database has no absolute path", "write three slashes: sqlite:///var/lib/store.sqlite"
            )
        return StoreAddress(sqlite_path=path)
    if parts.scheme == _UNIX:
        if host or not path.startswith("/") or "\0" in path:
            raise _fault(source, "the socket has no absolute path", "write three slashes: unix:///run/valkey.sock")
        return StoreAddress(server=ValkeyAddress(path=path, database=_database(query.get("db", ["0"])[0], source)))
    if parts.scheme not in {*_PLAIN, *_TLS}:
        raise _fault(source, "the URL of the store has a scheme that is not known", _FORMS)
    if not host:
        raise _fault(source, "the URL of the store names no host", _FORMS)
    database = _database(path.strip("/") or "0", source)
    server = ValkeyAddress(host=host, port=_DEFAULT_PORT if port is None else port, database=database)
    return StoreAddress(server=server, tls=parts.scheme in _TLS)


async def open_store(
    address: StoreAddress,
    *,
    files: StoreFiles = NO_FILES,
    environment: Mapping[str, str] = os.environ,
    retained: int = RETAINED_COMMITS,
) -> Store:
    """Open a store. Raises `StoreUnavailable`, or `FaultsError` if a file can't be read."""
    if address.server is None:
        return await SqliteStore.open(address.sqlite_path, retained=retained)
    server = replace(
        address.server,
        username=environment.get(USERNAME_VARIABLE) or None,
        password=_password(files, environment),
        tls=_tls_context(files) if address.tls else None,
    )
    return await ValkeyStore.open(server, retained=retained)


def _password(files: StoreFiles, environment: Mapping[str, str]) -> str | None:
    if not files.password:
        return environment.get(PASSWORD_VARIABLE) or None
    try:
        with Path(files.password).open("rb") as file:
            data = file.read(_MAX_PASSWORD_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "") if isinstance(error, OSError) else "it is not text"
        raise _fault(files.password, f"the password can't be read: {reason}", "name a readable file") from None
    password = text.removesuffix("\n")
    if not password or len(data) > _MAX_PASSWORD_BYTES or "\n" in password:
        raise _fault(files.password, "it is not a password", "write the password on one line, and nothing else")
    return password


def _tls_context(files: StoreFiles) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=files.ca or None)
        if files.certificate:
            context.load_cert_chain(files.certificate, files.key or None)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "it is not valid"
        message = f"the store's TLS files can't be loaded: {reason}"
        raise _fault(files.certificate or files.ca, message, "name PEM files") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _database(text: str, source: str) -> int:
    if re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) is None:
        raise _fault(source, "the database of the store is not a number", "write for example valkey://HOST:PORT/0")
    return int(text)


def _fault(source: str, message: str, hint: str) -> FaultsError:
    return FaultsError([Fault(source, 0, 0, message, hint)])
