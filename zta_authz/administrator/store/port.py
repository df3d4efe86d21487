"""The port `Store`: what the administrator needs from a store. All replicas of an administrator share one store.

A store has items (key -> bytes) and one stream. A commit changes items and appends events to the stream in one
transaction. The store numbers commits from 1 without gaps: the *revision*. The version of an item is the revision of
the commit that put it. Besides, a store has temporary items, which end by themselves and are not in the stream.

A store is created with a random *epoch*. If the store loses commits (its data is deleted, a backup is restored, a
failover loses writes), it gets another epoch, and revisions of different epochs must not be compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.errors import ZtaError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

MAX_KEY_CHARACTERS: Final = 512
MAX_VALUE_BYTES: Final = 256 * 1024
"""The limit of a value and of an event."""
MAX_CHANGE_ENTRIES: Final = 4096
"""The limit of a change's expectations, puts, deletions, events and marks together."""
MAX_CHANGE_BYTES: Final = 8 * 1024 * 1024
"""The limit of a change's keys, values and events together."""
PAGE: Final = 1000
"""The default and largest number of items or commits that one call returns."""
RETAINED_COMMITS: Final = 100_000
"""How many commits the stream keeps by default. `read_since` can't go back further."""
ABSENT: Final = 0
"""The version of an item that does not exist."""

_MAX_SECONDS: Final = 10 * 366 * 86400.0
_MAX_TIME: Final = 2.0**40
_MAX_UNITS: Final = 2**53 - 1
_KEY = re.compile(rf"[!-~]{{1,{MAX_KEY_CHARACTERS}}}", re.ASCII)


class StoreError(ZtaError):
    """Root of the errors that a store raises."""


class StoreUnavailable(StoreError):
    """The store can't be used now: not reachable, busy, disk full, damaged. The message is safe to log.

    A commit that raises this may have taken effect if `uncertain` is true: read before you repeat it.
    """

    def __init__(self, message: str, *, uncertain: bool = False) -> None:
        super().__init__(message)
        self.uncertain = uncertain


class Conflict(StoreError):
    """An item has another version than the change expects, or a mark exists already. Nothing was changed."""

    def __init__(self, key: str) -> None:
        super().__init__("another change came first")
        self.key = key


class StoreForgot(StoreError):
    """The store lost commits since `epoch` was called last. Call `epoch`, then read everything again."""


class Forgotten(StoreError):
    """The stream no longer has the commit after the given revision. Read the items instead.

    `first` is the oldest commit that it still has, or the next one.
    """

    def __init__(self, first: int) -> None:
        super().__init__(f"the stream begins with commit {first}")
        self.first = first


class WindowClosed(StoreError):
    """The store's time is outside of the window of a reservation."""


class InvalidChange(StoreError, ValueError):
    """A key, value, change or argument is outside of its limits. This is a mistake of the caller."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """The value of an item, and the revision of the commit that put it."""

    version: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The newest revision (0: no commit yet), and the store's time in seconds since the epoch of Unix."""

    revision: int
    time: float


@dataclass(frozen=True, slots=True)
class Change:
    """A change that is made as a whole or not at all.

    `expect` has the required version of each item that the caller read (`ABSENT`: it must not exist). `events` are
    appended to the stream in order. `marks` (key -> seconds) must not exist yet and are remembered for so long: use
    them for what may be done once, such as the `jti` of a token. They have the names of temporary items.
    """

    expect: Mapping[str, int] = field(default_factory=dict)
    put: Mapping[str, bytes] = field(default_factory=dict)
    delete: Sequence[str] = ()
    events: Sequence[bytes] = ()
    marks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Committed:
    """The revision of a commit, and its time by the store's clock, in seconds since the epoch of Unix."""

    revision: int
    time: float


@dataclass(frozen=True, slots=True)
class Commit:
    """An entry of the stream. `put` and `deleted` are what it did to items; a deleted key may not have existed."""

    revision: int
    time: float
    events: tuple[bytes, ...] = ()
    put: Mapping[str, bytes] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """The time in which a limit counts, by the store's clock: seconds since the epoch of Unix, `ends` excluded."""

    starts: float
    ends: float


class Store(Protocol):
    """A store. Call `epoch` before anything else, and again after `StoreForgot`.

    Every method may raise `StoreUnavailable`, and all but `epoch`, `renew_epoch` and `close` may raise `StoreForgot`.
    Keys have 1 to `MAX_KEY_CHARACTERS` printable ASCII characters without spaces; otherwise methods raise
    `InvalidChange`. What a method returned survives a crash of the process and of the store, if the store is
    configured as documented. The instance belongs to the event loop in which it was opened.
    """

    async def epoch(self) -> str:
        """Return the epoch of the store, and use it from now on. Creates it if the store is empty."""
        ...

    async def renew_epoch(self, lost: str) -> str:
        """Replace the epoch `lost` by another one, because the caller knows of commits that the store lost.

        Return the epoch in force, which is another one already if somebody else replaced `lost` before.
        """
        ...

    async def head(self) -> Head:
        """Return the newest revision and the store's time."""
        ...

    async def get(self, key: str) -> Versioned | None:
        """Return an item, None if it does not exist."""
        ...

    async def scan(self, prefix: str, *, after: str = "", limit: int = PAGE) -> list[tuple[str, Versioned]]:
        """Return up to `limit` items whose keys begin with `prefix`, in order of their keys (as bytes).

        Only keys greater than `after` are returned. To read all, pass the last key of each page until a page is empty,
        because large items make a page shorter. Pages are read at different revisions; `read_items` makes one state
        of them.
        """
        ...

    async def commit(self, change: Change) -> Committed:
        """Make a change, and return when it is durable. Raises `Conflict` if an expectation does not hold.

        A change must put, delete or append something. If this is cancelled, the change may take effect.
        """
        ...

    async def read_since(self, revision: int, limit: int = PAGE) -> list[Commit]:
        """Return up to `limit` commits with greater revisions, in order, without gaps. [] if `revision` is the newest.

        A call may return fewer commits than there are, but at least one. Raises `Forgotten` if older ones than are
        kept would be needed, and `StoreForgot` if `revision` is greater than the newest.
        """
        ...

    def watch(self, revision: int = -1) -> AsyncGenerator[int, None]:
        """Yield the newest revision as soon as it is greater than `revision`, then each time that it has grown.

        Revisions may be skipped. Raises the same errors as `head`; call it again to go on. Close it when you stop
        early (`contextlib.aclosing`).
        """
        ...

    async def remember(self, key: str, seconds: float) -> bool:
        """Create an empty temporary item that ends after `seconds`. Return False if it exists already."""
        ...

    async def put_temporary(self, key: str, value: bytes, seconds: float) -> None:
        """Create or replace a temporary item that ends after `seconds`."""
        ...

    async def get_temporary(self, key: str) -> bytes | None:
        """Return the value of a temporary item, None if it never existed or has ended."""
        ...

    async def reserve(self, key: str, window: Window, want: int, limit: int, holder: str) -> int:
        """Reserve up to `want` units of `limit` for `holder` until the window ends. Return how many it got.

        The sum of all holders' reservations for a key and window is never greater than `limit`. A negative `want`
        gives back up to as many of the holder's own units, and the result is negative. Raises `WindowClosed` if the
        store's time is not inside the window.
        """
        ...

    async def close(self) -> None:
        """Release everything. No other method may be called afterwards."""
        ...


def check_key(*keys: str) -> None:
    """Raises `InvalidChange` if one is not a key."""
    for key in keys:
        if _KEY.fullmatch(key) is None:
            raise InvalidChange(f"a key has 1 to {MAX_KEY_CHARACTERS} printable ASCII characters without spaces")


def check_value(*values: bytes) -> None:
    """Raises `InvalidChange` if a value or event is too long."""
    if max(map(len, values), default=0) > MAX_VALUE_BYTES:
        raise InvalidChange(f"a value has at most {MAX_VALUE_BYTES} bytes")


def check_prefix(prefix: str, after: str, limit: int) -> None:
    """Check the arguments of `scan`. Raises `InvalidChange`."""
    check_key(*filter(None, (prefix, after)))
    check_limit(limit)


def check_limit(limit: int, revision: int = 0) -> None:
    """Raises `InvalidChange` if a page can't have so many entries, or if no revision is so small."""
    if not (1 <= limit <= PAGE and revision >= 0):
        raise InvalidChange(f"a page has 1 to {PAGE} entries, and a revision is not negative")


def check_seconds(seconds: float) -> None:
    """Raises `InvalidChange` if a temporary item can't last so long."""
    if not 0 < seconds <= _MAX_SECONDS:
        raise InvalidChange("a temporary item lasts for more than 0 seconds and at most 10 years")


def check_reservation(key: str, window: Window, want: int, limit: int, holder: str) -> None:
    """Check the arguments of `reserve`. Raises `InvalidChange`."""
    check_key(key, holder)
    if not 0 <= window.starts < window.ends <= _MAX_TIME:
        raise InvalidChange("a window ends after it starts")
    if not (abs(want) <= _MAX_UNITS and 0 <= limit <= _MAX_UNITS):
        raise InvalidChange("a number of units has at most 53 bits")


def check_change(change: Change) -> None:
    """Check the limits of a change. Raises `InvalidChange`."""
    keys = [*change.expect, *change.put, *change.delete, *change.marks]
    data = [*change.put.values(), *change.events]
    check_key(*keys)
    check_value(*data)
    if not (data or change.delete):
        raise InvalidChange("a change puts, deletes or appends something")
    if len(keys) + len(change.events) > MAX_CHANGE_ENTRIES:
        raise InvalidChange(f"a change has at most {MAX_CHANGE_ENTRIES} entries")
    if sum(map(len, keys)) + sum(map(len, data)) > MAX_CHANGE_BYTES:
        raise InvalidChange(f"a change has at most {MAX_CHANGE_BYTES} bytes")
    if not change.put.keys().isdisjoint(change.delete) or len(set(change.delete)) != len(change.delete):
        raise InvalidChange("a change does one thing to an item")
    for seconds in change.marks.values():
        check_seconds(seconds)


async def read_items(store: Store, *prefixes: str) -> tuple[int, dict[str, Versioned]]:
    """Read all items with these prefixes as they were at one revision, and return that revision.

    The result is held in memory as a whole. Raises `Forgotten` if the stream forgets commits faster than this reads.
    """
    items: dict[str, Versioned] = {}
    revision = (await store.head()).revision
    for prefix in prefixes:
        after = ""
        while page := await store.scan(prefix, after=after):
            items.update(page)
            after = page[-1][0]
    newest = (await store.head()).revision
    while revision < newest:
        for commit in await store.read_since(revision):
            apply(items, commit, prefixes)
            revision = commit.revision
    return revision, items


def apply(items: dict[str, Versioned], commit: Commit, prefixes: Sequence[str] = ("",)) -> None:
    """Do to items what a commit did to those with these prefixes, unless an item is newer than the commit."""
    for key, value in commit.put.items():
        known = items.get(key)
        if key.startswith(tuple(prefixes)) and (known is None or known.version < commit.revision):
            items[key] = Versioned(commit.revision, value)
    for key in commit.deleted:
        if key in items and items[key].version < commit.revision:
            del items[key]
