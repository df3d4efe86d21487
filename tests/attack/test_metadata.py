"""Attacks through a proxy that copies client headers, above all `tracestate`, into its call's metadata."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import pytest
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from tests.attack.test_attacks import BLOCK, CALL, HELLO, MAX_GROWTH, read_until
from zta_authz.grpc_h2.frames import frame, window_update

if TYPE_CHECKING:
    from tests.attack.conftest import Victim

CALLS = 300
PROXY_TIMEOUT_SECONDS = 0.2
_FIRST = {"not indexed": 0x00, "indexed": 0x40}
_FRAME_BYTES = 16_384


def coded(symbol: bytes, eights: int) -> bytes:
    """Encode `eights` times eight symbols, whose codes together are whole bytes."""
    raw = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(symbol * 8) * eights
    length = encode_integer(len(raw), 7)
    length[0] |= 0x80
    return bytes(length) + raw


def call_with_state(stream: int, state: bytes, first: int) -> bytes:
    block = BLOCK + bytes((first, 10)) + b"tracestate" + state
    pieces = [block[at : at + _FRAME_BYTES] for at in range(0, len(block), _FRAME_BYTES)]
    frames = [frame(1 if at == 0 else 9, 0, stream, piece) for at, piece in enumerate(pieces[:-1])]
    last = frame(9 if frames else 1, 4, stream, pieces[-1])
    return b"".join(frames) + last + frame(0, 1, stream, CALL)


def cost(victim: Victim, state: bytes, first: int) -> tuple[float, list[float]]:
    """CPU seconds of `CALLS` consecutive calls, all answered, and the latencies of others meanwhile."""
    with victim.watched() as latencies, victim.connect() as attacker:
        attacker.sendall(HELLO + window_update(0, 2**30))
        calls = [call_with_state(2 * number + 1, state, first) for number in range(CALLS)]
        before = victim.cpu_seconds
        for call in calls:
            attacker.sendall(call)
            assert b"grpc-status\x010" in read_until(attacker, b"grpc-status\x01")
        spent = victim.cpu_seconds - before
    return spent, latencies


@pytest.mark.parametrize("indexed", _FIRST)
@pytest.mark.parametrize("symbol", [b"0", b"\xfe"], ids=["short codes", "long codes"])
def test_a_long_trace_state_costs_little_more_than_a_short_one(victim: Victim, indexed: str, symbol: bytes) -> None:
    control, others = cost(victim, coded(symbol, 1), _FIRST[indexed])
    memory = victim.resident_bytes
    attack, watched = cost(victim, coded(symbol, 58_000 // 8), _FIRST[indexed])
    assert attack - control < CALLS * 0.003  # completely decoded, it took 7 to 13 ms
    for latencies in (others, watched):
        assert statistics.quantiles(latencies, n=100)[98] < PROXY_TIMEOUT_SECONDS
    assert victim.resident_bytes - memory < MAX_GROWTH
