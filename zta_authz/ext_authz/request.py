"""CheckRequest bytes -> what the proxy saw and what was presented. Nothing is verified or normalised here.

Source: Envoy `envoy/service/auth/v3/attribute_context.proto` and the ext_authz filter's `check_request_utils.cc`.
With `encode_raw_headers` Envoy fills `header_map` (each header line apart, values as bytes) and leaves `headers` empty;
without, `headers` has one entry a name, repeats joined with commas and bytes that are not UTF-8 replaced.

Reading a message costs by what is looked at. Of the header lines only the names are read until somebody asks for a
value; the two peers of a connection, which are the same for all of its requests, are known again by their bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from google.protobuf.message import DecodeError

from zta_authz._proto.ext_authz_pb2 import CheckRequest
from zta_authz.errors import Reason, Refused
from zta_authz.ext_authz.header_lines import HeaderLines, first_text, grouped, lines_by_name
from zta_authz.ext_authz.partial_request import PartialCheckRequest
from zta_authz.model.request import NO_ADDRESS, NO_EVIDENCE, Address, Evidence, Headers, RequestAttributes

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct, Value as StructValue

    from zta_authz._proto.ext_authz_pb2 import AttributeContext
    from zta_authz.ext_authz.header_lines import Value

    Joined = dict[str, tuple[str, ...]]

_NOTHING: dict[str, str] = {}
_NO_METADATA: dict[str, object] = {}

_parse = CheckRequest.FromString
_parse_parts = PartialCheckRequest.FromString

MAX_KNOWN_PEERS: Final = 4096
MAX_KNOWN_BYTES: Final = 8 * 1024 * 1024


class _Peer(NamedTuple):
    """One end of a connection."""

    evidence: Evidence
    address: Address


_NO_PEER: Final = _Peer(NO_EVIDENCE, NO_ADDRESS)


class _KnownPeers(dict[bytes, _Peer]):
    """By all of their bytes, which were part of a request that was read in full. Past its bounds it begins anew."""

    __slots__ = ("_size",)

    def __init__(self) -> None:
        super().__init__()
        self._size = 0

    def keep(self, raw: bytes, peer: _Peer) -> None:
        """Know `peer` by `raw` from now on."""
        if len(self) >= MAX_KNOWN_PEERS or self._size + len(raw) > MAX_KNOWN_BYTES:
            self.clear()
            self._size = 0
        if len(raw) <= MAX_KNOWN_BYTES and raw not in self:
            self._size += len(raw)
            self[raw] = peer


_known_peers = _KnownPeers()


def parse_check_request(payload: bytes) -> tuple[RequestAttributes, Evidence]:
    """The request and the evidence in the bytes of an `envoy.service.auth.v3.CheckRequest`.

    Raises `Refused` with `REQUEST_MALFORMED` where the bytes do not decode or describe no HTTP request.
    """
    try:
        attributes = _parse_parts(payload).attributes
        sources, destinations = attributes.source, attributes.destination
        source = _known_peers.get(sources[0]) if len(sources) == 1 else None
        destination = _known_peers.get(destinations[0]) if len(destinations) == 1 else None
        if source is None or destination is None:
            source, destination = _read_peers(payload, sources, destinations)
    except DecodeError as error:
        raise Refused(Reason.REQUEST_MALFORMED, "the bytes are not a CheckRequest") from error
    http = attributes.request.http
    method = http.method
    if not method and not attributes.request.HasField("http"):
        raise Refused(Reason.REQUEST_MALFORMED, "the CheckRequest has no `attributes.request.http`")
    return _attributes(attributes, http, method, source, destination), source.evidence


def _read_peers(payload: bytes, sources: list[bytes], destinations: list[bytes]) -> tuple[_Peer, _Peer]:
    """Both ends of the connection, from the whole message. Raises `DecodeError`."""
    attributes = _parse(payload).attributes
    found = []
    for raw, peer in ((sources, attributes.source), (destinations, attributes.destination)):
        read = _Peer(Evidence(peer.principal, peer.certificate), _address(peer)) if raw else _NO_PEER
        if len(raw) == 1:
            _known_peers.keep(raw[0], read)
        found.append(read)
    return found[0], found[1]


def request_time(payload: bytes) -> float | None:
    """When the proxy got the request of a CheckRequest, seconds since the epoch; None where it does not say."""
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
    values, listing = lines_by_name(lines) if lines else (_joined_headers(joined), "")
    path, host, scheme = http.path, http.host, http.scheme
    take = values.pop
    authority, protocol = take(":authority", None), take(":protocol", None)
    _check_agreement(":method", take(":method", None), method)
    _check_agreement(":path", take(":path", None), path)
    _check_agreement(":authority", authority, host)
    _check_agreement(":scheme", take(":scheme", None), scheme)
    _check_agreement("host", values.get("host"), host)
    if protocol is not None:  # RFC 8441: no attribute says the same
        _check_agreement(":protocol", protocol, first_text(protocol))
    if authority is not None and not host:
        values["host"] = ("",)  # there, but empty: not the same as absent
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
    """Raises `Refused` where the header `name` comes more than once, or says something else than the attribute.

    Envoy fills both from one place, whatever the protocol; `allowed_headers` and `disallowed_headers` only leave
    headers out. What differs was not written by Envoy, and nobody can tell which of the two the upstream sees.
    """
    if value is None:
        return
    if isinstance(value, tuple):
        if len(value) > 1:
            raise Refused(Reason.REQUEST_MALFORMED, f"`{name}` comes {len(value)} times")
    elif (raw := value.raw_value) and raw == attribute.encode("utf-8", "surrogateescape"):
        return  # as from nearly every proxy
    if first_text(value) != attribute:
        raise Refused(Reason.REQUEST_MALFORMED, f"the header `{name}` and the request's attribute differ")


def _joined_headers(headers: Mapping[str, str]) -> dict[str, Value]:
    """Headers whose repeats Envoy joined; names that differ only in case are one name with several values."""
    values: dict[str, Value] = {name.lower(): (value,) for name, value in headers.items()}
    return values if len(values) == len(headers) else {**grouped(headers.items())}


def _metadata(attributes: Any) -> Mapping[str, object]:
    found = attributes.metadata_context.filter_metadata
    return FilterMetadata(found) if found else _NO_METADATA


def _address(peer: AttributeContext.Peer) -> Address:
    """The peer's IP address and port; a Unix socket or an internal listener has neither."""
    socket = peer.address.socket_address
    ip = socket.address
    return Address(ip, socket.port_value) if ip else NO_ADDRESS


class FilterMetadata(Mapping[str, object]):
    """Dynamic metadata by filter name, each filter's converted to plain Python once, when it is first asked for."""

    __slots__ = ("_plain", "_structs")

    def __init__(self, structs: Mapping[str, Struct]) -> None:
        self._structs = structs
        self._plain: dict[str, dict[str, object]] = {}

    def __getitem__(self, name: str) -> object:
        found = self._plain.get(name)
        if found is None:
            if name not in self._structs:  # a protobuf map would add the name
                raise KeyError(name)
            found = self._plain[name] = _plain_struct(self._structs[name])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._structs)

    def __len__(self) -> int:
        return len(self._structs)


def _plain_struct(struct: Struct) -> dict[str, object]:
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: StructValue) -> object:
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
