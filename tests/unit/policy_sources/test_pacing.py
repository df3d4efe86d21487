"""Pauses between slices of work, collections of young objects only, and gradual release of large sets."""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref
from typing import TYPE_CHECKING

import pytest

from tests.support.pki import NOW, Signer
from tests.support.policies import ISTIO, STRICT, operation, policy, table
from tests.unit.authn.support import accept, bearer, rule, verifier
from zta_authz.authn.accepted_tokens import CachedToken, TokenCache
from zta_authz.authn.token_verifier import TokenVerifier
from zta_authz.model.pace import no_pause
from zta_authz.policy_sources.pacing import (
    FEW_BLOCKS,
    CooperativePause,
    background_compilation,
    collect_rarely,
    freeze_gc,
    freeze_growth,
    release_gradually,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.model.options import Options


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_work_pauses_after_each_slice_and_only_then() -> None:
    clock = Clock()
    pause = CooperativePause(0.001, 0.005, clock=clock, sleep=clock.sleep)
    pause()
    assert clock.slept == []
    clock.now += 0.001
    pause()
    pause()
    assert clock.slept == [0.005]


def test_after_hurry_work_does_not_pause() -> None:
    clock = Clock()
    pause = CooperativePause(0.001, 0.005, clock=clock, sleep=clock.sleep)
    pause.hurry()
    clock.now += 1
    pause()
    assert clock.slept == [0.0]


def test_interpreter_settings_are_restored_after_compilation_even_if_it_fails() -> None:
    before = gc.get_threshold(), sys.getswitchinterval()
    with contextlib.suppress(ZeroDivisionError), background_compilation():
        assert gc.get_threshold()[2] > 1_000_000
        assert sys.getswitchinterval() < 0.001
        raise ZeroDivisionError
    assert (gc.get_threshold(), sys.getswitchinterval()) == before


def test_young_garbage_is_still_collected_while_compiling() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    with background_compilation():
        gone = weakref.ref(Cycle())
        keep = [[] for _ in range(5000)]
        assert gone() is None
    assert keep


class Node:
    """One link of a long chain, which takes noticeable time to free at once."""

    def __init__(self, below: Node | None) -> None:
        self.below = below


def test_gradual_release_frees_everything_in_one_step_per_object() -> None:
    chain = None
    for _ in range(1000):
        chain = Node(chain)
    gone = weakref.ref(chain)
    roots: list[object] = [chain]
    del chain
    pauses: list[int] = []
    assert release_gradually(roots, lambda: pauses.append(1)) >= 1000
    assert roots == []
    assert gone() is None
    assert len(pauses) >= 2000


def test_gradual_release_keeps_objects_with_other_references() -> None:
    shared = {"rule": [1]}
    release_gradually([{"table": shared}], no_pause)
    assert shared == {"rule": [1]}


def test_no_rule_of_a_table_is_in_a_cycle_so_frozen_rules_are_freed_without_a_collection() -> None:
    rules = [operation(paths=[f"/a{number}", f"/b{number % 7}*"]) for number in range(300)]
    made = table([policy("p", *rules), policy("d", *rules, action="DENY")])
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        del made
        freed = before - len(gc.get_objects())
    finally:
        gc.enable()
    assert freed > 1000
    assert gc.collect() < 50


class Cycle:
    """A cycle, which only the collector can free."""

    def __init__(self) -> None:
        self.me = self


def old_garbage() -> weakref.ref[Cycle]:
    """Create garbage that survived two collections, like a batch that waits for a dead collector."""
    referenced = Cycle()
    gc.collect(0)
    gc.collect(1)
    return weakref.ref(referenced)


@pytest.fixture
def settled() -> Iterator[None]:
    """Freeze everything, as after the start of the service, and allow only explicit collections."""
    freeze_gc(at_start=True)
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.usefixtures("settled")
def test_a_reload_of_few_rules_freezes_nothing() -> None:
    frozen = gc.get_freeze_count()
    under_way = Cycle()
    for _ in range(20):
        with background_compilation():
            rules = [[str(number)] for number in range(1000)]
            freeze_gc()
    gone = weakref.ref(under_way)
    del under_way
    assert gc.get_freeze_count() <= frozen
    gc.collect()
    assert gone() is None
    assert rules


@pytest.mark.usefixtures("settled")
def test_a_reload_of_many_rules_hides_them_from_the_collector() -> None:
    with background_compilation():
        rules = [[str(number)] for number in range(FEW_BLOCKS)]
        freeze_gc()
    assert gc.get_freeze_count() > FEW_BLOCKS
    assert len(gc.get_objects()) < 1000
    assert rules


@pytest.mark.usefixtures("settled")
def test_a_full_collection_never_looks_at_many_new_rules() -> None:
    looked: list[int] = []

    def look(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            looked.append(len(gc.get_objects(generation=2)) if info["generation"] == 2 else 0)

    gc.callbacks.append(look)
    try:
        with background_compilation():
            rules = [[str(number)] for number in range(FEW_BLOCKS)]
            freeze_gc()
    finally:
        gc.callbacks.remove(look)
    assert looked[-2:] == [0, 0]  # of the young, and of what is left in sight: nothing
    assert rules


@pytest.mark.usefixtures("settled")
def test_growth_is_hidden_from_the_collector_and_freed_without_it() -> None:
    grown = [[number] for number in range(1000)]
    before = gc.get_freeze_count()
    try:
        freeze_growth()
        assert gc.get_freeze_count() >= before + len(grown)
    finally:
        gc.unfreeze()


def test_full_collections_are_rare_where_objects_live_long() -> None:
    thresholds = gc.get_threshold()
    try:
        collect_rarely()
        assert gc.get_threshold()[:2] == (700, 10)
        assert gc.get_threshold()[2] >= 100 * 10
    finally:
        gc.set_threshold(*thresholds)


def test_frozen_objects_do_not_postpone_the_next_full_collection() -> None:
    gone = old_garbage()
    gc.enable()
    for _ in range(701 * 11 * 12):  # young garbage, until full collections are due
        Cycle()
    assert gone() is None


def _verifiers() -> list[object]:
    return [item for item in gc.get_objects() if isinstance(item, TokenVerifier | TokenCache | CachedToken)]


@pytest.mark.parametrize("options", [STRICT, ISTIO], ids=["strict", "istio"])
def test_no_used_verifier_is_in_a_cycle_so_frozen_verifiers_are_freed_without_a_collection(
    options: Options,
) -> None:
    others = _verifiers()  # of other tests, and kept until the end: no address of theirs is used again
    made = verifier(rule(), options=options)
    accept(made, bearer(Signer().token()), now=NOW)
    gc.collect()
    gc.disable()
    try:
        roots: list[object] = [made]
        del made
        release_gradually(roots, no_pause)
        left = len({id(item) for item in _verifiers()} - {id(item) for item in others})
    finally:
        gc.enable()
    assert left == 0
