"""Authorization of callers over mutual TLS, before their messages are parsed, for every method of gRPC's own server.

Health, reflection and unknown methods are guarded as well, so an unauthorized peer only learns that it is unauthorized.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # it ships no types
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # it ships no types
    reflection,
    reflection_pb2,
)

from zta_authz.servers.grpcio.streaming import send_all

if TYPE_CHECKING:
    from grpc_health.v1._async import HealthServicer  # type: ignore[import-untyped]  # it ships no types

    from zta_authz.servers.grpcio.admitted_peers import AdmittedPeers

Guarded = Callable[[bytes, Any], Awaitable[Any]]

_HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_SERIALIZE: Final = health_pb2.HealthCheckResponse.SerializeToString


class Callers(Protocol):
    """Identifies authorized callers."""

    def caller(self, connection: Mapping[str, Any]) -> str | None:
        """Return the SPIFFE ID of a connection's peer (from its `auth_context()`), or None unless it may call."""
        ...


def guard(call: Callable[[bytes, Any, str], Awaitable[Any]], callers: Callers, admitted: AdmittedPeers) -> Guarded:
    """Return `call` behind authorization: `admitted` refuses unauthorized callers."""

    async def guarded(payload: bytes, context: Any) -> Any:
        caller = callers.caller(context.auth_context())
        if caller is None:
            await admitted.refuse(context)
        admitted.admit(context)
        return await call(payload, context, caller)

    return guarded


def guard_stream(
    call: Callable[[bytes, Any, str], AsyncGenerator[bytes, None]], callers: Callers, admitted: AdmittedPeers
) -> Guarded:
    """As `guard`, for a method that answers by many messages. It ends once the caller is no longer authorized."""

    async def guarded(payload: bytes, context: Any) -> None:
        caller = callers.caller(context.auth_context())
        if caller is None:
            await admitted.refuse(context)
        admitted.admit(context)

        async def check() -> None:
            if callers.caller(context.auth_context()) is None:
                await admitted.refuse(context)

        await send_all(call(payload, context, caller), context, check)

    return guarded


def health_handlers(servicer: HealthServicer, callers: Callers, admitted: AdmittedPeers) -> grpc.GenericRpcHandler:
    """Return the guarded gRPC health service."""

    async def check(payload: bytes, context: Any, _caller: str) -> Any:
        return await servicer.Check(await _health_request(payload, context), context)

    async def watch(payload: bytes, context: Any, _caller: str) -> None:
        await servicer.Watch(await _health_request(payload, context), context)

    handlers: dict[str, Any] = {
        "Check": grpc.unary_unary_rpc_method_handler(guard(check, callers, admitted), response_serializer=_SERIALIZE),
        "Watch": grpc.unary_stream_rpc_method_handler(guard(watch, callers, admitted), response_serializer=_SERIALIZE),
    }
    return grpc.method_handlers_generic_handler(_HEALTH, handlers)


async def _health_request(payload: bytes, context: Any) -> Any:
    try:
        return health_pb2.HealthCheckRequest.FromString(payload)
    except DecodeError:
        await context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")


def reflection_handlers(services: Iterable[str], callers: Callers, admitted: AdmittedPeers) -> grpc.GenericRpcHandler:
    """Return guarded reflection of `services`, given by their full names."""
    servicer = reflection.aio.ReflectionServicer((*services, reflection.SERVICE_NAME))

    async def info(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        if callers.caller(context.auth_context()) is None:
            await admitted.refuse(context)
        admitted.admit(context)
        async for response in servicer.ServerReflectionInfo(_reflection_requests(messages, context), context):
            yield response

    handler: Any = grpc.stream_stream_rpc_method_handler(
        info, response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": handler})


async def _reflection_requests(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
    async for message in messages:
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(message)
        except DecodeError:
            await context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")


class UnknownMethods(grpc.GenericRpcHandler):
    """Answers UNIMPLEMENTED for unknown methods, to authorized callers only."""

    def __init__(self, callers: Callers, admitted: AdmittedPeers) -> None:
        async def missing(_messages: Any, context: Any, _caller: str) -> NoReturn:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            raise AssertionError  # abort raises

        self._handler: Any = grpc.stream_stream_rpc_method_handler(guard(missing, callers, admitted))

    def service(self, _details: Any) -> Any:
        """Return one handler for all methods; it reads no message."""
        return self._handler
