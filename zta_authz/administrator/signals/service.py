"""Receives the signals (SSF 1.0) of every SignalSource of the policies in force.

Each source has a task of its own: it reads the transmitter's metadata, creates or finds the stream, polls if the stream
is polled, and asks for verification events. A source that fails is tried again, with increasing pauses, and disturbs no
other. Several administrators may do this at once: a SET counts once, and one of them creates the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from zta_authz.administrator.signals.changes import source_item
from zta_authz.administrator.signals.poller import Poller
from zta_authz.administrator.signals.receiver import PushSource
from zta_authz.administrator.signals.runtime import SourceRuntime
from zta_authz.administrator.signals.transmitter_client import (
    Authorizer,
    Credentials,
    Refused,
    TransmitterClient,
    read_secret,
)
from zta_authz.administrator.signals.transmitters import DEFAULT_VERIFICATION_SECONDS, TransmitterError
from zta_authz.administrator.store.port import ABSENT, Change, Conflict, StoreError
from zta_authz.administrator.view_items import SIGNAL, SOURCE, SignalItem, SourceItem, decode_item, encode_item
from zta_authz.keys.outcomes import FetchFailed
from zta_authz.model.signal_documents import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from zta_authz.administrator.signals.intake import Intake
    from zta_authz.administrator.signals.receiver import PushReceiver
    from zta_authz.administrator.signals.transmitter_client import Client
    from zta_authz.administrator.signals.transmitters import Stream
    from zta_authz.administrator.store.port import Store
    from zta_authz.keys.refresher import JwksRefresher
    from zta_authz.model.signal_documents import SignalSource

STREAM: Final = "signal-stream/"
"""The prefix of the items that keep the IDs of streams."""
RETRY_SECONDS: Final = 2.0
MAX_RETRY_SECONDS: Final = 120.0
MAX_VERIFICATION_SECONDS: Final = 3600.0
CREATION_SECONDS: Final = 30.0
"""How long one administrator keeps the others from creating the same stream."""
_MAX_DOUBLINGS: Final = 8

_LOG = logging.getLogger(__name__)
_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What the settings say of one source: how to authenticate to it, and the file with its `Authorization` header."""

    credentials: Credentials = field(default_factory=Credentials)
    authorization_file: str = ""

    @property
    def manages(self) -> bool:
        """Whether the administrator can create the stream."""
        return bool(self.credentials.token_file or self.credentials.client_id)


@dataclass(frozen=True, slots=True)
class SourceState:
    """The state of one source, for people and metrics. Times are seconds since the epoch, None if never.

    The source is stale if it was not heard for more than `max_silence` seconds.
    """

    name: str
    delivery: Delivery
    stream_id: str
    heard_at: float | None
    verified_at: float | None
    failure: str
    max_silence: float


class _StreamItem(msgspec.Struct, frozen=True):
    stream_id: str


class SignalService:
    """Runs all sources. Belongs to one event loop.

    Args:
        intake: Takes in each SET.
        store: The store.
        client: Sends requests to transmitters.
        keys: Fetches the keys of the sources; used for nothing else.
        options: What the settings say, by `namespace/name` of the source.
        push: The listener for pushed SETs, None if the settings have none. The caller starts and stops it.
        push_url: The public base URL of that listener.
    """

    def __init__(
        self,
        intake: Intake,
        store: Store,
        client: Client,
        keys: JwksRefresher,
        options: Mapping[str, SourceOptions],
        *,
        push: PushReceiver | None = None,
        push_url: str = "",
        clock: Callable[[], float] = time.time,
        jitter: Callable[[float, float], float] = _random.uniform,
    ) -> None:
        self._intake = intake
        self._store = store
        self._client = client
        self._keys = keys
        self._options = options
        self._push = push
        self._push_url = push_url.rstrip("/")
        self._clock = clock
        self._jitter = jitter
        self._runtimes: dict[str, SourceRuntime] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._creating: dict[str, float] = {}

    async def start(self, sources: Iterable[SignalSource]) -> None:
        """Start with these sources."""
        await self._keys.start()
        await self.update(sources)

    async def update(self, sources: Iterable[SignalSource]) -> None:
        """Use these sources from now on. Those that did not change go on."""
        by_name = {source.full_name: source for source in sources}
        for name in list(self._runtimes):
            if self._runtimes[name].source != by_name.get(name):
                await self._stop(name)
                if name not in by_name:
                    await self._forget(name)
        for name, source in by_name.items():
            if name not in self._runtimes:
                runtime = SourceRuntime(source, self._intake, self._clock)
                self._runtimes[name] = runtime
                self._tasks[name] = asyncio.get_running_loop().create_task(
                    self._run(runtime), name=f"signals of {name}"
                )
        self._bind()

    async def close(self) -> None:
        """Stop all sources. Their streams stay."""
        for name in list(self._runtimes):
            await self._stop(name)
        await self._keys.close()
        await self._client.close()

    def states(self) -> list[SourceState]:
        """The state of each source, in order of their names."""
        return [
            SourceState(
                name, runtime.source.delivery, runtime.stream.stream_id if runtime.stream else "", runtime.heard_at,
                runtime.verified_at, runtime.failure, runtime.source.max_silence,
            )
            for name, runtime in sorted(self._runtimes.items())
        ]  # fmt: skip

    async def _stop(self, name: str) -> None:
        del self._runtimes[name]
        task = self._tasks.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if self._push is not None:
            self._push.sources = {key: source for key, source in self._push.sources.items() if key != name}

    async def _forget(self, name: str) -> None:
        """Remove the signals of a source that the policies no longer have. Its revocations stay until they end."""
        after = ""
        try:
            await self._store.commit(Change(delete=(SOURCE + name,)))
            while page := await self._store.scan(SIGNAL, after=after):
                after = page[-1][0]
                items = ((key, decode_item(key, entry.value)) for key, entry in page)
                gone = tuple(key for key, item in items if isinstance(item, SignalItem) and item.source == name)
                if gone:
                    await self._store.commit(Change(delete=gone))
        except StoreError as error:
            _LOG.error("signals of a removed source stay in force: %s", error, extra={"source": name})

    def _bind(self) -> None:
        """Have the keys of all sources fetched whose address is known."""
        runtimes = [runtime for runtime in self._runtimes.values() if runtime.slot.jwks_uri]
        self._keys.bind(runtime.slot for runtime in runtimes)
        for runtime in runtimes:
            runtime.fetched_at = self._fetched_at(runtime)

    def _fetched_at(self, runtime: SourceRuntime) -> Callable[[], float | None]:
        def fetched_at() -> float | None:
            age = self._keys.age_of(runtime.slot)
            return None if age is None else age.since

        return fetched_at

    async def _run(self, runtime: SourceRuntime) -> None:
        """Run one source until cancelled."""
        name, failures = runtime.source.full_name, 0
        while True:
            started = time.monotonic()
            try:
                await self._run_once(runtime)
            except (FetchFailed, TransmitterError, StoreError, TimeoutError, ExceptionGroup) as error:
                runtime.failure = _describe(error)
                _LOG.warning("a source of signals fails: %s", runtime.failure, extra={"source": name})
            except Exception:  # noqa: BLE001 - a task that ended would look like a source without events
                runtime.failure = "internal error"
                _LOG.exception("a source of signals failed", extra={"source": name})
            if time.monotonic() - started > MAX_RETRY_SECONDS:
                failures = 0
            delay = min(MAX_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** min(failures, _MAX_DOUBLINGS))
            failures += 1
            await asyncio.sleep(self._jitter(0.5, 1.0) * delay)

    async def _run_once(self, runtime: SourceRuntime) -> None:
        """Prepare the source and receive its signals. Returns only by an exception."""
        source = runtime.source
        options = self._options.get(source.full_name, SourceOptions())
        await self._announce(source)
        client = TransmitterClient(source, self._client, Authorizer(options.credentials, self._client))
        authorization = await self._listen(runtime, options)
        managed = options.manages and not source.endpoint
        if managed or not source.jwks_uri:
            runtime.metadata = await client.metadata()
            if not source.jwks_uri:
                if not runtime.metadata.jwks_uri:
                    raise TransmitterError("the transmitter's metadata have no `jwks_uri`")
                runtime.slot.jwks_uri = runtime.metadata.jwks_uri
                self._bind()
        if managed:
            runtime.stream = await self._stream(runtime, client, authorization)
        runtime.failure = ""
        await self._receive(runtime, client)

    async def _announce(self, source: SignalSource) -> None:
        """Publish what the source reports: until it is heard, its signals are stale and not absent."""
        key = SOURCE + source.full_name
        entry = await self._store.get(key)
        known = None if entry is None else decode_item(key, entry.value)
        item = source_item(source, known.heard_at if isinstance(known, SourceItem) else 0.0)
        if item != known:
            expect = {key: ABSENT if entry is None else entry.version}
            with contextlib.suppress(Conflict):  # it was heard, or another administrator published it
                await self._store.commit(Change(expect=expect, put={key: encode_item(item)}))

    async def _receive(self, runtime: SourceRuntime, client: TransmitterClient) -> None:
        source = runtime.source
        endpoint = source.endpoint or (runtime.stream.endpoint if runtime.stream else "")
        polls = source.delivery is Delivery.POLL
        if polls and not endpoint:
            raise TransmitterError("no credentials to create a stream, and no `endpoint` to poll")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._verify(runtime, client))
            if polls:
                group.create_task(Poller(runtime, client, endpoint, jitter=self._jitter).run())

    async def _listen(self, runtime: SourceRuntime, options: SourceOptions) -> str:
        """Accept pushed SETs of the source. Returns the value of their `Authorization` header, "" if it is polled."""
        source = runtime.source
        if source.delivery is not Delivery.PUSH:
            return ""
        if self._push is None or not options.authorization_file:
            raise TransmitterError("a source that pushes needs `signals.listen` and its `authorization_file`")
        authorization = await asyncio.to_thread(read_secret, options.authorization_file)
        pushed = PushSource(runtime, authorization)
        self._push.sources = {**self._push.sources, source.full_name: pushed}
        return authorization

    async def _stream(self, runtime: SourceRuntime, client: TransmitterClient, authorization: str) -> Stream:
        """Find or create the stream, and keep its ID in the store."""
        source, metadata = runtime.source, runtime.metadata
        if metadata is None:
            raise TransmitterError("the transmitter has no metadata")
        key = STREAM + source.full_name
        entry = await self._store.get(key)
        known = "" if entry is None else msgspec.json.decode(entry.value, type=_StreamItem).stream_id
        if not known and not await self._may_create(source.full_name):
            raise TransmitterError("another administrator creates the stream")
        url = f"{self._push_url}/signals/{source.full_name}" if source.delivery is Delivery.PUSH else ""
        stream = await client.ensure_stream(metadata, known, url, authorization)
        if stream.stream_id != known:
            expect = {key: ABSENT if entry is None else entry.version}
            data = msgspec.json.encode(_StreamItem(stream.stream_id))
            await self._store.commit(Change(expect=expect, put={key: data}))
            _LOG.info("a stream of signals is set up", extra={"source": source.full_name, "stream": stream.stream_id})
        return stream

    async def _may_create(self, name: str) -> bool:
        """Whether this administrator is the one that creates the stream of a source for `CREATION_SECONDS`."""
        now = time.monotonic()
        if now < self._creating.get(name, 0.0):
            return True
        if not await self._store.remember(f"signals/creating/{name}", CREATION_SECONDS):
            return False
        self._creating[name] = now + CREATION_SECONDS
        return True

    async def _verify(self, runtime: SourceRuntime, client: TransmitterClient) -> None:
        """Ask for verification events on a schedule, forever: a stream without events is no sign of peace."""
        metadata, stream, source = runtime.metadata, runtime.stream, runtime.source
        if metadata is None or stream is None or not metadata.verification_endpoint:
            await asyncio.Event().wait()
            return
        interval = max(stream.verification_seconds, min(source.max_silence / 3.5, MAX_VERIFICATION_SECONDS))
        if interval > source.max_silence:
            _LOG.warning(
                "the transmitter verifies its stream only every %d s, so the source is stale in between",
                interval, extra={"source": source.full_name, "max_silence": source.max_silence},
            )  # fmt: skip
        while True:
            state = secrets.token_urlsafe(16)
            runtime.expect(state)
            pause = interval
            try:
                await client.verify(metadata, stream, state)
            except Refused as error:
                if error.status == 429:  # another administrator asked, or this one before it was started again
                    least = min(interval, DEFAULT_VERIFICATION_SECONDS)
                    pause = max(stream.verification_seconds, error.retry_after or least)
                _LOG.info("no verification event: %s", error, extra={"source": source.full_name})
            except (FetchFailed, TransmitterError, TimeoutError) as error:
                _LOG.info("no verification event: %s", error, extra={"source": source.full_name})
            await asyncio.sleep(self._jitter(1.0, 1.1) * min(pause, MAX_VERIFICATION_SECONDS))


def _describe(error: BaseException) -> str:
    """The failure in words; the first one of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)
