"""Parse a request's fields to the head of a gRPC call (RFC 9113, section 8; grpc/doc/PROTOCOL-HTTP2.md).

A request that is malformed HTTP/2 ends its stream. One that is well-formed but not gRPC receives an answer, as HTTP or
as gRPC, once it is complete.

A proxy copies some metadata from its client (`tracestate`), and a client must not be able to make a call fail. So
blanks around a value are stripped, and a metadata field that is still malformed is dropped.
"""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2.errors import ErrorCode, Status, StreamFault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.grpc_h2.hpack import Field

Metadata = tuple[tuple[str, str | bytes], ...]
"""Names in lower case; values are bytes if the name ends in `-bin`."""


@dataclass(frozen=True, slots=True)
class HttpFailure:
    """An HTTP error, for a request that is not gRPC."""

    http_status: int


@dataclass(frozen=True, slots=True)
class GrpcFailure:
    """A gRPC status other than OK, with its message."""

    status: Status
    message: str


Refusal = HttpFailure | GrpcFailure


@dataclass(frozen=True, slots=True)
class Head:
    """A call's header block, parsed. `timeout` is in seconds, None for no deadline; `refusal` is the answer if set."""

    path: str
    metadata: Metadata = ()
    timeout: float | None = None
    content_length: int | None = None
    refusal: Refusal | None = None


_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
"""A field name (RFC 9110, section 5.6.2) without capitals (RFC 9113, section 8.2.1)."""
_VALUE: Final = re.compile(r"(?![ \t])[^\0\r\n]*(?<![ \t])", re.DOTALL)
"""A field value (RFC 9113, section 8.2.1)."""
_FORBIDDEN: Final = re.compile(r"[\0\r\n]")
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_CONTENT_TYPE: Final = re.compile(r"application/grpc(?:[+;].*)?", re.DOTALL)

_PSEUDO: Final = frozenset((":method", ":scheme", ":path", ":authority"))
_REQUIRED: Final = (":method", ":scheme", ":path")
_CONNECTION_SPECIFIC: Final = frozenset(
    ("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade")
)
_PROTOCOL_FIELDS: Final = frozenset(
    ("te", "content-type", "content-length", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "host")
)
"""Fields of the gRPC protocol; all others are metadata."""
PROTOCOL_NAMES: Final = _PSEUDO | _PROTOCOL_FIELDS
_WELL_FORMED_NAMES: Final = PROTOCOL_NAMES | {"user-agent", "traceparent", "tracestate", "baggage", "x-request-id"}
"""Known to be well-formed, so that they need no check."""


def _malformed(message: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, message)


def parse_head(fields: Iterable[Field]) -> Head:
    """Parse the head of a call. Raises `StreamFault` for a malformed request."""
    pseudo: dict[str, str] = {}
    special: dict[str, str] = {}
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name in _PSEUDO:
            check_field(name, value)
            if name in pseudo or special or metadata:
                raise _malformed("a pseudo-header field that is repeated or comes late")
            pseudo[name] = value
        elif name in _PROTOCOL_FIELDS:
            check_field(name, value)
            if special.setdefault(name, value) != value:
                raise _malformed("a field that is repeated with another value")
        else:
            _check_name(name)
            if value.isprintable() or _FORBIDDEN.search(value) is None:
                _add_metadata(name, value.strip(" \t"), metadata)
    _check_pseudo(pseudo, special)
    timeout, refusal = _check_grpc(pseudo[":method"], special)
    return Head(pseudo[":path"], tuple(metadata), timeout, _content_length(special), refusal)


def check_field(name: str, value: str) -> None:
    """Raise `StreamFault` for a name or a value that HTTP/2 forbids in a field or pseudo-header field."""
    _check_name(name)
    if not (value.isprintable() and value == value.strip()) and _VALUE.fullmatch(value) is None:
        raise _malformed("a field value that HTTP/2 forbids")
    if name == "te" and value != "trailers":
        raise _malformed("te other than trailers")


def _check_name(name: str) -> None:
    if name not in _WELL_FORMED_NAMES and (_TOKEN.fullmatch(name) is None or name in _CONNECTION_SPECIFIC):
        raise _malformed("a field name that HTTP/2 forbids")


def check_trailers(fields: Iterable[Field]) -> None:
    """Raise `StreamFault` for malformed trailers; well-formed ones are ignored."""
    for name, value in fields:
        if name[:1] == ":":
            raise _malformed("a pseudo-header field among the trailers")
        check_field(name, value)


def _add_metadata(name: str, value: str, metadata: list[tuple[str, str | bytes]]) -> None:
    """Add a field; of a binary one, add each part that is valid base64."""
    if not name.endswith("-bin"):
        metadata.append((name, value))
        return
    for part in value.split(","):  # repeated fields may arrive joined
        with suppress(binascii.Error, ValueError):
            metadata.append((name, base64.b64decode(part + "=" * (-len(part) % 4), validate=True)))


def _check_pseudo(pseudo: dict[str, str], special: dict[str, str]) -> None:
    for name in _REQUIRED:
        if not pseudo.get(name):
            raise _malformed(f"no {name}")
    if pseudo[":path"][0] != "/" and (pseudo[":path"], pseudo[":method"]) != ("*", "OPTIONS"):
        raise _malformed("a :path that is not absolute")
    host = special.get("host")
    if host is not None and host.lower() != pseudo.get(":authority", host).lower():
        raise _malformed("host and :authority differ")


def _content_length(special: dict[str, str]) -> int | None:
    text = special.get("content-length")
    if text is None:
        return None
    if _LENGTH.fullmatch(text) is None:
        raise _malformed("a content-length that is not a number")
    return int(text)


def _check_grpc(method: str, special: dict[str, str]) -> tuple[float | None, Refusal | None]:
    """Return the timeout in seconds, and the refusal of a request that is not a gRPC call."""
    if method != "POST":
        return None, HttpFailure(405)
    if _CONTENT_TYPE.fullmatch(special.get("content-type", "")) is None:
        return None, HttpFailure(415)
    text = special.get("grpc-timeout")
    if text is None:
        return None, None
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        return None, GrpcFailure(Status.INTERNAL, "malformed grpc-timeout")
    return int(match[1]) * _UNITS[match[2]], None
