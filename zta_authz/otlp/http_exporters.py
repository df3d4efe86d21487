"""The SDK's exporters over HTTP, with a session that sends our headers, reads replies within bounds and notes them.

Proxies of the environment are used. Its `.netrc` is not, no cookie is kept and no redirect is followed: credentials are
those of the settings, and they go to the collector that was named.

The session answers where nobody else does: an exception of urllib3's refers to itself by its frames, and these to what
was sent. Such a cycle that a policy reload freezes (`policy_sources.pacing`) would stay for ever.
"""

from __future__ import annotations

import time
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import requests
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from urllib3.exceptions import HTTPError

from zta_authz.otlp.heard import MAX_REPLY_BYTES
from zta_authz.otlp.messages import Signal

if TYPE_CHECKING:
    from zta_authz.otlp.heard import Heard
    from zta_authz.otlp.messages import Target

NOBODY: Final = 503
"""The status of an answer that did not come: the exporter tries again."""
REFUSED: Final = 400
"""That of a redirect, which the exporter would count as success: it does not try again."""
_UNSENT: Final = (requests.RequestException, HTTPError, OSError, UnicodeError)  # the last for a host that is no name
_OF_THE_SDK: Final = frozenset(("content-type", "content-encoding", "user-agent"))
_READ_BYTES: Final = 4096
_COMPRESSION: Final = {
    "none": Compression.NoCompression,
    "gzip": Compression.Gzip,
    "deflate": Compression.Deflate,
}


class Session(requests.Session):
    """As its base, for one collector."""

    def __init__(self, headers: dict[str, str], signal: Signal, heard: Heard) -> None:
        super().__init__()
        self._ours = headers
        self._signal = signal
        self._heard = heard
        self.auth = lambda request: request  # so that no `.netrc` is asked
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def request(self, *arguments: Any, **named: Any) -> requests.Response:
        """One request within its timeout; what could not be sent is answered with status `NOBODY`."""
        until = time.monotonic() + named["timeout"]
        sent = {name: value for name, value in named["headers"].items() if name.lower() in _OF_THE_SDK}
        # `verify` by name: else the environment's authorities (REQUESTS_CA_BUNDLE) would come before the settings'
        named |= {"headers": sent | self._ours, "verify": self.verify, "stream": True, "allow_redirects": False}
        try:
            with super().request(*arguments, **named) as response:
                body = _read(response, until)
        except _UNSENT as error:
            self._heard.refused(type(error).__name__)  # nothing of its text: it may quote what was sent
            return _reply(NOBODY)
        return self._settle(response, body)

    def _settle(self, response: requests.Response, body: bytes) -> requests.Response:
        status = response.status_code
        if not 200 <= status < 300:
            self._heard.refused(f"HTTP {status}")
            return _reply(REFUSED if status < 400 else status, response.headers.get("Retry-After"))
        kind = ExportTraceServiceResponse if self._signal is Signal.TRACES else ExportMetricsServiceResponse
        try:
            self._heard.taken(kind.FromString(body), self._signal)
        except DecodeError:  # of something which took the request and says no more
            self._heard.forget()
        return _reply(status)


def _read(response: requests.Response, until: float) -> bytes:
    """The body, cut; a reply that comes in drops ends at `until`."""
    body = b""
    while len(body) < MAX_REPLY_BYTES and time.monotonic() < until:
        chunk: bytes = response.raw.read1(_READ_BYTES, decode_content=True)
        if not chunk:
            break
        body += chunk
    return body


def _reply(status: int, retry_after: str | None = None) -> requests.Response:
    """What of a response the exporter looks at."""
    reply = requests.Response()
    reply.status_code = status
    reply.reason = ""
    if retry_after is not None:
        reply.headers["Retry-After"] = retry_after
    return reply


def build(target: Target, signal: Signal, heard: Heard) -> OTLPSpanExporter | OTLPMetricExporter:
    """The exporter of `signal`."""
    where = urlsplit(target.endpoint)
    url = where if where.path.strip("/") else where._replace(path=signal.path)
    headers = dict(target.headers)
    session = Session(headers, signal, heard)
    kind = OTLPSpanExporter if signal is Signal.TRACES else OTLPMetricExporter
    return kind(
        endpoint=url.geturl(),
        certificate_file=target.ca_file,
        client_key_file=target.key_file,
        client_certificate_file=target.cert_file,
        headers=headers,
        timeout=target.seconds,
        compression=_COMPRESSION[target.compression],
        session=session,
    )
