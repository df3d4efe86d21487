"""Parse the bytes of a CheckRequest: the request as the proxy saw it, and the peer's evidence. Verify nothing.

Source: Envoy `envoy/service/auth/v3/attribute_context.proto` and the ext_authz filter's `check_request_utils.cc`.
With `encode_raw_headers`, Envoy fills `header_map` (each header line separately, values as bytes) and leaves `headers`
empty. Without it, `headers` has one entry per name, with repeats joined by commas and invalid UTF-8 replaced.

To save time, header values and dynamic metadata are decoded when a rule first asks for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from google.protobuf.message import DecodeError

from zta_authz._proto.ext_authz_pb2 import CheckRequest
from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import Reason, Refused
from zta_authz.ext_authz.partial_request import PartialCheckRequest
from zta_authz.model.request import NO_ADDRESS, NO_EVIDENCE, Address, Evidence, Headers, RequestAttributes

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct, Value as StructValue

    from zta_authz._proto.ext_authz_pb2 import AttributeContext, HeaderValue

    Joined = dict[str, tuple[str, ...]]
    Value = tuple[str, ...] | HeaderValue
    """The values of a name or, if it came once and nothing has asked for it yet, its line."""

_NONE: tuple[str, ...] = ()
_NOTHING: dict[str, str] = {}
_NO_METADATA: dict[str, object] = {}

_parse = CheckRequest.FromString
_parse_parts = PartialCheckRequest.FromString

MAX_CACHED_CONNECTIONS: Final = 4096
MAX_CACHED_BYTES: Final = 8 * 1024 * 1024
"""Limit for both ends of all cached connections together. Nearly all of the bytes are certificates."""


class _Peer(NamedTuple):
    """One end of a connection."""

    evidence: Evidence
    address: Address


_NO_PEER: Final = _Peer(NO_EVIDENCE, NO_ADDRESS)


class CheckRequestParser:
    """Parses CheckRequests. All requests of a connection have the same two ends, which are parsed once."""

    __slots__ = ("_connections",)

    def __init__(self) -> None:
        self._connections: BoundedCache[tuple[bytes, bytes], tuple[_Peer, _Peer]] = BoundedCache(
            MAX_CACHED_CONNECTIONS, MAX_CACHED_BYTES
        )

    def parse(self, payload: bytes) -> tuple[RequestAttributes, Evidence]:
        """Parse the bytes of an `envoy.service.auth.v3.CheckRequest` into the request and the evidence.

        Raises `Refused` with `REQUEST_MALFORMED` if the bytes do not decode or describe no HTTP request.
        """
        try:
            attributes = _parse_parts(payload).attributes
            sources, destinations = attributes.source, attributes.destination
            peers = None
            if len(sources) == 1 and len(destinations) == 1:
                peers = self._connections[sources[0], destinations[0]]
            source, destination = peers or self._read_peers(payload, sources, destinations)
        except DecodeError as error:
            raise Refused(Reason.REQUEST_MALFORMED, "the bytes are not a CheckRequest") from error
        http = attributes.request.http
        method = http.method
        if not method and not attributes.request.HasField("http"):
            raise Refused(Reason.REQUEST_MALFORMED, "the CheckRequest has no `attributes.request.http`")
        return _attributes(attributes, http, method, source, destination), source.evidence

    def _read_peers(self, payload: bytes, sources: list[bytes], destinations: list[bytes]) -> tuple[_Peer, _Peer]:
        """Parse both ends of the connection from the whole message. Raises `DecodeError`."""
        attributes = _parse(payload).attributes
        peers = _peer(attributes.source, sources), _peer(attributes.destination, destinations)
        if len(sources) == 1 and len(destinations) == 1:
            key = sources[0], destinations[0]
            self._connections.put(key, peers, len(key[0]) + len(key[1]))
        return peers


def parse_check_request(payload: bytes) -> tuple[RequestAttributes, Evidence]:
    """Parse one request, as `CheckRequestParser.parse` does."""
    return CheckRequestParser().parse(payload)


def _peer(peer: AttributeContext.Peer, raw: list[bytes]) -> _Peer:
    return _Peer(Evidence(peer.principal, peer.certificate), _address(peer)) if raw else _NO_PEER


def request_time(payload: bytes) -> float | None:
    """The time when the proxy received the request, in seconds since the epoch; None if the message has none."""
    try:
        request = _parse(payload).attributes.request
    except DecodeError:
        return None
    return request.time.seconds + request.time.nanos / 1e9 if request.HasField("time") else None


def _attributes(
    attributes: Any, http: AttributeContext.HttpRequest, method: str, source: _Peer, destination: _Peer
) -> RequestAttributes:
    lines, joined = http.header_map.headers, http.headers
    if joined and http.HasField("header_map"):
        raise Refused(Reason.REQUEST_MALFORMED, "the CheckRequest has both `headers` and `header_map`")
    values, listing = _lines_by_name(lines) if lines else (_joined_headers(joined), "")
    path, host, scheme = http.path, http.host, http.scheme
    pop = values.pop
    authority, protocol = pop(":authority", None), pop(":protocol", None)
    _check_agreement(":method", pop(":method", None), method)
    _check_agreement(":path", pop(":path", None), path)
    _check_agreement(":authority", authority, host)
    _check_agreement(":scheme", pop(":scheme", None), scheme)
    _check_agreement("host", values.get("host"), host)
    if protocol is not None:  # RFC 8441: there is no attribute to compare it with
        _check_agreement(":protocol", protocol, _first_text(protocol))
    if authority is not None and not host:
        values["host"] = ("",)  # present but empty, which differs from absent
    extensions = attributes.context_extensions
    return RequestAttributes(
        method,
        path,
        host,
        scheme,
        http.protocol,
        HeaderLines(values, listing) if lines else Headers(cast("Joined", values), exact=not joined),
        source.address,
        destination.address,
        destination.evidence.principal,
        attributes.tls_session.sni,
        http.id,
        dict(extensions) if extensions else _NOTHING,
        _metadata(attributes) if attributes.HasField("metadata_context") else _NO_METADATA,
    )


def _check_agreement(name: str, value: Value | None, attribute: str) -> None:
    """Raise `Refused` if the header `name` appears more than once, or differs from the attribute.

    Envoy fills both from the same value with every protocol, and `allowed_headers` and `disallowed_headers` only remove
    headers. If they differ, Envoy did not write them, and it is unknown which of the two the upstream receives.
    """
    if value is None:
        return
    if isinstance(value, tuple):
        if len(value) > 1:
            raise Refused(Reason.REQUEST_MALFORMED, f"`{name}` comes {len(value)} times")
    elif (raw := value.raw_value) and raw == attribute.encode("utf-8", "surrogateescape"):
        return  # as from nearly every proxy
    if _first_text(value) != attribute:
        raise Refused(Reason.REQUEST_MALFORMED, f"the header `{name}` and the request's attribute differ")


def _joined_headers(headers: Mapping[str, str]) -> dict[str, Value]:
    """Group headers whose repeats Envoy joined. Names that differ only in case are one name with several values."""
    values: dict[str, Value] = {name.lower(): (value,) for name, value in headers.items()}
    return values if len(values) == len(headers) else {**_grouped(headers.items())}


def _metadata(attributes: Any) -> Mapping[str, object]:
    metadata = attributes.metadata_context.filter_metadata
    return FilterMetadata(metadata) if metadata else _NO_METADATA


def _address(peer: AttributeContext.Peer) -> Address:
    """The peer's IP address and port. A Unix socket or an internal listener has neither."""
    socket = peer.address.socket_address
    ip = socket.address
    return Address(ip, socket.port_value) if ip else NO_ADDRESS


class HeaderLines(Headers):
    """Exact headers. Each value is decoded when a rule first asks for it, because rules read few of them."""

    __slots__ = ()

    def __init__(self, values: dict[str, Value], listing: str) -> None:
        """Wrap `values` without a copy, names in lower case. `listing` has those names, and may have others."""
        self._values = values  # type: ignore[assignment]  # what is read through `all` is text
        self.listing = listing
        self.exact = True

    def all(self, name: str) -> tuple[str, ...]:
        """All values of the header, () if absent. `name` is in lower case."""
        value: Value | None = self._values.get(name)
        if value is None:
            return _NONE
        if not isinstance(value, tuple):
            value = self._values[name] = (_text_of(value),)
        return value

    def joined(self, name: str) -> str | None:
        """The values joined with `,` as in Envoy's header map; None if the header is absent."""
        value: Value | None = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, tuple):
            return value[0] if len(value) == 1 else ",".join(value)
        text = _text_of(value)
        self._values[name] = (text,)
        return text


def _lines_by_name(lines: Collection[HeaderValue]) -> tuple[dict[str, Value], str]:
    """Group header lines by lower-case name. Also return the names, one a line.

    Nearly all requests repeat no name and have all names in lower case. Then no name is handled separately.
    """
    values: dict[str, Value] = {line.key: line for line in lines}
    listing = "\n".join(values)
    if len(values) == len(lines) and listing.lower() == listing:
        return values, listing
    values = {**_grouped((line.key, _text_of(line)) for line in lines)}
    return values, "\n".join(values)


def _grouped(lines: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Group values by lower-case name in order of arrival, in time linear in the number of lines."""
    values: dict[str, list[str]] = {}
    for name, value in lines:
        values.setdefault(name.lower(), []).append(value)
    return {name: tuple(texts) for name, texts in values.items()}


def _first_text(value: Value) -> str:
    """The first of a name's values."""
    return value[0] if isinstance(value, tuple) else _text_of(value)


def _text_of(line: HeaderValue) -> str:
    """A line's value. Bytes that are not UTF-8 become surrogate escapes."""
    raw = line.raw_value
    try:
        return raw.decode() or line.value
    except UnicodeDecodeError:
        return raw.decode("utf-8", "surrogateescape")


class FilterMetadata(Mapping[str, object]):
    """Dynamic metadata by filter name. Each filter's is converted to plain Python when it is first read."""

    __slots__ = ("_plain", "_structs")

    def __init__(self, structs: Mapping[str, Struct]) -> None:
        self._structs = structs
        self._plain: dict[str, dict[str, object]] = {}

    def __getitem__(self, name: str) -> object:
        plain = self._plain.get(name)
        if plain is None:
            if name not in self._structs:  # a protobuf map would add the name
                raise KeyError(name)
            plain = self._plain[name] = _plain_struct(self._structs[name])
        return plain

    def __iter__(self) -> Iterator[str]:
        return iter(self._structs)

    def __len__(self) -> int:
        return len(self._structs)


def _plain_struct(struct: Struct) -> dict[str, object]:
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: StructValue) -> object:
    """Convert one JSON-like value. protobuf limits nesting to 100 levels."""
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "struct_value":
        return _plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    scalar: object = getattr(value, kind)
    return scalar
