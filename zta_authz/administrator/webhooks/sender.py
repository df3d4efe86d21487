"""Sends the events that one receiver wants, in their order, each at least once.

Where the receiver is in the store's stream is kept in the store, so that a restart and another replica continue there.
Nothing is queued in memory: an event that can't be delivered stays in the stream and is sent again, until it is given
up.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec
from msgspec import structs

from zta_authz.administrator.access_events import BadEvent, log_line, read_event
from zta_authz.administrator.store.port import Forgotten, StoreError
from zta_authz.administrator.webhooks.signing import parse_secrets, signature_header
from zta_authz.audit.record import time_text
from zta_authz.keys.outcomes import FetchFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from zta_authz.administrator.access_events import AccessEvent
    from zta_authz.administrator.lease import Lease
    from zta_authz.administrator.store.port import Commit, Store
    from zta_authz.keys.http_client import HttpReply

CURSOR: Final = "webhook/"
CURSOR_SECONDS: Final = 366 * 86400.0
SEND_SECONDS: Final = 10.0
"""Time limit of one attempt, name look-up and connecting included."""
MAX_AGE_SECONDS: Final = 86400.0
"""An event that could not be delivered for so long is given up."""
MAX_REJECTIONS: Final = 6
"""An event that the receiver rejects so often is given up, so that it does not hold up those after it."""
REJECTIONS: Final = frozenset((400, 409, 413, 415, 422))
"""Statuses by which a receiver rejects an event for its content."""
RETRY_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 300.0
MAX_RETRY_AFTER_SECONDS: Final = 3600.0
IDLE_SECONDS: Final = 30.0
_LEAST_SEND_SECONDS: Final = 2.0
"""With less time left of the lease, an attempt waits for the next one."""
_PAGE: Final = 50
_SETTLE_SECONDS: Final = 0.05  # a burst of commits is read together
_SAVE_EVERY: Final = 1000
"""A position that moved over so many commits, all without wanted events, is saved, so that it is not forgotten."""
_LOG = logging.getLogger(__name__)


class Client(Protocol):
    """Sends HTTP requests. `keys.http_client.HttpClient` implements it."""

    async def send(
        self, method: str, address: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> HttpReply:
        """Send a request. Raises `FetchFailed`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Outcome(StrEnum):
    """How an attempt ended. Values are labels of a metric."""

    DELIVERED = "delivered"
    FAILED = "failed"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where events of `kinds` go. `name` is for logs and metrics: a URL may have a secret in its path."""

    name: str
    url: str = field(repr=False)
    secret_file: str
    kinds: frozenset[str]
    cursor: str


class Position(msgspec.Struct, frozen=True):
    """Everything up to commit `revision`, and `index` events of the next one, are done, and all before `after`.

    `time` is that of the commit. Both times are in seconds since the epoch, by the store's clock.
    """

    epoch: str
    revision: int
    time: float
    index: int = 0
    after: float = 0.0


class _Due(NamedTuple):
    commit: Commit
    event: AccessEvent
    data: bytes
    done: Position
    """The position once the event is done."""


class Sender:
    """Sends to one receiver, as long as `run` runs. Its failures delay no other receiver."""

    def __init__(
        self,
        receiver: Receiver,
        store: Store,
        client: Client,
        lease: Lease,
        epoch: Callable[[], str],
        count: Callable[[str, Outcome], None],
        clock: Callable[[], float],
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`epoch` returns the store's, "" before it is known. `clock` returns seconds since the epoch."""
        self.receiver = receiver
        self.failure = ""
        """Why the oldest event could not be delivered so far; "" if all is well."""
        self.waiting_since: float | None = None
        """The time of the oldest event that waits, None if none does."""
        self._store = store
        self._client = client
        self._lease = lease
        self._epoch = epoch
        self._count = count
        self._clock = clock
        self._jitter = jitter
        self._position: Position | None = None
        self._saved = 0
        self._event_id = ""
        self._attempts = self._rejections = 0

    async def run(self, wait: Callable[[float], Awaitable[None]]) -> None:
        """Send until cancelled. `wait` returns when the store has changed, or after so many seconds."""
        while True:
            try:
                pause = await self.step()
            except StoreError as error:
                self._position = None
                self._fail(f"the store can't be used: {error}")
                pause = self._jitter(0.5, 1.0) * RETRY_SECONDS
            except Exception:  # noqa: BLE001 - it must not end for good
                _LOG.exception("webhook: internal error", extra={"webhook": self.receiver.name})
                self._position = None
                pause = MAX_RETRY_SECONDS
            if pause is None:
                await wait(IDLE_SECONDS)
                pause = _SETTLE_SECONDS
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Let another replica continue, after `run` was cancelled."""
        await self._lease.release()
        await self._client.close()

    async def step(self) -> float | None:
        """Send the next event, if there is one. Returns when to go on: in so many seconds, or (None) after a change."""
        epoch = self._epoch()
        if not epoch:
            return RETRY_SECONDS
        if self._position is None or self._position.epoch != epoch:
            self._position = await self._read_position(epoch)
        due = await self._find(self._position)
        if due is None:
            self.waiting_since, self.failure = None, ""
            return None
        self.waiting_since = due.commit.time
        hold = await self._lease.hold()
        if hold.fresh or not hold.held:  # somebody else may have sent it meanwhile
            self._position = None
            return 0.0 if hold.held else hold.seconds + self._jitter(0.0, 1.0)
        if hold.seconds < _LEAST_SEND_SECONDS:
            return hold.seconds
        return await self._send(due, epoch, min(SEND_SECONDS, hold.seconds))

    async def _send(self, due: _Due, epoch: str, seconds: float) -> float:
        """Try to deliver one event. Returns how long to wait before the next step."""
        if self._event_id != due.event.event_id:
            self._event_id, self._attempts, self._rejections = due.event.event_id, 0, 0
        self._attempts += 1
        failure, retry_after = await self._post(due, epoch, seconds)
        if not failure:
            self._count(self.receiver.name, Outcome.DELIVERED)
            await self._finish(due)
            return 0.0
        self._count(self.receiver.name, Outcome.FAILED)
        self._fail(failure)
        if self._rejections >= MAX_REJECTIONS or self._clock() - due.commit.time > MAX_AGE_SECONDS:
            _LOG.error(
                "webhook: an event is given up",
                extra={"webhook": self.receiver.name, "event_id": due.event.event_id, "cause": failure},
            )
            self._count(self.receiver.name, Outcome.GIVEN_UP)
            await self._finish(due)
            return 0.0
        delay = min(MAX_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** min(self._attempts - 1, 20))
        return max(delay * self._jitter(0.5, 1.0), min(retry_after, MAX_RETRY_AFTER_SECONDS))

    async def _post(self, due: _Due, epoch: str, seconds: float) -> tuple[str, float]:
        """Send one event. Returns why it failed ("": it is delivered), and the receiver's Retry-After in seconds."""
        try:
            secrets = await asyncio.to_thread(read_secrets, self.receiver.secret_file)
        except ValueError as error:
            return str(error), 0.0
        body = payload(due.event, due.data, due.commit, epoch)
        timestamp = int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "Accept": "*/*",
            "webhook-id": due.event.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature_header(secrets, due.event.event_id, timestamp, body),
        }
        try:
            async with asyncio.timeout(seconds):
                reply = await self._client.send("POST", self.receiver.url, headers=headers, body=body)
        except FetchFailed as error:
            return str(error), 0.0
        except TimeoutError:
            return f"no answer within {seconds:.1f} seconds", 0.0
        if 200 <= reply.status < 300:
            return "", 0.0
        self._rejections += reply.status in REJECTIONS
        return f"the receiver answered {reply.status}", reply.retry_after or 0.0

    async def _finish(self, due: _Due) -> None:
        self._position = due.done
        self._attempts = self._rejections = 0
        if self.failure:
            _LOG.info("webhook: events are delivered again", extra={"webhook": self.receiver.name})
            self.failure = ""
        await self._save(due.done)

    def _fail(self, failure: str) -> None:
        if failure != self.failure:
            _LOG.warning("webhook: an event has to wait", extra={"webhook": self.receiver.name, "cause": failure})
        self.failure = failure

    # where the receiver is in the stream

    async def _read_position(self, epoch: str) -> Position:
        """The position in the store; that of the newest commit for a new receiver."""
        raw = await self._store.get_temporary(CURSOR + self.receiver.cursor)
        try:
            position = None if raw is None else _decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            position = None
        if position is None:
            head = await self._store.head()
            position = Position(epoch, head.revision, head.time)
            await self._save(position)
            _LOG.info("webhook: it begins with the next event", extra={"webhook": self.receiver.name})
        elif position.epoch != epoch:  # commits were lost: those numbers may mean others now, so time decides
            position = Position(epoch, 0, position.time, after=position.time)
        self._saved = position.revision
        return position

    async def _save(self, position: Position) -> None:
        key = CURSOR + self.receiver.cursor
        await self._store.put_temporary(key, msgspec.json.encode(position), CURSOR_SECONDS)
        self._saved = position.revision

    async def _find(self, position: Position) -> _Due | None:
        """The first wanted event after `position`."""
        while True:
            try:
                commits = await self._store.read_since(position.revision, _PAGE)
            except Forgotten as error:
                if not position.after:
                    extra = {"webhook": self.receiver.name, "commits": error.first - 1 - position.revision}
                    _LOG.error("webhook: the store forgot commits before they were looked at", extra=extra)
                position = structs.replace(position, revision=error.first - 1, index=0)
                continue
            for commit in commits:
                due = self._select(commit, position)
                if due is not None:
                    self._position = position
                    return due
                position = structs.replace(position, revision=commit.revision, time=commit.time, index=0)
            if not commits:
                self._position = position
                if position.revision >= self._saved + _SAVE_EVERY:
                    await self._save(position)
                return None

    def _select(self, commit: Commit, position: Position) -> _Due | None:
        if commit.time < position.after:
            return None
        for index, data in enumerate(commit.events[position.index :], position.index + 1):
            try:
                event = read_event(data)
            except BadEvent:
                continue
            if event.kind in self.receiver.kinds:
                done = structs.replace(position, index=index)
                if index == len(commit.events):
                    done = structs.replace(position, revision=commit.revision, time=commit.time, index=0)
                return _Due(commit, event, data, done)
        return None


def read_secrets(path: str) -> tuple[bytes, ...]:
    """Read the secrets in a file. Raises ValueError, which quotes nothing of it."""
    try:
        text = Path(path).read_text("ascii")
    except OSError as error:
        raise ValueError(f"the secret's file can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("the secret's file is not ASCII text") from None
    try:
        return parse_secrets(text)
    except ValueError as error:
        raise ValueError(f"the secret's file is not valid: {error}") from None


def payload(event: AccessEvent, data: bytes, commit: Commit, epoch: str) -> bytes:
    """The body, as Standard Webhooks recommends it: type, time, and the event as in the access log. It has no links."""
    head = f'{{"type":"{event.kind}","timestamp":"{time_text(commit.time)}","data":'
    return head.encode() + log_line(data, commit, epoch).rstrip(b"\n") + b"}"


_decode: Final = msgspec.json.Decoder(Position).decode
