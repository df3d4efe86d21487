"""Accepts TLS connections of one listening socket, so that handshakes have a bound of their own.

asyncio's servers say nothing of a connection before its handshake is over: as many could be half open as there are
file descriptors. Here so many are at a time; then the oldest ends for a new one, once it has had its chance, and until
then the others wait in the kernel. A few are accepted in a turn, because each costs the time of a signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl
    from collections.abc import Callable

    from zta_authz.servers.fast.serving import ConnectionRegistry

_AT_ONCE: Final = 8
_CHANCE_SECONDS: Final = 0.5
"""What a handshake has in any case; honest ones take milliseconds."""
_PAUSE_SECONDS: Final = 0.5
"""Before the next try, where the process has no file descriptor left."""
_SHUTDOWN_SECONDS: Final = 2.0


class TlsAcceptor:
    """One listening socket, which it owns."""

    def __init__(
        self,
        serving: ConnectionRegistry,
        listening: socket.socket,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
    ) -> None:
        """Begin at once. `make` gives the protocol of a connection, which hears of it after the handshake."""
        self._serving = serving
        self._loop = serving.loop
        self._listening = listening
        self._context = context
        self._make = make
        self._handshakes: dict[asyncio.Task[None], float] = {}  # when each began, the oldest first
        self._pause: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept no more; connections whose handshake is over go on."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()
        for task in list(self._handshakes):
            task.cancel()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening.fileno(), self._accept)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._pause = self._loop.call_later(seconds, self._resume)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if len(self._handshakes) >= self._serving.limits.max_handshakes and not self._make_room():
                return
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._serving.refused(f"it can't be accepted: {error.strerror}")
                self._rest(_PAUSE_SECONDS)
                return
            if self._serving.is_full:
                self._serving.refused("there are too many connections")
                accepted.close()
            else:
                task = self._loop.create_task(self._shake_hands(accepted))
                self._handshakes[task] = self._loop.time()
                task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)

    def _make_room(self) -> bool:
        """End the oldest handshake; False where all have just begun, and we rest until one is old enough."""
        oldest, begun = next(iter(self._handshakes.items()))
        left = begun + _CHANCE_SECONDS - self._loop.time()
        if left > 0:
            self._rest(left)
            return False
        self._handshakes.pop(oldest)
        oldest.cancel()
        self._serving.refused("too many TLS handshakes; the oldest ends")
        return True

    async def _shake_hands(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(
                self._make,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._serving.limits.handshake_seconds,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except OSError as error:  # SSLError, ConnectionError and TimeoutError are
            why = getattr(error, "reason", None) or type(error).__name__
            self._serving.refused(f"the TLS handshake failed ({why})")
