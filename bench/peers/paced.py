"""An open-loop HTTP/2 client: it sends requests on a schedule without waiting for responses.

Each latency counts from the moment the schedule named, not from the moment of sending, so that a server that stalls is
charged for every request that it kept waiting (no coordinated omission). One connection, frames made once, plain
blocking calls: `select` wakes within tens of microseconds, where an event loop's timer would round to a millisecond.
"""

from __future__ import annotations

import ctypes
import gc
import select
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_MAX_CONCURRENT_STREAMS: Final = 3
_WINDOW: Final = 1 << 30
_GRACE_SECONDS: Final = 5.0
_PR_SET_TIMERSLACK: Final = 29
ALLOWED_CHECK: Final = b"\x0a\x00"
"""The first bytes of a CheckResponse that allows: `status`, present and zero."""
OK_STATUS: Final = b"\x88"
"""The first byte of a header block with `:status: 200` (RFC 7541, static table)."""


class LoadError(RuntimeError):
    """The connection failed, or responses are missing."""


@dataclass(slots=True)
class Paced:
    """The result of one run, in seconds. `late` is the client's own delay of each request after its scheduled time."""

    latencies: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    failures: int = 0


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def header_block(headers: Mapping[str, str]) -> bytes:
    """Encode headers as HPACK (RFC 7541) literals without indexing."""

    def text(value: str) -> bytes:
        raw = value.encode()
        if len(raw) < 127:
            return bytes((len(raw),)) + raw
        rest, size = len(raw) - 127, bytearray(b"\x7f")
        while rest >= 128:
            size.append(rest % 128 + 128)
            rest //= 128
        return bytes(size) + bytes((rest,)) + raw

    return b"".join(b"\x00" + text(name) + text(value) for name, value in headers.items())


def grpc_headers() -> dict[str, str]:
    """Return the headers of a `Check` call."""
    return {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/envoy.service.auth.v3.Authorization/Check",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }


class PacedClient:
    """One connection over `sock` (plain, or TLS with ALPN h2 done).

    `message` is a gRPC message to send with each request, None for none. An answer is good when its first DATA frame
    (with a message) or HEADERS frame (without) says so.
    """

    def __init__(self, sock: socket.socket, headers: Mapping[str, str], message: bytes | None) -> None:
        self._sock = sock
        self._block = header_block(headers)
        self._body = None if message is None else b"\0" + len(message).to_bytes(4, "big") + message
        self._good_kind, self._good_at, self._good = (
            (_HEADERS, 0, OK_STATUS) if message is None else (_DATA, 5, ALLOWED_CHECK)
        )
        self._buffer = b""
        self._stream = 1
        self._window = 65_535
        self._max_streams = 100  # until the peer changes it; requests that wait for a stream count as late
        self._received = 0
        self._due: dict[int, float] = {}
        self._answered_well: set[int] = set()
        self._outcome = Paced()
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)  # wake on time, not up to 50 us later
        window = (4).to_bytes(2, "big") + _WINDOW.to_bytes(4, "big")  # SETTINGS_INITIAL_WINDOW_SIZE
        hello = _frame(_SETTINGS, 0, 0, window) + _frame(_WINDOW_UPDATE, 0, 0, _WINDOW.to_bytes(4, "big"))
        sock.sendall(_PREFACE + hello)

    def run(self, rate: float, seconds: float) -> Paced:
        """Send `rate` requests per second evenly for `seconds`, and wait for the responses. Raises `LoadError`."""
        self._outcome = outcome = Paced()
        begin = time.perf_counter() + 0.01
        end = begin + seconds + _GRACE_SECONDS
        count, sent = round(rate * seconds), 0
        gc.disable()  # a collection here would count as latency of the server
        try:
            while sent < count or self._due:
                now = time.perf_counter()
                while sent < count and begin + sent / rate <= now and len(self._due) < self._max_streams:
                    due = begin + sent / rate
                    self._send(due)
                    outcome.late.append(time.perf_counter() - due)
                    sent += 1
                waits_for_answers = sent == count or len(self._due) >= self._max_streams
                self._wait((end if waits_for_answers else begin + sent / rate) - time.perf_counter())
                if time.perf_counter() > end:
                    raise LoadError(f"{count - sent + len(self._due)} answers did not come")
        finally:
            gc.enable()
        return outcome

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _send(self, due: float) -> None:
        stream, self._stream = self._stream, self._stream + 2
        self._due[stream] = due
        if self._body is None:
            self._sock.sendall(_frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, self._block))
            return
        while self._window < len(self._body):
            self._wait(1.0)
        self._window -= len(self._body)
        self._sock.sendall(
            _frame(_HEADERS, _END_HEADERS, stream, self._block) + _frame(_DATA, _END_STREAM, stream, self._body)
        )

    def _wait(self, seconds: float) -> None:
        pending = isinstance(self._sock, ssl.SSLSocket) and self._sock.pending()
        if not pending and not select.select([self._sock], [], [], max(seconds, 0))[0]:
            return
        data = self._sock.recv(1 << 16)
        if not data:
            raise LoadError("the server hung up")
        self._process(self._buffer + data)

    def _process(self, buffer: bytes) -> None:
        at, end = 0, len(buffer)
        while end - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if end - at - 9 < length:
                break
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
            self._on_frame(buffer[at + 3], buffer[at + 4], stream, buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self._buffer = buffer[at:]

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (_DATA, _HEADERS):
            if kind == self._good_kind and payload.startswith(self._good, self._good_at):
                self._answered_well.add(stream)
            if kind == _DATA:
                self._give_back(len(payload))
            if flags & _END_STREAM:
                self._ended(stream)
        elif kind == _WINDOW_UPDATE:
            self._window += int.from_bytes(payload, "big") if stream == 0 else 0
        elif kind == _RST_STREAM:
            self._ended(stream)
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            if kind == _SETTINGS:
                self._learn(payload)
            self._sock.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _GOAWAY:
            raise LoadError(f"the server says GOAWAY: {payload!r}")

    def _learn(self, settings: bytes) -> None:
        for at in range(0, len(settings), 6):
            if int.from_bytes(settings[at : at + 2], "big") == _MAX_CONCURRENT_STREAMS:
                self._max_streams = int.from_bytes(settings[at + 2 : at + 6], "big")

    def _give_back(self, size: int) -> None:
        self._received += size
        if self._received > _WINDOW // 4:
            self._sock.sendall(_frame(_WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big")))
            self._received = 0

    def _ended(self, stream: int) -> None:
        due = self._due.pop(stream, None)
        if due is None:
            return
        self._outcome.latencies.append(time.perf_counter() - due)
        if stream in self._answered_well:
            self._answered_well.discard(stream)
        else:
            self._outcome.failures += 1
