"""All servers of a process: either all of them start or none does, and they stop together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from zta_authz.errors import SettingsErrors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.errors import Fault
    from zta_authz.servers.listeners import Endpoint


class Server(Protocol):
    """A server that answers calls: `grpcio.server.GrpcServer` or `fast.server.FastServer`."""

    addresses: tuple[Endpoint, ...]

    async def start(self) -> None:
        """Bind all addresses and serve. Raises `SettingsErrors` and leaves nothing behind if one can't be bound."""
        ...

    async def stop(self, grace: float) -> None:
        """Accept no new calls, and wait up to `grace` seconds for those in flight."""
        ...


class ServerGroup:
    """Servers that start and stop together; if one can't start, none does."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = tuple(servers)

    async def start(self) -> tuple[Endpoint, ...]:
        """Start all servers and return their addresses. Raises `SettingsErrors` with the faults of every server."""
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
        """Stop all servers in parallel, each within `grace` seconds."""
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
