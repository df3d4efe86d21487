"""A client over HTTP/2 and TLS that sends header values exactly as it is told, blanks around them included."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

_TIMEOUT_SECONDS = 15.0
_NAME = "localhost"
_AS_TOLD = h2.config.H2Configuration(
    client_side=True, header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False
)


def status_of(port: int, context: ssl.SSLContext, path: str, headers: Sequence[tuple[str, str]] = ()) -> int:
    """The status of the answer to one GET on a connection of its own; 0 where the request was not answered.

    `context` must offer `h2` (ALPN).
    """
    with (
        socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=_NAME) as connected,
    ):
        client = h2.connection.H2Connection(_AS_TOLD)
        client.initiate_connection()
        head = ((":method", "GET"), (":scheme", "https"), (":authority", _NAME), (":path", path))
        client.send_headers(1, [*head, *headers], end_stream=True)
        connected.sendall(client.data_to_send())
        while received := connected.recv(65_536):
            for event in client.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    return int(dict(event.headers)[":status"])
                if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    return 0
            connected.sendall(client.data_to_send())
    return 0
