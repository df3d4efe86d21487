"""Attacks on one connection while another one sends calls: memory and CPU stay limited, and others get their answers.

Test machines are slow and shared, so the limits are wide. They distinguish bounded from unbounded cost.
"""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hyperframe.frame import ContinuationFrame, HeadersFrame, PingFrame

from tests.attack.conftest import ends, send_until_closed
from tests.support.check_requests import check_request
from tests.support.h2_peer import block, message
from zta_authz.grpc_h2.frames import PREFACE, frame, settings, window_update

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.attack.conftest import Victim

MIB = 1024 * 1024
MAX_GROWTH = 64 * MIB
MAX_LATENCY_SECONDS = 1.0
HELLO = PREFACE + settings(())
BLOCK = block()
CALL = message(check_request().SerializeToString())


def head(stream: int, flags: int = 4) -> bytes:
    return frame(1, flags, stream, BLOCK)


def whole_call(stream: int) -> bytes:
    return head(stream) + frame(0, 1, stream, CALL)


def numbered(make: Callable[[int], bytes], at_once: int = 50) -> Callable[[], bytes]:
    """Return a function that returns the bytes of the next `at_once` streams."""
    numbers = itertools.count(1, 2)
    return lambda: b"".join(make(next(numbers)) for _ in range(at_once))


def repeated(data: bytes) -> Callable[[], bytes]:
    return lambda: data


FLOODS: dict[str, Callable[[], Callable[[], bytes]]] = {
    "rapid reset": lambda: numbered(lambda stream: head(stream) + frame(3, 0, stream, (8).to_bytes(4, "big"))),
    "made to reset": lambda: numbered(lambda stream: head(stream) + window_update(stream, 0)),
    "malformed requests": lambda: numbered(lambda stream: frame(1, 5, stream, b"\x82")),
    "SETTINGS": lambda: repeated(settings(()) * 50),
    "large SETTINGS": lambda: repeated(settings([(4, number) for number in range(2000)])),
    "PING": lambda: repeated(PingFrame(0, bytes(8)).serialize() * 50),
    "WINDOW_UPDATE": lambda: repeated(window_update(0, 1) * 50),
    "empty DATA": lambda: repeated(frame(0, 0, 1, b"") * 50),
    "DATA in tiny pieces": lambda: repeated(frame(0, 0, 1, b"\0") * 50),
    "PRIORITY": lambda: repeated(frame(2, 0, 3, bytes(5)) * 50),
    "unknown frames": lambda: repeated(frame(0x99, 0, 0, b"") * 50),
    "CONTINUATION": lambda: repeated(ContinuationFrame(1, data=b"").serialize() * 50),
    "large CONTINUATION": lambda: repeated(ContinuationFrame(1, data=bytes(16_384)).serialize()),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_cut_off(victim: Victim, name: str) -> None:
    before = victim.resident_bytes
    first = HeadersFrame(1, data=b"\x82").serialize() if "CONTINUATION" in name else head(1) if "DATA" in name else b""
    with victim.watched() as latencies, victim.connect() as attacker:
        attacker.sendall(HELLO + first)
        assert send_until_closed(attacker, FLOODS[name](), seconds=10), "the flood was never cut off"
    assert latencies
    assert max(latencies) < MAX_LATENCY_SECONDS
    assert victim.resident_bytes - before < MAX_GROWTH


HUGE_TABLES = {
    "a table of 4 GiB": frame(1, 5, 1, b"\x3f\xe0\xff\xff\xff\x0f" + BLOCK),
    "a list of 60 MB in 16 kB": frame(1, 5, 1, b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000 + b"\xbe" * 12_000),
    "an integer without end": frame(1, 5, 1, b"\x3f" + b"\xff" * 16_000),
}


@pytest.mark.parametrize("name", HUGE_TABLES)
def test_header_compression_can_not_exhaust_memory(victim: Victim, name: str) -> None:
    before = victim.resident_bytes
    with victim.watched() as latencies:
        for _ in range(50):
            with victim.connect() as attacker:
                attacker.sendall(HELLO + HUGE_TABLES[name])
                assert ends(attacker)
    assert max(latencies) < MAX_LATENCY_SECONDS
    assert victim.resident_bytes - before < MAX_GROWTH


def test_a_peer_that_offers_a_huge_header_table_gets_no_encoder_state(victim: Victim) -> None:
    before = victim.resident_bytes
    with victim.connect() as attacker:
        attacker.sendall(PREFACE + settings(((1, 2**32 - 1),)) + whole_call(1))
        assert b"grpc-status" in read_until(attacker, b"grpc-status")
    assert victim.resident_bytes - before < MAX_GROWTH


def read_until(attacker: socket.socket, text: bytes) -> bytes:
    received = b""
    while text not in received:
        more = attacker.recv(1 << 16)
        if not more:
            break
        received += more
    return received


def test_slow_requests_are_ended_and_cost_little(victim: Victim) -> None:
    """Slowloris: each of a hundred connections sends a byte now and then."""
    half = (HELLO + whole_call(1))[: len(HELLO) + 30]
    with victim.watched() as latencies, ExitStack() as stack:
        attackers = [stack.enter_context(victim.connect()) for _ in range(100)]
        for attacker in attackers:
            attacker.sendall(half[:-10])
        for byte in half[-10:]:
            time.sleep(0.1)
            for attacker in attackers:
                attacker.sendall(bytes((byte,)))
        cpu = victim.cpu_seconds
        time.sleep(1.0)
        assert victim.cpu_seconds - cpu < 0.9
        assert all(ends(attacker) for attacker in attackers)
    assert max(latencies) < MAX_LATENCY_SECONDS


def test_silent_connections_are_ended(victim: Victim) -> None:
    with ExitStack() as stack:
        assert all(ends(attacker) for attacker in [stack.enter_context(victim.connect()) for _ in range(20)])


def test_a_request_that_never_ends_is_reset(victim: Victim) -> None:
    with victim.connect() as attacker:
        attacker.sendall(HELLO + head(1) + frame(0, 0, 1, CALL[:10]))
        assert frame(3, 0, 1, (8).to_bytes(4, "big")) in read_until(attacker, frame(3, 0, 1, (8).to_bytes(4, "big")))


def test_a_window_that_never_opens_ends_its_connection(victim: Victim) -> None:
    before = victim.resident_bytes
    with victim.watched() as latencies, victim.connect() as attacker:
        attacker.sendall(PREFACE + settings(((4, 0),)))
        ended = send_until_closed(attacker, numbered(whole_call), seconds=1)
        assert ended or ends(attacker)
    assert max(latencies) < MAX_LATENCY_SECONDS
    assert victim.resident_bytes - before < MAX_GROWTH


def test_a_peer_that_does_not_read_is_no_longer_read_from_and_its_connection_ends(victim: Victim) -> None:
    """It sends calls with open windows, and never reads an answer from its socket."""
    before = victim.resident_bytes
    with victim.watched() as latencies, victim.connect() as attacker:
        attacker.sendall(PREFACE + settings(((4, 2**31 - 1),)) + window_update(0, 2**31 - 1 - 65_535))
        assert send_until_closed(attacker, numbered(whole_call), seconds=20), "the connection was never closed"
    assert max(latencies) < MAX_LATENCY_SECONDS
    assert victim.resident_bytes - before < MAX_GROWTH


def test_a_flood_of_calls_leaves_others_their_share(victim: Victim) -> None:
    """The calls are valid, and each is answered. The flood gets its share of CPU, not all."""
    with victim.watched() as latencies, victim.connect() as attacker:
        attacker.sendall(PREFACE + settings(((4, 2**31 - 1),)) + window_update(0, 2**31 - 1 - 65_535))
        flood = numbered(whole_call, at_once=200)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            attacker.sendall(flood())
            read_answers(attacker, 200)
    assert max(latencies) < MAX_LATENCY_SECONDS


def read_answers(attacker: socket.socket, count: int) -> None:
    received = b""
    while received.count(b"grpc-status") < count:
        more = attacker.recv(1 << 18)
        assert more, "the connection was ended"
        received += more


def queue_answers(attacker: socket.socket, count: int) -> None:
    """Make `count` answers wait, each for its stream's window."""
    attacker.sendall(PREFACE + settings(((4, 0),)))
    attacker.sendall(b"".join(whole_call(2 * number + 1) for number in range(count)))
    received = b""
    while received.count(b"application/grpc") < count:
        more = attacker.recv(1 << 18)
        assert more, "the connection was ended"
        received += more


def test_one_byte_window_updates_with_many_blocked_streams_cost_little(victim: Victim) -> None:
    """Work proportional to frames times waiting answers would take seconds."""
    with victim.watched() as latencies, victim.connect() as attacker:
        queue_answers(attacker, 900)
        cpu = victim.cpu_seconds
        attacker.sendall(window_update(0, 1) * 5000)
        assert ends(attacker)  # the streams' own windows stay closed
        assert victim.cpu_seconds - cpu < 1.5
    assert max(latencies) < MAX_LATENCY_SECONDS


def test_thousands_of_windows_in_settings_frames_cost_little(victim: Victim) -> None:
    many = settings((4, number % 7) for number in range(2700))
    with victim.watched() as latencies, victim.connect() as attacker:
        attacker.sendall(HELLO)
        for number in range(900):
            attacker.sendall(head(2 * number + 1) + window_update(2 * number + 1, 1))
        cpu = victim.cpu_seconds
        attacker.sendall(many * 15)
        time.sleep(0.5)
        assert victim.cpu_seconds - cpu < 0.5
    assert max(latencies) < MAX_LATENCY_SECONDS


def test_many_small_calls_in_one_piece_leave_others_their_share(victim: Victim) -> None:
    """Calls without a message are answered while they are read: others must not wait for all of them."""
    with victim.watched() as latencies, ExitStack() as stack:
        attackers = [stack.enter_context(victim.connect()) for _ in range(4)]
        pieces = [PREFACE + settings(()) + numbered(lambda stream: head(stream, 5), at_once=2000)() for _ in attackers]
        for attacker, piece in zip(attackers, pieces, strict=True):
            attacker.sendall(piece)
        for attacker in attackers:
            read_answers(attacker, 2000)
    assert max(latencies) < MAX_LATENCY_SECONDS
