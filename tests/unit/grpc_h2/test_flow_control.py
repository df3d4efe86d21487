from __future__ import annotations

import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from tests.support.h2_peer import ProperPeer, RawPeer, block, message
from zta_authz.grpc_h2.bounds import Bounds
from zta_authz.grpc_h2.connection import Cancelled, ErrorCode
from zta_authz.grpc_h2.frames import frame, settings
from zta_authz.grpc_h2.outbound import Outbound

INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, HEADER_TABLE_SIZE = 4, 5, 1


def call(stream: int = 1) -> list[Frame]:
    return [
        HeadersFrame(stream, data=block(), flags=["END_HEADERS"]),
        DataFrame(stream, data=message(b"x"), flags=["END_STREAM"]),
    ]


def sizes(replies: list[Frame], stream: int = 1) -> list[int]:
    return [len(reply.data) for reply in replies if isinstance(reply, DataFrame) and reply.stream_id == stream]


def ended(replies: list[Frame]) -> bool:
    return any(isinstance(reply, HeadersFrame) and "END_STREAM" in reply.flags for reply in replies)


def test_large_messages_go_both_ways() -> None:
    peer = ProperPeer()
    stream = peer.call(b"q" * 3_000_000)
    (request,) = peer.calls
    assert len(getattr(request, "message")) == 3_000_000  # noqa: B009  it is a Request
    peer.respond(stream, b"a" * 2_000_000)
    assert peer.content(stream) == message(b"a" * 2_000_000)
    assert peer.status(stream) == "0"


def test_many_large_messages_at_once_are_delivered() -> None:
    peer = ProperPeer()
    streams = [peer.call(b"q" * 500_000) for _ in range(20)]
    for stream in streams:
        peer.respond(stream, b"a" * 100_000)
    assert [peer.status(stream) for stream in streams] == ["0"] * 20


def test_an_answer_waits_for_its_streams_window_and_ends_with_its_trailers() -> None:
    peer = RawPeer()
    peer.send(settings(((INITIAL_WINDOW_SIZE, 4),)), *call())
    peer.replies()
    peer.connection.respond(1, b"12345", 0.0)
    first = peer.replies()
    assert (sizes(first), ended(first)) == ([4], False)
    peer.send(WindowUpdateFrame(1, 5))
    second = peer.replies()
    assert (sizes(second), ended(second)) == ([5], False)
    peer.send(WindowUpdateFrame(1, 1))
    third = peer.replies()
    assert (sizes(third), ended(third)) == ([1], True)


def test_an_answer_waits_for_the_connections_window() -> None:
    peer = RawPeer()
    peer.send(settings(((INITIAL_WINDOW_SIZE, 1_000_000),)), *call(1), *call(3))
    peer.replies()
    peer.connection.respond(1, bytes(65_525), 0.0)
    assert ended(peer.replies())
    peer.connection.respond(3, b"1234", 0.0)
    first = peer.replies()
    assert (sizes(first, 3), ended(first)) == ([5], False)
    peer.send(WindowUpdateFrame(0, 4))
    second = peer.replies()
    assert (sizes(second, 3), ended(second)) == ([4], True)


def test_a_new_initial_window_applies_to_open_streams_and_may_make_theirs_negative() -> None:
    peer = RawPeer()
    peer.send(settings(((INITIAL_WINDOW_SIZE, 10),)), *call())
    peer.replies()
    peer.connection.respond(1, b"x" * 15, 0.0)
    assert sizes(peer.replies()) == [10]
    peer.send(settings(((INITIAL_WINDOW_SIZE, 5),)), WindowUpdateFrame(1, 5))
    assert sizes(peer.replies()) == []
    peer.send(settings(((INITIAL_WINDOW_SIZE, 7),)))
    assert sizes(peer.replies()) == [2]
    peer.send(settings(((INITIAL_WINDOW_SIZE, 100),)))
    last = peer.replies()
    assert (sizes(last), ended(last)) == ([8], True)


def test_settings_are_acknowledged_before_frames_that_they_allow() -> None:
    peer = RawPeer()
    peer.send(settings(((INITIAL_WINDOW_SIZE, 0),)), *call())
    peer.replies()
    peer.connection.respond(1, b"x", 0.0)
    peer.replies()
    peer.send(settings(((INITIAL_WINDOW_SIZE, 100),)))
    assert [type(reply) for reply in peer.replies()] == [SettingsFrame, DataFrame, HeadersFrame]


def test_frames_are_no_larger_than_the_peers_limit() -> None:
    peer = RawPeer()
    peer.send(*call())
    peer.connection.respond(1, bytes(40_000), 0.0)
    assert sizes(peer.replies()) == [16_384, 16_384, 7_237]
    peer.send(settings(((MAX_FRAME_SIZE, 20_000),)), *call(3))
    peer.replies()
    peer.connection.respond(3, bytes(19_000), 0.0)
    assert sizes(peer.replies(), 3) == [19_005]


def test_a_stream_window_above_the_maximum_ends_the_stream() -> None:
    peer = RawPeer()
    peer.send(*call(), WindowUpdateFrame(1, 2**31 - 1))
    assert peer.reset() == {1: ErrorCode.FLOW_CONTROL_ERROR}


def test_an_initial_window_that_overflows_a_stream_window_ends_the_connection() -> None:
    peer = RawPeer()
    peer.send(*call(), WindowUpdateFrame(1, 100_000), settings(((INITIAL_WINDOW_SIZE, 2**31 - 1),)))
    assert peer.goaway() == ErrorCode.FLOW_CONTROL_ERROR


def test_a_window_update_of_0_ends_its_stream() -> None:
    peer = RawPeer()
    assert peer.send(*call(), frame(8, 0, 1, bytes(4)))[1:] == [Cancelled(1)]
    assert peer.reset() == {1: ErrorCode.PROTOCOL_ERROR}


def test_the_connections_window_reopens_as_content_arrives() -> None:
    peer = RawPeer(Bounds(receive_window_bytes=65_535))
    part = DataFrame(1, data=bytes(16_000))
    peer.send(call()[0])
    for _ in range(5):  # more than the initial window: the peer need not wait, because it is open again
        peer.send(part)
    assert peer.connection.fault is None
    assert any(isinstance(reply, WindowUpdateFrame) and reply.stream_id == 0 for reply in peer.replies())


def test_content_beyond_a_streams_window_ends_the_stream() -> None:
    peer = RawPeer(Bounds(max_message_bytes=1000))
    peer.send(call()[0], DataFrame(1, data=message(bytes(900))))
    for _ in range(5):
        peer.send(DataFrame(1, data=bytes(15_000)))
    assert peer.reset() == {1: ErrorCode.FLOW_CONTROL_ERROR}
    assert peer.connection.buffered_bytes == 0


def test_an_answer_that_waits_is_dropped_with_its_stream() -> None:
    peer = RawPeer()
    peer.send(settings(((INITIAL_WINDOW_SIZE, 0),)), *call())
    peer.connection.respond(1, bytes(1000), 0.0)
    assert peer.connection.buffered_bytes == 1005
    assert peer.send(RstStreamFrame(1, 8)) == []
    assert peer.connection.buffered_bytes == 0


@pytest.mark.parametrize("size", [0, 100])
def test_a_smaller_header_table_is_acknowledged_in_the_next_block(size: int) -> None:
    peer = RawPeer()
    peer.send(settings(((HEADER_TABLE_SIZE, size),)), *call(1), *call(3))
    peer.replies()
    peer.connection.respond(1, b"x", 0.0)
    peer.connection.respond(3, b"x", 0.0)
    blocks = [reply.data for reply in peer.replies() if isinstance(reply, HeadersFrame)]
    assert [block[:1] == b"\x20" for block in blocks] == [True, False, False, False]


def record_visits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the stream of each queued answer that is visited to send more of it."""
    visited: list[int] = []
    send = Outbound._send

    def counted(out: Outbound, stream: int, unsent: object) -> None:
        visited.append(stream)
        send(out, stream, unsent)  # type: ignore[arg-type]

    monkeypatch.setattr(Outbound, "_send", counted)
    return visited


def test_a_connection_window_update_does_not_visit_answers_whose_stream_windows_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise each of a thousand small frames would visit each of a thousand answers."""
    peer = RawPeer()
    peer.send(settings(((INITIAL_WINDOW_SIZE, 0),)))
    for number in range(500):
        stream = 2 * number + 1
        peer.send(*call(stream))
        peer.connection.respond(stream, b"y" * 100, 0.0)
    visited = record_visits(monkeypatch)
    peer.send(*[WindowUpdateFrame(0, window_increment=1)] * 500)
    assert visited == []
    peer.replies()
    peer.send(WindowUpdateFrame(7, window_increment=1000))
    assert sizes(peer.replies(), 7) == [105]
    peer.send(settings(((INITIAL_WINDOW_SIZE, 1000),)))
    answers = peer.replies()
    assert all(sizes(answers, 2 * number + 1) == [105] for number in range(500) if number != 3)


def test_answers_that_wait_for_the_connections_window_are_sent_as_it_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = RawPeer()
    for number in range(200):
        stream = 2 * number + 1
        peer.send(*call(stream))
        peer.connection.respond(stream, b"y" * 1000, 0.0)
    sent = peer.replies()
    visited = record_visits(monkeypatch)
    peer.send(*[WindowUpdateFrame(0, window_increment=1000)] * 150)
    sent += peer.replies()
    assert [sum(sizes(sent, 2 * number + 1)) for number in range(200)] == [1005] * 200
    assert len(visited) < 500


def test_many_windows_in_one_frame_of_settings_are_applied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[int] = []
    resize = Outbound.resize_streams

    def counted(out: Outbound, window: int, widest: int) -> None:
        applied.append(window)
        resize(out, window, widest)

    monkeypatch.setattr(Outbound, "resize_streams", counted)
    peer = RawPeer()
    peer.send(settings((INITIAL_WINDOW_SIZE, window) for window in range(2000)))
    assert applied == [1999]


def test_a_window_that_overflows_temporarily_within_one_settings_frame_is_an_error() -> None:
    peer = RawPeer()
    peer.send(HeadersFrame(1, data=block(), flags=["END_HEADERS"]), WindowUpdateFrame(1, window_increment=2**30))
    peer.send(settings(((INITIAL_WINDOW_SIZE, 2**31 - 1), (INITIAL_WINDOW_SIZE, 0))))
    assert peer.goaway() == ErrorCode.FLOW_CONTROL_ERROR
