from __future__ import annotations

from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame

from tests.support.h2_peer import RawPeer, block, message
from zta_authz.grpc_h2.bounds import Bounds
from zta_authz.grpc_h2.connection import Connection, ErrorCode
from zta_authz.grpc_h2.frames import settings


def call(stream: int = 1) -> list[Frame]:
    return [
        HeadersFrame(stream, data=block(), flags=["END_HEADERS"]),
        DataFrame(stream, data=message(b"x"), flags=["END_STREAM"]),
    ]


def last_streams(replies: list[Frame]) -> list[int]:
    return [reply.last_stream_id for reply in replies if isinstance(reply, GoAwayFrame)]


def test_a_drain_is_announced_and_calls_that_cross_it_are_still_served() -> None:
    peer = RawPeer()
    peer.connection.drain()
    announced, ping = peer.replies()
    assert isinstance(announced, GoAwayFrame)
    assert isinstance(ping, PingFrame)
    assert (announced.last_stream_id, announced.error_code) == (2**31 - 1, ErrorCode.NO_ERROR)
    assert len(peer.send(*call(1))) == 1
    assert not peer.connection.finished


def test_once_the_peer_has_read_the_goaway_new_calls_are_refused_and_old_ones_answered() -> None:
    peer = RawPeer()
    peer.send(*call(1))
    peer.connection.drain()
    _, ping = peer.replies()
    assert isinstance(ping, PingFrame)
    peer.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))
    assert last_streams(peer.replies()) == [1]
    peer.send(*call(3))
    assert peer.reset() == {3: ErrorCode.REFUSED_STREAM}
    assert not peer.connection.finished
    peer.connection.respond(1, b"x", 0.0)
    assert peer.connection.finished
    assert len(peer.replies()) == 3


def test_a_peer_that_does_not_answer_the_ping_gets_one_second() -> None:
    peer = RawPeer()
    peer.connection.drain()
    peer.connection.tick(0.9)
    assert not peer.connection.finished
    peer.connection.tick(1.1)
    assert peer.connection.finished
    assert peer.connection.fault is None


def test_a_drain_is_announced_once() -> None:
    peer = RawPeer()
    peer.connection.drain()
    peer.connection.drain()
    assert len(last_streams(peer.replies())) == 1


def test_a_connection_before_its_first_settings_is_drained_at_once() -> None:
    connection = Connection(Bounds(), 0.0)
    connection.drain()
    assert connection.finished


def test_an_idle_connection_is_drained() -> None:
    peer = RawPeer(Bounds(idle_seconds=60, max_age_seconds=0))
    peer.now = 30.0
    peer.send(*call())
    peer.connection.respond(1, b"", 31.0)
    peer.replies()
    peer.connection.tick(89.0)
    assert peer.replies() == []
    peer.connection.tick(90.0)
    assert last_streams(peer.replies()) == [2**31 - 1]


def test_a_connection_with_a_call_in_progress_is_not_idle() -> None:
    peer = RawPeer(Bounds(idle_seconds=60, max_age_seconds=0))
    peer.send(*call())
    peer.connection.tick(1000.0)
    assert last_streams(peer.replies()) == []


def test_an_old_connection_is_drained_however_busy() -> None:
    peer = RawPeer(Bounds(max_age_seconds=100))
    peer.now = 99.0
    peer.send(*call())
    peer.connection.tick(100.0)
    assert last_streams(peer.replies()) == [2**31 - 1]


def test_zero_means_for_ever() -> None:
    peer = RawPeer(Bounds(idle_seconds=0, max_age_seconds=0))
    peer.connection.tick(1e9)
    assert peer.replies() == []


def test_a_refused_connection_gets_a_goaway_with_the_reason() -> None:
    connection = Connection(Bounds(), 0.0)
    connection.refuse("caller_not_allowed")
    assert connection.finished
    assert connection.bytes_to_send().endswith(b"caller_not_allowed")
    assert connection.receive(b"anything", 0.0) == []


def test_each_call_of_an_unauthorized_peer_is_denied_and_nothing_of_it_is_decoded_or_kept() -> None:
    peer = RawPeer()
    peer.connection.deny("caller_not_allowed")
    garbage = HeadersFrame(1, data=b"\xff\xff\xff", flags=["END_HEADERS"])
    assert peer.send(garbage, DataFrame(1, data=bytes(10_000))) == []
    assert peer.connection.buffered_bytes == 0
    assert peer.send(DataFrame(1, flags=["END_STREAM"]), *call(3)) == []
    answers = [reply for reply in peer.replies() if isinstance(reply, HeadersFrame)]
    assert [peer.fields(answer)["grpc-status"] for answer in answers] == ["7", "7"]
    assert peer.connection.fault is None


def test_a_peer_that_loses_authorization_is_denied_new_calls_and_gets_its_pending_answers() -> None:
    peer = RawPeer()
    assert len(peer.send(*call(1))) == 1
    peer.connection.deny("caller_not_allowed")
    assert peer.send(*call(3)) == []
    peer.connection.respond(1, b"", 0.0)
    heads = [reply for reply in peer.replies() if isinstance(reply, HeadersFrame)]
    fields = [(head.stream_id, peer.fields(head)) for head in heads]
    assert [(stream, headers["grpc-status"]) for stream, headers in fields if "grpc-status" in headers] == [
        (3, "7"),
        (1, "0"),
    ]


def test_an_ended_connection_keeps_nothing() -> None:
    peer = RawPeer()
    incomplete = HeadersFrame(3, data=block(), flags=["END_HEADERS"])
    peer.send(settings(((4, 0),)), *call(1), incomplete, DataFrame(3, data=bytes(1000)), bytes(5))
    peer.connection.respond(1, b"x", 0.0)
    assert peer.connection.buffered_bytes > 1000
    peer.connection.refuse("enough")
    assert peer.connection.buffered_bytes == 0


def test_after_an_immediate_drain_the_peer_may_retry_incomplete_calls() -> None:
    """RFC 9113, section 8.7: REFUSED_STREAM says that nothing was done with a stream."""
    peer = RawPeer()
    peer.send(*call(1), call(3)[0])
    peer.connection.drain_now()
    assert peer.reset() == {3: ErrorCode.REFUSED_STREAM}
    assert peer.send(*call(5), DataFrame(3, data=message(b"x"), flags=["END_STREAM"])) == []
    assert peer.reset() == {5: ErrorCode.REFUSED_STREAM}
    assert not peer.connection.finished
    peer.connection.respond(1, b"x", 0.0)
    peer.connection.tick(1.1)
    assert peer.connection.finished
    assert peer.connection.fault is None


def test_after_an_immediate_drain_nothing_more_is_decoded() -> None:
    peer = RawPeer()
    peer.connection.drain_now()
    peer.replies()
    peer.send(HeadersFrame(1, data=b"\xff\xff\xff", flags=["END_HEADERS", "END_STREAM"]))
    assert peer.reset() == {1: ErrorCode.REFUSED_STREAM}


def test_the_last_stream_of_a_goaway_never_increases() -> None:
    """RFC 9113, section 6.8."""
    peer = RawPeer()
    peer.send(*call(1))
    peer.connection.drain_now()
    last = last_streams(peer.replies())
    peer.send(*call(3))
    peer.connection.refuse("for a test")
    assert last + last_streams(peer.replies()) == [1, 1]


def test_an_immediate_drain_during_a_drain_or_before_the_first_settings_ends_the_connection() -> None:
    peer = RawPeer()
    peer.connection.drain()
    peer.connection.drain_now()
    assert last_streams(peer.replies()) == [2**31 - 1, 0]
    peer.connection.tick(1.1)
    assert peer.connection.finished
    early = Connection(Bounds(), 0.0)
    early.drain_now()
    assert early.finished
