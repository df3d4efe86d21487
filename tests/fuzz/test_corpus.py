"""The invariants of the fuzz targets over the kept corpus, the seeds and seeded mutations of both; no fuzzer is needed."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from tests.fuzz import run
from tests.fuzz.mutate import next_input
from tests.fuzz.target import MAX_BYTES, Target
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
_MUTATIONS = 250
_ANY = 40
_KEPT_BYTES = 4096
_KEPT_FILES = 150
_SECRET = re.compile(rb"PRIVATE KEY|/(?:root|tmp|home|work)/")
_BY_NAME = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@functools.cache
def kept(name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((CORPUS / name).glob("*"))}


@_BY_NAME
def test_the_invariant_holds_for_every_kept_input_and_seed(target: Target) -> None:
    inputs = {**kept(target.name), **target.seeds()}
    for name, data in inputs.items():
        try:
            target.hold(data)
        except Exception as error:
            error.add_note(f"with {target.name}/{name}: {target.invariant}")
            raise


@_BY_NAME
def test_the_invariant_holds_for_inputs_that_are_changed(target: Target) -> None:
    random = Random(f"changes of {target.name}")
    pool = [*kept(target.name).values(), *target.seeds().values()]
    for _ in range(_MUTATIONS):
        data = next_input(target, pool, random)
        try:
            target.hold(data)
        except Exception as error:
            error.add_note(f"with {data!r}: {target.invariant}")
            raise


@_BY_NAME
def test_the_invariant_holds_for_any_bytes(target: Target) -> None:
    @given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
    @settings(max_examples=_ANY, deadline=None, database=None)
    def holds(data: bytes) -> None:
        target.hold(data)

    holds()


@_BY_NAME
def test_a_target_says_its_invariant_and_begins_with_inputs_that_are_not_too_long(target: Target) -> None:
    assert target.invariant.startswith(("any ", "what "))
    seeds = target.seeds()
    assert seeds
    assert all(len(data) <= MAX_BYTES for data in seeds.values()), [n for n, d in seeds.items() if len(d) > MAX_BYTES]
    assert seeds == target.seeds(), "the same inputs in every run, or what was found is not found again"


def test_the_runner_knows_every_target_and_the_corpus_has_no_other() -> None:
    assert tuple(TARGETS) == run.NAMES
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


@_BY_NAME
def test_kept_inputs_are_few_and_small_and_hold_no_secret(target: Target) -> None:
    files = kept(target.name)
    assert 0 < len(files) <= _KEPT_FILES
    for name, data in files.items():
        assert len(data) <= _KEPT_BYTES, name
        assert not _SECRET.search(data), name
