"""Envoy and zta-authz over TCP: requests are denied unless both have the expected identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from envoy.demo.authz_connection import Mtls
from envoy.demo.client import Request
from envoy.demo.identities import spiffe_id
from envoy.demo.stack import StackOptions, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envoy.demo.stack import Stack

ORDERS = Request(path="/orders")
CHECK = "/envoy.service.auth.v3.Authorization/Check"


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The demo's stack with mutual TLS between Envoy and zta-authz."""
    with running(tmp_path_factory.mktemp("stack"), StackOptions(mtls=Mtls(), envoy=envoy_binary)) as started:
        yield started


def test_requests_are_decided_over_mutual_tls(stack: Stack) -> None:
    assert stack.send("frontend", ORDERS).status == 200
    assert stack.send("attacker", ORDERS).status == 403


@pytest.mark.parametrize("name", ["frontend-other-ca", None])
def test_nobody_without_a_certificate_of_the_authority_can_ask(stack: Stack, name: str | None) -> None:
    layout = stack.layout
    pair = (None, None) if name is None else (layout.key(name).read_bytes(), layout.certificate(name).read_bytes())
    credentials = grpc.ssl_channel_credentials(layout.ca.read_bytes(), *pair)
    address = stack.connection.listen.replace("127.0.0.1", "localhost")
    with grpc.secure_channel(address, credentials) as channel:
        check = channel.unary_unary(CHECK, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError) as error:
            check(b"", timeout=5)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "mtls",
    [
        Mtls(proxy="frontend"),
        Mtls(allowed=(spiffe_id("orders"), spiffe_id("hatshop-2"))),
        Mtls(expected="spiffe://cluster.local/ns/zta-system/sa/somebody-else"),
    ],
    ids=["the frontend asks", "only others are allowed", "another server answers"],
)
@pytest.mark.parametrize("server", ["grpcio", "fast"])
def test_a_wrong_identity_at_either_end_denies_everything(
    envoy_binary: Path, tmp_path: Path, mtls: Mtls, server: str
) -> None:
    with running(tmp_path, StackOptions(mtls=mtls, envoy=envoy_binary, settings={"server": server})) as stack:
        assert stack.send("frontend", ORDERS).status == 503
        assert stack.upstream_requests() == 0
