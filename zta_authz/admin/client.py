"""Asks the admin API of a running service over its Unix socket, for `zta-authz status`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from zta_authz._proto import admin_pb2
from zta_authz.admin.service import SERVICE
from zta_authz.admin.state import KeyKind, KeyStatus
from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    Ask = grpc.UnaryUnaryMultiCallable[bytes, admin_pb2.GetStatusResponse]

TIMEOUT_SECONDS: Final = 5.0
_KINDS: Final = {
    admin_pb2.KeyMaterial.TRUST_BUNDLE: KeyKind.TRUST_BUNDLE,
    admin_pb2.KeyMaterial.JWKS: KeyKind.JWKS,
}


@dataclass(frozen=True, slots=True)
class KeyAge:
    """Keys in force, as `KeyStatus`; `age` in seconds."""

    keys: KeyStatus
    age: float


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What is in force. `uptime` in seconds; `loaded_at` in seconds since the epoch, 0 until rules are loaded."""

    version: str
    uptime: float
    ready: bool
    table_digest: str
    loaded_at: float
    sources: tuple[str, ...]
    load_errors: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    keys: tuple[KeyAge, ...]


def fetch_status(address: str) -> ServiceStatus:
    """Ask the service at `address` (`unix:/path`). Raises `FaultsError` where it does not answer."""
    options = [("grpc.max_receive_message_length", 64 * 1024 * 1024), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        method, read = f"/{SERVICE}/GetStatus", admin_pb2.GetStatusResponse.FromString
        ask: Ask = channel.unary_unary(method, response_deserializer=read)
        try:
            answer: admin_pb2.GetStatusResponse = ask(b"", timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            message = f"the admin API does not answer: {error.code().name}, {error.details()}"
            hint = "is the service running, with `admin.listen`, and may you use its socket?"
            raise FaultsError([Fault(address, 0, 0, message, hint)]) from None
    return ServiceStatus(
        answer.version,
        answer.uptime_seconds,
        answer.ready,
        answer.table_digest,
        answer.loaded_at_seconds,
        tuple(answer.sources),
        _faults(answer.load_errors),
        _faults(answer.warnings),
        tuple(_key_age(each) for each in answer.keys),
    )


def _faults(messages: Iterable[admin_pb2.Fault]) -> tuple[Fault, ...]:
    return tuple(Fault(each.source, each.line, each.column, each.message, each.hint) for each in messages)


def _key_age(message: admin_pb2.KeyMaterial) -> KeyAge:
    kind = _KINDS.get(message.kind, KeyKind.JWKS)
    return KeyAge(
        KeyStatus(kind, message.name, message.count, 0.0, message.expires_at_seconds or None), message.age_seconds
    )
