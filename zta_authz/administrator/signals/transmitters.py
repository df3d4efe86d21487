"""What a transmitter publishes and answers: its metadata and the configuration of a stream (SSF 1.0), parsed.

Everything here is untrusted in size and form, and every URL is checked again by the client before it connects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from zta_authz.authn.encoding import json_object
from zta_authz.errors import ZtaError
from zta_authz.model.signal_documents import DEFAULT_ACTIONS, EVENT_KINDS, STREAM_KINDS, Delivery, SignalAction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.signal_documents import SignalSource

METHODS: Final[Mapping[Delivery, str]] = {
    Delivery.PUSH: "urn:ietf:rfc:8935",
    Delivery.POLL: "urn:ietf:rfc:8936",
}
"""The names of the delivery methods in metadata and streams."""
WELL_KNOWN: Final = ("/.well-known/ssf-configuration", "/.well-known/risc-configuration")
"""Where metadata are, the newer first."""
DEFAULT_VERIFICATION_SECONDS: Final = 60.0
MAX_VERIFICATION_SECONDS: Final = 30 * 86400.0
_MAX_TEXT: Final = 2048
_MAX_LIST: Final = 64


class TransmitterError(ZtaError):
    """The transmitter's answer can't be used. The message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """A transmitter's metadata. Endpoints that it does not have are ""."""

    jwks_uri: str
    configuration_endpoint: str = ""
    verification_endpoint: str = ""
    critical: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream as the transmitter configured it. `verification_seconds` is the least time between verifications."""

    stream_id: str
    audiences: tuple[str, ...]
    method: str
    endpoint: str
    verification_seconds: float = DEFAULT_VERIFICATION_SECONDS
    requested: frozenset[str] = frozenset()


def metadata_urls(source: SignalSource) -> tuple[str, ...]:
    """Where the metadata of `source` may be, in the order to try.

    The well-known path is inserted before the path of the issuer (SSF 1.0, Transmitter Configuration Request).
    """
    if source.discovery:
        return (source.discovery,)
    parts = urlsplit(source.issuer)
    path = parts.path.rstrip("/")
    return tuple(f"{parts.scheme}://{parts.netloc}{well_known}{path}" for well_known in WELL_KNOWN)


def parse_metadata(data: bytes, issuer: str) -> Metadata:
    """Parse metadata. Raises `TransmitterError`, also if they are those of another issuer."""
    document = _object(data, "the metadata")
    if document.get("issuer") != issuer:
        raise TransmitterError("the metadata are those of another issuer")
    return Metadata(
        jwks_uri=_url(document, "jwks_uri", issuer),
        configuration_endpoint=_url(document, "configuration_endpoint", issuer),
        verification_endpoint=_url(document, "verification_endpoint", issuer),
        critical=_texts(document.get("critical_subject_members", ())),
    )


def parse_stream(data: bytes, issuer: str) -> Stream:
    """Parse the configuration of one stream. Raises `TransmitterError`, also if it is of another issuer."""
    return _stream(_object(data, "the stream's configuration"), issuer)


def parse_streams(data: bytes, issuer: str) -> tuple[Stream, ...]:
    """Parse a list of streams: a JSON array, or one stream. Those that can't be read are left out."""
    text = data.strip()
    if not text.startswith(b"["):
        return (parse_stream(data, issuer),) if text else ()
    items = _object(b'{"streams":' + text + b"}", "the list of streams")["streams"]
    streams = []
    for item in items[:_MAX_LIST]:
        try:
            streams.append(_stream(item, issuer))
        except TransmitterError:
            continue
    return tuple(streams)


def _stream(document: Any, issuer: str) -> Stream:
    if not isinstance(document, dict) or document.get("iss") != issuer:
        raise TransmitterError("the stream is one of another issuer")
    stream_id, delivery = document.get("stream_id"), document.get("delivery")
    if not isinstance(stream_id, str) or not 0 < len(stream_id) <= _MAX_TEXT or not isinstance(delivery, dict):
        raise TransmitterError("the stream has no `stream_id` or no `delivery`")
    audience = document.get("aud", ())
    seconds = document.get("min_verification_interval", DEFAULT_VERIFICATION_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        seconds = DEFAULT_VERIFICATION_SECONDS
    return Stream(
        stream_id=stream_id,
        audiences=(audience,) if isinstance(audience, str) else _texts(audience),
        method=str(delivery.get("method"))[:_MAX_TEXT],
        endpoint=_url(delivery, "endpoint_url", issuer),
        verification_seconds=min(float(seconds), MAX_VERIFICATION_SECONDS),
        requested=frozenset(_texts(document.get("events_requested", ()))),
    )


def stream_request(source: SignalSource, push_url: str, authorization: str) -> dict[str, Any]:
    """What to request of the transmitter: `events_requested` and `delivery` of a stream."""
    delivery = {"method": METHODS[source.delivery]}
    if source.delivery is Delivery.PUSH:
        delivery |= {"endpoint_url": push_url, "authorization_header": authorization}
    return {"delivery": delivery, "events_requested": sorted(requested_events(source)), "description": "zta-authz"}


def requested_events(source: SignalSource) -> frozenset[str]:
    """The URIs of the events that `source` does something with. Those about the stream need no request."""
    return frozenset(
        uri
        for uri, kind in EVENT_KINDS.items()
        if kind in DEFAULT_ACTIONS and kind not in STREAM_KINDS and source.actions.get(kind) is not SignalAction.IGNORE
    )


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        return json_object(data)
    except ValueError:
        raise TransmitterError(f"{what} is not a JSON object") from None


def _url(document: Mapping[str, Any], member: str, issuer: str) -> str:
    """A URL, "" if absent. An https issuer may not send its receivers to plain http."""
    value = document.get(member, "")
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise TransmitterError(f"`{member}` is not a URL")
    if value and issuer.startswith("https://") and not value.lower().startswith("https://"):
        raise TransmitterError(f"`{member}` of an https issuer is not an https URL")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value[:_MAX_LIST] if isinstance(item, str) and len(item) <= _MAX_TEXT)
