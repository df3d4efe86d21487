"""One request to a collector and its reply, over gRPC or HTTP. Blocks; for a thread that nobody waits for.

No proxy, redirect, cookie or credential of the environment is used: a request goes where the settings say, or nowhere.
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

from zta_authz.otlp.messages import Fate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.otlp.messages import Signal, Target

MAX_REPLY_BYTES: Final = 64 * 1024
_LEAST_SECONDS: Final = 0.01  # a socket with no time at all would not block
_UNSENT: Final = (OSError, http.client.HTTPException, UnicodeError)  # the last for a host that is no name
_WRONG_CODES: Final = frozenset((grpc.StatusCode.INVALID_ARGUMENT,))
_WRONG_STATUSES: Final = frozenset((400, 413, 422))
_DETAILS: Final = "grpc-status-details-bin"
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # the caller's business, who knows what else waits
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 5000),  # what one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: `body` of one that was taken, `said` the status of one that was not.

    `after` is the seconds that the collector asks us to wait.
    """

    fate: Fate
    body: bytes = b""
    said: str = ""
    after: float | None = None


class Transport(Protocol):
    """A way to a collector. One thread uses it."""

    def send(self, payload: bytes, seconds: float) -> Reply:
        """Send one export request; what is not answered within `seconds` is for later. Raises nothing expected."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


def open_transport(target: Target, signal: Signal) -> Transport:
    """The transport to `target`. Connects nowhere yet. Raises OSError (`ssl.SSLError` too) for files of no use."""
    context = tls_context(target) if target.secure else None
    return GrpcTransport(target, signal) if target.protocol == "grpc" else HttpTransport(target, signal, context)


def tls_context(target: Target) -> ssl.SSLContext:
    """TLS to `target`. Raises OSError (`ssl.SSLError` too) for files of no use."""
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
    """Unary calls on one channel, which connects, and connects again, by itself."""

    def __init__(self, target: Target, signal: Signal) -> None:
        where = urlsplit(target.endpoint)
        host = where.hostname or ""
        address = f"[{host}]" if ":" in host else host
        place = f"dns:///{address}:{where.port or (443 if target.secure else 80)}"
        # `dns`: else a host of the name of one of gRPC's schemes, `unix` say, would be one
        if target.secure:
            credentials = grpc.ssl_channel_credentials(
                _content(target.ca_file), _content(target.key_file), _content(target.cert_file)
            )
            self._channel = grpc.secure_channel(place, credentials, _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(place, _OPTIONS)
        self._call: Any = self._channel.unary_unary(signal.method)
        self._headers = tuple((name.lower(), value) for name, value in target.headers)

    def send(self, payload: bytes, seconds: float) -> Reply:
        """One call."""
        try:
            return Reply(Fate.TAKEN, self._call(payload, timeout=seconds, metadata=self._headers))
        except grpc.RpcError as error:
            return _refused(error)
        except (TypeError, ValueError) as error:  # metadata that gRPC does not take, say: told, and nothing is given up
            return _unsent(error)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _refused(call: Any) -> Reply:
    """What gRPC's error says, which is the call too."""
    code = call.code()
    fate = Fate.NEVER if code in _WRONG_CODES else Fate.LATER
    return Reply(fate, said=code.name, after=_retry_delay(call.trailing_metadata()))


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def _retry_delay(metadata: Any) -> float | None:
    """The seconds of a RetryInfo (google.rpc) among the details of a status."""
    details = next((value for name, value in metadata or () if name == _DETAILS), None)
    if not isinstance(details, bytes):
        return None
    try:
        for detail in Status.FromString(details).details:
            wanted = RetryInfo()
            if detail.Is(RetryInfo.DESCRIPTOR) and detail.Unpack(wanted):
                return max(0.0, float(wanted.retry_delay.seconds + wanted.retry_delay.nanos * 1e-9))
    except DecodeError:
        return None
    return None


class HttpTransport:
    """POSTs of protobuf on a connection that is kept."""

    def __init__(self, target: Target, signal: Signal, context: ssl.SSLContext | None) -> None:
        where = urlsplit(target.endpoint)
        self._host, self._port = where.hostname or "", where.port
        path = where.path if where.path.strip("/") else signal.path
        self._path = f"{path}?{where.query}" if where.query else path
        self._context = context
        self._headers = dict(target.headers) | {"Content-Type": "application/x-protobuf"}
        self._connection: http.client.HTTPConnection | None = None

    def send(self, payload: bytes, seconds: float) -> Reply:
        """One POST; once more where a connection that was kept turned out to be closed."""
        kept, until = self._connection is not None, time.monotonic() + seconds
        try:
            return self._post(payload, until)
        except ConnectionError as error:  # RemoteDisconnected is one
            self.close()
            if not kept or time.monotonic() >= until:
                return _unsent(error)
        except _UNSENT as error:
            self.close()
            return _unsent(error)
        try:
            return self._post(payload, until)
        except _UNSENT as error:
            self.close()
            return _unsent(error)

    def _post(self, payload: bytes, until: float) -> Reply:
        connection = self._connection or self._connect()
        self._connection = connection
        left = max(_LEAST_SECONDS, until - time.monotonic())
        connection.timeout = left
        if connection.sock is not None:
            connection.sock.settimeout(left)
        connection.request("POST", self._path, payload, self._headers)
        with _cut_at(until, connection.sock):
            response = connection.getresponse()
            body = response.read(MAX_REPLY_BYTES)
        if not response.isclosed():  # there is more, which nobody wants
            self.close()
        if 200 <= response.status < 300:
            return Reply(Fate.TAKEN, body)
        fate = Fate.NEVER if response.status in _WRONG_STATUSES else Fate.LATER
        return Reply(fate, said=f"HTTP {response.status}", after=retry_after(response.headers.get("Retry-After", "")))

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port)
        return http.client.HTTPSConnection(self._host, self._port, context=self._context)

    def close(self) -> None:
        """Close the connection; the next request makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def _cut_at(until: float, connection: socket.socket) -> Iterator[None]:
    """End the connection at `until`: its own timeout begins anew with each byte of a reply that comes in drops.

    Raises TimeoutError then: what was read looks like a reply that ended.
    """
    late = threading.Event()

    def cut() -> None:
        late.set()
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # TLS's own would change what the reader is using

    watch = threading.Timer(max(0.0, until - time.monotonic()), cut)
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
    if late.is_set():
        raise TimeoutError


def _unsent(error: Exception) -> Reply:
    """Nothing of the error's text: it may quote what was sent."""
    return Reply(Fate.LATER, said=type(error).__name__)


def retry_after(text: str) -> float | None:
    """The seconds of a `Retry-After` header: a number, or a date (RFC 9110, 10.2.3). None where it says nothing."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
