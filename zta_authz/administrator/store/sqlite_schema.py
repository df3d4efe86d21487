"""The database of the SQLite store: its schema, the migrations to it, and the checks when it is opened.

`PRAGMA user_version` has the version of the schema, and `application_id` says that the database is ours. To change the
schema, append to `_MIGRATIONS`: a list of statements that turns the version before into the next one.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Final

from zta_authz.administrator.store.entries import checksum, damaged, new_epoch
from zta_authz.administrator.store.port import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

APPLICATION_ID: Final = 0x7A746131  # "zta1"
BUSY_SECONDS: Final = 5.0
"""How long a transaction waits for one of another process."""
_MODE: Final = 0o600

_MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), epoch TEXT NOT NULL, revision INTEGER NOT NULL)",
        """CREATE TABLE items (key TEXT PRIMARY KEY, version INTEGER NOT NULL, value BLOB NOT NULL,
           checksum BLOB NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE commits (revision INTEGER PRIMARY KEY, time REAL NOT NULL, entry BLOB NOT NULL,
           checksum BLOB NOT NULL)""",
        """CREATE TABLE temporary (key TEXT PRIMARY KEY, value BLOB NOT NULL, ends REAL NOT NULL,
           checksum BLOB NOT NULL) WITHOUT ROWID""",
        "CREATE INDEX temporary_ends ON temporary (ends)",
        """CREATE TABLE reservations (key TEXT, starts REAL, ends REAL, holder TEXT, units INTEGER NOT NULL,
           PRIMARY KEY (key, starts, ends, holder)) WITHOUT ROWID""",
        "CREATE INDEX reservations_ends ON reservations (ends)",
    ),
)
SCHEMA_VERSION: Final = len(_MIGRATIONS)


def create_file(path: str) -> tuple[int, int]:
    """Create the database's file, readable only for its owner, if it does not exist. Return its device and inode."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreUnavailable(f"the store's database can't be opened: {error.strerror}") from error
    return status.st_dev, status.st_ino


def connect(path: str) -> sqlite3.Connection:
    """Connect to the database. Transactions are explicit, and COMMIT returns when the data is on the disk."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Verify the database and migrate it to this version's schema. Raises `StoreUnavailable` or `sqlite3.Error`."""
    application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application not in {0, APPLICATION_ID} or (tables and application == 0):
        raise StoreUnavailable("the database belongs to another program; name a file of its own for the store")
    if version > SCHEMA_VERSION:
        raise StoreUnavailable(
            f"a newer version of zta-authz wrote the database (schema {version}, this version reads {SCHEMA_VERSION}); "
            "upgrade, or restore a backup from before the upgrade"
        )
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise StoreUnavailable("the database's file system does not support WAL; use a local disk")
    if tables:
        _verify_pages(connection)
    _migrate(connection)
    _verify_rows(connection)


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _pragma(connection, "user_version")  # another process may have migrated meanwhile
        for statements in _MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        if version == 0:
            connection.execute("INSERT INTO state VALUES (1, ?, 0)", (new_epoch(),))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        if version < SCHEMA_VERSION:
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        roll_back(connection)


def _verify_pages(connection: sqlite3.Connection) -> None:
    """Let SQLite verify the structure of the database."""
    result = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if result != "ok":
        raise StoreUnavailable("the store's database is damaged: SQLite's integrity check fails; restore a backup")


def _verify_rows(connection: sqlite3.Connection) -> None:
    """Compare every row with its checksum, and the newest commit with the revision."""
    connection.execute("BEGIN")
    try:
        for key, version, value, expected in connection.execute("SELECT key, version, value, checksum FROM items"):
            verify("an item", (key, version, value), expected)
        for revision, time, entry, expected in connection.execute(
            "SELECT revision, time, entry, checksum FROM commits"
        ):
            verify("a commit", (revision, time, entry), expected)
        first, newest, count = connection.execute(
            "SELECT min(revision), max(revision), count(*) FROM commits"
        ).fetchone()
        states = connection.execute("SELECT revision FROM state").fetchall()
        if len(states) != 1 or states[0][0] != (newest or 0) or count != (newest - first + 1 if count else 0):
            raise damaged("the revision")
    finally:
        roll_back(connection)


def verify(what: str, row: Iterable[str | int | float | bytes], expected: bytes) -> None:
    """Compare a row with its checksum. Raises `StoreUnavailable`."""
    if checksum(*row) != expected:
        raise damaged(what)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def roll_back(connection: sqlite3.Connection) -> None:
    """End the transaction without effect, if there is one."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
