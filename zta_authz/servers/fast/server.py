"""The fast server: unary gRPC on Unix sockets and TCP, in place of gRPC's own where calls are many and small.

It takes the same methods, endpoints and rights as `servers.GrpcServer` and has the same life; HTTP/2 and gRPC are
`grpc_h2`'s. What it does not serve is streaming, reflection and compressed messages.

Who may ask is judged before a byte is read: under mutual TLS by the SPIFFE ID, on a Unix socket by the peer's user
where `peer_uids` lists any. For a while a caller that may not ask is told so, call by call, and nothing of it is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # it ships no types

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.grpc_h2.connection import Bounds, Status
from zta_authz.servers.descriptors import want_descriptors
from zta_authz.servers.fast.accept import TlsAcceptor
from zta_authz.servers.fast.connection import Abort, FastConnection
from zta_authz.servers.fast.serving import ConnectionRegistry, Limits, PeerAdmission
from zta_authz.servers.fast.svid_tls import SvidListener
from zta_authz.servers.fast.tls import FilesListener
from zta_authz.servers.listeners import (
    Endpoint,
    SocketAccess,
    SocketClaim,
    cannot_listen,
    refuse,
    umask_for_bind,
)
from zta_authz.servers.tls import MutualTls
from zta_authz.sockets import bound_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from zta_authz.servers.fast.tls import TlsListener
    from zta_authz.servers.health import Health
    from zta_authz.servers.methods import Methods
    from zta_authz.servers.svid_tls import SvidTls

_BACKLOG: Final = 512
_TICK_SECONDS: Final = 1.0


class FastServer:
    """One server on `endpoints`: all of them plain, or, with `tls`, all under mutual TLS."""

    def __init__(
        self,
        methods: Methods,
        endpoints: Sequence[Endpoint],
        access: SocketAccess,
        *,
        health: Health | None = None,
        tls: MutualTls | SvidTls | None = None,
        bounds: Bounds = Bounds(),  # noqa: B008  it is frozen
        limits: Limits = Limits(),  # noqa: B008  so is it
        peer_uids: Sequence[int] = (),
        shared_ports: bool = False,
        unread: Mapping[str, Callable[[bool], bytes]] = MappingProxyType({}),
    ) -> None:
        """With `shared_ports` other processes may listen on our TCP ports, and the kernel shares connections out.

        `unread` answers calls whose message is too large, by path; without it they fail with RESOURCE_EXHAUSTED.
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
        self._serving: ConnectionRegistry | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self.addresses: tuple[Endpoint, ...] = ()
        """Where it listens, with the ports that were chosen; empty until started."""

    async def start(self) -> None:
        """Bind everything, serve, then put the Unix sockets in place. Raises `SettingsErrors`; nothing is left then."""
        gate = PeerAdmission(self._peer_uids, None if self._tls is None else listener_of(self._tls))
        serving = self._serving = ConnectionRegistry(self._methods, self._bounds, self._limits, gate, self._unread)
        want_descriptors(self._limits.max_connections + self._limits.max_handshakes)
        try:
            self.addresses = await self._listen_all(serving)
            for claim in self._claims:
                claim.publish()
        except BaseException:
            await self.stop(0)
            raise
        self._tick()

    async def _listen_all(self, serving: ConnectionRegistry) -> tuple[Endpoint, ...]:
        addresses: list[Endpoint] = []
        faults: list[Fault] = []
        for endpoint in self._endpoints:
            try:
                addresses.append(await self._listen(serving, endpoint))
            except SettingsErrors as error:
                faults.extend(error.faults)
        if faults:
            raise SettingsErrors(faults)
        return tuple(addresses)

    async def _listen(self, serving: ConnectionRegistry, endpoint: Endpoint) -> Endpoint:
        bound = self._bind_unix(endpoint) if endpoint.is_unix else _bind_tcp(endpoint, self._shared_ports)
        loop, tls = serving.loop, serving.gate.tls

        def make() -> FastConnection:
            return FastConnection(serving)

        if endpoint.is_unix:
            self._listeners.append(await loop.create_unix_server(make, sock=bound, backlog=_BACKLOG))
            return endpoint
        address = Endpoint(host=endpoint.host, port=bound.getsockname()[1])
        if tls is None:
            self._listeners.append(await loop.create_server(make, sock=bound, backlog=_BACKLOG))
        else:
            self._listeners.append(TlsAcceptor(serving, bound, tls.context, make))
        return address

    def _bind_unix(self, endpoint: Endpoint) -> socket.socket:
        claim = SocketClaim(endpoint, self._access)
        claim.take()
        self._claims.append(claim)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with umask_for_bind():
                made.bind(claim.private_path)
        except OSError as error:
            made.close()
            raise refuse(endpoint, f"cannot listen: {error.strerror}", "is the directory writable?") from error
        return made

    def _tick(self) -> None:
        serving = self._serving
        if serving is None:
            return
        now = serving.loop.time()
        for connection in list(serving.connections):
            connection.tick(now)
        self._ticking = serving.loop.call_later(_TICK_SECONDS, self._tick)

    async def stop(self, grace: float) -> None:
        """Take no new calls, let those in flight end within `grace` seconds, and remove our sockets."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()
        serving = self._serving
        try:
            if serving is not None:
                await self._end_connections(serving, grace)
        finally:
            for claim in self._claims:
                claim.release()
            self._claims.clear()
            if self._ticking is not None:
                self._ticking.cancel()
            self._serving = None

    async def _end_connections(self, serving: ConnectionRegistry, grace: float) -> None:
        serving.stopping = True
        if grace > 0:
            for connection in list(serving.connections):
                connection.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await serving.wait_until_empty()
        for connection in list(serving.connections):
            connection.abort()
        await serving.wait_until_empty()


def listener_of(tls: MutualTls | SvidTls) -> TlsListener:
    """What shakes hands with our certificate. Raises `SettingsErrors` where it can't be used."""
    return FilesListener(tls) if isinstance(tls, MutualTls) else SvidListener(tls)


def _bind_tcp(endpoint: Endpoint, shared: bool) -> socket.socket:
    try:
        made = bound_socket(endpoint.host, endpoint.port, shared=shared)
    except OSError as error:
        raise cannot_listen(endpoint, error) from error
    try:
        made.listen(_BACKLOG)  # else two could be bound to one port, and only one hear of it later
    except OSError as error:
        made.close()
        raise cannot_listen(endpoint, error) from error
    return made


def health_methods(health: Health) -> Methods:
    """The unary part of gRPC's health service (grpc/doc/health-checking.md)."""

    def check(payload: bytes, _context: Any, _caller: str) -> bytes:
        try:
            service = health_pb2.HealthCheckRequest.FromString(payload).service
        except DecodeError:
            raise Abort(Status.INTERNAL, "Exception deserializing request!") from None
        serving = health.is_serving(service)
        if serving is None:
            raise Abort(Status.NOT_FOUND)
        response = health_pb2.HealthCheckResponse
        answer: bytes = response(status=response.SERVING if serving else response.NOT_SERVING).SerializeToString()
        return answer

    return {health_pb2.DESCRIPTOR.services_by_name["Health"].full_name: {"Check": check}}
