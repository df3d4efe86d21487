"""Each limit, and that nothing is kept above it."""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from tests.support.h2_peer import PATH, RawPeer, block, call_with, message
from zta_authz.grpc_h2.bounds import Bounds
from zta_authz.grpc_h2.connection import ErrorCode, Unread
from zta_authz.grpc_h2.frames import SETTINGS_ACK, frame, settings


def head(stream: int = 1, *flags: str) -> HeadersFrame:
    return HeadersFrame(stream, data=block(), flags=["END_HEADERS", *flags])


def call(stream: int = 1) -> list[Frame]:
    return [head(stream), DataFrame(stream, data=message(b"x"), flags=["END_STREAM"])]


def test_a_stream_above_the_limit_is_refused_and_can_be_retried() -> None:
    peer = RawPeer(Bounds(max_concurrent_streams=2))
    events = peer.send(*call(1), *call(3), *call(5))
    assert len(events) == 2
    assert peer.reset() == {5: ErrorCode.REFUSED_STREAM}
    peer.connection.respond(1, b"", 0.0)
    assert len(peer.send(*call(7))) == 1


FLOODS: dict[str, tuple[Bounds, bytes]] = {
    "SETTINGS": (Bounds(max_settings=50), settings(())),
    "acknowledgements of SETTINGS": (Bounds(max_settings=50), SETTINGS_ACK),
    "PING": (Bounds(max_pings=50), PingFrame(0, bytes(8)).serialize()),
    "acknowledgements of PING": (Bounds(max_pings=50), PingFrame(0, bytes(8), flags=["ACK"]).serialize()),
    "WINDOW_UPDATE": (Bounds(max_window_updates=50), WindowUpdateFrame(0, 1).serialize()),
    "empty DATA": (Bounds(max_empty_frames=50), DataFrame(1).serialize()),
    "empty DATA with padding": (Bounds(max_empty_frames=50), DataFrame(1, pad_length=9, flags=["PADDED"]).serialize()),
    "DATA in tiny pieces": (Bounds(max_other_frames=50), DataFrame(1, data=b"x").serialize()),
    "PRIORITY": (Bounds(max_other_frames=50), PriorityFrame(3).serialize()),
    "unknown frames": (Bounds(max_other_frames=50), frame(0x77, 0, 0, b"")),
    "GOAWAY": (Bounds(max_other_frames=50), frame(7, 0, 0, bytes(8))),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection(name: str) -> None:
    bounds, flood = FLOODS[name]
    peer = RawPeer(bounds)
    peer.send(head())
    peer.send(flood * 40)
    assert peer.connection.fault is None
    peer.send(flood * 40)
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("name", FLOODS)
def test_the_same_frames_spread_over_time_do_no_harm(name: str) -> None:
    bounds, honest = FLOODS[name]
    peer = RawPeer(bounds)
    for _ in range(10):
        peer.send(head(), honest * 40) if peer.now == 0 else peer.send(honest * 40)
        peer.now += bounds.interval_seconds
    assert peer.connection.fault is None


def test_answered_calls_raise_the_limits_of_frames_that_accompany_them() -> None:
    peer = RawPeer(Bounds(max_window_updates=10, max_pings=10))
    for number in range(100):
        stream = 2 * number + 1
        peer.send(*call(stream), WindowUpdateFrame(0, 1), WindowUpdateFrame(stream, 1), PingFrame(0, bytes(8)))
        peer.connection.respond(stream, b"", 0.0)
    assert peer.connection.fault is None


def test_rapid_reset_ends_the_connection() -> None:
    peer = RawPeer(Bounds(max_resets=50))
    for number in range(60):
        peer.send(*call(2 * number + 1), RstStreamFrame(2 * number + 1, 8))
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


def test_streams_that_a_peer_makes_us_reset_count_too() -> None:
    """CVE-2025-8671: the server resets, the work is the same."""
    peer = RawPeer(Bounds(max_resets=50))
    for number in range(60):
        peer.send(*call(2 * number + 1), frame(8, 0, 2 * number + 1, bytes(4)))
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


def test_an_occasional_cancelled_call_does_no_harm() -> None:
    peer = RawPeer(Bounds(max_resets=10))
    for number in range(200):
        stream = 2 * number + 1
        peer.send(*call(stream))
        if number % 2:
            peer.connection.respond(stream, b"", 0.0)
        peer.send(RstStreamFrame(stream, 8))
    assert peer.connection.fault is None


def test_endless_continuation_ends_the_connection_by_the_number_of_frames() -> None:
    peer = RawPeer(Bounds(max_continuation_frames=4))
    peer.send(HeadersFrame(1, data=b"\x82"), *[ContinuationFrame(1, data=b"")] * 4)
    assert peer.connection.fault is None
    peer.send(ContinuationFrame(1, data=b""))
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


def test_a_large_block_may_use_more_frames_and_counts_as_buffered() -> None:
    peer = RawPeer(Bounds(max_continuation_frames=4))
    peer.send(HeadersFrame(1, data=b"\x82"), *[ContinuationFrame(1, data=bytes(16_384))] * 100)
    assert peer.connection.fault is None
    assert peer.connection.buffered_bytes > 100 * 16_384


def test_endless_continuation_ends_the_connection_by_the_number_of_bytes() -> None:
    peer = RawPeer(Bounds(max_header_block_bytes=30_000, max_continuation_frames=1000))
    peer.send(HeadersFrame(1, data=bytes(16_000)), ContinuationFrame(1, data=bytes(16_000)))
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


def test_one_byte_references_to_a_long_entry_end_the_connection() -> None:
    """An HPACK bomb: 4 kB stored once, then 16,000 times."""
    peer = RawPeer()
    stored = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000
    peer.send(HeadersFrame(1, data=stored + b"\xbe" * 12_000, flags=["END_HEADERS"]))
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


def test_a_call_that_exceeds_the_buffer_is_emitted_unread() -> None:
    bounds = Bounds(max_message_bytes=20_000, max_buffered_bytes=30_000)
    peer = RawPeer(bounds)
    part = message(bytes(20_000))[:16_000]
    events = peer.send(
        head(1), DataFrame(1, data=part), head(3), DataFrame(3, data=part), DataFrame(3, data=part[:3000])
    )
    assert events == [Unread(3, PATH, buffer_full=True)]
    assert peer.connection.buffered_bytes == 16_000
    assert len(peer.send(DataFrame(1, data=bytes(4005), flags=["END_STREAM"]))) == 1
    assert peer.connection.buffered_bytes == 0


def test_the_content_of_a_request_that_is_not_grpc_is_not_kept() -> None:
    peer = RawPeer()
    peer.send(
        HeadersFrame(1, data=block(call_with((":method", "PUT"))), flags=["END_HEADERS"]),
        DataFrame(1, data=bytes(16_000)),
    )
    assert peer.connection.buffered_bytes == 0


def test_too_many_waiting_answers_end_the_connection() -> None:
    peer = RawPeer(Bounds(max_message_bytes=1024, max_unsent_bytes=10_000))
    peer.send(settings(((4, 0),)))
    for number in range(12):
        peer.send(*call(2 * number + 1))
        peer.connection.respond(2 * number + 1, bytes(1000), 0.0)
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


def test_without_settings_in_time_the_connection_ends() -> None:
    peer = RawPeer(Bounds(preface_seconds=10), greet=False)
    peer.connection.tick(9)
    assert not peer.connection.finished
    peer.connection.tick(11)
    assert peer.connection.finished


@pytest.mark.parametrize(
    "partial", [head().serialize()[:5], head().serialize()[:20], HeadersFrame(1, data=b"\x82").serialize()]
)
def test_an_incomplete_frame_or_header_block_ends_the_connection(partial: bytes) -> None:
    peer = RawPeer(Bounds(request_seconds=10))
    peer.send(partial)
    peer.connection.tick(10)
    assert not peer.connection.finished
    peer.connection.tick(10.1)
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


def test_a_frame_that_arrives_byte_by_byte_is_timed_from_its_first_byte() -> None:
    peer = RawPeer(Bounds(request_seconds=10))
    whole = head().serialize()
    for second in range(11):
        peer.now = float(second)
        peer.send(whole[second : second + 1])
        peer.connection.tick(peer.now)
    peer.connection.tick(10.5)
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


def test_an_incomplete_request_is_reset_and_no_other() -> None:
    peer = RawPeer(Bounds(request_seconds=10))
    peer.send(head(1), DataFrame(1, data=b"\0"))
    peer.now = 8.0
    peer.send(head(3))
    peer.connection.tick(10.5)
    assert peer.reset() == {1: ErrorCode.CANCEL}
    assert peer.connection.buffered_bytes == 0
    assert peer.connection.fault is None


def test_an_answer_that_waits_too_long_ends_the_connection_even_if_parts_are_sent() -> None:
    peer = RawPeer(Bounds(stall_seconds=30))
    peer.send(settings(((4, 1),)), *call())
    peer.connection.respond(1, bytes(1000), 0.0)
    peer.now = 29.0
    peer.send(WindowUpdateFrame(1, 1))
    peer.connection.tick(29.0)
    assert peer.connection.fault is None
    peer.connection.tick(30.0)
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_frame_bytes": 16_383},
        {"max_frame_bytes": 2**24},
        {"header_table_bytes": 100},
        {"max_buffered_bytes": 10},
        {"max_unsent_bytes": 10},
    ],
)
def test_invalid_bounds_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Bounds(**wrong)  # type: ignore[arg-type]
