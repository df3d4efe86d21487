"""CheckRequest bytes -> what the proxy saw and what was presented. Nothing is verified or normalised here.

Source: Envoy `envoy/service/auth/v3/attribute_context.proto` and the ext_authz filter's `check_request_utils.cc`.
With `encode_raw_headers` Envoy fills `header_map` (each header line apart, values as bytes) and leaves `headers` empty;
without, `headers` has one entry a name, repeats joined with commas and bytes that are not UTF-8 replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from zta_authz._proto.ext_authz_pb2 import CheckRequest
from zta_authz.errors import Reason, Refused
from zta_authz.model.request import NO_ADDRESS, Address, Evidence, Headers, RequestAttributes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from google.protobuf.struct_pb2 import Struct, Value

    from zta_authz._proto.ext_authz_pb2 import AttributeContext, HeaderValue

_NOTHING: dict[str, str] = {}
_NO_METADATA: dict[str, object] = {}
_PSEUDO_HEADERS = (":authority", ":method", ":path", ":scheme", ":protocol")
"""RFC 9113 section 8.3.1 and RFC 8441; Envoy lets no others in."""

_parse = CheckRequest.FromString
_known_address = lru_cache(maxsize=4096)(Address)  # connections are kept alive: the same addresses come again


def parse_check_request(payload: bytes) -> tuple[RequestAttributes, Evidence]:
    """The request and the evidence in the bytes of an `envoy.service.auth.v3.CheckRequest`.

    Raises `Refused` with `REQUEST_MALFORMED` where the bytes do not decode or describe no HTTP request.
    """
    try:
        attributes = _parse(payload).attributes
    except DecodeError as error:
        raise Refused(Reason.REQUEST_MALFORMED, "the bytes are not a CheckRequest") from error
    http = attributes.request.http
    method = http.method
    if not method and not attributes.request.HasField("http"):
        raise Refused(Reason.REQUEST_MALFORMED, "the CheckRequest has no `attributes.request.http`")
    source = attributes.source
    return _attributes(attributes, http, method), Evidence(source.principal, source.certificate)


def request_time(payload: bytes) -> float | None:
    """When the proxy got the request of a CheckRequest, seconds since the epoch; None where it does not say."""
    try:
        request = _parse(payload).attributes.request
    except DecodeError:
        return None
    return request.time.seconds + request.time.nanos / 1e9 if request.HasField("time") else None


def _attributes(attributes: AttributeContext, http: AttributeContext.HttpRequest, method: str) -> RequestAttributes:
    destination = attributes.destination
    lines = http.header_map.headers
    if lines:
        values, exact = _exact_headers(lines), True
    else:
        values, exact = _joined_headers(http.headers), not http.headers
    pseudo = {name: values.pop(name)[0] for name in _PSEUDO_HEADERS if name in values}
    if pseudo.get(":authority") == "":
        values["host"] = ("",)  # there, but empty: not the same as absent
    extensions = attributes.context_extensions
    metadata = attributes.metadata_context.filter_metadata
    return RequestAttributes(
        method or pseudo.get(":method", ""),
        http.path or pseudo.get(":path", ""),
        http.host or pseudo.get(":authority", ""),
        http.scheme,
        http.protocol,
        Headers(values, exact=exact),
        _address(attributes.source),
        _address(destination),
        destination.principal,
        attributes.tls_session.sni,
        http.id,
        dict(extensions) if extensions else _NOTHING,
        FilterMetadata(metadata) if metadata else _NO_METADATA,
    )


def _exact_headers(lines: Collection[HeaderValue]) -> dict[str, tuple[str, ...]]:
    """Header lines as they came. Nearly all requests repeat none and are UTF-8: then one comprehension is enough."""
    try:
        values: dict[str, tuple[str, ...]] = {
            line.key.lower(): (line.raw_value.decode() or line.value,) for line in lines
        }
        if len(values) == len(lines):
            return values
    except UnicodeDecodeError:
        pass
    return _grouped((line.key, line.raw_value.decode("utf-8", "surrogateescape") or line.value) for line in lines)


def _joined_headers(headers: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Headers whose repeats Envoy joined; names that differ only in case are one name with several values."""
    values: dict[str, tuple[str, ...]] = {name.lower(): (value,) for name, value in headers.items()}
    return values if len(values) == len(headers) else _grouped(headers.items())


def _grouped(lines: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Values by lower-case name in the order of arrival; linear in the number of lines, however they repeat."""
    values: dict[str, list[str]] = {}
    for name, value in lines:
        values.setdefault(name.lower(), []).append(value)
    return {name: tuple(each) for name, each in values.items()}


def _address(peer: AttributeContext.Peer) -> Address:
    """The peer's IP address and port; a Unix socket or an internal listener has neither."""
    socket = peer.address.socket_address
    ip = socket.address
    return _known_address(ip, socket.port_value) if ip else NO_ADDRESS


class FilterMetadata(Mapping[str, object]):
    """Dynamic metadata by filter name, each filter's converted to plain Python only when it is asked for."""

    __slots__ = ("_structs",)

    def __init__(self, structs: Mapping[str, Struct]) -> None:
        self._structs = structs

    def __getitem__(self, name: str) -> object:
        if name not in self._structs:  # a protobuf map would add the name
            raise KeyError(name)
        return _plain_struct(self._structs[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._structs)

    def __len__(self) -> int:
        return len(self._structs)


def _plain_struct(struct: Struct) -> dict[str, object]:
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Value) -> object:
    """One JSON-like value; nesting is bounded by protobuf's own limit of 100 levels."""
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "struct_value":
        return _plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    scalar: object = getattr(value, kind)
    return scalar
