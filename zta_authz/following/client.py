"""Follow the administrator: one gRPC stream, which begins again where it ended, as long as the process runs."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError

from zta_authz._proto.administrator_pb2 import FollowRequest, ViewUpdate
from zta_authz.following.position import InvalidView
from zta_authz.following.tls import TlsProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.following.connection import Connection
    from zta_authz.ports import Clock

METHOD: Final = "/zta.administrator.v1.Views/Follow"
SILENCE_SECONDS: Final = 16.0
"""The administrator sends something every 5 seconds. Without anything for so long, the stream begins again."""
SETTLED_SECONDS: Final = 5.0
"""After a stream that lasted so long, the first retry comes soon again."""
FIRST_RETRY_SECONDS: Final = 0.2
LONGEST_RETRY_SECONDS: Final = 10.0
MAX_UPDATE_BYTES: Final = 1024 * 1024
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_UPDATE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
)
_LOG = logging.getLogger(__name__)


class View(Protocol):
    """What a follower keeps up to date."""

    @property
    def epoch(self) -> str:
        """The epoch of the view, "" without one."""
        ...

    @property
    def revision(self) -> int:
        """The revision of the view, 0 without one."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether a whole view has been received."""
        ...

    def begin(self) -> None:
        """Begin a new stream."""
        ...

    def forget_position(self) -> None:
        """Ask for a whole view next."""
        ...

    def apply(self, update: ViewUpdate, now: float) -> None:
        """Apply one update, received at `now`. Raises `InvalidView`."""
        ...


class Follower:
    """Keeps `views` up to date from the administrator, which `connection` leads to.

    `on_change` is called when the administrator becomes reachable or unreachable, and when the first view is complete.
    """

    def __init__(
        self,
        connection: Connection,
        views: View,
        node: str,
        on_change: Callable[[], None] = lambda: None,
        clock: Clock = time.time,
    ) -> None:
        self.connected = False
        self.streams = 0
        """How often a stream was begun."""
        self.invalid = 0
        """How often updates could not be applied, and the view was asked for again."""
        self._connection = connection
        self._views = views
        self._node = node
        self._on_change = on_change
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow. Call it in the event loop that decides."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="follow the administrator")

    async def close(self) -> None:
        """End the stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        failures, loop = 0, asyncio.get_running_loop()
        while True:
            began = loop.time()
            failure = await self._try_to_follow()
            if self._connection.replaced and self.connected:
                continue
            if loop.time() - began >= SETTLED_SECONDS:
                failures = 0
            if failures == 0 or self.connected:
                _LOG.warning(
                    "the administrator is not reachable: %s", failure, extra={"administrator": self._connection.name}
                )
            self._set_connected(connected=False)
            longest = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2**failures)
            failures = min(failures + 1, 16)
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - spreads reconnections

    async def _try_to_follow(self) -> str:
        """Follow as long as possible, and return why that ended."""
        try:
            await self._follow_once()
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        except (InvalidView, DecodeError) as error:
            self.invalid += 1
            self._views.forget_position()
            return str(error)
        except TlsProblem as error:
            return str(error)
        except TimeoutError:
            return "nothing was received in time"
        except OSError as error:
            return error.strerror or type(error).__name__
        except Exception as error:  # noqa: BLE001  following must go on
            _LOG.exception("following the administrator failed")
            return type(error).__name__
        return "the administrator ended the stream"

    async def _follow_once(self) -> None:
        """Open a stream, and apply its updates until it ends."""
        views = self._views
        async with self._connection.open() as target, grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
            follow: Any = channel.unary_stream(
                METHOD, request_serializer=FollowRequest.SerializeToString, response_deserializer=ViewUpdate.FromString
            )
            request = FollowRequest(node=self._node, epoch=views.epoch, revision=views.revision)
            self.streams += 1
            views.begin()
            stream = follow(request)
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    update = await stream.read()
                if update is grpc.aio.EOF:
                    return
                complete = views.is_complete
                views.apply(update, self._clock())
                self._set_connected(connected=True)
                if views.is_complete is not complete:
                    self._on_change()

    def _set_connected(self, *, connected: bool) -> None:
        if connected is self.connected:
            return
        self.connected = connected
        if connected:
            _LOG.info("following the administrator", extra={"administrator": self._connection.name})
        self._on_change()
