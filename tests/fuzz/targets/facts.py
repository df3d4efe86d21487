"""What is known about a caller is read as the documents say, and knowing less never allows more.

The input is read as a sequence of choices: of policies, of a trust model and classes, of requests and facts. So a change of
one byte changes one choice. Decisions, assessments, explanations and counterfactuals are compared with slow readings.
"""

from __future__ import annotations

from random import Random

from tests.fuzz.target import Target
from tests.property import fact_invariants as invariants
from tests.property.fact_shapes import FactShapes, texts_of
from tests.support.policies import snapshot

INVARIANT = "any facts are read as documents say, an unknown one never allows more, and explanations and lifts are true"
_STATES = 3


class Choices(Random):
    """Draws from bytes, and zeros after them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data = data
        self._at = 0

    def getrandbits(self, k: int) -> int:
        """The next `k` bits, from whole bytes."""
        size = (k + 7) // 8
        piece = self._data[self._at : self._at + size].ljust(size, b"\0")
        self._at += size
        return int.from_bytes(piece, "big") >> (8 * size - k)

    def random(self) -> float:
        """The next byte as a part of 1."""
        return self.getrandbits(8) / 256


def check(data: bytes) -> None:
    """Draw documents and states, and compare everything that is said about them."""
    shapes = FactShapes(Choices(data), monotone=True)
    documents = shapes.documents()
    compiled = snapshot(*texts_of(documents))
    for _ in range(_STATES):
        state = shapes.state(documents)
        decision = invariants.agrees(compiled, state)
        invariants.classified_as_read_slowly(compiled, state)
        assessment = invariants.assessed_as_read_slowly(compiled, state)
        invariants.lifts_are_smallest_and_true(compiled, state, assessment)
        invariants.explains_the_same(compiled, state, decision)
        invariants.loses_nothing_by_knowing(compiled, state, decision)


def seeds() -> dict[str, bytes]:
    """Choices at random, and the first and the last of everything."""
    random = Random("facts")
    drawn = {f"drawn-{number}": random.randbytes(400) for number in range(24)}
    return drawn | {"first": b"", "last": b"\xff" * 60, "middle": b"\x80" * 300}


TARGET = Target("facts", INVARIANT, check, seeds)
