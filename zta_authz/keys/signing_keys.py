"""Signing keys in files: a list of keys with the times at which they sign, and a PEM file for each, beside the list.

    keys:
    - {file: 2027-02.pem, signFrom: "2027-02-01T00:00:00Z"}
    - {file: 2027-01.pem}

The files are read at start and whenever one changes. If they become invalid, the last good keys stay in force.
"""

from __future__ import annotations

import asyncio
import logging
import os.path
import re
from math import inf
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.keys.regular_files import file_stamp, read_regular
from zta_authz.minting.key_states import PUBLISH_AHEAD, KeyRing, ScheduledKey
from zta_authz.minting.signer import read_signing_key
from zta_authz.policy.yaml.fields import Reader
from zta_authz.policy.yaml.nodes import Mapping, read_documents
from zta_authz.policy.yaml.values import moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.keys.regular_files import Stamp
    from zta_authz.minting.signer import SigningKey
    from zta_authz.policy.yaml.nodes import Node
    from zta_authz.ports import Clock

SETTING: Final = "minting.keys"
MAX_LIST_BYTES: Final = 64 * 1024
MAX_KEY_BYTES: Final = 16 * 1024
MAX_KEYS: Final = 16
_FIELDS: Final = ("file", "signFrom", "signUntil")
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")  # never a path
_LOG = logging.getLogger(__name__)


class SigningKeyFiles:
    """Keeps the keys listed in the file `path` current: each new ring is passed to `publish`.

    Use it from the event loop's thread only.
    """

    def __init__(self, path: str, publish: Callable[[KeyRing], None], clock: Clock) -> None:
        self._path = path
        self._publish = publish
        self._clock = clock
        self._ring = KeyRing()
        self._stamps: dict[str, Stamp] = {}
        self._faults: tuple[Fault, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def load(self) -> None:
        """Read the keys for the first time. Raises `SettingsErrors` with every fault."""
        self._take(*read_signing_keys(self._path))

    def start(self, poll_seconds: float | None) -> None:
        """Look for changes from now on: every `poll_seconds`, and when asked to."""
        self._task = asyncio.get_running_loop().create_task(self._poll(poll_seconds), name="signing keys")

    def ask(self) -> None:
        """Look for changes now."""
        self._wake.set()

    async def close(self) -> None:
        """Stop looking for changes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _poll(self, seconds: float | None) -> None:
        while True:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self.refresh()

    async def refresh(self) -> None:
        """Read the keys again if a file changed, or if they were refused: a missing file may have come."""
        if not self._faults and await asyncio.to_thread(_stamps_of, list(self._stamps)) == self._stamps:
            return
        try:
            ring, stamps = await asyncio.to_thread(read_signing_keys, self._path)
        except SettingsErrors as error:
            if error.faults != self._faults:
                for fault in error.faults[:10]:
                    _LOG.error("the changed signing keys are refused: %s", fault)
            self._faults = error.faults
            return
        self._warn_of_early_use(ring)
        self._take(ring, stamps)
        now = self._clock()
        states = {key_id: str(state) for key_id, state in ring.states(now).items()}
        _LOG.info("signing keys taken", extra={"states": states})

    def _take(self, ring: KeyRing, stamps: dict[str, Stamp]) -> None:
        self._ring, self._stamps, self._faults = ring, stamps, ()
        if ring.current(self._clock()) is None:
            _LOG.warning("no signing key is in force: nothing can be minted", extra={"file": self._path})
        self._publish(ring)

    def _warn_of_early_use(self, ring: KeyRing) -> None:
        """Warn of a new key that signs before applications can know it."""
        now = self._clock()
        if self._ring.current(now) is None:
            return
        known = {scheduled.key.key_id for scheduled in self._ring.keys}
        for scheduled in ring.keys:
            if scheduled.key.key_id not in known and scheduled.sign_from < now + PUBLISH_AHEAD < scheduled.sign_until:
                message = "a new key signs within %.0f s: applications may not have fetched it by then"
                _LOG.warning(message, PUBLISH_AHEAD, extra={"key_id": scheduled.key.key_id})


def read_signing_keys(path: str) -> tuple[KeyRing, dict[str, Stamp]]:
    """Read the list `path` and its keys; return them with the stamps of all files, taken before each was read.

    Raises `SettingsErrors` with every fault.
    """
    faults: list[Fault] = []
    stamps = {path: file_stamp(path)}
    content = read_regular(path, MAX_LIST_BYTES, SETTING)
    if len(content) > MAX_LIST_BYTES:
        raise SettingsErrors([Fault(path, 0, 0, f"has more than {MAX_LIST_BYTES} bytes", f"correct `{SETTING}`")])
    reader = Reader(path, faults)
    keys: list[ScheduledKey] = []
    for node, file, sign_from, sign_until in _entries(reader, content):
        key_path = os.path.join(os.path.dirname(path), file)
        stamps[key_path] = file_stamp(key_path)
        key = _key(reader, node, key_path)
        if key is not None:
            _check_times(reader, node, keys, key, sign_from, sign_until)
            keys.append(ScheduledKey(key, sign_from, sign_until))
    if faults:
        raise SettingsErrors(faults)
    return KeyRing(keys), stamps


def _entries(reader: Reader, content: bytes) -> list[tuple[Mapping, str, float, float]]:
    """The entries of the list: node, file name, and the two times."""
    try:
        documents = read_documents(reader.source, content.decode("utf-8"), reader.faults)
    except UnicodeDecodeError:
        raise SettingsErrors([Fault(reader.source, 0, 0, "is not UTF-8", "write the list of keys as YAML")]) from None
    if len(documents) != 1:
        if not reader.faults:
            reader.faults.append(Fault(reader.source, 1, 1, "is not one list of keys", "write `keys:` and the keys"))
        return []
    root = reader.mapping(documents[0], "the list of signing keys", ("keys",))
    listed = None if root is None else reader.required(root, "keys", "the list of signing keys")
    items = [] if listed is None else reader.items(listed, "keys", "signing keys")
    if listed is not None and len(items) > MAX_KEYS:
        reader.fault(listed, f"`keys` has more than {MAX_KEYS} entries", "remove retired keys")
    entries = []
    for item in items[:MAX_KEYS]:
        node = reader.mapping(item, "an entry of `keys`", _FIELDS)
        name_node = None if node is None else reader.required(node, "file", "an entry of `keys`")
        name = None if name_node is None else reader.string(name_node, "file")
        if node is None or name_node is None or name is None:
            continue
        if not _NAME.fullmatch(name):
            reader.fault(name_node, "`file` is not the name of a file beside this one", "write a name without `/`")
            continue
        entries.append((node, name, moment(reader, node, "signFrom", -inf), moment(reader, node, "signUntil", inf)))
    return entries


def _key(reader: Reader, node: Node, path: str) -> SigningKey | None:
    try:
        return read_signing_key(read_regular(path, MAX_KEY_BYTES, SETTING))
    except SettingsErrors as error:
        reader.faults.extend(error.faults)
    except ValueError as error:
        hint = "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"
        reader.fault(node, f"`{path}` {error}", hint)
    return None


def _check_times(
    reader: Reader, node: Node, others: list[ScheduledKey], key: SigningKey, sign_from: float, sign_until: float
) -> None:
    if any(other.key.key_id == key.key_id for other in others):
        reader.fault(node, "the same key is listed twice", "remove one of the two")
    if any(other.sign_from == sign_from for other in others):
        reader.fault(node, "two keys begin to sign at the same time", "write another `signFrom` for one of them")
    if sign_from >= sign_until:
        reader.fault(node, "the key stops signing before it begins", "correct `signFrom` or `signUntil`")


def _stamps_of(paths: list[str]) -> dict[str, Stamp]:
    return {path: file_stamp(path) for path in paths}
