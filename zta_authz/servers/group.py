"""All servers of a process: they start all or none, and stop together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from zta_authz.errors import SettingsErrors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.errors import Fault
    from zta_authz.servers.listeners import Endpoint


class Server(Protocol):
    """What serves calls: `grpcio.server.GrpcServer`, or `fast.server.FastServer`."""

    addresses: tuple[Endpoint, ...]

    async def start(self) -> None:
        """Bind everything and serve. Raises `SettingsErrors`; nothing is left then."""
        ...

    async def stop(self, grace: float) -> None:
        """Take no new calls, and let those in flight end within `grace` seconds."""
        ...


class ServerGroup:
    """Servers that start all or none, and stop together."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = tuple(servers)

    async def start(self) -> tuple[Endpoint, ...]:
        """Start each; the addresses. Raises `SettingsErrors` with the faults of every server that can't start."""
        faults: list[Fault] = []
        for server in self._servers:
            try:
                await server.start()
            except SettingsErrors as error:
                faults.extend(error.faults)
        if faults:
            await self.stop(0)
            raise SettingsErrors(faults)
        return tuple(address for server in self._servers for address in server.addresses)

    async def stop(self, grace: float) -> None:
        """Stop all at once, each within `grace` seconds."""
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
