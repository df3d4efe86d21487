"""Used DPoP proofs in a table that several processes share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from zta_authz.authn.dpop import WINDOW_SECONDS, Proof
from zta_authz.authn.dpop_shares import SHARES_BYTES, KeyShares
from zta_authz.errors import Reason, Refused
from zta_authz.service.workers import replays
from zta_authz.service.workers.replays import WAYS, SharedReplays, new_table

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_000_000.0
PROOFS = 400


@pytest.fixture
def table() -> Iterator[int]:
    descriptor = new_table(buckets=2)
    yield descriptor
    os.close(descriptor)


def proof(identifier: str, issued_at: float = NOW) -> Proof:
    return Proof("thumbprint", identifier, issued_at)


def refusal(memory: SharedReplays, used: Proof, now: float = NOW) -> Reason | None:
    try:
        memory.remember(used, now)
    except Refused as refused:
        return refused.reason
    return None


def test_a_proof_is_accepted_once_by_all_processes_together(table: int) -> None:
    one, other = SharedReplays(table), SharedReplays(table)
    assert refusal(one, proof("a")) is None
    assert refusal(other, proof("a")) is Reason.DPOP_REPLAYED
    assert refusal(one, proof("a")) is Reason.DPOP_REPLAYED
    assert refusal(other, proof("b")) is None
    assert refusal(one, Proof("another key", "a", NOW)) is None


def test_a_proof_is_remembered_as_long_as_it_could_be_accepted(table: int) -> None:
    memory = SharedReplays(table)
    assert refusal(memory, proof("a")) is None
    assert refusal(memory, proof("a"), NOW + WINDOW_SECONDS) is Reason.DPOP_REPLAYED
    assert refusal(memory, proof("a", NOW + 61), NOW + WINDOW_SECONDS + 1) is None


def test_a_full_bucket_refuses_proofs_until_one_expires(table: int) -> None:
    memory = SharedReplays(table)
    memory._shares = KeyShares(memoryview(bytearray(SHARES_BYTES)), 10_000, hash)  # not what is full here
    outcomes = [refusal(memory, proof(str(number), NOW + number % 2)) for number in range(2 * WAYS + 1)]
    assert outcomes.count(None) <= 2 * WAYS
    refused = outcomes.index(Reason.OVERLOADED)
    assert refused >= WAYS
    assert refusal(memory, proof("0")) is Reason.DPOP_REPLAYED
    assert refusal(memory, proof(str(refused), NOW + 61), NOW + WINDOW_SECONDS + 0.5) is None


def test_one_key_is_limited_to_its_share_over_all_workers(table: int) -> None:
    one, other = SharedReplays(table), SharedReplays(table)  # 128 places, of which half are used
    outcomes = [refusal((one, other)[number % 2], proof(str(number))) for number in range(2 * WAYS)]
    assert outcomes == [None] * (WAYS // 2) + [Reason.OVERLOADED] * (2 * WAYS - WAYS // 2)
    for memory in (one, other):
        assert refusal(memory, Proof(f"another of {id(memory)}", "j", NOW)) is None
    assert refusal(other, proof("0")) is Reason.DPOP_REPLAYED
    assert refusal(other, proof("a", NOW + 99), NOW + 99) is None, "the share is free again when its proofs are over"


def test_an_unfinished_write_of_a_dead_process_hides_no_other_proof(table: int) -> None:
    memory = SharedReplays(table)
    memory._map[64 : 64 + 8] = replays._END.pack(NOW + WINDOW_SECONDS)  # until when, and no name yet
    proofs = [proof(str(number)) for number in range(20)]
    assert [refusal(memory, used) for used in proofs] == [None] * 20
    assert [refusal(memory, used) for used in proofs] == [Reason.DPOP_REPLAYED] * 20


@pytest.mark.parametrize("content", [b"", b"x" * 200, b"ztadpop1", b"ztadpop1" + bytes(56 + 1536 + SHARES_BYTES)])
def test_a_file_that_is_not_a_table_is_refused(content: bytes) -> None:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    with pytest.raises(ValueError):
        SharedReplays(descriptor)
    os.close(descriptor)


OTHER = f"""
import sys
from zta_authz.authn.dpop import Proof
from zta_authz.errors import Refused
from zta_authz.service.workers import replays
from zta_authz.service.workers.replays import SharedReplays

replays.LOCK_SECONDS = 10.0  # the other one may have been interrupted by a busy machine
memory, taken = SharedReplays(int(sys.argv[1])), 0
print("ready", flush=True)
sys.stdin.readline()
for number in range({PROOFS}):
    try:
        memory.remember(Proof("k", str(number), {NOW}), {NOW})
        taken += 1
    except Refused as refused:
        assert refused.reason == "dpop_replayed", refused.reason
print(taken, flush=True)
while sys.argv[2] == "on":
    for number in range(10_000):
        try:
            memory.remember(Proof("k", f"more {{number}}", {NOW}), {NOW})
        except Refused:
            pass
"""


def _process(table: int, then: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OTHER, str(table), then]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[table])


def _reply(process: subprocess.Popen[str], line: str = "") -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if line:
        process.stdin.write(line)
        process.stdin.flush()
    return process.stdout.readline().strip()


def test_of_two_processes_given_the_same_proofs_exactly_one_accepts_each() -> None:
    table = new_table(buckets=64)
    with _process(table, "") as one, _process(table, "") as other:
        assert [_reply(one), _reply(other)] == ["ready", "ready"]
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
        second = int(_reply(other, "go\n"))
        first = int(_reply(one))
    os.close(table)
    assert first + second == PROOFS


def test_a_killed_process_leaves_no_lock_and_its_proofs_stay_used() -> None:
    table = new_table(buckets=64)
    with _process(table, "on") as other:
        assert _reply(other) == "ready"
        assert _reply(other, "go\n") == str(PROOFS)
        other.send_signal(signal.SIGKILL)
    memory = SharedReplays(table)
    proofs = [Proof("k", str(number), NOW) for number in range(PROOFS)]
    assert {refusal(memory, used) for used in proofs} == {Reason.DPOP_REPLAYED}
    assert all(refusal(memory, proof(str(number), NOW + 99), NOW + 98) is None for number in range(64))
    os.close(table)
