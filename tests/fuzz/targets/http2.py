"""Any bytes that a peer sends to `server: fast`, in any pieces, come to the same calls and to whole frames, and make it
hold no more than its bounds; never an exception.

More is asserted on the way: who was denied brings no call, an answer whose windows are open does not wait, and what has
ended says nothing and holds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz.target import Target
from tests.property.test_grpc_h2 import MAX_BUFFERED_BYTES, SMALL, unsent_without_reason
from tests.support.h2_peer import CALL, block, call_with, frames_of, message
from zta_authz.grpc_h2.connection import Connection, Request, Status
from zta_authz.grpc_h2.errors import ErrorCode
from zta_authz.grpc_h2.frames import PREFACE, SETTINGS_ACK, frame, goaway, rst_stream, settings, window_update

if TYPE_CHECKING:
    from random import Random

    from tests.fuzz.target import Change
    from zta_authz.grpc_h2.connection import Event

INVARIANT = (
    "any bytes of a peer, in any pieces, come to the same calls and whole frames, within the bounds, and never to an "
    "exception"
)
HELLO = PREFACE + settings(())
_MODE_BYTES = 2
_GREETED, _DENIED, _ANSWERED, _TIMED = 1, 2, 4, 8


def check(data: bytes) -> None:
    """The first byte says who we are to the peer and what we do meanwhile, the second how its bytes are cut."""
    mode, size = (*data[:_MODE_BYTES], 0, 0)[:_MODE_BYTES]
    sent = (HELLO if mode & _GREETED else b"") + data[_MODE_BYTES:]
    pieces = [sent[at : at + size + 1] for at in range(0, len(sent), size + 1)]
    _same_in_pieces(sent, pieces)
    _converse(mode, pieces)


def _same_in_pieces(sent: bytes, pieces: list[bytes]) -> None:
    whole, cut = Connection(SMALL, 0.0), Connection(SMALL, 0.0)
    expected = whole.receive(sent, 0.0)
    assert [event for piece in pieces for event in cut.receive(piece, 0.0)] == expected
    assert cut.bytes_to_send() == whole.bytes_to_send()
    assert cut.finished == whole.finished


def _converse(mode: int, pieces: list[bytes]) -> None:
    """Everything that the owner of a connection may do, in the midst of it."""
    connection, now = Connection(SMALL, 0.0), 0.0
    if mode & _DENIED:
        connection.deny("not you")
    for number, piece in enumerate(pieces):
        events = connection.receive(piece, now)
        if mode & _ANSWERED:
            _answer(connection, events, number, now)
        if mode & _TIMED:
            now += 0.5
            events += connection.tick(now)
        assert not (mode & _DENIED and any(isinstance(event, Request) for event in events))
        _judge(connection)
    connection.drain()
    _judge(connection)


def _answer(connection: Connection, events: list[Event], number: int, now: float) -> None:
    for event in events:
        if not isinstance(event, Request):
            continue
        if event.message[:1] == b"!":
            connection.fail(event.stream, Status.INTERNAL, "as it was asked to")
        else:
            connection.respond(event.stream, event.message * (number % 3), now)


def _judge(connection: Connection) -> None:
    frames_of(connection.bytes_to_send())
    assert connection.buffered_bytes <= MAX_BUFFERED_BYTES
    assert unsent_without_reason(connection._out) == []
    if connection.fault is not None:
        assert connection.finished
        assert connection.buffered_bytes == 0
        assert connection.receive(HELLO, 1e6) == []
        assert connection.bytes_to_send() == b""


def _call(stream: int = 1, content: bytes = b"x", fields: bytes | None = None) -> bytes:
    return frame(1, 4, stream, block() if fields is None else fields) + frame(0, 1, stream, message(content))


def seeds() -> dict[str, bytes]:
    """Conversations, proper and not."""
    head = frame(1, 4, 1, block())
    written = {
        "call": _call(),
        "calls": b"".join(_call(stream) for stream in (1, 3, 5, 7)),
        "failed": _call(1, b"!"),
        "timeout": _call(fields=block(call_with(("grpc-timeout", "1S")))),
        "not-grpc": _call(fields=block(call_with((":method", "GET")))),
        "repeated": _call(1)
        + _call(3)
        + _call(5, fields=block() + b"\x40\x01a\x011")
        + _call(7, fields=block() + b"\xbe"),
        "shut-window": settings(((4, 0),)) + _call() + window_update(1, 3) + window_update(0, 1) + settings(((4, 99),)),
        "table": settings(((1, 0), (5, 20_000))) + _call(),
        "padded": frame(1, 12, 1, b"\x03" + block() + bytes(3)) + frame(0, 9, 1, b"\x02" + message(b"x") + bytes(2)),
        "priority": frame(1, 36, 1, bytes(5) + block()) + frame(2, 0, 3, bytes(5)) + frame(0, 1, 1, message(b"x")),
        "continued": frame(1, 1, 1, block()[:9]) + frame(9, 0, 1, block()[9:20]) + frame(9, 4, 1, block()[20:]),
        "trailers": head + frame(0, 0, 1, message(b"x")) + frame(1, 5, 1, block((("a", "b"),))),
        "reset": head + rst_stream(1, ErrorCode.CANCEL) + frame(0, 0, 1, b"late") + _call(3),
        "ping": frame(6, 0, 0, bytes(8)) + SETTINGS_ACK + frame(6, 1, 0, b"zta-gone"),
        "goaway": _call() + goaway(0, ErrorCode.NO_ERROR),
        "large": head + b"".join(frame(0, 0, 1, bytes(600)) for _ in range(3)),
        "bomb": frame(1, 5, 1, b"\x40\x01a\x7f\xa1\x07" + b"x" * 1056 + b"\xbe" * 60),
        "huffman": frame(1, 5, 1, b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"),
        "tiny": head + frame(0, 0, 1, b"x") * 25,
        "http1": b"GET / HTTP/1.1\r\n\r\n",
    }
    named = {f"{name}-{mode}": bytes((mode, 30)) + sent for name, sent in written.items() for mode in (1, 5, 13)}
    denied = {f"{name}-denied": bytes((_GREETED | _DENIED | _TIMED, 7)) + sent for name, sent in written.items()}
    return named | denied | {"empty": b"", "preface": bytes((0, 3)) + HELLO, "half": bytes((0, 0)) + HELLO[:20]}


def within(data: bytes, random: Random, change: Change) -> bytes:
    """Change the payload of one frame, and let its header say the new length."""
    parts, at = [data[:_MODE_BYTES]], _MODE_BYTES
    while at + 9 <= len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        parts.append(data[at : at + 9 + size])
        at += 9 + size
    if len(parts) == 1:
        return change(data)
    chosen = random.randrange(1, len(parts))
    header, payload = parts[chosen][3:9], change(parts[chosen][9:])[:16_384]
    parts[chosen] = len(payload).to_bytes(3, "big") + header + payload
    return b"".join(parts)


WORDS = (
    *(frame(kind, flags, stream, b"") for kind in range(10) for flags, stream in ((0, 1), (5, 3), (1, 0))),
    *(block((field,)) for field in CALL),
    SETTINGS_ACK,
    PREFACE,
    window_update(0, 1),
    window_update(1, 2**31 - 1),
    settings(((4, 0),)),
    settings(((4, 2**31 - 1),)),
    b"\x3f\xe1\x1f",
    b"\x20",
    b"\xbe",
)

TARGET = Target("http2", INVARIANT, check, seeds, WORDS, within)
