"""What each cache on the path of a check saves: a whole call with it and without it, in turns in one process.

CPU time of this process, which makes the whole call but the socket: HTTP/2, parsing, verification, rules, record and
answer. The ratios are medians of pairs, so that other work on the machine, which slows both halves, matters little.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpack import Encoder

from bench import scenario
from zta_authz.audit.outputs import PlainOutput
from zta_authz.audit.sinks import LineSink
from zta_authz.authorizer import Authorizer
from zta_authz.bounded_cache import BoundedCache
from zta_authz.ext_authz.request import CheckRequestParser
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.ext_authz.servicer import CheckServicer
from zta_authz.grpc_h2.bounds import Bounds
from zta_authz.grpc_h2.connection import Connection, Request
from zta_authz.grpc_h2.frames import PREFACE, frame, settings, window_update
from zta_authz.policy_sources.files import SnapshotHolder, load_snapshot
from zta_authz.servers.methods import AUTHORIZATION_SERVICE, CHECK, authorization_methods
from zta_authz.settings import load_settings
from zta_authz.telemetry.observer import build_observer

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATH = f"/{AUTHORIZATION_SERVICE}/{CHECK}"
_CALLS = 200
_DATA, _HEADERS, _END_STREAM, _END_HEADERS = 0, 1, 1, 4
_HEAD = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", _PATH),
    (":authority", "authz"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)


class _Forgetful(BoundedCache[Any, Any]):
    """Keeps nothing."""

    __slots__ = ()

    def put(self, key: Any, value: Any, weight: int = 0) -> None:
        """Keep nothing."""


class _NoDeadline:
    """The context of a call whose caller waits for ever."""

    def time_remaining(self) -> None:
        """No limit."""


class _Whole:
    """One connection to one authorizer. `caches` are the owner and attribute of each cache, by name."""

    def __init__(self, directory: Path, log: int) -> None:
        files = scenario.build("token", 100, directory)
        settings_ = load_settings(str(files.config), {})
        holder = SnapshotHolder()
        holder.publish(snapshot := load_snapshot(settings_.policies, settings_.options()))
        parser, answers = CheckRequestParser(), ResponseEncoder()
        sink = LineSink(PlainOutput(log))
        authorizer = Authorizer(parser.parse, answers.encode, holder, sink, build_observer())
        self._check = authorization_methods(CheckServicer(authorizer))[AUTHORIZATION_SERVICE][CHECK]
        self._connection = Connection(Bounds(), time.monotonic(), (_PATH,))
        self._stream = 1
        encoder = Encoder()
        self._head = encoder.encode(_HEAD)
        self._content = b"\0" + len(files.request).to_bytes(4, "big") + files.request
        self._receive(PREFACE + settings(()))
        self.call()
        self._head = encoder.encode(_HEAD)  # as each call but the first: references into the table
        verifier = snapshot.verifier
        self.caches: dict[str, tuple[Any, str]] = {
            "heads": (self._connection._headers, "_heads"),  # noqa: SLF001
            "connections": (parser, "_connections"),
            "peers": (verifier._peers, "_accepted"),  # noqa: SLF001
            "tokens": (verifier._registry._context, "cache"),  # noqa: SLF001
            "answers": (answers, "_answers"),
        }

    def call(self) -> bytes:
        """Make one call; what goes back to the proxy."""
        number, self._stream = self._stream, self._stream + 2
        content = frame(_DATA, _END_STREAM, number, self._content) + window_update(0, 2048)
        return self._receive(frame(_HEADERS, _END_HEADERS, number, self._head) + content)

    def _receive(self, data: bytes) -> bytes:
        now = time.monotonic()
        for event in self._connection.receive(data, now):
            if isinstance(event, Request):
                self._connection.respond(event.stream, self._check(event.message, _NoDeadline(), ""), now)
        return self._connection.bytes_to_send()

    def cpu_us(self) -> float:
        """CPU of one call, in microseconds."""
        started = time.process_time()
        for _ in range(_CALLS):
            self.call()
        return (time.process_time() - started) / _CALLS * 1e6

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """Let a cache keep nothing for a while; "" takes none away."""
        if not name:
            yield
            return
        owner, attribute = self.caches[name]
        cache = getattr(owner, attribute)
        setattr(owner, attribute, _Forgetful(2))
        try:
            yield
        finally:
            setattr(owner, attribute, cache)


def measure(whole: _Whole, name: str, rounds: int) -> tuple[float, float]:
    """CPU of a call with the cache (us), and what it saves of a call without it (a share)."""
    base, ratios = [], []
    for number in range(rounds):
        turns = {}
        for kept in (True, False) if number % 2 else (False, True):
            with whole.without("" if kept else name):
                turns[kept] = whole.cpu_us()
        base.append(turns[True])
        ratios.append(turns[False] / turns[True])
    ratio = statistics.median(ratios)
    return statistics.median(base), ratio - 1


def main() -> int:
    """Print what each cache saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=40)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "log").open("wb") as log:
        whole = _Whole(Path(directory), log.fileno())
        for _ in range(_CALLS):
            answer = whole.call()
        if b"allow_policy" not in answer:
            raise SystemExit("the scenario is broken")
        for name in ("", *whole.caches):
            base, share = measure(whole, name, chosen.rounds)
            print(f"without {name or 'nothing':12} +{share:8.1%}  of {base:.1f} us")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
