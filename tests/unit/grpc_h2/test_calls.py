"""gRPC over HTTP/2: calls, and the answers to requests that are not valid calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.h2_peer import CALL, PATH, ProperPeer, RawPeer, block, call_with, message
from zta_authz.grpc_h2.bounds import Bounds
from zta_authz.grpc_h2.connection import Cancelled, ErrorCode, Request, Status, Unread

if TYPE_CHECKING:
    from collections.abc import Sequence


def call_frames(
    content: bytes = message(b"x"), fields: Sequence[tuple[str, str]] = tuple(call_with()), stream: int = 1
) -> list[Frame]:
    return [
        HeadersFrame(stream, data=block(fields), flags=["END_HEADERS"]),
        DataFrame(stream, data=content, flags=["END_STREAM"]),
    ]


def answer_to(peer: RawPeer, frames: list[Frame]) -> tuple[dict[str, str], bytes]:
    """Send `frames`; return the fields (of head and trailers) and the content of the answer."""
    assert peer.send(*frames) == []
    fields: dict[str, str] = {}
    content = b""
    for reply in peer.replies():
        if isinstance(reply, HeadersFrame):
            fields |= peer.fields(reply)
        elif isinstance(reply, DataFrame):
            content += reply.data
    return fields, content


def test_a_proper_client_gets_message_and_status() -> None:
    peer = ProperPeer()
    stream = peer.call(b"question")
    assert peer.calls == [Request(stream, PATH, (), b"question", None)]
    peer.respond(stream, b"answer")
    assert peer.content(stream) == message(b"answer")
    assert peer.status(stream) == "0"


def test_an_answer_is_head_content_and_trailers() -> None:
    peer = RawPeer()
    peer.send(*call_frames())
    peer.connection.respond(1, b"answer", 0.0)
    head, content, trailers = peer.replies()
    assert peer.fields(head) == {":status": "200", "content-type": "application/grpc"}
    assert content.data == message(b"answer")
    assert peer.fields(trailers) == {"grpc-status": "0"}
    assert [("END_STREAM" in reply.flags) for reply in (head, content, trailers)] == [False, False, True]


def test_an_empty_message_is_a_message() -> None:
    peer = RawPeer()
    assert peer.send(*call_frames(message(b""))) == [Request(1, PATH, (), b"", None)]


def test_a_failure_is_one_header_block() -> None:
    peer = RawPeer()
    peer.send(*call_frames())
    peer.connection.fail(1, Status.NOT_FOUND, "50 % of it\nis é")
    (only,) = peer.replies()
    assert peer.fields(only) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "5",
        "grpc-message": "50 %25 of it%0Ais %C3%A9",
    }
    assert "END_STREAM" in only.flags


def test_a_long_failure_text_is_truncated_and_still_a_valid_header_block() -> None:
    peer = RawPeer()
    peer.send(*call_frames())
    peer.connection.fail(1, Status.INTERNAL, "x" * 5000)
    (only,) = peer.replies()
    assert peer.fields(only)["grpc-message"] == "x" * 1024


def test_a_call_is_answered_once() -> None:
    peer = RawPeer()
    peer.send(*call_frames())
    peer.connection.respond(1, b"first", 0.0)
    peer.replies()
    peer.connection.respond(1, b"second", 0.0)
    peer.connection.fail(1, Status.INTERNAL)
    assert peer.replies() == []


def test_a_cancelled_call_is_reported_and_not_answered() -> None:
    peer = RawPeer()
    peer.send(*call_frames())
    assert peer.send(RstStreamFrame(1, 8)) == [Cancelled(1)]
    peer.connection.respond(1, b"late", 0.0)
    assert peer.replies() == []


def test_an_incomplete_call_that_is_cancelled_is_never_reported() -> None:
    peer = RawPeer()
    assert peer.send(call_frames()[0], RstStreamFrame(1, 8)) == []


def test_metadata_excludes_the_fields_of_the_protocol() -> None:
    peer = RawPeer()
    fields = call_with(
        ("grpc-accept-encoding", "gzip"), ("user-agent", "envoy"), ("traceparent", "00-1"), ("id-bin", "AAE")
    )
    (request,) = peer.send(*call_frames(fields=fields))
    assert isinstance(request, Request)
    assert request.metadata == (("user-agent", "envoy"), ("traceparent", "00-1"), ("id-bin", b"\0\1"))


def test_joined_binary_metadata_is_split() -> None:
    (request,) = RawPeer().send(*call_frames(fields=call_with(("id-bin", "AAE=,Ag"))))
    assert isinstance(request, Request)
    assert request.metadata == (("id-bin", b"\0\1"), ("id-bin", b"\2"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("200m", 0.2),
        ("5u", 5e-6),
        ("7n", 7e-9),
        ("99999999S", 99999999),
        ("0m", 0),
    ],
)
def test_a_timeout_is_seconds(text: str, seconds: float) -> None:
    (request,) = RawPeer().send(*call_frames(fields=call_with(("grpc-timeout", text))))
    assert isinstance(request, Request)
    assert request.timeout == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "S", "-1S", "123456789S", "1s", "1.5S", "1 S"])
def test_a_malformed_timeout_is_internal(text: str) -> None:
    fields, _ = answer_to(RawPeer(), call_frames(fields=call_with(("grpc-timeout", text))))
    assert fields["grpc-status"] == "13"


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"])
def test_every_content_type_of_grpc_is_served(kind: str) -> None:
    assert len(RawPeer().send(*call_frames(fields=call_with(("content-type", kind))))) == 1


@pytest.mark.parametrize("kind", ["application/json", "application/grpcx", "", None])
def test_another_content_type_gets_an_http_error(kind: str | None) -> None:
    fields, content = answer_to(RawPeer(), call_frames(fields=call_with(("content-type", kind))))
    assert (fields[":status"], content) == ("415", b"this port speaks gRPC\n")


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS", "CONNECT", "post"])
def test_another_method_gets_an_http_error(method: str) -> None:
    fields, _ = answer_to(RawPeer(), call_frames(fields=call_with((":method", method))))
    assert (fields[":status"], fields["allow"]) == ("405", "POST")


WRONG_MESSAGES = {
    "compressed": (message(b"x", flag=1), Status.UNIMPLEMENTED),
    "an unknown flag": (message(b"x", flag=2), Status.INTERNAL),
    "none": (b"", Status.UNIMPLEMENTED),
    "two": (message(b"a") + message(b"b"), Status.UNIMPLEMENTED),
    "half a prefix": (b"\0\0", Status.INTERNAL),
    "shorter than declared": (message(b"x", length=5), Status.INTERNAL),
}


@pytest.mark.parametrize("name", WRONG_MESSAGES)
def test_content_other_than_one_plain_message_fails_with_its_status(name: str) -> None:
    content, status = WRONG_MESSAGES[name]
    fields, _ = answer_to(RawPeer(Bounds(max_message_bytes=100)), call_frames(content))
    assert fields["grpc-status"] == str(int(status))


def test_a_compressed_message_is_refused_and_the_accepted_encodings_are_named() -> None:
    fields, _ = answer_to(RawPeer(), call_frames(message(b"x", flag=1)))
    assert fields["grpc-accept-encoding"] == "identity"


def test_an_announced_encoding_without_a_compressed_message_is_ignored() -> None:
    assert len(RawPeer().send(*call_frames(fields=call_with(("grpc-encoding", "gzip"))))) == 1


def test_a_message_that_is_too_large_is_emitted_unread() -> None:
    peer = RawPeer(Bounds(max_message_bytes=100))
    assert peer.send(*call_frames(message(b"x" * 101))) == [Unread(1, PATH, buffer_full=False)]
    peer.connection.respond(1, b"no", 0.0)
    assert [type(reply) for reply in peer.replies()] == [HeadersFrame, DataFrame, HeadersFrame]
    assert peer.connection.buffered_bytes == 0


def test_a_message_that_declares_too_large_a_length_is_emitted_before_it_arrives() -> None:
    peer = RawPeer(Bounds(max_message_bytes=100))
    head, _ = call_frames()
    first_data = DataFrame(1, data=message(b"", length=101) + b"x")
    assert peer.send(head, first_data, DataFrame(1, data=b"more")) == [Unread(1, PATH, buffer_full=False)]
    assert peer.connection.buffered_bytes == 0
    peer.connection.respond(1, b"no", 0.0)
    *answer, reset = peer.replies()
    assert [type(reply) for reply in answer] == [HeadersFrame, DataFrame, HeadersFrame]
    assert isinstance(reset, RstStreamFrame)
    assert reset.error_code == ErrorCode.NO_ERROR
    assert peer.send(DataFrame(1, data=b"and more", flags=["END_STREAM"]), *call_frames(stream=3))
    assert peer.connection.fault is None


def test_an_answer_to_a_message_that_is_too_large_may_have_to_wait() -> None:
    peer = RawPeer(Bounds(max_message_bytes=100))
    head, _ = call_frames()
    peer.send(SettingsFrame(0, settings={4: 0}), head, DataFrame(1, data=message(b"", length=101) + b"x"))
    peer.connection.respond(1, b"no", 0.0)
    peer.replies()
    peer.send(WindowUpdateFrame(1, 100))
    data, trailers, reset = peer.replies()
    assert (type(data), type(trailers), type(reset)) == (DataFrame, HeadersFrame, RstStreamFrame)
    assert peer.send(DataFrame(1, data=b"and more", flags=["END_STREAM"]), *call_frames(stream=3))


def test_an_unknown_method_is_unimplemented_before_its_client_sends_content() -> None:
    """A streaming client may wait for our answer: `grpcurl list` did so until its deadline."""
    peer = RawPeer(served=[PATH])
    unknown = HeadersFrame(1, data=block(call_with((":path", "/a.B/Stream"))), flags=["END_HEADERS"])
    assert peer.send(unknown) == []
    answer, reset = peer.replies()
    assert peer.fields(answer)["grpc-status"] == str(int(Status.UNIMPLEMENTED))
    assert isinstance(reset, RstStreamFrame)
    assert reset.error_code == ErrorCode.NO_ERROR
    late = (DataFrame(1, data=b"late"), DataFrame(1, data=b"later", flags=["END_STREAM"]))
    (request,) = peer.send(*late, *call_frames(stream=3))
    assert request.stream == 3


def test_many_calls_of_unknown_methods_do_not_end_the_connection() -> None:
    peer = RawPeer(Bounds(max_resets=5, max_other_frames=5), served=[])
    for number in range(1, 201, 2):
        peer.send(*call_frames(stream=number))
    assert peer.connection.fault is None


IGNORED: dict[str, tuple[tuple[str, str], ...]] = {
    "a line feed": (("tracestate", "x\ny"),),
    "NUL": (("tracestate", "x\0y"),),
    "binary metadata that is not base64": (("a-bin", "!"),),
    "a value above the table's size": (("tracestate", "x" * 5000),),
    "a value that takes many frames": (("baggage", "x" * 300_000),),
    "a name above the table's size": (("x" * 5000, "1"),),
}


@pytest.mark.parametrize("name", IGNORED)
def test_malformed_metadata_is_dropped_and_its_call_proceeds(name: str) -> None:
    """A proxy copies client headers into metadata: a client must not be able to make calls fail."""
    fields = call_with(("traceparent", "00-1"), *IGNORED[name], ("x", "y"))
    data = block(fields)
    pieces = [data[at : at + 16_384] for at in range(0, len(data), 16_384)]
    frames: list[Frame] = [HeadersFrame(1, data=pieces[0])]
    frames += [ContinuationFrame(1, data=piece) for piece in pieces[1:]]
    frames[-1].flags.add("END_HEADERS")
    (request,) = RawPeer().send(*frames, DataFrame(1, data=message(b"x"), flags=["END_STREAM"]))
    assert isinstance(request, Request)
    assert request.metadata == (("traceparent", "00-1"), ("x", "y"))


@pytest.mark.parametrize("value", [" a=b", "a=b\t", " \t a=b "])
def test_blanks_around_metadata_are_stripped(value: str) -> None:
    (request,) = RawPeer().send(*call_frames(fields=call_with(("tracestate", value))))
    assert isinstance(request, Request)
    assert request.metadata == (("tracestate", "a=b"),)


def test_metadata_above_the_list_limit_is_dropped_but_not_the_protocols_fields() -> None:
    """The order does not matter: a call whose deadline is dropped would be served for nobody."""
    fields = [*CALL[:4], *[("x", "y" * 100)] * 10, *CALL[4:], ("grpc-timeout", "1S")]
    (request,) = RawPeer(Bounds(max_header_list_bytes=1000)).send(*call_frames(fields=fields))
    assert isinstance(request, Request)
    assert 1 < len(request.metadata) < 10
    assert request.timeout == 1.0


def test_a_call_without_content_has_no_message() -> None:
    peer = RawPeer()
    fields, _ = answer_to(peer, [HeadersFrame(1, data=block(), flags=["END_HEADERS", "END_STREAM"])])
    assert fields["grpc-status"] == str(int(Status.UNIMPLEMENTED))


def test_an_equal_header_block_means_the_same_call_only_while_the_table_is_the_same() -> None:
    """`\\xbe` is the newest entry: its meaning changes with each new entry."""
    peer = RawPeer()
    first, second = b"\x40\x03x-a\x011", b"\x40\x03x-a\x012"
    values = []
    for stream, extra in enumerate((first, b"\xbe", b"\xbe", second, b"\xbe", b"\xbe")):
        number = 2 * stream + 1
        head = HeadersFrame(number, data=block() + extra, flags=["END_HEADERS"])
        (request,) = peer.send(head, DataFrame(number, data=message(b""), flags=["END_STREAM"]))
        assert isinstance(request, Request)
        values.append(request.metadata[0][1])
    assert values == ["1", "1", "1", "2", "2", "2"]


def test_trailers_that_change_the_table_change_what_equal_blocks_mean() -> None:
    peer = RawPeer()
    values = []
    for number, extra, trailers in (
        (1, b"\x40\x03x-a\x011", b""),
        (3, b"\xbe", b"\x40\x03x-a\x012"),
        (5, b"\xbe", b""),
    ):
        head = HeadersFrame(number, data=block() + extra, flags=["END_HEADERS"])
        end = HeadersFrame(number, data=trailers, flags=["END_HEADERS", "END_STREAM"])
        (request,) = peer.send(head, DataFrame(number, data=message(b"")), end)
        assert isinstance(request, Request)
        values.append(request.metadata[0][1])
    assert values == ["1", "1", "2"]
