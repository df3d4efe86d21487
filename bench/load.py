"""A closed-loop gRPC client with minimal CPU use: one HTTP/2 connection and precomputed frames.

A `grpc.aio` client uses as much CPU per call as an empty server and would dominate the measurement. This client
supports just enough HTTP/2 (RFC 9113) for unary calls to one method, and checks that each response is an allow.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

_METHOD = b"/envoy.service.auth.v3.Authorization/Check"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_WINDOW = 1 << 30
_ALLOW = b"\x0a\x00"  # CheckResponse.status, present and zero, is the first field of the service and the empty server


@dataclass(slots=True)
class Outcome:
    """The result of one run; `latencies` are in seconds."""

    calls: int = 0
    failures: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _header_block() -> bytes:
    """Encode the headers with HPACK (RFC 7541) without the dynamic table: indexed `POST` and `http`, then literals."""

    def literal(name: bytes, value: bytes) -> bytes:
        return name + bytes((len(value),)) + value

    return b"\x83\x86" + b"".join(
        (
            literal(b"\x04", _METHOD),
            literal(b"\x01", b"localhost"),
            literal(b"\x0f\x10", b"application/grpc"),
            literal(b"\x00\x02te", b"trailers"),
        )
    )


class LoadClient(asyncio.Protocol):
    """Keeps `concurrency` calls in flight while running."""

    def __init__(self, request: bytes, concurrency: int) -> None:
        message = b"\0" + len(request).to_bytes(4, "big") + request
        self._headers = _header_block()
        self._message = message
        self._concurrency = concurrency
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._next_stream = 1
        self._window = 65_535
        self._received = 0
        self._running = False
        self._waiting = 0
        self._started: dict[int, float] = {}
        self._allowed: set[int] = set()
        self._outcome = Outcome()
        self._idle = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface with windows that are never exhausted."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's class does not inherit from it
        settings = (4).to_bytes(2, "big") + _WINDOW.to_bytes(4, "big")  # SETTINGS_INITIAL_WINDOW_SIZE
        hello = _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, _WINDOW.to_bytes(4, "big"))
        self._transport.write(_PREFACE + hello)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the calls in flight as failures."""
        self._outcome.failures += len(self._started)
        self._started.clear()
        self._running = False
        self._idle.set()

    async def run(self, seconds: float) -> Outcome:
        """Send calls for `seconds`, then wait for the calls in flight."""
        self._outcome = outcome = Outcome()
        self._idle.clear()
        self._running = True
        begun = time.perf_counter()
        self._waiting += self._concurrency
        self._send_waiting()
        asyncio.get_running_loop().call_later(seconds, self._stop)
        async with asyncio.timeout(seconds + 10):
            await self._idle.wait()
        outcome.seconds = time.perf_counter() - begun
        return outcome

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def _stop(self) -> None:
        self._running = False
        self._waiting = 0
        if not self._started:
            self._idle.set()

    def _send_waiting(self) -> None:
        out = []
        while self._waiting and self._window >= len(self._message):
            stream, self._next_stream = self._next_stream, self._next_stream + 2
            self._window -= len(self._message)
            self._waiting -= 1
            self._started[stream] = time.perf_counter()
            out.append(_frame(_HEADERS, _END_HEADERS, stream, self._headers))
            out.append(_frame(_DATA, _END_STREAM, stream, self._message))
        if out and self._transport is not None:
            self._transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        """Process the complete frames and keep the rest."""
        buffer = self._buffer + data if self._buffer else data
        at, end = 0, len(buffer)
        while end - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if end - at - 9 < length:
                break
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
            self._on_frame(buffer[at + 3], buffer[at + 4], stream, buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self._buffer = buffer[at:]
        self._send_waiting()

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            if payload[5:7] == _ALLOW:
                self._allowed.add(stream)
            self._account(len(payload))
        if kind in (_DATA, _HEADERS):
            if flags & _END_STREAM:
                self._ended(stream)
        elif kind == _WINDOW_UPDATE:
            self._window += int.from_bytes(payload, "big") if stream == 0 else 0
        elif kind == _RST_STREAM:
            self._ended(stream)
        elif kind in (_SETTINGS, _PING) and not flags & _ACK and self._transport is not None:
            self._transport.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _GOAWAY and self._transport is not None:
            self._transport.close()

    def _account(self, size: int) -> None:
        """Replenish the window of the connection occasionally."""
        self._received += size
        if self._received > _WINDOW // 4 and self._transport is not None:
            self._transport.write(_frame(_WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big")))
            self._received = 0

    def _ended(self, stream: int) -> None:
        started = self._started.pop(stream, None)
        if started is None:
            return
        self._outcome.calls += 1
        self._outcome.latencies.append(time.perf_counter() - started)
        if stream in self._allowed:
            self._allowed.discard(stream)
        else:
            self._outcome.failures += 1
        if self._running:
            self._waiting += 1
        elif not self._started:
            self._idle.set()
