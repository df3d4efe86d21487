"""Attacks by number: half-open handshakes, connections, unauthorized peers, and the memory of many together."""

from __future__ import annotations

import ssl
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from tests.attack.conftest import UNAUTHORIZED, ends, send_until_closed
from tests.attack.test_attacks import (
    HELLO,
    MAX_GROWTH,
    MAX_LATENCY_SECONDS,
    MIB,
    head,
    numbered,
    read_until,
    whole_call,
)
from zta_authz.grpc_h2.frames import frame

if TYPE_CHECKING:
    import socket

    from tests.attack.conftest import Victim

CLIENT_HELLO_BEGINS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
CONNECTIONS = 200
"""The maximum in the victim's settings."""


def is_answered(attacker: socket.socket) -> bool:
    attacker.sendall(HELLO + whole_call(1))
    return b"grpc-status" in read_until(attacker, b"grpc-status")


def test_unfinished_handshakes_do_not_block_honest_clients(victim: Victim) -> None:
    """Three times the allowed number of handshakes; an honest client still connects."""
    before = victim.resident_bytes
    with victim.watched() as latencies, ExitStack() as stack:
        attackers = []
        for number in range(3 * 64):
            attackers.append(stack.enter_context(victim.secured.connect_plain()))
            if number % 2:
                attackers[-1].sendall(CLIENT_HELLO_BEGINS)
        begun = time.monotonic()
        with victim.secured.connect() as honest:
            assert is_answered(honest)
        assert time.monotonic() - begun < 5.0
        assert all(ends(attacker) for attacker in attackers)
    assert max(latencies) < MAX_LATENCY_SECONDS
    assert victim.resident_bytes - before < MAX_GROWTH


def test_a_slow_handshake_is_ended(victim: Victim) -> None:
    with victim.secured.connect_plain() as attacker:
        attacker.sendall(CLIENT_HELLO_BEGINS)
        begun = time.monotonic()
        assert ends(attacker)
        assert 1.0 < time.monotonic() - begun < 6.0


def test_garbage_instead_of_a_handshake_is_ended_and_costs_little(victim: Victim) -> None:
    cpu = victim.cpu_seconds
    with victim.watched() as latencies:
        for _ in range(200):
            with victim.secured.connect_plain() as attacker:
                attacker.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert ends(attacker)
    assert max(latencies) < MAX_LATENCY_SECONDS
    assert victim.cpu_seconds - cpu < 5.0


def test_continuous_handshakes_leave_others_their_share(victim: Victim) -> None:
    with victim.watched() as latencies:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            victim.secured.connect().close()
    assert max(latencies) < MAX_LATENCY_SECONDS


def test_a_connection_above_the_limit_is_closed_and_the_open_ones_are_served(victim: Victim) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(victim.secured.connect())
        assert is_answered(first)
        ended = 0
        for _ in range(CONNECTIONS + 20):
            try:
                attacker = stack.enter_context(victim.secured.connect())
                attacker.sendall(HELLO)
            except (ssl.SSLError, OSError):
                ended += 1
        assert ended >= 20
        first.sendall(whole_call(3))
        assert b"grpc-status" in read_until(first, b"grpc-status")


def test_unauthorized_peers_get_few_connections_and_not_for_long(victim: Victim) -> None:
    with victim.watched() as latencies, ExitStack() as stack:
        unauthorized_peers = [stack.enter_context(victim.secured.connect(UNAUTHORIZED)) for _ in range(30)]
        alive = 0
        for unauthorized_peer in unauthorized_peers:
            with suppress(OSError):
                alive += is_answered(unauthorized_peer)
        assert alive <= 8
        with victim.secured.connect() as honest:
            assert is_answered(honest)
        begun = time.monotonic()
        assert all(ends(unauthorized_peer) for unauthorized_peer in unauthorized_peers)
        assert time.monotonic() - begun < 8.0
    assert max(latencies) < MAX_LATENCY_SECONDS


def test_a_flood_of_calls_from_an_unauthorized_peer_is_denied_and_ends(victim: Victim) -> None:
    before = victim.resident_bytes
    with victim.watched() as latencies, victim.secured.connect(UNAUTHORIZED) as unauthorized_peer:
        unauthorized_peer.sendall(HELLO)
        assert send_until_closed(unauthorized_peer, numbered(whole_call), seconds=15)
    assert max(latencies) < MAX_LATENCY_SECONDS
    assert victim.resident_bytes - before < MAX_GROWTH


def test_a_peer_over_tls_that_does_not_read_is_ended(victim: Victim) -> None:
    before = victim.resident_bytes
    with victim.watched() as latencies, victim.secured.connect() as attacker:
        attacker.sendall(HELLO)
        assert send_until_closed(attacker, numbered(whole_call), seconds=20), "the connection was never closed"
    assert max(latencies) < MAX_LATENCY_SECONDS
    assert victim.resident_bytes - before < MAX_GROWTH


def test_the_memory_of_many_connections_together_is_limited(victim: Victim) -> None:
    """Each of 40 connections stays within its own limit with a large unfinished message: 160 MiB in all."""
    before = victim.resident_bytes
    growth = 0
    piece = frame(0, 0, 1, bytes(16_384))
    with victim.watched() as latencies, ExitStack() as stack:
        for _ in range(40):
            attacker = stack.enter_context(victim.connect())
            with suppress(OSError):
                attacker.sendall(HELLO + head(1) + frame(0, 0, 1, b"\0" + (4 * MIB).to_bytes(4, "big")))
                for _ in range(250):
                    attacker.sendall(piece)
            growth = max(growth, victim.resident_bytes - before)
    assert growth < 3 * MAX_GROWTH // 2
    assert max(latencies) < MAX_LATENCY_SECONDS
