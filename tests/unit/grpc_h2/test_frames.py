"""The rules of RFC 9113 for each frame, tested with a peer that sends single frames."""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.h2_peer import PATH, RawPeer, block, call_with, message
from zta_authz.grpc_h2.bounds import Bounds
from zta_authz.grpc_h2.connection import ErrorCode, Request
from zta_authz.grpc_h2.frames import PREFACE, frame, settings

BLOCK = block()
END = {"flags": ["END_HEADERS", "END_STREAM"]}


def headers(stream: int = 1, *flags: str, data: bytes = BLOCK) -> HeadersFrame:
    return HeadersFrame(stream, data=data, flags=["END_HEADERS", *flags])


def data(stream: int = 1, content: bytes = b"", *flags: str) -> DataFrame:
    return DataFrame(stream, data=content, flags=list(flags))


def call(stream: int = 1, content: bytes = b"x") -> list[Frame]:
    return [headers(stream), data(stream, message(content), "END_STREAM")]


def requests(events: list[object]) -> list[Request]:
    return [event for event in events if isinstance(event, Request)]


def test_the_server_sends_settings_first() -> None:
    peer = RawPeer(Bounds(max_concurrent_streams=7), greet=False)
    first = peer.replies()[0]
    assert isinstance(first, SettingsFrame)
    assert first.settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == 7


def test_settings_are_acknowledged() -> None:
    peer = RawPeer(greet=False)
    peer.replies()
    peer.send(PREFACE, settings(()))
    assert any(isinstance(reply, SettingsFrame) and "ACK" in reply.flags for reply in peer.replies())


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSX", b"\x16\x03\x01"])
def test_bytes_other_than_the_preface_end_the_connection(junk: bytes) -> None:
    peer = RawPeer(greet=False)
    peer.send(junk)
    assert peer.connection.finished
    assert peer.goaway() == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "first", [PingFrame(0, b"12345678"), SettingsFrame(0, flags=["ACK"]), headers(), frame(0x42, 0, 0, b"")]
)
def test_the_first_frame_must_be_settings(first: Frame | bytes) -> None:
    peer = RawPeer(greet=False)
    peer.replies()
    peer.send(PREFACE, first)
    assert peer.goaway() == ErrorCode.PROTOCOL_ERROR


def test_a_complete_call_is_one_event() -> None:
    assert RawPeer().send(*call(1, b"hello")) == [Request(1, PATH, (), b"hello", None)]


def test_several_calls_in_one_piece_are_emitted_in_order() -> None:
    events = RawPeer().send(*call(1, b"a"), *call(3, b"b"), *call(5, b"c"))
    assert [request.message for request in requests(events)] == [b"a", b"b", b"c"]


def test_calls_may_be_interleaved() -> None:
    first, second = message(b"first"), message(b"second")
    events = RawPeer().send(
        headers(1),
        headers(3),
        data(1, first[:3]),
        data(3, second),
        data(1, first[3:], "END_STREAM"),
        data(3, b"", "END_STREAM"),
    )
    assert [(request.stream, request.message) for request in requests(events)] == [(1, b"first"), (3, b"second")]


def test_padding_is_stripped_and_its_window_returned() -> None:
    peer = RawPeer()
    padded_headers = HeadersFrame(1, data=BLOCK, flags=["END_HEADERS", "PADDED"], pad_length=9)
    padded = DataFrame(1, data=message(b"x"), flags=["END_STREAM", "PADDED"], pad_length=20)
    assert len(requests(peer.send(padded_headers, padded))) == 1
    assert [r.window_increment for r in peer.replies() if isinstance(r, WindowUpdateFrame) and r.stream_id == 1] == [21]


def test_more_padding_than_payload_ends_the_connection() -> None:
    peer = RawPeer()
    peer.send(headers(), frame(0, 0x8, 1, b"\x05abc"))
    assert peer.goaway() == ErrorCode.PROTOCOL_ERROR


def test_priority_is_ignored() -> None:
    prioritized = HeadersFrame(1, data=BLOCK, flags=["END_HEADERS", "PRIORITY"], stream_weight=3, depends_on=0)
    events = RawPeer().send(
        PriorityFrame(9, depends_on=1, stream_weight=5), prioritized, data(1, message(b"x"), "END_STREAM")
    )
    assert len(requests(events)) == 1


def test_a_header_block_may_arrive_in_fragments() -> None:
    events = RawPeer().send(
        HeadersFrame(1, data=BLOCK[:7]),
        ContinuationFrame(1, data=BLOCK[7:9]),
        ContinuationFrame(1, data=BLOCK[9:], flags=["END_HEADERS"]),
        data(1, message(b"x"), "END_STREAM"),
    )
    assert [request.path for request in requests(events)] == [PATH]


@pytest.mark.parametrize(
    "between",
    [PingFrame(0, b"12345678"), data(1, b"x"), ContinuationFrame(3, data=b""), headers(3), frame(0x42, 0, 1, b"")],
)
def test_no_frame_may_come_between_the_fragments_of_a_header_block(between: Frame | bytes) -> None:
    peer = RawPeer()
    peer.send(HeadersFrame(1, data=BLOCK[:7]), between)
    assert peer.goaway() == ErrorCode.PROTOCOL_ERROR


def test_unknown_frames_are_ignored() -> None:
    assert len(requests(RawPeer().send(frame(0x42, 0xFF, 0, b"what"), *call(), frame(0xFF, 0, 77, b"")))) == 1


def test_a_ping_is_answered_with_its_content() -> None:
    peer = RawPeer()
    peer.send(PingFrame(0, b"abcdefgh"))
    (answer,) = peer.replies()
    assert isinstance(answer, PingFrame)
    assert (answer.opaque_data, "ACK" in answer.flags) == (b"abcdefgh", True)


def test_the_answer_to_a_ping_is_not_answered() -> None:
    peer = RawPeer()
    peer.send(PingFrame(0, b"abcdefgh", flags=["ACK"]))
    assert peer.replies() == []


CONNECTION_ERRORS = {
    "HEADERS on stream 0": (frame(1, 5, 0, BLOCK), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on a server's stream": (frame(1, 5, 2, BLOCK), ErrorCode.PROTOCOL_ERROR),
    "DATA on stream 0": (frame(0, 1, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA on an idle stream": (frame(0, 1, 5, b"x"), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (frame(3, 0, 5, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (frame(3, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM of 3 bytes": (frame(3, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE on an idle stream": (frame(8, 0, 5, b"\0\0\0\1"), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE of 3 bytes": (frame(8, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of 0": (frame(8, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE above 2^31-1": (frame(8, 0, 0, b"\x7f\xff\xff\xff"), ErrorCode.FLOW_CONTROL_ERROR),
    "SETTINGS on a stream": (frame(4, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS of 5 bytes": (frame(4, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "an acknowledgement with content": (frame(4, 1, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    "ENABLE_PUSH of 2": (settings(((2, 2),)), ErrorCode.PROTOCOL_ERROR),
    "INITIAL_WINDOW_SIZE of 2^31": (settings(((4, 2**31),)), ErrorCode.FLOW_CONTROL_ERROR),
    "MAX_FRAME_SIZE of 2^14-1": (settings(((5, 2**14 - 1),)), ErrorCode.PROTOCOL_ERROR),
    "MAX_FRAME_SIZE of 2^24": (settings(((5, 2**24),)), ErrorCode.PROTOCOL_ERROR),
    "PING on a stream": (frame(6, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "PING of 7 bytes": (frame(6, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (frame(7, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "GOAWAY of 7 bytes": (frame(7, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "PRIORITY on stream 0": (frame(2, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
    "PRIORITY of 4 bytes": (frame(2, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    "PRIORITY on itself": (frame(2, 0, 7, b"\0\0\0\7\0"), ErrorCode.PROTOCOL_ERROR),
    "HEADERS with 4 bytes of priority": (frame(1, 0x25, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    "padded HEADERS without padding": (frame(1, 0xD, 1, b""), ErrorCode.FRAME_SIZE_ERROR),
    "PUSH_PROMISE": (frame(5, 4, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION without HEADERS": (frame(9, 4, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "a frame above our limit": (frame(0, 0, 1, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
    "a header block that ends in a field": (frame(1, 5, 1, b"\x00\x05ab"), ErrorCode.COMPRESSION_ERROR),
    "an index beyond the table": (frame(1, 5, 1, b"\xff\x7f"), ErrorCode.COMPRESSION_ERROR),
    "a table larger than offered": (frame(1, 5, 1, b"\x3f\xe2\x1f" + BLOCK), ErrorCode.COMPRESSION_ERROR),
}


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_the_connection_ends_on(name: str) -> None:
    wrong, code = CONNECTION_ERRORS[name]
    peer = RawPeer()
    peer.send(wrong)
    assert peer.goaway() == code
    assert peer.connection.finished
    assert peer.connection.fault is not None


def test_an_ended_connection_ignores_input_and_sends_nothing() -> None:
    peer = RawPeer()
    peer.send(frame(6, 0, 1, bytes(8)))
    peer.replies()
    assert peer.send(*call()) == []
    assert peer.replies() == []


def test_a_frame_above_our_limit_is_refused_by_its_header_alone() -> None:
    peer = RawPeer()
    peer.send(frame(0, 0, 1, bytes(16_385))[:9])
    assert peer.goaway() == ErrorCode.FRAME_SIZE_ERROR


def test_the_reserved_bit_of_a_stream_number_is_ignored() -> None:
    peer = RawPeer()
    raw = bytearray(headers(1, "END_STREAM").serialize())
    raw[5] |= 0x80
    peer.send(bytes(raw))
    assert peer.connection.fault is None


MALFORMED = {
    "no method": [(":method", None)],
    "no scheme": [(":scheme", None)],
    "no path": [(":path", None)],
    "an empty path": [(":path", "")],
    "a relative path": [(":path", "x")],
    "a name with capitals": [("X-Upper", "1")],
    "an empty name": [("", "1")],
    "a name with a blank": [("a b", "1")],
    "an unknown pseudo-header field": [(":status", "200")],
    "connection": [("connection", "close")],
    "keep-alive": [("keep-alive", "1")],
    "proxy-connection": [("proxy-connection", "x")],
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "upgrade": [("upgrade", "h2c")],
    "te other than trailers": [("te", "gzip")],
    "a value with a line feed": [("content-type", "application/grpc\n")],
    "a value with NUL": [(":path", f"{PATH}\0")],
    "a value with blanks around": [("content-type", " application/grpc")],
    "host other than authority": [("host", "other")],
    "content-length that is no number": [("content-length", "+1")],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_ends_its_stream_and_no_other(name: str) -> None:
    peer = RawPeer()
    events = peer.send(
        headers(1, data=block(call_with(*MALFORMED[name]))), data(1, message(b"x"), "END_STREAM"), *call(3)
    )
    assert [request.stream for request in requests(events)] == [3]
    assert peer.reset() == {1: ErrorCode.PROTOCOL_ERROR}


def test_a_repeated_pseudo_header_field_is_malformed() -> None:
    peer = RawPeer()
    peer.send(headers(1, data=block([*call_with()[:1], *call_with()])))
    assert peer.reset() == {1: ErrorCode.PROTOCOL_ERROR}


def test_a_pseudo_header_field_after_another_field_is_malformed() -> None:
    peer = RawPeer()
    peer.send(headers(1, data=block([*call_with()[1:], *call_with()[:1]])))
    assert peer.reset() == {1: ErrorCode.PROTOCOL_ERROR}


@pytest.mark.parametrize("length", ["5", "7", "0"])
def test_content_length_must_match_the_content(length: str) -> None:
    peer = RawPeer()
    fields = block(call_with(("content-length", length)))
    assert peer.send(headers(1, data=fields), data(1, message(b"x"), "END_STREAM")) == []
    assert peer.reset() == {1: ErrorCode.PROTOCOL_ERROR}


def test_a_correct_content_length_is_accepted_with_padding() -> None:
    fields = block(call_with(("content-length", "6")))
    padded = DataFrame(1, data=message(b"x"), flags=["END_STREAM", "PADDED"], pad_length=20)
    assert len(requests(RawPeer().send(headers(1, data=fields), padded))) == 1


def test_trailers_end_a_request() -> None:
    trailers = headers(1, "END_STREAM", data=block([("x-checksum", "1")]))
    assert len(requests(RawPeer().send(headers(), data(1, message(b"x")), trailers))) == 1


@pytest.mark.parametrize(
    "trailers",
    [
        headers(1, data=block([("a", "1")])),
        headers(1, "END_STREAM", data=block([(":path", "/")])),
        headers(1, "END_STREAM", data=block([("A", "1")])),
    ],
    ids=["do not end it", "with a pseudo-header field", "with capitals"],
)
def test_malformed_trailers_end_the_stream(trailers: HeadersFrame) -> None:
    peer = RawPeer()
    assert peer.send(headers(), data(1, message(b"x")), trailers) == []
    assert peer.reset() == {1: ErrorCode.PROTOCOL_ERROR}


@pytest.mark.parametrize("late", [headers(1, "END_STREAM"), data(1, b"x")], ids=["HEADERS", "DATA"])
def test_frames_after_the_end_of_a_request_end_its_stream(late: Frame) -> None:
    peer = RawPeer()
    events = peer.send(*call(1), late)
    assert [type(event).__name__ for event in events] == ["Request", "Cancelled"]
    assert peer.reset() == {1: ErrorCode.STREAM_CLOSED}


@pytest.mark.parametrize("late", [headers(1, "END_STREAM"), data(1, b"x")], ids=["HEADERS", "DATA"])
def test_frames_on_a_closed_stream_end_the_connection(late: Frame) -> None:
    peer = RawPeer()
    peer.send(*call(1))
    peer.connection.respond(1, b"done", 0.0)
    peer.send(late)
    assert peer.goaway() == ErrorCode.STREAM_CLOSED


@pytest.mark.parametrize("late", [WindowUpdateFrame(1, 5), RstStreamFrame(1, 8), PriorityFrame(1)])
def test_frames_that_may_cross_with_the_end_of_an_answer_are_ignored(late: Frame) -> None:
    peer = RawPeer()
    peer.send(*call(1))
    peer.connection.respond(1, b"done", 0.0)
    peer.replies()
    peer.send(late)
    assert peer.replies() == []
    assert peer.connection.fault is None


def test_a_skipped_stream_number_can_not_be_opened_later() -> None:
    peer = RawPeer()
    peer.send(*call(5), headers(3))
    assert peer.goaway() == ErrorCode.STREAM_CLOSED


def test_frames_in_transit_to_a_stream_that_we_reset_are_dropped() -> None:
    peer = RawPeer()
    malformed = headers(1, data=block(call_with(("connection", "close"))))
    peer.send(malformed, data(1, b"x" * 2000), headers(1, "END_STREAM"), data(1, b"x"))
    assert peer.connection.fault is None
    assert peer.send(*call(3)) != []


def test_the_header_table_stays_in_sync_when_a_stream_is_refused() -> None:
    """The refused block adds an entry; the next one refers to it."""
    peer = RawPeer(Bounds(max_concurrent_streams=1))
    added = b"\x40\x03x-a\x011"
    peer.send(headers(1), headers(3, data=BLOCK + added), data(1, message(b"x"), "END_STREAM"))
    peer.connection.respond(1, b"", 0.0)
    assert peer.reset() == {3: ErrorCode.REFUSED_STREAM}
    (request,) = requests(peer.send(headers(5, data=BLOCK + b"\xbe"), data(5, message(b"y"), "END_STREAM")))
    assert request.metadata == (("x-a", "1"),)


def test_the_last_stream_of_goaway_is_the_last_that_the_client_opened() -> None:
    peer = RawPeer()
    peer.send(*call(1), *call(7), frame(6, 0, 1, bytes(8)))
    (goaway,) = [reply for reply in peer.replies() if isinstance(reply, GoAwayFrame)]
    assert goaway.last_stream_id == 7


def test_a_client_that_sends_goaway_still_gets_its_answers() -> None:
    peer = RawPeer()
    peer.send(*call(1), GoAwayFrame(0))
    assert not peer.connection.finished
    peer.connection.respond(1, b"x", 0.0)
    assert peer.connection.finished
    assert peer.connection.fault is None
