"""Calls the administrator's HTTP API: on a Unix socket, or over TLS with a token or a client certificate."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from zta_authz.errors import Fault, FaultsError, ZtaError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

SECONDS: Final = 20.0
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_MAX_TOKEN_BYTES: Final = 64 * 1024
_CHALLENGED: Final = re.compile(r'\b(acr_values|max_age)="([^"]{1,500})"')
_UNIX: Final = "unix:"
_ADDRESS: Final = "--address"


class CallRefused(ZtaError):
    """The administrator refused a call. `reason` is its code."""

    def __init__(self, reason: str, detail: str, status: int) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.status = reason, detail, status


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files for the call: authorities of the administrator (default: the system's), our certificate and its key."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    token: str = ""
    server: str = ""
    """The administrator's SPIFFE ID, which replaces the host name in its certificate; "" for the host name."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _TlsConnection(http.client.HTTPSConnection):
    """HTTP over TLS. The server's certificate has the host's name or, if one is given, the SPIFFE ID."""

    def __init__(self, host: str, port: int | None, context: ssl.SSLContext, spiffe_id: str) -> None:
        context.check_hostname = not spiffe_id
        super().__init__(host, port, timeout=SECONDS, context=context)
        self._spiffe_id = spiffe_id

    def connect(self) -> None:
        """Connect, and check the SPIFFE ID before anything is sent. Raises OSError."""
        super().connect()
        if self._spiffe_id and not _is_named(self.sock, self._spiffe_id):
            self.close()
            raise OSError(0, "its certificate has another SPIFFE ID")


def _is_named(connection: ssl.SSLSocket, spiffe_id: str) -> bool:
    """Whether the peer's certificate, which the handshake has verified, is the X.509-SVID of `spiffe_id`."""
    from cryptography import x509

    from zta_authz.authn.certificates import CERTIFICATE_ERRORS, is_authority
    from zta_authz.authn.svid import svid_id
    from zta_authz.errors import Refused

    try:
        leaf = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
        return str(svid_id(leaf)) == spiffe_id and not is_authority(leaf)
    except (*CERTIFICATE_ERRORS, Refused):
        return False


class AdministratorClient:
    """Calls one administrator at `address`: `unix:/PATH`, `https://HOST:PORT`, or `http://` on a loopback address."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        """Connect at the first call. Raises `FaultsError` if the address or a file can't be used."""
        self._address = address
        self._credentials = credentials
        self._connection = self._connect()

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Call, and return the answer's JSON object. Raises `CallRefused`, and `FaultsError` without an answer."""
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {"accept": "application/json"}
        data = None
        if body is not None:
            headers["content-type"] = "application/json"
            data = json.dumps(body).encode()
        if self._credentials.token:
            headers["authorization"] = f"Bearer {self._credentials.token}"
        headers["connection"] = "close"  # the administrator closes idle connections while people read
        try:
            self._connection.request(method, target, body=data, headers=headers)
            response = self._connection.getresponse()
            content = response.read(MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:  # ssl.SSLError is an OSError
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
            raise _fault(
                f"the administrator at `{self._address}` can't be reached: {reason}", "is it running?"
            ) from None
        finally:
            self._connection.close()
        return self._answer(response.status, content, response.headers.get("www-authenticate", ""))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _answer(self, status: int, content: bytes, challenge: str) -> dict[str, Any]:
        try:
            fields = json.loads(content) if len(content) <= MAX_ANSWER_BYTES else None
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            message = f"`{self._address}` answered with status {status}, and not as an administrator does"
            raise _fault(message, "correct the address: it is one of `administrator.operations.http`")
        if status != 200:
            detail = "; ".join(filter(None, (str(fields.get("detail", "")), login_of(challenge))))
            raise CallRefused(str(fields.get("reason", "")), detail, status)
        return fields

    def _connect(self) -> http.client.HTTPConnection:
        if self._address.startswith(_UNIX):
            return _UnixConnection(self._address.removeprefix(_UNIX))
        try:
            parts = urlsplit(self._address)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if (
            not host
            or parts.path not in ("", "/")
            or parts.username is not None
            or parts.scheme not in ("http", "https")
        ):
            hint = "write `unix:/PATH`, or `https://HOST:PORT`"
            raise _fault(f"`{self._address}` is not the address of an administrator", hint)
        if parts.scheme == "https":
            return _TlsConnection(host, port, self._tls(), self._credentials.server)
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise _fault("plain HTTP would send the token in clear", "write `https://`")
        return http.client.HTTPConnection(host, port, timeout=SECONDS)

    def _tls(self) -> ssl.SSLContext:
        files = self._credentials
        try:
            context = ssl.create_default_context(cafile=files.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if files.server:
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority of SPIFFE need not be self-signed
            if files.certificate is not None:
                context.load_cert_chain(files.certificate, files.key)
        except OSError as error:
            message = f"the TLS files can't be used: {getattr(error, 'reason', None) or error.strerror}"
            raise _fault(message, "name PEM files", files.certificate or files.ca or "--ca-file") from None
        return context


def login_of(challenge: str) -> str:
    """What a challenge of RFC 9470 asks for, in words; "" for any other."""
    asked = dict(_CHALLENGED.findall(challenge))
    if not asked:
        return ""
    ways = f" by {asked['acr_values'].replace(' ', ' or ')}" if "acr_values" in asked else ""
    age = f" not longer than {asked['max_age']} s ago" if "max_age" in asked else ""
    return f"use the token of a login{ways}{age}"


def add_client_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments that name the administrator and the caller."""
    command.add_argument(
        _ADDRESS,
        metavar="ADDRESS",
        help="the administrator: unix:/PATH or https://HOST:PORT (default: of the settings)",
    )
    command.add_argument("--config", metavar="FILE", help="the administrator's settings file")
    command.add_argument(
        "--token-file", metavar="FILE", help="a file with your access token; - for standard input (default: none)"
    )
    command.add_argument("--ca-file", metavar="FILE", help="authorities of the administrator's certificate (PEM)")
    command.add_argument(
        "--server-id",
        metavar="SPIFFE_ID",
        default="",
        help="the SPIFFE ID of the administrator, if its certificate names no host",
    )
    command.add_argument("--cert-file", metavar="FILE", help="your client certificate (PEM)")
    command.add_argument("--key-file", metavar="FILE", help="the key of your client certificate (PEM)")


def client_of(arguments: argparse.Namespace) -> AdministratorClient:
    """Return the client that the arguments describe. Raises `FaultsError`."""
    address = arguments.address or _configured(arguments.config)
    token = "" if arguments.token_file is None else _token(arguments.token_file)
    files = arguments.ca_file, arguments.cert_file, arguments.key_file
    return AdministratorClient(address, Credentials(*files, token, arguments.server_id))


def _configured(config: str | None) -> str:
    """The first address of the HTTP API in the settings, as a client writes it."""
    import os

    from zta_authz.servers.listeners import Endpoint
    from zta_authz.settings import load_settings

    settings = load_settings(config, os.environ)
    addresses = settings.administrator.operations.http
    if not addresses:
        hint = f"set it, for example to `[unix:/run/zta-authz/operations.sock]`, or use {_ADDRESS}"
        raise _fault("no address of the administrator is known", hint, "administrator.operations.http")
    endpoint = Endpoint.parse(addresses[0])
    if endpoint.is_unix:
        return f"{_UNIX}{endpoint.path}"
    return f"{'http' if settings.tls is None else 'https'}://{endpoint}"


def _token(file: str) -> str:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_MAX_TOKEN_BYTES + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(_MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise _fault(f"the token can't be read: {error.strerror}", "name a readable file", file) from None
    token = data.strip()
    if not token or len(data) > _MAX_TOKEN_BYTES or not token.isascii() or any(byte <= 0x20 for byte in token):
        raise _fault("it is not a token", "write the token alone, on one line", file)
    return token.decode()


def _fault(message: str, hint: str, source: str = "administrator") -> FaultsError:
    return FaultsError([Fault(source, 0, 0, message, hint)])
