"""The fast server: unary gRPC on Unix sockets and TCP, in place of gRPC's own where calls are many and small.

It takes the same methods, endpoints and rights as `servers.GrpcServer` and has the same life; HTTP/2 and gRPC are
`grpc_h2`'s. What it does not serve is streaming, reflection and compressed messages.

Who may ask is judged before a byte is read: under mutual TLS by the SPIFFE ID, on a Unix socket by the peer's user
where `peer_uids` lists any. A caller that may not ask gets GOAWAY and the end of its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any, Final, cast

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # it ships no types

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.ext_authz.eager import EagerRunner
from zta_authz.ext_authz.fast_connection import Abort, FastConnection
from zta_authz.ext_authz.fast_tls import TlsListener
from zta_authz.ext_authz.listeners import Endpoint, SocketAccess, SocketClaim, refuse, umask_for_bind
from zta_authz.grpc_h2.connection import Bounds, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from zta_authz.ext_authz.servers import Health, Methods
    from zta_authz.ext_authz.tls import MutualTls

    Method = Callable[[bytes, Any, str], Coroutine[Any, Any, bytes]]

_LOG = logging.getLogger(__name__)
_BACKLOG: Final = 512
_TICK_SECONDS: Final = 1.0
_HANDSHAKE_SECONDS: Final = 10.0
_TLS_SHUTDOWN_SECONDS: Final = 2.0
_LOG_INTERVAL_SECONDS: Final = 1.0


class Serving:
    """What the connections of one server share."""

    def __init__(
        self, methods: Methods, bounds: Bounds, max_connections: int, peer_uids: frozenset[int], tls: TlsListener | None
    ) -> None:
        self.methods = {
            f"/{service}/{name}": cast("Method", call)  # each is an async function
            for service, calls in methods.items()
            for name, call in calls.items()
        }
        self.bounds = bounds
        self.peer_uids = peer_uids
        self.tls = tls
        self.loop = asyncio.get_running_loop()
        self.runner = EagerRunner(self.loop)
        self.connections: set[FastConnection] = set()
        self.stopping = False
        self._max_connections = max_connections
        self._empty = asyncio.Event()
        self._empty.set()
        self._quiet_until = 0.0

    def add(self, connection: FastConnection) -> bool:
        """Take a connection; False past the limit, and for one that was still shaking hands when we stopped."""
        if self.stopping:
            return False
        if len(self.connections) >= self._max_connections:
            self.refused("there are too many connections")
            return False
        self.connections.add(connection)
        self._empty.clear()
        return True

    def remove(self, connection: FastConnection) -> None:
        """A connection is over."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def refused(self, why: str) -> None:
        """Log it, once a second at most."""
        now = self.loop.time()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL_SECONDS
            _LOG.warning("a connection was refused: %s", why)

    async def wait_until_empty(self) -> None:
        """Wait for the last connection to end."""
        await self._empty.wait()


class FastServer:
    """One server on `endpoints`: all of them plain, or, with `tls`, all under mutual TLS."""

    def __init__(
        self,
        methods: Methods,
        endpoints: Sequence[Endpoint],
        access: SocketAccess,
        *,
        health: Health | None = None,
        tls: MutualTls | None = None,
        bounds: Bounds = Bounds(),  # noqa: B008  it is frozen
        max_connections: int = 1024,
        peer_uids: Sequence[int] = (),
        shared_ports: bool = False,
    ) -> None:
        """With `shared_ports` other processes may listen on our TCP ports, and the kernel shares connections out."""
        self._methods = dict(methods) if health is None else {**methods, **health_methods(health)}
        self._endpoints = tuple(endpoints)
        self._access = access
        self._tls = tls
        self._bounds = bounds
        self._max_connections = max_connections
        self._peer_uids = frozenset(peer_uids)
        self._shared_ports = shared_ports
        self._claims: list[SocketClaim] = []
        self._listeners: list[asyncio.Server] = []
        self._serving: Serving | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self.addresses: tuple[Endpoint, ...] = ()
        """Where it listens, with the ports that were chosen; empty until started."""

    async def start(self) -> None:
        """Bind everything, serve, then put the Unix sockets in place. Raises `SettingsErrors`; nothing is left then."""
        tls = None if self._tls is None else TlsListener(self._tls)
        serving = self._serving = Serving(self._methods, self._bounds, self._max_connections, self._peer_uids, tls)
        try:
            self.addresses = await self._listen_all(serving)
            for claim in self._claims:
                claim.publish()
        except BaseException:
            await self.stop(0)
            raise
        self._tick()

    async def _listen_all(self, serving: Serving) -> tuple[Endpoint, ...]:
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

    async def _listen(self, serving: Serving, endpoint: Endpoint) -> Endpoint:
        bound = self._bind_unix(endpoint) if endpoint.is_unix else _bind_tcp(endpoint, self._shared_ports)
        loop = serving.loop
        if endpoint.is_unix:
            listener = await loop.create_unix_server(lambda: FastConnection(serving), sock=bound, backlog=_BACKLOG)
            self._listeners.append(listener)
            return endpoint
        options: dict[str, Any] = {}
        if serving.tls is not None:
            options["ssl"] = serving.tls.context
            options["ssl_handshake_timeout"] = _HANDSHAKE_SECONDS
            options["ssl_shutdown_timeout"] = _TLS_SHUTDOWN_SECONDS
        listener = await loop.create_server(lambda: FastConnection(serving), sock=bound, backlog=_BACKLOG, **options)
        self._listeners.append(listener)
        return Endpoint(host=endpoint.host, port=bound.getsockname()[1])

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
            if serving is not None:
                serving.runner.close()
            self._serving = None

    async def _end_connections(self, serving: Serving, grace: float) -> None:
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


def _bind_tcp(endpoint: Endpoint, shared: bool) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        made.bind((endpoint.host, endpoint.port))
        made.listen(_BACKLOG)  # else two could be bound to one port, and only one hear of it later
    except OSError as error:
        made.close()
        raise refuse(endpoint, f"cannot listen: {error.strerror}", "choose another address or stop its user") from error
    return made


def health_methods(health: Health) -> Methods:
    """The unary part of gRPC's health service (grpc/doc/health-checking.md)."""

    async def check(payload: bytes, _context: Any, _caller: str) -> bytes:
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
