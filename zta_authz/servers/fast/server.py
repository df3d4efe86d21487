"""The fast server: unary gRPC on Unix sockets and TCP, faster than grpcio's server for many small calls.

It accepts the same methods, endpoints and socket access as `GrpcServer` and has the same life cycle. `grpc_h2`
implements HTTP/2 and gRPC. Streaming, reflection and compressed messages are not supported.

Peers are authorized before any input is read: under mutual TLS by SPIFFE ID, on a Unix socket by user if `peer_uids` is
set. An unauthorized peer gets an error for each call for a while, and its messages are not read.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # it ships no types

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.grpc_h2.connection import Bounds, Status
from zta_authz.servers.descriptors import raise_descriptor_limit
from zta_authz.servers.fast.accept import TlsAcceptor
from zta_authz.servers.fast.connection import Abort, FastConnection
from zta_authz.servers.fast.registry import ConnectionRegistry, Limits, PeerAdmission
from zta_authz.servers.fast.svid_tls import SvidListener
from zta_authz.servers.fast.tls import FOR_GRPC, FilesListener, TlsUse
from zta_authz.servers.listeners import (
    Endpoint,
    SocketAccess,
    SocketClaim,
    bind_error,
    bound_unix_socket,
    umask_for_bind,
)
from zta_authz.servers.tls import MutualTls
from zta_authz.sockets import bound_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from zta_authz.servers.fast.tls import TlsListener
    from zta_authz.servers.health import Health
    from zta_authz.servers.methods import Methods
    from zta_authz.servers.svid_tls import SvidTls

_BACKLOG: Final = 512
_TICK_SECONDS: Final = 1.0


class FastServer:
    """One server on `endpoints`, either all plain or, with `tls`, all under mutual TLS."""

    def __init__(
        self,
        methods: Methods,
        endpoints: Sequence[Endpoint],
        access: SocketAccess,
        *,
        health: Health | None = None,
        tls: MutualTls | SvidTls | None = None,
        bounds: Bounds = Bounds(),  # noqa: B008  frozen
        limits: Limits = Limits(),  # noqa: B008  frozen
        peer_uids: Sequence[int] = (),
        shared_ports: bool = False,
        unread: Mapping[str, Callable[[bool], bytes]] = MappingProxyType({}),
    ) -> None:
        """With `shared_ports`, other processes may share the TCP ports; the kernel distributes connections.

        `unread` answers calls whose message is too large, by path; without it they fail with
        RESOURCE_EXHAUSTED.
        """
        self._unread = unread
        self._methods = dict(methods) if health is None else {**methods, **health_methods(health)}
        self._endpoints = tuple(endpoints)
        self._access = access
        self._tls = tls
        self._bounds = bounds
        self._limits = limits
        self._peer_uids = frozenset(peer_uids)
        self._shared_ports = shared_ports
        self._claims: list[SocketClaim] = []
        self._listeners: list[asyncio.Server | TlsAcceptor] = []
        self._registry: ConnectionRegistry | None = None
        self._next_tick: asyncio.TimerHandle | None = None
        self.addresses: tuple[Endpoint, ...] = ()
        """The addresses it listens on, with the ports chosen; empty before the start."""

    async def start(self) -> None:
        """Bind all addresses, serve, and put the Unix sockets in place. Raises `SettingsErrors` and leaves nothing."""
        admission = PeerAdmission(self._peer_uids, None if self._tls is None else tls_listener(self._tls))
        registry = self._registry = ConnectionRegistry(
            self._methods, self._bounds, self._limits, admission, self._unread
        )
        raise_descriptor_limit(self._limits.max_connections + self._limits.max_handshakes)
        try:
            self.addresses = await self._listen_all(registry)
            for claim in self._claims:
                claim.publish()
        except BaseException:
            await self.stop(0)
            raise
        self._tick()

    async def _listen_all(self, registry: ConnectionRegistry) -> tuple[Endpoint, ...]:
        addresses: list[Endpoint] = []
        faults: list[Fault] = []
        for endpoint in self._endpoints:
            try:
                addresses.append(await self._listen(registry, endpoint))
            except SettingsErrors as error:
                faults.extend(error.faults)
        if faults:
            raise SettingsErrors(faults)
        return tuple(addresses)

    async def _listen(self, registry: ConnectionRegistry, endpoint: Endpoint) -> Endpoint:
        bound = self._bind_unix(endpoint) if endpoint.is_unix else _bind_tcp(endpoint, self._shared_ports)
        loop, tls = registry.loop, registry.admission.tls

        def new_connection() -> FastConnection:
            return FastConnection(registry)

        if endpoint.is_unix:
            self._listeners.append(await loop.create_unix_server(new_connection, sock=bound, backlog=_BACKLOG))
            return endpoint
        address = Endpoint(host=endpoint.host, port=bound.getsockname()[1])
        if tls is None:
            self._listeners.append(await loop.create_server(new_connection, sock=bound, backlog=_BACKLOG))
        else:
            self._listeners.append(TlsAcceptor(registry, bound, tls.context, new_connection))
        return address

    def _bind_unix(self, endpoint: Endpoint) -> socket.socket:
        claim = SocketClaim(endpoint, self._access)
        claim.acquire()
        self._claims.append(claim)
        with umask_for_bind():
            return bound_unix_socket(claim.private_path, endpoint)

    def _tick(self) -> None:
        registry = self._registry
        if registry is None:
            return
        now = registry.loop.time()
        for connection in list(registry.connections):
            connection.tick(now)
        self._next_tick = registry.loop.call_later(_TICK_SECONDS, self._tick)

    async def stop(self, grace: float) -> None:
        """Accept no new calls, wait up to `grace` seconds for those in flight, and remove our sockets."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()
        registry = self._registry
        try:
            if registry is not None:
                await self._end_connections(registry, grace)
        finally:
            for claim in self._claims:
                claim.release()
            self._claims.clear()
            if self._next_tick is not None:
                self._next_tick.cancel()
            self._registry = None

    async def _end_connections(self, registry: ConnectionRegistry, grace: float) -> None:
        registry.stopping = True
        if grace > 0:
            for connection in list(registry.connections):
                connection.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await registry.wait_until_empty()
        for connection in list(registry.connections):
            connection.abort()
        await registry.wait_until_empty()


def tls_listener(tls: MutualTls | SvidTls, use: TlsUse = FOR_GRPC) -> TlsListener:
    """Return the TLS listener for our certificate. Raises `SettingsErrors` if it can't be used."""
    return FilesListener(tls, use) if isinstance(tls, MutualTls) else SvidListener(tls, use)


def _bind_tcp(endpoint: Endpoint, shared: bool) -> socket.socket:
    try:
        bound = bound_socket(endpoint.host, endpoint.port, shared=shared)
    except OSError as error:
        raise bind_error(endpoint, error) from error
    try:
        bound.listen(_BACKLOG)  # else two sockets could be bound to the port, and the failure come later
    except OSError as error:
        bound.close()
        raise bind_error(endpoint, error) from error
    return bound


def health_methods(health: Health) -> Methods:
    """Return the unary part of gRPC's health service (grpc/doc/health-checking.md)."""

    def check(payload: bytes, _context: Any, _caller: str) -> bytes:
        try:
            service = health_pb2.HealthCheckRequest.FromString(payload).service
        except DecodeError:
            raise Abort(Status.INTERNAL, "Exception deserializing request!") from None
        registry = health.is_serving(service)
        if registry is None:
            raise Abort(Status.NOT_FOUND)
        response = health_pb2.HealthCheckResponse
        encoded: bytes = response(status=response.SERVING if registry else response.NOT_SERVING).SerializeToString()
        return encoded

    return {health_pb2.DESCRIPTOR.services_by_name["Health"].full_name: {"Check": check}}
