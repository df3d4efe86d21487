"""The SDK's exporters over HTTP, with a session that sends the configured headers and records bounded replies.

The session uses the environment's proxies. It reads no `.netrc`, keeps no cookies and follows no redirects, so only
the configured credentials are sent, and only to the configured collector.

The session returns a response even if the request fails. An exception of urllib3 refers to itself through its frames,
and these to the request: a cycle that would never be freed if a policy reload froze it (`policy_sources.pacing`).
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

from zta_authz.otlp.messages import Signal
from zta_authz.otlp.reply_recorder import MAX_REPLY_BYTES

if TYPE_CHECKING:
    from zta_authz.otlp.messages import Target
    from zta_authz.otlp.reply_recorder import ReplyRecorder

NO_REPLY_STATUS: Final = 503
"""Stands for a missing reply: the exporter retries."""
REDIRECT_STATUS: Final = 400
"""Stands for a redirect, which the exporter would otherwise count as success: it does not retry."""
_SEND_ERRORS: Final = (
    requests.RequestException,
    HTTPError,
    OSError,
    UnicodeError,
)  # UnicodeError: an invalid host name
_SDK_HEADERS: Final = frozenset(("content-type", "content-encoding", "user-agent"))
_READ_BYTES: Final = 4096
_COMPRESSION: Final = {
    "none": Compression.NoCompression,
    "gzip": Compression.Gzip,
    "deflate": Compression.Deflate,
}


class Session(requests.Session):
    """A session for one collector that records replies in `recorder`."""

    def __init__(self, headers: dict[str, str], signal: Signal, recorder: ReplyRecorder) -> None:
        super().__init__()
        self._configured_headers = headers
        self._signal = signal
        self._recorder = recorder
        self.auth = lambda request: request  # keeps requests from reading `.netrc`
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def request(self, *arguments: Any, **named: Any) -> requests.Response:
        """Send one request within its timeout. Return status `NO_REPLY_STATUS` if that fails."""
        deadline = time.monotonic() + named["timeout"]
        sent = {name: value for name, value in named["headers"].items() if name.lower() in _SDK_HEADERS}
        # an explicit `verify`: otherwise REQUESTS_CA_BUNDLE of the environment would override the settings
        named |= {
            "headers": sent | self._configured_headers,
            "verify": self.verify,
            "stream": True,
            "allow_redirects": False,
        }
        try:
            with super().request(*arguments, **named) as response:
                body = _read(response, deadline)
        except _SEND_ERRORS as error:
            self._recorder.refused(type(error).__name__)  # not its text, which may quote the request
            return _reply(NO_REPLY_STATUS)
        return self._to_exporter_reply(response, body)

    def _to_exporter_reply(self, response: requests.Response, body: bytes) -> requests.Response:
        status = response.status_code
        if not 200 <= status < 300:
            self._recorder.refused(f"HTTP {status}")
            return _reply(REDIRECT_STATUS if status < 400 else status, response.headers.get("Retry-After"))
        kind = ExportTraceServiceResponse if self._signal is Signal.TRACES else ExportMetricsServiceResponse
        try:
            self._recorder.accepted(kind.FromString(body), self._signal)
        except DecodeError:  # accepted, but with a reply that is not the expected message
            self._recorder.reset()
        return _reply(status)


def _read(response: requests.Response, deadline: float) -> bytes:
    """Read at most `MAX_REPLY_BYTES` of the body, until `deadline`."""
    body = b""
    while len(body) < MAX_REPLY_BYTES and time.monotonic() < deadline:
        chunk: bytes = response.raw.read1(_READ_BYTES, decode_content=True)
        if not chunk:
            break
        body += chunk
    return body


def _reply(status: int, retry_after: str | None = None) -> requests.Response:
    """Create a response with the fields that the exporter reads."""
    reply = requests.Response()
    reply.status_code = status
    reply.reason = ""
    if retry_after is not None:
        reply.headers["Retry-After"] = retry_after
    return reply


def build(target: Target, signal: Signal, recorder: ReplyRecorder) -> OTLPSpanExporter | OTLPMetricExporter:
    """Create the exporter of `signal`."""
    endpoint = urlsplit(target.endpoint)
    url = endpoint if endpoint.path.strip("/") else endpoint._replace(path=signal.path)
    headers = dict(target.headers)
    session = Session(headers, signal, recorder)
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
