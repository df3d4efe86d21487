"""The state that the gRPC health service reports, shared by all servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # it ships no types
from grpc_health.v1._async import HealthServicer  # type: ignore[import-untyped]  # it ships no types

if TYPE_CHECKING:
    from collections.abc import Sequence


class Health:
    """The gRPC health service's state, shared by all servers; initially NOT_SERVING."""

    def __init__(self, services: Sequence[str]) -> None:
        self.servicer = HealthServicer()
        self._services = ("", *services)
        self._serving = False

    def is_serving(self, service: str) -> bool | None:
        """Return the current state, or None for a service that these servers don't have."""
        return self._serving if service in self._services else None

    def note_serving(self, serving: bool) -> None:
        """Set what `is_serving` returns, until `set_serving` also updates the servicer."""
        self._serving = serving

    async def set_serving(self, serving: bool) -> None:
        """Report SERVING or NOT_SERVING for the whole server and for each service."""
        self.note_serving(serving)
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self.servicer.set(service, status)
