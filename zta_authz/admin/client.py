"""A client of a running service's admin API over its Unix socket, for `zta-authz status`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from zta_authz._proto import admin_pb2
from zta_authz.admin.service import SERVICE
from zta_authz.admin.state import KeyKind, KeyStatus
from zta_authz.errors import Fault, FaultsError
from zta_authz.ports import FollowingStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    StatusCall = grpc.UnaryUnaryMultiCallable[bytes, admin_pb2.GetStatusResponse]

TIMEOUT_SECONDS: Final = 5.0
_KINDS: Final = {
    admin_pb2.KeyMaterial.TRUST_BUNDLE: KeyKind.TRUST_BUNDLE,
    admin_pb2.KeyMaterial.JWKS: KeyKind.JWKS,
}


@dataclass(frozen=True, slots=True)
class AgedKeys:
    """Keys in force and their age in seconds."""

    keys: KeyStatus
    age: float


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The service's state. `uptime` is in seconds; `loaded_at` in seconds since the epoch, 0 until rules are loaded."""

    version: str
    uptime: float
    ready: bool
    table_digest: str
    loaded_at: float
    sources: tuple[str, ...]
    load_errors: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    keys: tuple[AgedKeys, ...]
    following: FollowingStatus | None


def fetch_status(address: str) -> ServiceStatus:
    """Fetch the status of the service at `address` (`unix:/path`). Raises `FaultsError` if it does not answer."""
    options = [("grpc.max_receive_message_length", 64 * 1024 * 1024), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        method, read = f"/{SERVICE}/GetStatus", admin_pb2.GetStatusResponse.FromString
        call: StatusCall = channel.unary_unary(method, response_deserializer=read)
        try:
            reply: admin_pb2.GetStatusResponse = call(b"", timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            message = f"the admin API does not answer: {error.code().name}, {error.details()}"
            hint = "is the service running, with `admin.listen`, and may you use its socket?"
            raise FaultsError([Fault(address, 0, 0, message, hint)]) from None
    return ServiceStatus(
        reply.version,
        reply.uptime_seconds,
        reply.ready,
        reply.table_digest,
        reply.loaded_at_seconds,
        tuple(reply.sources),
        _faults(reply.load_errors),
        _faults(reply.warnings),
        tuple(_aged_keys(keys) for keys in reply.keys),
        _following(reply.following) if reply.HasField("following") else None,
    )


def _following(message: admin_pb2.Following) -> FollowingStatus:
    age = message.age_seconds if message.HasField("age_seconds") else None
    return FollowingStatus(
        message.address, message.connected, age, message.stale, message.revision, dict(message.items)
    )


def _faults(messages: Iterable[admin_pb2.Fault]) -> tuple[Fault, ...]:
    return tuple(Fault(fault.source, fault.line, fault.column, fault.message, fault.hint) for fault in messages)


def _aged_keys(message: admin_pb2.KeyMaterial) -> AgedKeys:
    kind = _KINDS.get(message.kind, KeyKind.JWKS)
    return AgedKeys(
        KeyStatus(kind, message.name, message.count, 0.0, message.expires_at_seconds or None), message.age_seconds
    )
