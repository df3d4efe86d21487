"""The statements of the SQLite store. Each function runs inside a transaction of its caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.administrator.store.entries import PAGE_BYTES, checksum, decode_entry, encode_entry
from zta_authz.administrator.store.port import (
    ABSENT,
    Conflict,
    Forgotten,
    StoreForgot,
    StoreUnavailable,
    Versioned,
    WindowClosed,
)
from zta_authz.administrator.store.sqlite_schema import verify

if TYPE_CHECKING:
    import sqlite3

    from zta_authz.administrator.store.port import Change, Commit, Window

_SWEPT: Final = 64
"""How many outdated rows of a table one transaction removes."""


def read_state(connection: sqlite3.Connection) -> tuple[str, int]:
    """Return the epoch and the newest revision."""
    row: tuple[str, int] | None = connection.execute("SELECT epoch, revision FROM state").fetchone()
    if row is None:
        raise StoreUnavailable("the store is damaged: its state is missing; restore a backup")
    return row


def apply_change(connection: sqlite3.Connection, change: Change, revision: int, now: float) -> None:
    """Make a change at `now` as the commit `revision`. Raises `Conflict`."""
    for key, version in change.expect.items():
        row = connection.execute("SELECT version FROM items WHERE key = ?", (key,)).fetchone()
        if (ABSENT if row is None else row[0]) != version:
            raise Conflict(key)
    for key, seconds in change.marks.items():
        remember(connection, key, seconds, now)
    connection.executemany("DELETE FROM items WHERE key = ?", [(key,) for key in change.delete])
    connection.executemany(
        "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)",
        [(key, revision, value, checksum(key, revision, value)) for key, value in change.put.items()],
    )
    entry = encode_entry(change)
    connection.execute(
        "INSERT INTO commits VALUES (?, ?, ?, ?)", (revision, now, entry, checksum(revision, now, entry))
    )
    connection.execute("UPDATE state SET revision = ?", (revision,))


def sweep_commits(connection: sqlite3.Connection, oldest: int) -> None:
    """Remove some of the commits before `oldest`, the first ones first."""
    connection.execute(
        "DELETE FROM commits WHERE revision IN"
        " (SELECT revision FROM commits WHERE revision < ? ORDER BY revision LIMIT ?)",
        (oldest, _SWEPT),
    )


def remember(connection: sqlite3.Connection, key: str, seconds: float, now: float) -> None:
    """Create an empty temporary item. Raises `Conflict` if it exists."""
    row = connection.execute("SELECT ends FROM temporary WHERE key = ?", (key,)).fetchone()
    if row is not None and row[0] > now:
        raise Conflict(key)
    put_temporary(connection, key, b"", seconds, now)


def put_temporary(connection: sqlite3.Connection, key: str, value: bytes, seconds: float, now: float) -> None:
    """Put a temporary item, and remove some that have ended."""
    connection.execute(
        "DELETE FROM temporary WHERE key IN (SELECT key FROM temporary WHERE ends <= ? LIMIT ?)", (now, _SWEPT)
    )
    ends = now + seconds
    row = (key, value, ends, checksum(key, value, ends))
    connection.execute("INSERT OR REPLACE INTO temporary VALUES (?, ?, ?, ?)", row)


def read_temporary(connection: sqlite3.Connection, key: str, now: float) -> bytes | None:
    """Return the value of a temporary item that has not ended."""
    row = connection.execute("SELECT value, ends, checksum FROM temporary WHERE key = ?", (key,)).fetchone()
    if row is None or row[1] <= now:
        return None
    verify("a temporary item", (key, row[0], row[1]), row[2])
    value: bytes = row[0]
    return value


def reserve(
    connection: sqlite3.Connection, key: str, window: Window, want: int, limit: int, holder: str, now: float
) -> int:
    """Reserve or give back units, and remove some reservations whose windows have ended. Raises `WindowClosed`."""
    if not window.starts <= now < window.ends:
        raise WindowClosed("the store's time is not inside the window")
    connection.execute(
        "DELETE FROM reservations WHERE (key, starts, ends, holder) IN"
        " (SELECT key, starts, ends, holder FROM reservations WHERE ends <= ? LIMIT ?)",
        (now, _SWEPT),
    )
    of_window = (key, window.starts, window.ends)
    held = connection.execute(
        "SELECT holder, units FROM reservations WHERE key = ? AND starts = ? AND ends = ?", of_window
    )
    units = dict(held.fetchall())
    total, own = sum(units.values()), units.get(holder, 0)
    got: int = min(want, max(0, limit - total)) if want > 0 else max(want, -own)
    if got:
        statement = "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?, ?, ?)"
        connection.execute(statement, (*of_window, holder, own + got))
    return got


def read_item(connection: sqlite3.Connection, key: str) -> Versioned | None:
    """Return an item."""
    row = connection.execute("SELECT version, value, checksum FROM items WHERE key = ?", (key,)).fetchone()
    return None if row is None else _versioned(key, *row)


def scan(connection: sqlite3.Connection, prefix: str, after: str, limit: int) -> list[tuple[str, Versioned]]:
    """Return a page of items. Keys are ASCII below DEL, so that DEL ends the range of a prefix."""
    rows = connection.execute(
        "SELECT key, version, value, checksum FROM items WHERE key >= ? AND key > ? AND key < ? ORDER BY key LIMIT ?",
        (prefix, after, f"{prefix}\x7f", limit),
    )
    page: list[tuple[str, Versioned]] = []
    size = 0
    for key, version, value, expected in rows:
        page.append((key, _versioned(key, version, value, expected)))
        size += len(value)
        if size > PAGE_BYTES:
            break
    return page


def read_commits(connection: sqlite3.Connection, revision: int, newest: int, limit: int) -> list[Commit]:
    """Return the commits after `revision`; `newest` is the store's. Raises `Forgotten` or `StoreForgot`."""
    if revision > newest:
        raise StoreForgot("the store has lost commits")
    commits: list[Commit] = []
    size = 0
    rows = connection.execute(
        "SELECT revision, time, entry, checksum FROM commits WHERE revision > ? ORDER BY revision LIMIT ?",
        (revision, limit),
    )
    for number, made, entry, expected in rows:
        if number != revision + 1 + len(commits):
            raise Forgotten(number)
        verify("a commit", (number, made, entry), expected)
        commits.append(decode_entry(number, made, entry))
        size += len(entry)
        if size > PAGE_BYTES:
            break
    if not commits and revision < newest:
        raise Forgotten(newest + 1)
    return commits


def _versioned(key: str, version: int, value: bytes, expected: bytes) -> Versioned:
    verify("an item", (key, version, value), expected)
    return Versioned(version, value)
