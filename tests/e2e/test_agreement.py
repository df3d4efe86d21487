"""What a real Envoy sends agrees with itself, however its filter is configured: no honest request is malformed.

Pseudo headers and attributes that differ are refused, so this asks Envoy for every kind of request that it fills them
for, through filters that send all headers, raw or joined, or only some.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import h2.config
import h2.connection
import h2.events
import pytest

from envoy.demo.envoyproc import Envoy
from envoy.demo.processes import Child, wait_until
from zta_authz.ext_authz.request import parse_check_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.model.request import RequestAttributes

RECORDER: Final = Path(__file__).parent / "recorder.py"
_EXACT: Final = {"patterns": [{"exact": ":path"}, {"exact": "x-a"}]}
FILTERS: Final[dict[str, dict[str, Any]]] = {
    "raw": {"encode_raw_headers": True},
    "joined": {"encode_raw_headers": False},
    "raw-allowed": {"encode_raw_headers": True, "allowed_headers": _EXACT},
    "joined-allowed": {"encode_raw_headers": False, "allowed_headers": _EXACT},
    "raw-disallowed": {"encode_raw_headers": True, "disallowed_headers": _EXACT},
    "joined-disallowed": {"encode_raw_headers": False, "disallowed_headers": _EXACT},
}
_WEBSOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\nSec-WebSocket-Version: 13"
)
HTTP1: Final = {
    "GET": "GET /a?x=%2F HTTP/1.1\r\nHost: shop:8080\r\nX-A: 1\r\nX-A: 2",
    "an absolute target": "GET http://other:81/a HTTP/1.1\r\nHost: shop",
    "HTTP/1.0": "GET /a HTTP/1.0",
    "HTTP/1.0 with a host": "GET /a HTTP/1.0\r\nHost: shop",
    "an empty host": "GET /a HTTP/1.1\r\nHost:",
    "a path to normalise": "GET /a/../b//c HTTP/1.1\r\nHost: SHOP",
    "OPTIONS": "OPTIONS /a HTTP/1.1\r\nHost: shop",
    "a websocket": f"GET /chat HTTP/1.1\r\nHost: shop\r\n{_WEBSOCKET}",
    "CONNECT": "CONNECT shop:443 HTTP/1.1\r\nHost: shop:443",
    "a forged scheme": "GET /a HTTP/1.1\r\nHost: shop\r\nX-Forwarded-Proto: https",
}
_SHOP = (":authority", "shop")
HTTP2: Final = {
    "GET": [(":method", "GET"), (":path", "/a?x"), _SHOP, (":scheme", "http"), ("x-a", "1"), ("x-a", "2")],
    "https": [(":method", "GET"), (":path", "/a"), _SHOP, (":scheme", "https")],
    "a scheme in upper case": [(":method", "GET"), (":path", "/a"), _SHOP, (":scheme", "HTTP")],
    "a method in lower case": [(":method", "delete"), (":path", "/a"), _SHOP, (":scheme", "http")],
    "a host beside the authority": [(":method", "GET"), (":path", "/a"), _SHOP, (":scheme", "http"), ("host", "x")],
    "a host instead of it": [(":method", "GET"), (":path", "/a"), (":scheme", "http"), ("host", "shop")],
    "CONNECT": [(":method", "CONNECT"), (":authority", "shop:443")],
    "a websocket": [
        (":method", "CONNECT"), (":protocol", "websocket"), (":path", "/chat"), _SHOP, (":scheme", "http"),
        ("sec-websocket-version", "13"),
    ],
}  # fmt: skip


def listener(name: str, sockets: Path, filtered: dict[str, Any]) -> dict[str, Any]:
    """One for each filter; every request is answered here."""
    answer = {"direct_response": {"status": 200}}
    routes = [{"match": {"connect_matcher": {}}, **answer}, {"match": {"prefix": "/"}, **answer}]
    authz = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "10s"},
        "transport_api_version": "V3",
        **filtered,
    }
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "normalize_path": True,
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "old.example"},
        "http2_protocol_options": {"allow_connect": True},
        "upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": authz},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": name, "address": {"pipe": {"path": str(sockets / name)}}, "filter_chains": [chain]}


def configuration(sockets: Path) -> dict[str, Any]:
    """Envoy's bootstrap."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(sockets / "authz")}}}}
    options = {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"}
    cluster = {
        "name": "authz",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "authz", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                **options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    listeners = [listener(name, sockets, filtered) for name, filtered in FILTERS.items()]
    return {
        "admin": {"address": {"pipe": {"path": str(sockets / "admin")}}},
        "static_resources": {"listeners": listeners, "clusters": [cluster]},
    }


class Asked:
    """A real Envoy that asks a recorder, and the sockets it listens on."""

    def __init__(self, sockets: Path, recorded: Path) -> None:
        self.sockets = sockets
        self._recorded = recorded

    def new_calls(self) -> list[bytes]:
        """What was asked since the last time."""
        calls = []
        for path in sorted(self._recorded.glob("*.bin")):
            calls.append(path.read_bytes())
            path.unlink()
        return calls

    def connect(self, name: str) -> socket.socket:
        """A connection to one of the listeners."""
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(10)
        made.connect(str(self.sockets / name))
        return made


@pytest.fixture(scope="module")
def asked(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    directory = tmp_path_factory.mktemp("agreement")
    recorded = directory / "recorded"
    recorded.mkdir()
    sockets = Path(tempfile.mkdtemp(prefix="zta-"))  # paths of sockets are short
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, sockets, ignore_errors=True)
        log = directory / "recorder.log"
        command = [sys.executable, str(RECORDER), str(sockets / "authz"), str(recorded)]
        recorder = Child("recorder", command, stdout=log, stderr=log)
        cleanup.callback(recorder.stop)
        wait_until((sockets / "authz").exists, recorder)
        config = directory / "envoy.json"
        config.write_text(json.dumps(configuration(sockets)))
        envoy = Envoy(envoy_binary, config, admin=sockets / "admin")
        cleanup.callback(envoy.child.stop)
        envoy.wait_ready()
        yield Asked(sockets, recorded)


def ask_http1(connection: socket.socket, text: str) -> bytes:
    """Send a request and read until the answer's head is there."""
    connection.sendall(f"{text}\r\n\r\n".encode())
    seen = b""
    while b"\r\n\r\n" not in seen:
        more = connection.recv(65536)
        if not more:
            break
        seen += more
    return seen.partition(b"\r\n")[0]


def ask_http2(connection: socket.socket, headers: list[tuple[str, str]]) -> bytes:
    """The status of the answer, or what ended the stream."""
    client = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False)
    )
    client.initiate_connection()
    client.send_headers(1, headers, end_stream=":protocol" not in dict(headers) and headers[0][1] != "CONNECT")
    connection.sendall(client.data_to_send())
    while True:
        for event in client.receive_data(connection.recv(65536)):
            if isinstance(event, h2.events.ResponseReceived):
                return dict(event.headers)[b":status"]
            if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                return b"reset"
        connection.sendall(client.data_to_send())


def understood(asked: Asked) -> list[RequestAttributes]:
    """Each call as it was read. A malformed one raises."""
    return [parse_check_request(call)[0] for call in asked.new_calls()]


@pytest.mark.parametrize("name", FILTERS)
def test_whatever_envoy_sends_over_http_1_is_understood(asked: Asked, name: str) -> None:
    asked.new_calls()
    for what, text in HTTP1.items():
        with asked.connect(name) as connection:
            status = ask_http1(connection, text)
        requests = understood(asked)
        assert b" 200 " in status, (what, status)
        assert len(requests) == 1, what
        assert text.startswith(requests[0].method), what


@pytest.mark.parametrize("name", FILTERS)
def test_whatever_envoy_sends_over_http_2_is_understood(asked: Asked, name: str) -> None:
    asked.new_calls()
    for what, headers in HTTP2.items():
        with asked.connect(name) as connection:
            status = ask_http2(connection, headers)
        requests = understood(asked)
        assert status == b"200", what
        assert len(requests) == 1, what
