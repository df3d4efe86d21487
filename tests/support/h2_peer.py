"""Peers for our HTTP/2 connection: a conforming client (the h2 library), and single frames (hyperframe, hpack)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import hpack
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame

from zta_authz.grpc_h2.bounds import Bounds
from zta_authz.grpc_h2.connection import Connection, Event
from zta_authz.grpc_h2.frames import PREFACE, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

PATH = "/envoy.service.auth.v3.Authorization/Check"
CALL = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "ext_authz"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)
Fields = Iterable[tuple[str, str]]


def call_with(*changes: tuple[str, str | None]) -> list[tuple[str, str]]:
    """The fields of a call, with fields replaced in place, removed (None) or appended."""
    changed = dict(changes)
    fields = [(name, changed.get(name, value)) for name, value in CALL]
    fields += [(name, value) for name, value in changes if name not in dict(CALL)]
    return [(name, value) for name, value in fields if value is not None]


def message(content: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """A length-prefixed message, correct unless `flag` or `length` is given."""
    return bytes((flag,)) + (len(content) if length is None else length).to_bytes(4, "big") + content


def block(fields: Fields = CALL) -> bytes:
    """A header block that does not use the dynamic table."""
    encoded = b""
    for name, value in fields:
        encoded += b"\x00" + _string(name.encode("latin-1")) + _string(value.encode("latin-1"))
    return encoded


def _string(raw: bytes) -> bytes:
    return bytes(hpack.hpack.encode_integer(len(raw), 7)) + raw


def frames_of(data: bytes) -> list[Frame]:
    """Parse `data`, which must consist of complete frames."""
    frames = []
    view = memoryview(data)
    while view:
        parsed, length = Frame.parse_frame_header(view[:9])
        parsed.parse_body(view[9 : 9 + length])
        frames.append(parsed)
        view = view[9 + length :]
    return frames


class RawPeer:
    """Sends arbitrary bytes and frames to a `Connection`, and reads the frames that it sends."""

    def __init__(
        self,
        bounds: Bounds | None = None,
        *,
        greet: bool = True,
        now: float = 0.0,
        served: Sequence[str] | None = None,
    ) -> None:
        self.connection = Connection(bounds or Bounds(), now, served)
        self.now = now
        self._decoder = hpack.Decoder()
        if greet:
            self.send(PREFACE + settings(()))
            self.replies()

    def send(self, *data: bytes | Frame) -> list[Event]:
        """Send bytes and frames in one piece; return the events."""
        raw = b"".join(part.serialize() if isinstance(part, Frame) else part for part in data)
        return self.connection.receive(raw, self.now)

    def replies(self) -> list[Frame]:
        """The frames that the connection has sent since the last call."""
        return frames_of(self.connection.bytes_to_send())

    def fields(self, frame: Frame) -> dict[str, str]:
        """Decode the fields of a HEADERS frame. Decode each frame once, in order."""
        assert isinstance(frame, HeadersFrame)
        return {str(name): str(value) for name, value in self._decoder.decode(frame.data)}

    def goaway(self) -> int | None:
        """The error code of a GOAWAY among the replies, None without one."""
        return next((reply.error_code for reply in self.replies() if isinstance(reply, GoAwayFrame)), None)

    def reset(self) -> dict[int, int]:
        """The error codes of RST_STREAM frames among the replies, by stream."""
        return {reply.stream_id: reply.error_code for reply in self.replies() if isinstance(reply, RstStreamFrame)}


class ProperPeer:
    """A client of the h2 library, connected to a `Connection` without a network."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.connection = Connection(bounds or Bounds(), 0.0)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.client.initiate_connection()
        self.calls: list[Event] = []
        self.events: list[Any] = []
        self.exchange()

    def exchange(self) -> None:
        """Transfer bytes in both directions until there are none."""
        while True:
            to_server = self.client.data_to_send()
            if to_server:
                self.calls += self.connection.receive(to_server, 0.0)
            to_client = self.connection.bytes_to_send()
            if to_client:
                self.events += self.client.receive_data(to_client)
            if not to_server and not to_client:
                return

    def call(self, content: bytes, fields: Sequence[tuple[str, str]] = CALL) -> int:
        """Send a complete call; return its stream."""
        stream: int = self.client.get_next_available_stream_id()
        self.client.send_headers(stream, fields)
        framed = message(content)
        while framed:
            window = min(self.client.local_flow_control_window(stream), self.client.max_outbound_frame_size)
            assert window > 0, "the window never opens"
            self.client.send_data(stream, framed[:window])
            framed = framed[window:]
            self.exchange()
        self.client.end_stream(stream)
        self.exchange()
        return stream

    def respond(self, stream: int, content: bytes) -> None:
        """Answer a call and transfer all bytes; the client opens its windows as it reads."""
        self.connection.respond(stream, content, 0.0)
        while True:
            before = len(self.events)
            self.exchange()
            for event in self.events[before:]:
                if isinstance(event, h2.events.DataReceived):
                    self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if len(self.events) == before:
                return

    def content(self, stream: int) -> bytes:
        """The content received on a stream."""
        return b"".join(e.data for e in self.events if isinstance(e, h2.events.DataReceived) and e.stream_id == stream)

    def status(self, stream: int) -> str | None:
        """The call's grpc-status."""
        for event in self.events:
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived) and event.stream_id == stream:
                fields = dict(event.headers)
                if "grpc-status" in fields:
                    return str(fields["grpc-status"])
        return None
