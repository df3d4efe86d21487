"""A client that sends requests unmodified, over TLS with or without a certificate."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. `headers` have lower-case names; repeated headers are joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; {} if it is not one."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def reached_upstream(self) -> bool:
        """Whether the upstream sent this response: only the upstream echoes the path."""
        return self.status == http.client.OK and "path" in self.json()

    def upstream_headers(self) -> list[tuple[str, str]]:
        """Return the headers that the upstream received, in order and with lower-case names."""
        return [(name.lower(), value) for name, value in self.json().get("headers", [])]

    def upstream_header(self, name: str) -> str | None:
        """Return the header that the upstream received under this name; None if there was none."""
        values = [value for seen, value in self.upstream_headers() if seen == name]
        return ",".join(values) if values else None


def tls_context(ca: Path, certificate: tuple[Path, Path] | None) -> ssl.SSLContext:
    """Return a TLS context that trusts only `ca` and presents `certificate` (chain, key) if given."""
    context = ssl.create_default_context(cafile=str(ca))
    if certificate is not None:
        context.load_cert_chain(*map(str, certificate))
    return context


@dataclass(frozen=True, slots=True)
class Request:
    """A request. `path` and `headers` are sent unmodified."""

    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def send(port: int, context: ssl.SSLContext, request: Request) -> Answer:
    """Send one request on a new connection. Raises OSError if the TLS handshake fails."""
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=TIMEOUT_SECONDS)
    try:
        connection.putrequest(request.method, request.path, skip_accept_encoding=True)
        for name, value in request.headers:
            connection.putheader(name, value)
        if request.body or request.method in {"POST", "PUT", "PATCH"}:
            connection.putheader("content-length", str(len(request.body)))
        connection.endheaders(request.body)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())
    finally:
        connection.close()
