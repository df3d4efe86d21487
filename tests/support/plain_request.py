"""A simple parser of CheckRequests without caches, as the reference for `parse_check_request`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from zta_authz._proto.ext_authz_pb2 import CheckRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.model.request import Evidence, RequestAttributes

_PSEUDO = (":authority", ":method", ":path", ":scheme", ":protocol")


def read_plainly(payload: bytes) -> dict[str, object] | None:
    """Parse the request; None if it is malformed."""
    try:
        attributes = CheckRequest.FromString(payload).attributes
    except DecodeError:
        return None
    if not attributes.request.HasField("http"):
        return None
    http, source, destination = attributes.request.http, attributes.source, attributes.destination
    lines = [(line.key, line.raw_value, line.value) for line in http.header_map.headers]
    pairs = [(key, raw.decode("utf-8", "surrogateescape") or value) for key, raw, value in lines]
    headers = _grouped(pairs or http.headers.items())
    fields = {"host": headers.get("host"), **{name: headers.pop(name, None) for name in _PSEUDO}}
    meant = {
        ":authority": http.host,
        ":method": http.method,
        ":path": http.path,
        ":scheme": http.scheme,
        "host": http.host,
    }
    if http.headers and http.HasField("header_map"):
        return None
    for name, values in fields.items():
        if values is not None and values != [meant.get(name, values[0])]:
            return None
    if fields[":authority"] == [""]:
        headers["host"] = [""]
    return {
        "method": http.method,
        "path": http.path,
        "host": http.host,
        "scheme": http.scheme,
        "protocol": http.protocol,
        "headers": headers,
        "exact": bool(lines) or not http.headers,
        "source": _address(source),
        "destination": _address(destination),
        "destination_principal": destination.principal,
        "sni": attributes.tls_session.sni,
        "request_id": http.id,
        "context_extensions": dict(attributes.context_extensions),
        "metadata": set(attributes.metadata_context.filter_metadata),
        "evidence": (source.principal, source.certificate),
    }


def as_plain(request: RequestAttributes, evidence: Evidence) -> dict[str, object]:
    """Convert a parsed request to the same form."""
    return {
        "method": request.method,
        "path": request.path,
        "host": request.host,
        "scheme": request.scheme,
        "protocol": request.protocol,
        "headers": {name: list(request.headers.all(name)) for name in list(request.headers.names())},
        "exact": request.headers.exact,
        "source": (request.source.ip, request.source.port),
        "destination": (request.destination.ip, request.destination.port),
        "destination_principal": request.destination_principal,
        "sni": request.sni,
        "request_id": request.request_id,
        "context_extensions": dict(request.context_extensions),
        "metadata": set(request.metadata),
        "evidence": (evidence.principal, evidence.certificate),
    }


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name.lower(), []).append(value)
    return grouped


def _address(peer: Any) -> tuple[str, int]:
    socket = peer.address.socket_address
    return (socket.address, socket.port_value) if socket.address else ("", 0)
