"""Servers on grpcio: bytes in and out, on Unix sockets and TCP, with the gRPC health service.

Handlers are generic (no message types, no serializers), so a call under mutual TLS is authorized before any of its
bytes are parsed. Only unauthorized callers get gRPC errors; all others get an explicit CheckResponse.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # it ships no types
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # it ships no types

from zta_authz.errors import Reason, SettingsErrors
from zta_authz.servers.grpcio.admitted_peers import AdmittedPeers
from zta_authz.servers.grpcio.guards import UnknownMethods, guard, guard_stream, health_handlers, reflection_handlers
from zta_authz.servers.grpcio.overload_guard import OPTIONS as OVERLOAD_OPTIONS
from zta_authz.servers.grpcio.peer_users import PeerUsers
from zta_authz.servers.grpcio.streaming import send_all
from zta_authz.servers.listeners import (
    Endpoint,
    SocketAccess,
    SocketClaim,
    bound_unix_socket,
    listener_error,
    probe_tcp,
    umask_for_bind,
)
from zta_authz.servers.methods import MAX_CHECK_BYTES, Methods, Unary

if TYPE_CHECKING:
    import socket

    from zta_authz.errors import Fault
    from zta_authz.servers.health import Health
    from zta_authz.servers.svid_tls import SvidTls
    from zta_authz.servers.tls import MutualTls


AsyncUnary = Callable[[bytes, Any, str], Awaitable[bytes]]
AsyncMethods = Mapping[str, Mapping[str, AsyncUnary]]
"""`Methods` as coroutine functions; `grpc.aio` would run plain functions in threads."""
Stream = Callable[[bytes, Any, str], AsyncGenerator[bytes, None]]
Streams = Mapping[str, Mapping[str, Stream]]
"""Methods that answer one request by many messages, by service name and method name."""

_MAX_METADATA_BYTES: Final = 16 * 1024 * 1024
"""Metadata may carry headers of a proxy's client. gRPC fails calls with more; Envoy accepts at most 8 MiB."""
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # else a second server could silently share the port
    ("grpc.max_receive_message_length", 4 * MAX_CHECK_BYTES),  # past it gRPC fails the call and nothing is recorded
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", 8192),  # per connection; near the limit gRPC refuses streams
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Allow Envoy's `connection_keepalive` pings on idle connections, up to one a second. By default gRPC closes the
    # connection after a few pings in two hours.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 200),
    ("grpc.http2.max_ping_strikes", 20),
    ("grpc.server_handshake_timeout_ms", 10_000),
    *OVERLOAD_OPTIONS,
    ("grpc.compression_enabled_algorithms_bitset", 1),  # identity only: no compression bombs, and Envoy sends none
)
_AGE_GRACE_MS: Final = 10_000
"""How long calls in flight and health `Watch` streams may continue on a connection past its maximum age."""
_SHARED_OPTIONS: Final = (("grpc.so_reuseport", 1), *_OPTIONS[1:])


def as_async(methods: Methods) -> AsyncMethods:
    """Convert `methods` for `GrpcServer`."""
    return {service: {name: _as_async(call) for name, call in calls.items()} for service, calls in methods.items()}


def _as_async(call: Unary) -> AsyncUnary:
    async def run(payload: bytes, context: Any, caller: str) -> bytes:
        return call(payload, context, caller)

    return run


class GrpcServer:
    """One server on `endpoints`, either all plain or, with `tls`, all under mutual TLS."""

    def __init__(
        self,
        methods: AsyncMethods,
        endpoints: Sequence[Endpoint],
        access: SocketAccess,
        *,
        health: Health | None = None,
        tls: MutualTls | SvidTls | None = None,
        with_reflection: bool = False,
        shared_ports: bool = False,
        streams: Streams = MappingProxyType({}),
        name_user: Callable[[int], str] | None = None,
        options: Sequence[tuple[str, int]] = (),
    ) -> None:
        """With `shared_ports`, other processes may share the TCP ports; the kernel distributes connections.

        Methods get what `name_user` returns for the user ID of a caller on a Unix socket; "" without it. `options` are
        gRPC's, and replace those of this module.
        """
        self._methods = methods
        self._endpoints = tuple(endpoints)
        self._access = access
        self._health = health
        self._tls = tls
        self._with_reflection = with_reflection
        self._shared_ports = shared_ports
        self._streams = streams
        self._users = None if name_user is None else PeerUsers(name_user)
        self._more_options = tuple(options)
        self._claims: list[SocketClaim] = []
        self._relayed: list[tuple[socket.socket, str]] = []
        self._server: grpc.aio.Server | None = None
        self.addresses: tuple[Endpoint, ...] = ()
        """The addresses it listens on, with the ports chosen; empty before the start."""

    async def start(self) -> None:
        """Bind all addresses, serve, and put the Unix sockets in place. Raises `SettingsErrors` and leaves nothing."""
        options = _SHARED_OPTIONS if self._shared_ports else _OPTIONS
        # gRPC uses the first of two options with one name
        chosen = dict((*options, *_age_options(self._tls), *self._more_options))
        server = self._server = grpc.aio.server(options=list(chosen.items()))
        self._add_handlers(server)
        try:
            self.addresses = self._bind_all(server)
            await server.start()
            while self._relayed and self._users is not None:
                await self._users.relay(*self._relayed.pop())
            for claim in self._claims:
                claim.publish()
        except BaseException:
            await self.stop(0)
            raise

    def _add_handlers(self, server: grpc.aio.Server) -> None:
        tls, admitted = self._tls, AdmittedPeers()
        for service, methods in self._methods.items():
            guarded = (
                _unguarded(call, self._users) if tls is None else guard(call, tls, admitted)
                for call in methods.values()
            )
            handlers: dict[str, Any] = dict(
                zip(methods, map(grpc.unary_unary_rpc_method_handler, guarded), strict=True)
            )
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        for service, streams in self._streams.items():
            handlers = {
                name: grpc.unary_stream_rpc_method_handler(
                    _unguarded_stream(call, self._users) if tls is None else guard_stream(call, tls, admitted)
                )
                for name, call in streams.items()
            }
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        if self._health is not None:
            if tls is None:
                health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
            else:
                server.add_generic_rpc_handlers((health_handlers(self._health.servicer, tls, admitted),))
        if self._with_reflection:
            names = (*self._methods, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
            if tls is None:
                reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
            else:
                server.add_generic_rpc_handlers((reflection_handlers(names, tls, admitted),))
        if tls is not None:
            server.add_generic_rpc_handlers((UnknownMethods(tls, admitted),))

    def _bind_all(self, server: grpc.aio.Server) -> tuple[Endpoint, ...]:
        addresses: list[Endpoint] = []
        faults: list[Fault] = []
        for endpoint in self._endpoints:
            try:
                addresses.append(self._bind(server, endpoint))
            except SettingsErrors as error:
                faults.extend(error.faults)
        if faults:
            raise SettingsErrors(faults)
        return tuple(addresses)

    def _bind(self, server: grpc.aio.Server, endpoint: Endpoint) -> Endpoint:
        try:
            return self._bind_unix(server, endpoint) if endpoint.is_unix else self._bind_tcp(server, endpoint)
        except RuntimeError as error:  # gRPC gives no reason
            raise listener_error(
                endpoint, "cannot listen", "check that the address is free and the directory writable"
            ) from error

    def _bind_unix(self, server: grpc.aio.Server, endpoint: Endpoint) -> Endpoint:
        claim = SocketClaim(endpoint, self._access)
        claim.acquire()
        self._claims.append(claim)
        with umask_for_bind():
            if self._users is not None:
                self._relayed.append((bound_unix_socket(claim.private_path, endpoint), claim.inner_path))
            server.add_insecure_port(f"unix:{claim.private_path if self._users is None else claim.inner_path}")
        return endpoint

    def _bind_tcp(self, server: grpc.aio.Server, endpoint: Endpoint) -> Endpoint:
        if not self._shared_ports:
            probe_tcp(endpoint)
        if self._tls is None:
            port = server.add_insecure_port(str(endpoint))
        else:
            port = server.add_secure_port(str(endpoint), self._tls.credentials())
        return Endpoint(host=endpoint.host, port=port)

    async def stop(self, grace: float) -> None:
        """Accept no new calls, wait up to `grace` seconds for those in flight, and remove our sockets."""
        try:
            if self._users is not None:
                self._users.close()
            if self._server is not None:
                await self._server.stop(grace)
            if self._users is not None:
                await self._users.stop()
        finally:
            for listening, _ in self._relayed:
                listening.close()
            for claim in self._claims:
                claim.release()
            self._claims.clear()
            self._server = None


def _age_options(tls: MutualTls | SvidTls | None) -> tuple[tuple[str, int], ...]:
    """Limit the connection age under mutual TLS, so that proxies reconnect with renewed certificates."""
    if tls is None or not tls.max_connection_age:
        return ()
    age = round(tls.max_connection_age * 1000)
    return (("grpc.max_connection_age_ms", age), ("grpc.max_connection_age_grace_ms", _AGE_GRACE_MS))


def _unguarded(call: AsyncUnary, users: PeerUsers | None) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """Return `call` for plain listeners, where callers have no SPIFFE ID, but may be known by their users."""

    async def unguarded(payload: bytes, context: Any) -> bytes:
        return await call(payload, context, await _user(context, users))

    return unguarded


def _unguarded_stream(call: Stream, users: PeerUsers | None) -> Callable[[bytes, Any], Awaitable[None]]:
    """As `_unguarded`, for a method that answers by many messages."""

    async def unguarded(payload: bytes, context: Any) -> None:
        await send_all(call(payload, context, await _user(context, users)), context)

    return unguarded


async def _user(context: Any, users: PeerUsers | None) -> str:
    """The caller by its user; "" on TCP. Ends the call on a Unix socket if the user is not known."""
    peer: str = context.peer()
    if users is None or not peer.startswith("unix"):
        return ""
    caller = users.caller(peer)
    if caller is None:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, Reason.CALLER_NOT_ALLOWED.value)
        raise AssertionError  # abort raises
    return caller
