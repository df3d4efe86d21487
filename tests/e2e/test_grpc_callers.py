"""A gRPC caller that is refused gets a gRPC status and a one-line message, through the real Envoy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

if TYPE_CHECKING:
    from envoy.demo.stack import Stack


def _call(stack: Stack, peer: str, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
    layout = stack.layout
    credentials = grpc.ssl_channel_credentials(
        layout.ca.read_bytes(), layout.key(peer).read_bytes(), layout.certificate(peer).read_bytes()
    )
    with grpc.secure_channel(f"localhost:{stack.port}", credentials) as channel:
        buy = channel.unary_unary("/shop.Shop/Buy", request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError) as error:
            buy(b"", metadata=metadata, timeout=10)
    return error.value


def test_a_caller_no_policy_names_gets_permission_denied(stack: Stack) -> None:
    error = _call(stack, "attacker")
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert error.details().startswith("no_matching_policy")
    assert "\n" not in error.details()
    assert "{" not in error.details()


def test_a_bad_token_gets_unauthenticated(stack: Stack) -> None:
    bearer = ("authorization", f"Bearer {stack.layout.token('expired').read_text()}")
    error = _call(stack, "frontend", (bearer,))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error.details().startswith("token_expired")
