"""One small service on either server, to be asked the same things."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from zta_authz.servers.fast.server import FastServer
from zta_authz.servers.grpcio.server import GrpcServer, as_async
from zta_authz.servers.health import Health
from zta_authz.servers.listeners import Endpoint, SocketAccess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from zta_authz.servers.group import Server
    from zta_authz.servers.grpcio.server import AsyncMethods
    from zta_authz.servers.methods import Methods
    from zta_authz.servers.tls import MutualTls

SERVICE = "test.Conformance"
KINDS = ("grpcio", "fast")


class Conformance:
    """Answers and fails as it is asked to and, where the server lets it, waits.

    `given_up` is set when a waiting call is cancelled.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._changed = asyncio.Condition()
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.given_up = asyncio.Event()
        self.metadata: list[tuple[str, str | bytes]] = []

    def methods(self) -> Methods:
        return {SERVICE: {"Echo": self.echo, "Fail": self.fail, "Give": self.give}}

    def async_methods(self) -> AsyncMethods:
        """The same for grpcio's server, and one that waits."""
        return {SERVICE: {**as_async(self.methods())[SERVICE], "Wait": self.wait}}

    def echo(self, payload: bytes, context: Any, _caller: str) -> bytes:
        self.metadata = [(name, value) for name, value in context.invocation_metadata()]
        return payload

    async def wait(self, payload: bytes, _context: Any, _caller: str) -> bytes:
        self.waiting += 1
        self.entered.set()
        async with self._changed:
            self._changed.notify_all()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        finally:
            self.waiting -= 1
        return payload

    async def wait_for(self, number: int) -> None:
        """Until that many calls wait."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.waiting >= number)

    def fail(self, _payload: bytes, _context: Any, _caller: str) -> bytes:
        raise RuntimeError

    def give(self, payload: bytes, _context: Any, _caller: str) -> bytes:
        return bytes(int(payload))


class Serving:
    """A server, the service on it, and where it listens."""

    def __init__(self, kind: str, directory: Path, *, tcp: bool, tls: MutualTls | None = None) -> None:
        self.service = Conformance()
        self.health = Health((SERVICE,))
        wanted = Endpoint(host="127.0.0.1") if tcp else Endpoint(path=str(directory / "server.sock"))
        self.server: Server = (
            FastServer(self.service.methods(), [wanted], SocketAccess(), health=self.health, tls=tls)
            if kind == "fast"
            else GrpcServer(self.service.async_methods(), [wanted], SocketAccess(), health=self.health, tls=tls)
        )

    @property
    def target(self) -> str:
        return str(self.server.addresses[0])


@asynccontextmanager
async def serving(
    kind: str, directory: Path, *, tcp: bool = False, tls: MutualTls | None = None
) -> AsyncIterator[Serving]:
    made = Serving(kind, directory, tcp=tcp, tls=tls)
    await made.health.set_serving(True)
    await made.server.start()
    try:
        yield made
    finally:
        await made.server.stop(0)
