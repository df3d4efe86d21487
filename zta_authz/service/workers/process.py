"""One worker as seen by its supervisor: the process, its answers, and its exit."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.service.workers.control import frame, read_frame

if TYPE_CHECKING:
    from typing import IO

    from zta_authz.service.workers.control import StartMessage

ANSWER_SECONDS: Final = 1.0
_STDOUT: Final = 1
_CHUNK_BYTES: Final = 64 * 1024
_stdout_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class PageReply:
    """A page from a worker: HTTP status and body."""

    status: int
    body: bytes


class WorkerProcess:
    """A running worker. It is started as a program, not forked, so it inherits no threads, locks or keys."""

    def __init__(self, start_message: StartMessage) -> None:
        self.number = start_message.number
        supervisor_end, worker_end = socket.socketpair()
        with worker_end:
            self._process = subprocess.Popen(  # noqa: S603  this program itself
                [sys.executable, "-m", "zta_authz", "serve", "--worker", str(worker_end.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=[worker_end.fileno(), *start_message.descriptors],
                process_group=0,  # Ctrl-C reaches only the supervisor, which forwards it once
            )
        self._relay = threading.Thread(target=_relay, args=(self._process.stdout,), daemon=True)
        self._relay.start()
        supervisor_end.sendall(frame(start_message.encode()))
        supervisor_end.setblocking(False)
        self._control = supervisor_end
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._request_lock = asyncio.Lock()
        self._pending: asyncio.Future[bytes] | None = None
        self._timed_out = False
        self.answered_at = asyncio.get_running_loop().time()
        self._reload_pending = False
        self.serving = False
        self.metrics = b""

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    async def ended(self) -> int:
        """Wait until it has exited and its output was forwarded, and return its exit status."""
        status = await asyncio.to_thread(self._process.wait)
        await asyncio.to_thread(self._relay.join, ANSWER_SECONDS)
        if self._streams is not None:
            self._streams[1].close()
        else:
            self._control.close()
        return status

    def signal(self, number: int) -> None:
        """Send it a signal if it still runs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def reload(self) -> None:
        """Make it reload everything, or if it is not known to serve yet, as soon as it does.

        Before that, SIGHUP may find no handler, and what the worker has read may be older than the request.
        """
        if self.serving:
            self.signal(signal.SIGHUP)
        else:
            self._reload_pending = True

    @property
    def is_late(self) -> bool:
        """True if it still owes the answer to a request that timed out."""
        return self._timed_out and self._pending is not None and not self._pending.done()

    async def page(self, path: bytes, seconds: float = ANSWER_SECONDS) -> PageReply | None:
        """Return its health listener's page for `path`, or None if it does not answer in time.

        The worker still answers a request that timed out; that answer is read and dropped before the next
        request.
        """
        try:
            async with asyncio.timeout(seconds), self._request_lock:
                if self._pending is not None:
                    await asyncio.shield(self._pending)
                self._pending = asyncio.ensure_future(self._request(path))
                self._pending.add_done_callback(_retrieve_exception)
                content = await asyncio.shield(self._pending)
                self._pending = None
        except (TimeoutError, OSError, EOFError, ValueError):
            self._timed_out = True
            return None
        self._timed_out = False
        self.answered_at = asyncio.get_running_loop().time()
        self.serving = True
        if self._reload_pending:
            self._reload_pending = False
            self.signal(signal.SIGHUP)
        reply = PageReply(int.from_bytes(content[:2], "big"), content[2:])
        if path == b"/metrics" and reply.status == 200:
            self.metrics = reply.body
        return reply

    async def _request(self, path: bytes) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_connection(sock=self._control)
        reader, writer = self._streams
        writer.write(frame(path))
        return await read_frame(reader)


def _retrieve_exception(answer: asyncio.Future[bytes]) -> None:
    """Mark the exception of an abandoned request as retrieved; the worker's exit is reported elsewhere."""
    if not answer.cancelled():
        answer.exception()


def _relay(source: IO[bytes]) -> None:
    """Forward a worker's standard output in whole lines, so that lines of several workers don't mix.

    If our standard output is closed, the worker's pipe closes too, and it reacts as a single process would.
    """
    rest = b""
    with source, suppress(OSError):
        while chunk := os.read(source.fileno(), _CHUNK_BYTES):
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            _write_all(lines + newline)
        if rest:
            _write_all(rest + b"\n")  # the unfinished line of a killed worker


def _write_all(data: bytes) -> None:
    with _stdout_lock:
        while data:
            data = data[os.write(_STDOUT, data) :]
