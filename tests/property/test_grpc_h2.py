"""Invariants of the sans-IO connection: fragmentation does not matter, nothing makes it raise or exceed its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hpack
from hpack.exceptions import HPACKDecodingError
from hypothesis import given, settings as hypothesis_settings, strategies as st

from tests.support.h2_peer import block, call_with, frames_of, message
from zta_authz.grpc_h2 import huffman
from zta_authz.grpc_h2.bounds import Bounds
from zta_authz.grpc_h2.connection import Connection, Request, Status
from zta_authz.grpc_h2.errors import ConnectionFault
from zta_authz.grpc_h2.frames import PREFACE, frame, settings
from zta_authz.grpc_h2.hpack import Decoder

if TYPE_CHECKING:
    from zta_authz.grpc_h2.connection import Event
    from zta_authz.grpc_h2.outbound import Outbound

SMALL = Bounds(
    max_concurrent_streams=3,
    max_header_list_bytes=2000,
    max_header_block_bytes=4000,
    max_continuation_frames=3,
    max_message_bytes=1000,
    max_buffered_bytes=2000,
    max_unsent_bytes=3000,
    max_resets=20,
    max_settings=20,
    max_pings=20,
    max_window_updates=20,
    max_empty_frames=20,
    max_other_frames=20,
)
MAX_BUFFERED_BYTES = SMALL.max_buffered_bytes + 16_384 + SMALL.max_unsent_bytes + 16_384 + 9

payloads = st.one_of(
    st.sampled_from(
        [
            block(),
            block()[:11],
            block(call_with(("grpc-timeout", "1S"))),
            block(call_with((":method", "GET"))),
            block(call_with(("content-length", "6"))),
            block() + b"\x40\x01a\x011",
            block() + b"\xbe",
            b"",
            message(b"x"),
            message(b"x" * 999),
            message(b"x", length=2000),
            message(b"", flag=1),
            bytes(4),
            bytes(8),
            b"\0\0\0\1",
            b"\x7f\xff\xff\xff",
            settings(((4, 0),))[9:],
            settings(((4, 100_000), (1, 0), (5, 20_000)))[9:],
            b"\x05" + block() + bytes(5),
            bytes(16_384),
        ]
    ),
    st.binary(max_size=40),
)
frames = st.builds(
    frame,
    st.sampled_from([0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 10, 255]),
    st.one_of(st.sampled_from([0, 1, 4, 5, 5, 8, 13]), st.integers(0, 255)),
    st.sampled_from([0, 1, 1, 3, 5, 7, 9, 2, 2**31 - 1]),
    payloads,
)
conversations = st.builds(
    lambda start, parts, end: start + b"".join(parts) + end,
    st.sampled_from([PREFACE + settings(()), PREFACE + settings(()), PREFACE, b""]),
    st.lists(frames, max_size=25),
    st.binary(max_size=12),
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    offsets = sorted({min(cut, len(data)) for cut in cuts})
    return [data[begin:end] for begin, end in zip([0, *offsets], [*offsets, len(data)], strict=True)]


@given(data=conversations, cuts=st.lists(st.integers(0, 5000), max_size=12))
def test_fragmentation_of_bytes_changes_nothing(data: bytes, cuts: list[int]) -> None:
    whole, pieces = Connection(SMALL, 0.0), Connection(SMALL, 0.0)
    expected = whole.receive(data, 0.0)
    events: list[Event] = []
    for piece in split(data, cuts):
        events += pieces.receive(piece, 0.0)
    assert events == expected
    assert pieces.bytes_to_send() == whole.bytes_to_send()
    assert pieces.finished == whole.finished


@given(data=conversations)
def test_single_bytes_give_the_same_result(data: bytes) -> None:
    data = data[:3000]
    whole, pieces = Connection(SMALL, 0.0), Connection(SMALL, 0.0)
    expected = whole.receive(data, 0.0)
    assert [event for byte in data for event in pieces.receive(bytes((byte,)), 0.0)] == expected
    assert pieces.bytes_to_send() == whole.bytes_to_send()


steps = st.lists(
    st.one_of(
        frames,
        st.binary(max_size=30),
        st.tuples(st.just("respond"), st.integers(0, 3), st.integers(0, 1000)),
        st.tuples(st.just("fail"), st.integers(0, 3), st.sampled_from(list(Status))),
        st.tuples(st.just("tick"), st.floats(0, 20)),
        st.just(("drain",)),
        st.just(("deny",)),
    ),
    max_size=40,
)


@hypothesis_settings(max_examples=300)
@given(script=steps, greet=st.sampled_from([True, True, True, False]))
def test_no_sequence_of_steps_raises_or_exceeds_the_limits(
    script: list[bytes | tuple[object, ...]], greet: bool
) -> None:
    connection = Connection(SMALL, 0.0)
    now, waiting, denied_from = 0.0, list[int](), 2**31
    if greet:
        connection.receive(PREFACE + settings(()), now)
    for step in script:
        events: list[Event] = []
        match step:
            case bytes():
                events = connection.receive(step, now)
            case ("respond", int(index), int(size)) if index < len(waiting):
                connection.respond(waiting[index], bytes(size), now)
            case ("fail", int(index), Status() as status) if index < len(waiting):
                connection.fail(waiting[index], status, "why")
            case ("tick", float(seconds)):
                now += seconds
                events = connection.tick(now)
            case ("drain",):
                connection.drain()
            case ("deny",):
                connection.deny("not you")
                denied_from = min(denied_from, connection._calls.highest + 1)
        assert all(event.stream < denied_from for event in events if isinstance(event, Request))
        assert unsent_without_reason(connection._out) == []
        waiting += [event.stream for event in events if isinstance(event, Request)]
        assert connection.buffered_bytes <= MAX_BUFFERED_BYTES
        frames_of(connection.bytes_to_send())  # complete and well-formed frames in any case
        assert connection.finished or connection.fault is None


def unsent_without_reason(out: Outbound) -> list[int]:
    """Streams whose answers wait with all windows open, or that are open but not marked ready."""
    own = {stream: out._stream_window + out._credit.get(stream, 0) for stream in out._waiting}
    return [stream for stream, window in own.items() if window > 0 and (out._window > 0 or stream not in out._ready)]


@given(data=st.binary(max_size=300))
def test_any_bytes_are_accepted_or_refused(data: bytes) -> None:
    for start in (b"", PREFACE, PREFACE + settings(())):
        connection = Connection(SMALL, 0.0)
        connection.receive(start + data, 0.0)
        frames_of(connection.bytes_to_send())


text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
fields = st.lists(
    st.tuples(st.sampled_from(["a", "b", ":path", "content-type", "x-long-name", "traceparent"]), text), max_size=12
)


@given(
    lists=st.lists(fields, min_size=1, max_size=8), huffman_coded=st.booleans(), size=st.sampled_from([4096, 100, 0])
)
def test_blocks_of_another_encoder_are_decoded(
    lists: list[list[tuple[str, str]]], huffman_coded: bool, size: int
) -> None:
    encoder, decoder = hpack.Encoder(), Decoder(4096, 1_000_000)
    encoder.header_table_size = size
    for expected in lists:
        assert decoder.decode(encoder.encode(expected, huffman=huffman_coded)) == expected


@hypothesis_settings(max_examples=300)
@given(blocks=st.lists(st.one_of(st.binary(max_size=40), st.builds(block, fields)), min_size=1, max_size=4))
def test_any_bytes_decode_as_with_another_decoder(blocks: list[bytes]) -> None:
    """Our decoder may only be stricter: shorter integers, fewer table size updates, no index beyond the table."""
    subject, reference = Decoder(4096, 1_000_000), hpack.Decoder(1_000_000)
    for data in blocks:
        try:
            decoded = subject.decode(data)
        except ConnectionFault:
            return
        assert decoded == [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in reference.decode(data, raw=True)
        ]


@given(st.binary(max_size=60))
def test_huffman_strings_decode_as_with_another_decoder(data: bytes) -> None:
    try:
        expected = hpack.huffman_table.decode_huffman(data)
    except HPACKDecodingError:
        expected = None
    try:
        decoded = huffman.decode(data, 1000)
    except ConnectionFault:
        decoded = None
    assert decoded == expected
