"""Streaming gRPC, WebSockets and CORS through the real Envoy, on what `zta-authz envoy-config` prints for them."""

from __future__ import annotations

import contextlib
import http.client
import queue
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from envoy.demo.client import Request
from envoy.demo.stack import StackOptions, running
from tests.e2e.test_envoy_config import PrintedStack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ORIGIN = "https://shop.example"
SECONDS = 10.0


class _Listening:
    """Stands in for an upstream process."""

    def check(self) -> None:
        """It runs in this process."""


class GrpcStack(PrintedStack):
    """The upstream is a gRPC service with a method that answers each message at once."""

    more = ("--upstream-protocol=http2", f"--cors-origin={ORIGIN}")

    def _start_upstream(self, cleanup: contextlib.ExitStack) -> Any:
        def echo(messages: Iterator[bytes], _context: Any) -> Iterator[bytes]:
            yield from messages

        server = grpc.server(ThreadPoolExecutor(4))
        handlers = {"Chat": grpc.stream_stream_rpc_method_handler(echo)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", handlers),))
        server.add_insecure_port(f"unix:{self.sockets}/upstream.sock")
        server.start()
        cleanup.callback(lambda: server.stop(0))
        self.upstream_log.touch()
        return _Listening()


class WebSocketStack(PrintedStack):
    """The upstream takes each upgrade and sends back what it is sent."""

    more = ("--websocket",)

    def _start_upstream(self, cleanup: contextlib.ExitStack) -> Any:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{self.sockets}/upstream.sock")
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n")
                    connection.sendall(b"Upgrade: websocket\r\n\r\n")
                    while data := connection.recv(4096):
                        connection.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        def stop() -> None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(SECONDS)

        cleanup.callback(stop)
        self.upstream_log.touch()
        return _Listening()


@pytest.fixture(scope="module")
def grpc_stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcStack]:
    with running(tmp_path_factory.mktemp("grpc"), StackOptions(envoy=envoy_binary), kind=GrpcStack) as stack:
        assert isinstance(stack, GrpcStack)
        yield stack


def channel(stack: GrpcStack, peer: str) -> grpc.Channel:
    layout = stack.layout
    files = (layout.ca, layout.key(peer), layout.certificate(peer))
    credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
    return grpc.secure_channel(f"localhost:{stack.port}", credentials)


def test_each_message_of_a_stream_is_answered_before_the_next_is_sent(grpc_stack: GrpcStack) -> None:
    """With `with_request_body` the first answer came only once the client had closed its side."""
    asked: queue.Queue[bytes | None] = queue.Queue()
    with channel(grpc_stack, "frontend") as connected:
        answers = connected.stream_stream("/shop.Shop/Chat")(iter(asked.get, None), timeout=SECONDS)
        for message in (b"one", b"two", b"three"):
            asked.put(message)
            assert next(answers) == message
        asked.put(None)
        assert list(answers) == []


def test_a_stream_of_a_caller_that_no_policy_names_is_denied(grpc_stack: GrpcStack) -> None:
    asked: queue.Queue[bytes | None] = queue.Queue()
    with channel(grpc_stack, "attacker") as connected:
        answers = connected.stream_stream("/shop.Shop/Chat")(iter(asked.get, None), timeout=SECONDS)
        with pytest.raises(grpc.RpcError) as denied:
            next(answers)
        asked.put(None)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED


def exchange(stack: PrintedStack, method: str, peer: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPSConnection("localhost", stack.port, context=stack.context(peer), timeout=SECONDS)
    with contextlib.closing(connection):
        connection.request(
            method, "/orders", headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        response = connection.getresponse()
        response.read()
        return response


def test_a_preflight_of_a_named_origin_is_answered_by_envoy_and_nothing_else_gets_past_asking(
    grpc_stack: GrpcStack,
) -> None:
    preflight = {"access_control_request_method": "PUT", "origin": ORIGIN}
    answered = exchange(grpc_stack, "OPTIONS", "attacker", **preflight)
    assert (answered.status, answered.getheader("access-control-allow-origin")) == (200, ORIGIN)
    assert exchange(grpc_stack, "OPTIONS", "attacker", **preflight | {"origin": "https://evil.example"}).status == 403
    assert exchange(grpc_stack, "OPTIONS", "attacker", origin=ORIGIN).status == 403
    denied = exchange(grpc_stack, "GET", "attacker", origin=ORIGIN)
    assert (denied.status, denied.getheader("access-control-allow-origin")) == (403, ORIGIN)
    assert "x-zta-decision-id" in (denied.getheader("access-control-expose-headers") or "")


def test_a_websocket_is_asked_about_once_and_carries_both_ways(envoy_binary: Path, tmp_path: Path) -> None:
    opening = (
        b"GET /orders HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with running(tmp_path, StackOptions(envoy=envoy_binary), kind=WebSocketStack) as stack:
        for peer, status in (("attacker", b"403"), ("frontend", b"101")):
            with (
                socket.create_connection(("localhost", stack.port), timeout=SECONDS) as plain,
                stack.context(peer).wrap_socket(plain, server_hostname="localhost") as secured,
            ):
                secured.sendall(opening)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += secured.recv(4096)
                assert head.split(b" ")[1] == status
                if status == b"101":
                    for frame in (b"\x81\x03one", b"\x81\x03two"):
                        secured.sendall(frame)
                        assert secured.recv(4096) == frame
        assert stack.send("attacker", Request(path="/orders")).status == 403
