"""The store on Valkey or Redis (6.2 or newer), for several replicas of the administrator.

A change is one Lua script. The server must write each change to its disk before it answers (`appendonly yes`,
`appendfsync always`), must never evict (`maxmemory-policy noeviction`), and must not be a cluster.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from valkey.asyncio import Valkey
from valkey.asyncio.connection import (
    BlockingConnectionPool,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from valkey.exceptions import (
    ConnectionError as ValkeyConnectionError,
    NoScriptError,
    ResponseError,
    TimeoutError as ValkeyTimeoutError,
    ValkeyError,
)

from zta_authz.administrator.store import valkey_scripts as scripts
from zta_authz.administrator.store.entries import PAGE_BYTES, damaged, decode_entry, encode_entry, new_epoch
from zta_authz.administrator.store.port import (
    PAGE,
    RETAINED_COMMITS,
    Committed,
    Conflict,
    Forgotten,
    Head,
    InvalidChange,
    StoreForgot,
    StoreUnavailable,
    Versioned,
    WindowClosed,
    check_change,
    check_key,
    check_limit,
    check_prefix,
    check_reservation,
    check_seconds,
    check_value,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Sequence

    from zta_authz.administrator.store.port import Change, Commit, Window

TIMEOUT_SECONDS: Final = 5
"""How long the server may take for a connection or an answer."""
MAX_CONNECTIONS: Final = 32
_WATCH_MILLISECONDS: Final = 1000
_RANDOM_BITS: Final = 53
_LAST: Final = 2**64 - 1
_NOTHING_SEEN: Final = "0-0"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ValkeyAddress:
    """Where the server is: `host` and `port`, or the path of a Unix socket. Credentials are never shown."""

    host: str = ""
    port: int = 6379
    path: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    def pool(self) -> BlockingConnectionPool:
        """Create the pool of connections, which connects later."""
        options: dict[str, Any] = {
            "db": self.database,
            "username": self.username,
            "password": self.password,
            "socket_timeout": TIMEOUT_SECONDS,
            "socket_connect_timeout": TIMEOUT_SECONDS,
        }
        if self.path:
            options |= {"connection_class": UnixDomainSocketConnection, "path": self.path}
        else:
            options |= {"host": self.host, "port": self.port, "socket_keepalive": True}
            options["connection_class"] = Connection if self.tls is None else _tls_connection(self.tls)
        return BlockingConnectionPool(max_connections=MAX_CONNECTIONS, timeout=TIMEOUT_SECONDS, **options)


def _tls_connection(context: ssl.SSLContext) -> type[SSLConnection]:
    class TlsConnection(SSLConnection):
        """A connection with our own TLS context instead of one that is made of options."""

        def _connection_arguments(self) -> dict[str, Any]:
            return {"host": self.host, "port": self.port, "ssl": context}

    return TlsConnection


class ValkeyStore:
    """Implements `Store`. Open it with `ValkeyStore.open`."""

    def __init__(self, address: ValkeyAddress, *, retained: int) -> None:
        """Use `open` instead."""
        self._pool = address.pool()
        self._client: Any = Valkey(connection_pool=self._pool)  # its methods have no types
        self._retained = retained
        self._epoch = ""
        self._seen = _NOTHING_SEEN

    @classmethod
    async def open(cls, address: ValkeyAddress, *, retained: int = RETAINED_COMMITS) -> ValkeyStore:
        """Connect, and check the server's configuration. Keeps `retained` commits in the stream.

        Raises `StoreUnavailable` if the server does not answer, or if it may evict data.
        """
        if retained < 1:
            raise InvalidChange("the stream keeps at least one commit")
        store = cls(address, retained=retained)
        try:
            await store._check_configuration()
        except BaseException:
            await store.close()
            raise
        return store

    async def epoch(self) -> str:
        """See `Store`."""
        return await self._adopt("")

    async def renew_epoch(self, lost: str) -> str:
        """See `Store`."""
        return await self._adopt(lost)

    async def head(self) -> Head:
        """See `Store`."""
        newest, time = await self._run(scripts.HEAD)
        self._see(newest)
        return Head(_revision(newest), float(time))

    async def get(self, key: str) -> Versioned | None:
        """See `Store`."""
        check_key(key)
        (value,) = await self._run(scripts.GET, arguments=(key,))
        return None if value is None else _versioned(key, value)

    async def scan(self, prefix: str, *, after: str = "", limit: int = PAGE) -> list[tuple[str, Versioned]]:
        """See `Store`."""
        check_prefix(prefix, after, limit)
        lowest = f"({after}" if after >= prefix and after else f"[{prefix}" if prefix else "-"
        highest = f"({prefix}\x7f" if prefix else "+"
        (page,) = await self._run(scripts.SCAN, arguments=(lowest, highest, limit, PAGE_BYTES))
        keys = [key.decode() for key in page[::2]]
        return [(key, _versioned(key, value)) for key, value in zip(keys, page[1::2], strict=True)]

    async def commit(self, change: Change) -> Committed:
        """See `Store`."""
        check_change(change)
        arguments: list[str | int | bytes] = [
            secrets.randbits(_RANDOM_BITS), self._retained, encode_entry(change), len(change.expect),
        ]  # fmt: skip
        for key, version in change.expect.items():
            arguments += [key, version]
        arguments.append(len(change.marks))
        arguments += [_milliseconds(seconds) for seconds in change.marks.values()]
        arguments += [len(change.delete), *change.delete, len(change.put)]
        for key, value in change.put.items():
            arguments += [key, value]
        marks = [scripts.TEMPORARY + key for key in change.marks]
        newest, time = await self._run(scripts.COMMIT, marks, arguments, writes=True)
        self._see(newest)
        return Committed(_revision(newest), float(time))

    async def read_since(self, revision: int, limit: int = PAGE) -> list[Commit]:
        """See `Store`."""
        check_limit(limit, revision)
        if revision > 2**_RANDOM_BITS:
            raise StoreForgot("the store has lost commits")
        (page,) = await self._run(scripts.READ, arguments=(revision, limit, PAGE_BYTES))
        commits = [decode_entry(_revision(id_), float(fields[1]), fields[3]) for id_, fields in page]
        if [commit.revision for commit in commits] != list(range(revision + 1, revision + 1 + len(commits))):
            raise damaged("the stream")
        return commits

    async def watch(self, revision: int = -1) -> AsyncGenerator[int, None]:
        """See `Store`."""
        while True:
            newest = (await self.head()).revision
            if newest > revision:
                revision = newest
                yield newest
                continue
            after = f"{revision}-{_LAST}"
            wait = ("XREAD", "COUNT", 1, "BLOCK", _WATCH_MILLISECONDS, "STREAMS", scripts.STREAM, after)
            await self._execute(*wait)

    async def remember(self, key: str, seconds: float) -> bool:
        """See `Store`."""
        check_key(key)
        check_seconds(seconds)
        arguments = ("", _milliseconds(seconds), 1)
        (made,) = await self._run(scripts.REMEMBER, [scripts.TEMPORARY + key], arguments, writes=True)
        return bool(made)

    async def put_temporary(self, key: str, value: bytes, seconds: float) -> None:
        """See `Store`."""
        check_key(key)
        check_value(value)
        check_seconds(seconds)
        arguments = (value, _milliseconds(seconds), 0)
        await self._run(scripts.REMEMBER, [scripts.TEMPORARY + key], arguments, writes=True)

    async def get_temporary(self, key: str) -> bytes | None:
        """See `Store`."""
        check_key(key)
        value: bytes | None
        (value,) = await self._run(scripts.TEMPORARY_VALUE, [scripts.TEMPORARY + key])
        return value

    async def reserve(self, key: str, window: Window, want: int, limit: int, holder: str) -> int:
        """See `Store`."""
        check_reservation(key, window, want, limit, holder)
        reserved = f"{scripts.RESERVED}{key}:{window.starts!r}:{window.ends!r}"
        arguments = (repr(window.starts), repr(window.ends), want, limit, holder)
        (got,) = await self._run(scripts.RESERVE, [reserved], arguments, writes=True)
        return int(got)

    async def close(self) -> None:
        """See `Store`."""
        await self._pool.disconnect()

    async def _adopt(self, lost: str) -> str:
        """Read the epoch, and replace it if it is `lost` or if the store lost commits of it."""
        arguments = (self._epoch, self._seen, new_epoch(), lost, scripts.SCHEMA_VERSION)
        epoch, newest, schema = await self._evaluate(scripts.EPOCH, scripts.FIXED_KEYS, arguments)
        if int(schema) > scripts.SCHEMA_VERSION:
            raise StoreUnavailable(f"a newer version of zta-authz writes the store (schema {int(schema)}); upgrade")
        self._epoch, self._seen = epoch.decode(), newest.decode()
        return self._epoch

    def _see(self, newest: bytes) -> None:
        if _revision(newest) > _revision(self._seen.encode()):
            self._seen = newest.decode()

    async def _run(
        self,
        script: str,
        keys: Sequence[str] = (),
        arguments: Sequence[str | int | bytes] = (),
        *,
        writes: bool = False,
    ) -> list[Any]:
        """Run a script that checks the epoch, and return what it says after its status."""
        if not self._epoch:
            raise StoreForgot("the epoch was not read yet")
        epoch = self._epoch
        all_keys, all_arguments = (*scripts.FIXED_KEYS, *keys), (epoch, self._seen, *arguments)
        status, *rest = await self._evaluate(script, all_keys, all_arguments, writes=writes)
        match status:
            case b"ok":
                if epoch != self._epoch:  # another task has adopted a new one meanwhile
                    raise StoreForgot("the store has lost commits")
                return rest
            case b"conflict":
                raise Conflict(rest[0].decode())
            case b"forgotten":
                raise Forgotten(int(rest[0]))
            case b"closed":
                raise WindowClosed("the store's time is not inside the window")
            case b"damaged":
                raise damaged("the index of items")
            case _:
                raise StoreForgot("the store has lost commits")

    async def _evaluate(
        self, script: str, keys: Sequence[str], arguments: Sequence[str | int | bytes], *, writes: bool = False
    ) -> list[Any]:
        """Run a script, which is loaded where the server does not know it (after a restart or a failover)."""
        digest = _digest(script)
        command = ("EVALSHA", digest, len(keys), *keys, *arguments)
        try:
            result: list[Any] = await self._execute(*command, writes=writes)
        except _NoScript:
            await self._execute("SCRIPT LOAD", script)
            result = await self._execute(*command, writes=writes)
        return result

    async def _execute(self, *command: str | int | bytes, writes: bool = False) -> Any:
        try:
            return await self._client.execute_command(*command)
        except NoScriptError as error:
            raise _NoScript("no script") from error
        except (ValkeyConnectionError, ValkeyTimeoutError, TimeoutError, OSError) as error:
            raise StoreUnavailable(f"the store's server can't be reached: {error}", uncertain=writes) from error
        except ResponseError as error:
            code = type(error).__name__ if type(error) is not ResponseError else str(error).partition(" ")[0][:32]
            raise StoreUnavailable(f"the store's server refuses: {code}") from error
        except ValkeyError as error:
            raise StoreUnavailable(f"the store's server failed: {type(error).__name__}", uncertain=writes) from error

    async def _check_configuration(self) -> None:
        """Refuse a server that may evict items, and warn of one that may lose changes."""
        await self._execute("PING")
        try:
            answers = [await self._execute("CONFIG GET", name) for name in _CONFIGURATION]
        except StoreUnavailable as error:
            _LOG.warning("the store's server does not show its configuration (%s): check it yourself", error)
            return
        policy, *durability = ({_text(name): _text(value) for name, value in one.items()} for one in answers)
        if policy.get("maxmemory-policy", "noeviction") != "noeviction":
            raise StoreUnavailable("the store's server may evict data: set `maxmemory-policy noeviction`")
        if [*durability[0].values(), *durability[1].values()] != ["yes", "always"]:
            _LOG.warning(
                "the store's server loses the newest changes when its host crashes: set `appendonly yes` and "
                "`appendfsync always`"
            )


_CONFIGURATION: Final = ("maxmemory-policy", "appendonly", "appendfsync")


class _NoScript(StoreUnavailable):
    """The server does not know the script."""


@cache
def _digest(script: str) -> str:
    """Return the name that the server gives to a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _revision(id_: bytes) -> int:
    return int(id_.partition(b"-")[0])


def _versioned(key: str, data: bytes) -> Versioned:
    version, colon, value = data.partition(b":")
    if not colon or not version.isdigit():
        raise damaged(f"the item {key}")
    return Versioned(int(version), value)


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
