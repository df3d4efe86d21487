"""Who may ask over mutual TLS, before anything of theirs is parsed: for gRPC's own server, every method of it.

Health and reflection are guarded like the rest, and so is what does not exist: a stranger learns nothing but that it
is one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # it ships no types
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # it ships no types
    reflection,
    reflection_pb2,
)

if TYPE_CHECKING:
    from grpc_health.v1._async import HealthServicer  # type: ignore[import-untyped]  # it ships no types

    from zta_authz.servers.grpcio.standing import Standing

Guarded = Callable[[bytes, Any], Awaitable[Any]]

_HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_SERIALIZE: Final = health_pb2.HealthCheckResponse.SerializeToString


class Callers(Protocol):
    """Tells callers from strangers."""

    def caller(self, connection: Mapping[str, Any]) -> str | None:
        """The SPIFFE ID at the other end of a connection (its `auth_context()`), None unless it may ask."""
        ...


def guard(call: Callable[[bytes, Any, str], Awaitable[Any]], callers: Callers, standing: Standing) -> Guarded:
    """Guard `call`: callers who may ask reach it, with their SPIFFE ID; all others are refused by `standing`."""

    async def guarded(payload: bytes, context: Any) -> Any:
        caller = callers.caller(context.auth_context())
        if caller is None:
            await standing.refuse(context)
        standing.admit(context)
        return await call(payload, context, caller)

    return guarded


def health_handlers(servicer: HealthServicer, callers: Callers, standing: Standing) -> grpc.GenericRpcHandler:
    """The gRPC health service behind the guard."""

    async def check(payload: bytes, context: Any, _caller: str) -> Any:
        return await servicer.Check(await _asked(payload, context), context)

    async def watch(payload: bytes, context: Any, _caller: str) -> None:
        await servicer.Watch(await _asked(payload, context), context)

    handlers: dict[str, Any] = {
        "Check": grpc.unary_unary_rpc_method_handler(guard(check, callers, standing), response_serializer=_SERIALIZE),
        "Watch": grpc.unary_stream_rpc_method_handler(guard(watch, callers, standing), response_serializer=_SERIALIZE),
    }
    return grpc.method_handlers_generic_handler(_HEALTH, handlers)


async def _asked(payload: bytes, context: Any) -> Any:
    try:
        return health_pb2.HealthCheckRequest.FromString(payload)
    except DecodeError:
        await context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")


def reflection_handlers(services: Iterable[str], callers: Callers, standing: Standing) -> grpc.GenericRpcHandler:
    """Reflection of `services`, by their full names, behind the guard."""
    servicer = reflection.aio.ReflectionServicer((*services, reflection.SERVICE_NAME))

    async def info(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        if callers.caller(context.auth_context()) is None:
            await standing.refuse(context)
        standing.admit(context)
        async for answer in servicer.ServerReflectionInfo(_questions(messages, context), context):
            yield answer

    handler: Any = grpc.stream_stream_rpc_method_handler(
        info, response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": handler})


async def _questions(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
    async for message in messages:
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(message)
        except DecodeError:
            await context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")


class UnknownMethods(grpc.GenericRpcHandler):
    """Whatever no handler before this one serves: UNIMPLEMENTED, once the caller is known for one who may ask."""

    def __init__(self, callers: Callers, standing: Standing) -> None:
        async def missing(_messages: Any, context: Any, _caller: str) -> NoReturn:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            raise AssertionError  # abort raises

        self._handler: Any = grpc.stream_stream_rpc_method_handler(guard(missing, callers, standing))

    def service(self, _details: Any) -> Any:
        """One answer for all of them, which reads no message."""
        return self._handler
