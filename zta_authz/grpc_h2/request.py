"""Fields to the head of a gRPC call, or why it is not one (RFC 9113, section 8; grpc/doc/PROTOCOL-HTTP2.md).

A request that is malformed as HTTP/2 ends its stream; one that is well-formed but not gRPC is answered, in HTTP or in
gRPC, once it is complete.

Metadata is not the caller's word only: a proxy copies into some of it (`tracestate`) what its client sent, and a client
must not be able to make a call fail. So blanks around a value are taken off, and a field that is malformed all the same
is left out, and no more.
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
"""Names in lower case; values are bytes where the name ends in `-bin`."""


@dataclass(frozen=True, slots=True)
class NotGrpc:
    """An answer in HTTP's terms."""

    http_status: int


@dataclass(frozen=True, slots=True)
class Failed:
    """An answer in gRPC's terms."""

    status: Status
    message: str


Refusal = NotGrpc | Failed


@dataclass(frozen=True, slots=True)
class Head:
    """What a call's header block says. `timeout` is seconds, None for no deadline; `refusal`, if any, is the answer."""

    path: str
    metadata: Metadata = ()
    timeout: float | None = None
    content_length: int | None = None
    refusal: Refusal | None = None


_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
"""A field name (RFC 9110, section 5.6.2) without capitals (RFC 9113, section 8.2.1)."""
_VALUE: Final = re.compile(r"(?![ \t])[^\0\r\n]*(?<![ \t])", re.DOTALL)
"""A field value (RFC 9113, section 8.2.1)."""
_UNSOUND: Final = re.compile(r"[\0\r\n]")
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_CONTENT_TYPE: Final = re.compile(r"application/grpc(?:[+;].*)?", re.DOTALL)

_PSEUDO: Final = frozenset((":method", ":scheme", ":path", ":authority"))
_REQUIRED: Final = (":method", ":scheme", ":path")
_CONNECTION_SPECIFIC: Final = frozenset(
    ("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade")
)
_OURS: Final = frozenset(
    ("te", "content-type", "content-length", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "host")
)
"""Fields of the protocol; the rest is the caller's metadata."""
PROTOCOL_NAMES: Final = _PSEUDO | _OURS
_USUAL_NAMES: Final = PROTOCOL_NAMES | {"user-agent", "traceparent", "tracestate", "baggage", "x-request-id"}
"""Known to be well-formed: no need to look again."""


def _malformed(what: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, what)


def head_of(fields: Iterable[Field]) -> Head:
    """The call's head. Raises `StreamFault` for a malformed request."""
    pseudo: dict[str, str] = {}
    special: dict[str, str] = {}
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name in _PSEUDO:
            check_field(name, value)
            if name in pseudo or special or metadata:
                raise _malformed("a pseudo-header field that is repeated or comes late")
            pseudo[name] = value
        elif name in _OURS:
            check_field(name, value)
            if special.setdefault(name, value) != value:
                raise _malformed("a field that is repeated with another value")
        else:
            _check_name(name)
            if value.isprintable() or _UNSOUND.search(value) is None:
                _add_metadata(name, value.strip(" \t"), metadata)
    _check_pseudo(pseudo, special)
    timeout, refusal = _judge(pseudo[":method"], special)
    return Head(pseudo[":path"], tuple(metadata), timeout, _content_length(special), refusal)


def check_field(name: str, value: str) -> None:
    """Raise `StreamFault` for a name or a value that HTTP/2 forbids, pseudo-header fields aside."""
    _check_name(name)
    if not (value.isprintable() and value == value.strip()) and _VALUE.fullmatch(value) is None:
        raise _malformed("a field value that HTTP/2 forbids")
    if name == "te" and value != "trailers":
        raise _malformed("te other than trailers")


def _check_name(name: str) -> None:
    if name not in _USUAL_NAMES and (_TOKEN.fullmatch(name) is None or name in _CONNECTION_SPECIFIC):
        raise _malformed("a field name that HTTP/2 forbids")


def check_trailers(fields: Iterable[Field]) -> None:
    """Raise `StreamFault` for trailers that are malformed; whatever else they say is ignored."""
    for name, value in fields:
        if name[:1] == ":":
            raise _malformed("a pseudo-header field among the trailers")
        check_field(name, value)


def _add_metadata(name: str, value: str, metadata: list[tuple[str, str | bytes]]) -> None:
    """Add a field, or each part of a binary one that is base64."""
    if not name.endswith("-bin"):
        metadata.append((name, value))
        return
    for part in value.split(","):  # repeats may arrive joined
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
        raise _malformed("a content-length that is no number")
    return int(text)


def _judge(method: str, special: dict[str, str]) -> tuple[float | None, Refusal | None]:
    """The timeout in seconds, and why this is no gRPC call."""
    if method != "POST":
        return None, NotGrpc(405)
    if _CONTENT_TYPE.fullmatch(special.get("content-type", "")) is None:
        return None, NotGrpc(415)
    text = special.get("grpc-timeout")
    if text is None:
        return None, None
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        return None, Failed(Status.INTERNAL, "malformed grpc-timeout")
    return int(match[1]) * _UNITS[match[2]], None
