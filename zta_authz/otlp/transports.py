"""Blocking requests to a collector over gRPC or HTTP, to be made on a background thread.

They use no proxy, redirect, cookie or credential of the environment, so a request goes only to the configured endpoint.
"""

from __future__ import annotations

import http.client
import math
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # no py.typed beside its stubs
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from zta_authz.otlp.messages import ExportStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.otlp.messages import Signal, Target

MAX_REPLY_BYTES: Final = 64 * 1024
_LEAST_SECONDS: Final = 0.01  # a timeout of 0 would make the socket non-blocking
_SEND_ERRORS: Final = (OSError, http.client.HTTPException, UnicodeError)  # UnicodeError: an invalid host name
_WRONG_CODES: Final = frozenset((grpc.StatusCode.INVALID_ARGUMENT,))
_WRONG_STATUSES: Final = frozenset((400, 413, 422))
_DETAILS: Final = "grpc-status-details-bin"
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # the caller retries, because it knows what else is queued
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 5000),  # the timeout of one attempt to connect
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """A collector's reply: the `body` of an accepted request, or the status of a failed one in `detail`.

    `after` is how many seconds the collector asks to wait.
    """

    status: ExportStatus
    body: bytes = b""
    detail: str = ""
    after: float | None = None


class Transport(Protocol):
    """A connection to a collector. Only one thread may use it."""

    def send(self, payload: bytes, seconds: float) -> Reply:
        """Send one export request. A missing reply within `seconds` is retryable. Failures don't raise."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def open_transport(target: Target, signal: Signal) -> Transport:
    """Create the transport to `target`, without connecting yet. Raises OSError (also `ssl.SSLError`) for bad files."""
    context = tls_context(target) if target.secure else None
    return GrpcTransport(target, signal) if target.protocol == "grpc" else HttpTransport(target, signal, context)


def tls_context(target: Target) -> ssl.SSLContext:
    """Create the TLS context for `target`. Raises OSError (also `ssl.SSLError`) for bad files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if target.ca_file is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(target.ca_file)
    if target.cert_file is not None:
        context.load_cert_chain(target.cert_file, target.key_file)
    return context


class GrpcTransport:
    """Unary calls on one channel, which connects and reconnects automatically."""

    def __init__(self, target: Target, signal: Signal) -> None:
        url = urlsplit(target.endpoint)
        host = url.hostname or ""
        address = f"[{host}]" if ":" in host else host
        # `dns:` keeps gRPC from reading a host named like one of its schemes, such as `unix`, as a scheme
        address_uri = f"dns:///{address}:{url.port or (443 if target.secure else 80)}"
        if target.secure:
            credentials = grpc.ssl_channel_credentials(
                _content(target.ca_file), _content(target.key_file), _content(target.cert_file)
            )
            self._channel = grpc.secure_channel(address_uri, credentials, _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address_uri, _OPTIONS)
        self._call: Any = self._channel.unary_unary(signal.method)
        self._headers = tuple((name.lower(), value) for name, value in target.headers)

    def send(self, payload: bytes, seconds: float) -> Reply:
        """Make one call."""
        try:
            return Reply(ExportStatus.ACCEPTED, self._call(payload, timeout=seconds, metadata=self._headers))
        except grpc.RpcError as error:
            return _refused(error)
        except (TypeError, ValueError) as error:  # for example metadata that gRPC refuses
            return _unsent(error)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _refused(call: Any) -> Reply:
    """Convert a gRPC error, which is also the call."""
    code = call.code()
    status = ExportStatus.INVALID if code in _WRONG_CODES else ExportStatus.RETRYABLE
    return Reply(status, detail=code.name, after=_retry_delay(call.trailing_metadata()))


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def _retry_delay(metadata: Any) -> float | None:
    """Return the seconds of a RetryInfo (google.rpc) in the status details, None without one."""
    details = next((value for name, value in metadata or () if name == _DETAILS), None)
    if not isinstance(details, bytes):
        return None
    try:
        for detail in Status.FromString(details).details:
            retry_info = RetryInfo()
            if detail.Is(RetryInfo.DESCRIPTOR) and detail.Unpack(retry_info):
                return max(0.0, float(retry_info.retry_delay.seconds + retry_info.retry_delay.nanos * 1e-9))
    except DecodeError:
        return None
    return None


class HttpTransport:
    """Protobuf POSTs on a persistent connection."""

    def __init__(self, target: Target, signal: Signal, context: ssl.SSLContext | None) -> None:
        url = urlsplit(target.endpoint)
        self._host, self._port = url.hostname or "", url.port
        path = url.path if url.path.strip("/") else signal.path
        self._path = f"{path}?{url.query}" if url.query else path
        self._context = context
        self._headers = dict(target.headers) | {"Content-Type": "application/x-protobuf"}
        self._connection: http.client.HTTPConnection | None = None

    def send(self, payload: bytes, seconds: float) -> Reply:
        """Send one POST, and once more if a reused connection turns out to be closed."""
        reused, deadline = self._connection is not None, time.monotonic() + seconds
        try:
            return self._post(payload, deadline)
        except ConnectionError as error:  # includes RemoteDisconnected
            self.close()
            if not reused or time.monotonic() >= deadline:
                return _unsent(error)
        except _SEND_ERRORS as error:
            self.close()
            return _unsent(error)
        try:
            return self._post(payload, deadline)
        except _SEND_ERRORS as error:
            self.close()
            return _unsent(error)

    def _post(self, payload: bytes, deadline: float) -> Reply:
        connection = self._connection or self._connect()
        self._connection = connection
        left = max(_LEAST_SECONDS, deadline - time.monotonic())
        connection.timeout = left
        if connection.sock is not None:
            connection.sock.settimeout(left)
        connection.request("POST", self._path, payload, self._headers)
        with _close_at(deadline, connection.sock):
            response = connection.getresponse()
            body = response.read(MAX_REPLY_BYTES)
        if not response.isclosed():  # the reply is longer than the limit
            self.close()
        if 200 <= response.status < 300:
            return Reply(ExportStatus.ACCEPTED, body)
        status = ExportStatus.INVALID if response.status in _WRONG_STATUSES else ExportStatus.RETRYABLE
        return Reply(
            status, detail=f"HTTP {response.status}", after=retry_after(response.headers.get("Retry-After", ""))
        )

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port)
        return http.client.HTTPSConnection(self._host, self._port, context=self._context)

    def close(self) -> None:
        """Close the connection. The next request opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def _close_at(deadline: float, connection: socket.socket) -> Iterator[None]:
    """Shut the connection down at `deadline`, because the socket's own timeout restarts with each received byte.

    Raises TimeoutError then, because the truncated reply looks like a complete one.
    """
    late = threading.Event()

    def shut_down() -> None:
        late.set()
        with suppress(OSError):
            # not the TLS object's method: that would change state that the reader is using
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError


def _unsent(error: Exception) -> Reply:
    """Return a reply with the error's type only: its text may quote the request."""
    return Reply(ExportStatus.RETRYABLE, detail=type(error).__name__)


def retry_after(text: str) -> float | None:
    """Return the seconds of a `Retry-After` header, a number or a date (RFC 9110, 10.2.3); None if it is invalid."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
