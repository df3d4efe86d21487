"""Which functions of this package one check calls, in order."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

import zta_authz
from bench import scenario
from tests.support.h2_peer import PATH, block, call_with, message
from zta_authz.grpc_h2.frames import PREFACE, frame, settings
from zta_authz.service.app import Service
from zta_authz.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

ROOT = Path(zta_authz.__file__).parents[1]
ENTRIES = {"fast": "FastConnection.data_received", "grpcio": "_unguarded.<locals>.unguarded"}
"""Where each server's part of a check begins."""
_WARM = 5  # calls before the one that is looked at; it is none of those whose stages are timed


@dataclass
class CallTrace:
    """`calls` are (file below the project, qualified name), as they begin below `entry`."""

    entry: str
    calls: list[tuple[str, str]] = field(default_factory=list)
    _depth: int = 0

    def __call__(self, called: FrameType, event: str, _argument: Any) -> None:
        """What `sys.setprofile` calls."""
        if event == "call":
            name = called.f_code.co_qualname
            if self._depth or (name == self.entry and not self.calls):
                self._depth += 1
                file = Path(called.f_code.co_filename)
                if file.is_relative_to(ROOT / "zta_authz"):
                    self.calls.append((str(file.relative_to(ROOT)), name))
        elif event == "return" and self._depth:
            self._depth -= 1

    @property
    def files(self) -> list[str]:
        """Each file once, in the order in which they are entered."""
        return list(dict.fromkeys(file for file, _ in self.calls))

    @property
    def moves(self) -> int:
        """How often the next call is in another file than the one before."""
        return sum(before != after for (before, _), (after, _) in zip(self.calls, self.calls[1:], strict=False))


async def trace_check(server: str, directory: Path) -> CallTrace:
    """One warm check, allowed by certificate and token, of a service on `server`."""
    made = scenario.build("token", 1, directory, server)
    settings = json.loads(made.config.read_text()) | {"audit": {"sink": "file", "path": str(directory / "decisions")}}
    made.config.write_text(json.dumps(settings))
    service = Service(load_settings(str(made.config), {}))
    await service.start()
    try:
        return await _traced(ENTRIES[server], *await _client(server, made))
    finally:
        await service.stop()


async def _traced(entry: str, ask: Callable[[], Awaitable[bytes]], close: Callable[[], Awaitable[None]]) -> CallTrace:
    trace = CallTrace(entry)
    try:
        for _ in range(_WARM):
            await ask()
        sys.setprofile(trace)
        try:
            answer = await ask()
        finally:
            sys.setprofile(None)
    finally:
        await close()
    assert b"allow_policy" in answer
    return trace


async def _client(
    server: str, made: scenario.Scenario
) -> tuple[Callable[[], Awaitable[bytes]], Callable[[], Awaitable[None]]]:
    if server == "grpcio":
        channel = grpc.aio.insecure_channel(f"unix:{made.socket}")
        call: Any = channel.unary_unary(PATH)

        async def ask_grpc() -> bytes:
            answer: bytes = await call(made.request, timeout=10)
            return answer

        return ask_grpc, channel.close
    reader, writer = await asyncio.open_unix_connection(str(made.socket))
    writer.write(PREFACE + settings(()))
    await reader.read(4096)
    head, content = block(call_with((":path", PATH))), message(made.request)
    streams = iter(range(1, 1000, 2))

    async def ask() -> bytes:
        number = next(streams)
        writer.write(frame(1, 4, number, head) + frame(0, 1, number, content))
        answer = b""
        while b"allow_policy" not in answer:
            answer += await asyncio.wait_for(reader.read(1 << 16), 10)
        return answer

    async def close() -> None:
        writer.close()

    return ask, close
