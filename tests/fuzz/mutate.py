"""Seeded mutations, for the runs without a coverage-guided fuzzer: what libFuzzer does first, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz.target import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from tests.fuzz.target import Target


def next_input(target: Target, pool: Sequence[bytes], random: Random) -> bytes:
    """One of `pool`, changed; within its form, where the target knows one, as often as not."""

    def change(data: bytes) -> bytes:
        return mutated(data, pool, target.words, random)

    data = random.choice(pool)
    if target.within is not None and random.random() < 0.7:
        return target.within(data, random, change)[:MAX_BYTES]
    return change(data)


def mutated(data: bytes, others: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    """`data` after one to four changes: bytes changed, taken out, doubled, words put in, a part of another input."""
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randint(0, len(data))
        end = min(len(data), at + random.choice((1, 1, 2, 8, 64)))
        match random.randrange(7):
            case 0:
                data = data[:at] + bytes((random.randrange(256),)) + data[at + 1 :]
            case 1 if at < len(data):
                data = data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :]
            case 2:
                data = data[:at] + data[end:]
            case 3:
                data = data[:end] + data[at:end] * random.choice((1, 2, 16)) + data[end:]
            case 4 if words:
                data = data[:at] + random.choice(words) + data[random.choice((at, end)) :]
            case 5:
                other = random.choice(others)
                cut = random.randint(0, len(other))
                data = data[:at] + other[cut : cut + (end - at) * 4] + data[end:]
            case _:
                data = data[:at] + bytes(random.randrange(256) for _ in range(end - at)) + data[at:]
    return data[:MAX_BYTES]
