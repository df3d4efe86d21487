"""Shutting down connections of this process by their peer's address."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from zta_authz.servers.grpcio.admitted_peers import shut_down

if TYPE_CHECKING:
    from collections.abc import Iterator

FAMILIES = {"ipv4": (socket.AF_INET, "127.0.0.1"), "ipv6": (socket.AF_INET6, "::1")}


@contextmanager
def connected(kind: str) -> Iterator[tuple[socket.socket, str]]:
    """A client whose server is this process too, and how gRPC writes the client's address."""
    family, host = FAMILIES[kind]
    with (
        socket.create_server((host, 0), family=family) as listening,
        socket.create_connection(listening.getsockname()[:2]) as client,
        closing(listening.accept()[0]),
    ):
        client.setblocking(False)
        port = client.getsockname()[1]
        yield client, f"ipv4:{host}:{port}" if kind == "ipv4" else f"ipv6:%5B{host}%5D:{port}"


def is_over(client: socket.socket) -> bool:
    client.settimeout(0.2)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False


@pytest.mark.parametrize("kind", FAMILIES)
def test_only_the_named_connections_are_shut_down(kind: str) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(kind)) for _ in range(3)]
        named = {clients[0][1], clients[2][1]}
        assert shut_down(named) == named
        assert [is_over(client) for client, _ in clients] == [True, False, True]


def test_an_ipv4_client_of_a_dual_stack_listener_is_found() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening,
        socket.create_connection(("127.0.0.1", listening.getsockname()[1])) as client,
        closing(listening.accept()[0]),
    ):
        port = client.getsockname()[1]
        mapped = f"ipv6:%5B::ffff:127.0.0.1%5D:{port}"
        assert shut_down({mapped}) == {mapped}
        assert is_over(client)


@pytest.mark.parametrize("peer", ["unix:", "ipv4:127.0.0.1", "ipv4:x:1", "", "ipv4:127.0.0.1:1"])
def test_a_peer_that_is_not_connected_to_this_process_is_not_found(peer: str) -> None:
    assert shut_down({peer}) == set()
