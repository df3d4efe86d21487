"""Accept TLS connections of one listening socket and limit the handshakes in progress.

asyncio's servers report a connection only after its handshake, so the number of half-open ones would be limited by file
descriptors only. Here at most `max_handshakes` run at a time. Beyond that the oldest is closed once it has had
`_MIN_HANDSHAKE_SECONDS`; until then new connections wait in the kernel. Few are accepted per turn of the event loop,
because each costs a signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl
    from collections.abc import Callable

    from zta_authz.servers.fast.registry import Limits

_MAX_ACCEPTS_PER_TURN: Final = 8
_MIN_HANDSHAKE_SECONDS: Final = 0.5
"""The time that each handshake gets in any case; honest ones take milliseconds."""
_PAUSE_SECONDS: Final = 0.5
"""The pause before the next `accept` if the process has no file descriptor left."""
_SHUTDOWN_SECONDS: Final = 2.0


class ConnectionOwner(Protocol):
    """Has the connections, such as `ConnectionRegistry`."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the connections."""
        ...

    @property
    def limits(self) -> Limits:
        """Those of handshakes."""
        ...

    @property
    def is_full(self) -> bool:
        """True if no further connection is allowed."""
        ...

    def refused(self, reason: str) -> None:
        """Log a refused connection."""
        ...


class TlsAcceptor:
    """Accepts connections of one listening socket, which it owns."""

    def __init__(
        self,
        registry: ConnectionOwner,
        listening: socket.socket,
        context: ssl.SSLContext,
        new_connection: Callable[[], asyncio.Protocol],
    ) -> None:
        """Start accepting. `new_connection` makes the protocol, which is connected after the handshake."""
        self._registry = registry
        self._loop = registry.loop
        self._listening = listening
        self._context = context
        self._new_connection = new_connection
        self._handshakes: dict[asyncio.Task[None], float] = {}  # start times, oldest first
        self._paused: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept no more; established connections continue."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()
        for task in list(self._handshakes):
            task.cancel()

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listening.fileno(), self._accept)

    def _pause_accepting(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._paused = self._loop.call_later(seconds, self._resume)

    def _accept(self) -> None:
        for _ in range(_MAX_ACCEPTS_PER_TURN):
            if len(self._handshakes) >= self._registry.limits.max_handshakes and not self._evict_oldest():
                return
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._registry.refused(f"it can't be accepted: {error.strerror}")
                self._pause_accepting(_PAUSE_SECONDS)
                return
            if self._registry.is_full:
                self._registry.refused("there are too many connections")
                accepted.close()
            else:
                task = self._loop.create_task(self._handshake(accepted))
                self._handshakes[task] = self._loop.time()
                task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)

    def _evict_oldest(self) -> bool:
        """Close the oldest handshake. If it is too recent, pause accepting and return False."""
        oldest, started = next(iter(self._handshakes.items()))
        remaining = started + _MIN_HANDSHAKE_SECONDS - self._loop.time()
        if remaining > 0:
            self._pause_accepting(remaining)
            return False
        self._handshakes.pop(oldest)
        oldest.cancel()
        self._registry.refused("there are too many TLS handshakes; the oldest is closed")
        return True

    async def _handshake(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(
                self._new_connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._registry.limits.handshake_seconds,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except OSError as error:  # includes SSLError, ConnectionError and TimeoutError
            reason = getattr(error, "reason", None) or type(error).__name__
            self._registry.refused(f"the TLS handshake failed ({reason})")
