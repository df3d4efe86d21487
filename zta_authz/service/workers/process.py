"""One worker as its supervisor sees it: a new process, what it says of itself, and its end."""

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

    from zta_authz.service.workers.control import Orders

ANSWER_SECONDS: Final = 1.0
_STDOUT: Final = 1
_CHUNK_BYTES: Final = 64 * 1024
_one_line_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Report:
    """A page of a worker's: HTTP status and body."""

    status: int
    body: bytes


class WorkerProcess:
    """A running worker. It is a program of its own, not a fork: no thread, lock or key of ours is copied."""

    def __init__(self, orders: Orders) -> None:
        self.number = orders.number
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  ourselves
                [sys.executable, "-m", "zta_authz", "serve", "--worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=[theirs.fileno(), *(() if orders.replays is None else (orders.replays,))],
                process_group=0,  # Ctrl-C reaches the supervisor only, which passes it on once
            )
        self._relay = threading.Thread(target=_relay, args=(self._process.stdout,), daemon=True)
        self._relay.start()
        ours.sendall(frame(orders.encode()))
        ours.setblocking(False)
        self._control = ours
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._asking = asyncio.Lock()
        self._late: asyncio.Future[bytes] | None = None
        self._gave_up = False
        self.heard_at = asyncio.get_running_loop().time()
        self._reload_owed = False
        self.serving = False
        self.metrics = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ended(self) -> int:
        """Wait for its end, and until all it wrote is passed on; its exit status."""
        status = await asyncio.to_thread(self._process.wait)
        await asyncio.to_thread(self._relay.join, ANSWER_SECONDS)
        if self._streams is not None:
            self._streams[1].close()
        else:
            self._control.close()
        return status

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def reload(self) -> None:
        """Have it read everything again; one of which we don't know that it serves, as soon as we do.

        Until then SIGHUP may find no handler, and what it has read may be older than what it is asked for.
        """
        if self.serving:
            self.signal(signal.SIGHUP)
        else:
            self._reload_owed = True

    @property
    def is_late(self) -> bool:
        """Whether it still owes the answer to a question that was given up."""
        return self._gave_up and self._late is not None and not self._late.done()

    async def page(self, path: bytes, seconds: float = ANSWER_SECONDS) -> Report | None:
        """What its health listener would answer for `path`; None if it says nothing in time.

        A question that was given up is answered all the same: the answer is read, and dropped, before the next.
        """
        try:
            async with asyncio.timeout(seconds), self._asking:
                if self._late is not None:
                    await asyncio.shield(self._late)
                self._late = asyncio.ensure_future(self._ask(path))
                self._late.add_done_callback(_look_at)
                content = await asyncio.shield(self._late)
                self._late = None
        except (TimeoutError, OSError, EOFError, ValueError):
            self._gave_up = True
            return None
        self._gave_up = False
        self.heard_at = asyncio.get_running_loop().time()
        self.serving = True
        if self._reload_owed:
            self._reload_owed = False
            self.signal(signal.SIGHUP)
        report = Report(int.from_bytes(content[:2], "big"), content[2:])
        if path == b"/metrics" and report.status == 200:
            self.metrics = report.body
        return report

    async def _ask(self, path: bytes) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_connection(sock=self._control)
        reader, writer = self._streams
        writer.write(frame(path))
        return await read_frame(reader)


def _look_at(answer: asyncio.Future[bytes]) -> None:
    """One that nobody waits for any more may fail: its worker ended, which is said elsewhere."""
    if not answer.cancelled():
        answer.exception()


def _relay(source: IO[bytes]) -> None:
    """Pass on what a worker writes to standard output, in whole lines: those of several workers don't get mixed.

    Where nobody takes it any more, the worker is told so by the end of its pipe, and deals with it as one alone does.
    """
    rest = b""
    with source, suppress(OSError):
        while chunk := os.read(source.fileno(), _CHUNK_BYTES):
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            _write_all(lines + newline)
        if rest:
            _write_all(rest + b"\n")  # what a killed worker was writing


def _write_all(data: bytes) -> None:
    with _one_line_at_a_time:
        while data:
            data = data[os.write(_STDOUT, data) :]
