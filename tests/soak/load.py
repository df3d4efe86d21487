"""Steady load through the real Envoy, on connections that are kept, and the processes behind it."""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from envoy.demo.client import Request
    from envoy.demo.stack import Stack

PAUSE_SECONDS = 0.01
"""Between two requests of a sender."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request that `peer` sends; `name` is the oracle's."""

    name: str
    peer: str | None
    request: Request


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of it. `decided`: a decision of zta-authz's, not Envoy's own 503. Times are `time.monotonic`'s."""

    name: str
    sent: float
    ended: float
    status: int
    decided: bool


class Load:
    """Senders that ask what `next_question` gives, one after the other, until told to stop; `answered` has it all."""

    def __init__(self, stack: Stack, next_question: Callable[[], Question], senders: int = 3) -> None:
        self.answered: list[Answered] = []
        self.broken: list[str] = []
        """Connections to Envoy that failed: that is Envoy's fault or the test's, never zta-authz's."""
        self._stack = stack
        self._next = next_question
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(senders)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(30)

    def unanswered(self) -> list[Answered]:
        """Requests that were turned away because no decision came."""
        return [each for each in self.answered if each.status == 503 and not each.decided]

    def _send(self) -> None:
        kept: dict[str | None, http.client.HTTPSConnection] = {}
        while not self._done.is_set():
            question = self._next()
            if question.peer not in kept:
                context = self._stack.context(question.peer)
                kept[question.peer] = http.client.HTTPSConnection(
                    "localhost", self._stack.port, context=context, timeout=15
                )
            try:
                self.answered.append(_ask(kept[question.peer], question))
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(f"{question.name}: {error!r}")
                kept.pop(question.peer).close()
            time.sleep(PAUSE_SECONDS)
        for connection in kept.values():
            connection.close()


def _ask(connection: http.client.HTTPSConnection, question: Question) -> Answered:
    request = question.request
    sent = time.monotonic()
    connection.request(request.method, request.path, request.body or None, dict(request.headers))
    response = connection.getresponse()
    body = response.read()
    decided = response.status == 200 or b"decision_id" in body
    return Answered(question.name, sent, time.monotonic(), response.status, decided)


@contextmanager
def under(load: Load) -> Iterator[Load]:
    """The load, while the block lasts."""
    load.start()
    try:
        yield load
    finally:
        load.stop()


def worker_pids(stack: Stack) -> list[int]:
    """The workers of the stack's zta-authz, the oldest first."""
    pid = stack.authz.pid
    return sorted(int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def resident_kib(pid: int) -> int:
    """Memory of a process, 0 once it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
