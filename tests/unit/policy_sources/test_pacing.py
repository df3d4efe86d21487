"""Rests between slices of work, collections that look at little, and large things that end in pieces."""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref

from tests.support.policies import operation, policy, table
from zta_authz.model.pace import no_pause
from zta_authz.policy_sources.pacing import Slices, beside_deciding, dismantle


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_work_rests_after_each_slice_and_only_then() -> None:
    clock = Clock()
    pause = Slices(0.001, 0.005, clock=clock, sleep=clock.sleep)
    pause()
    assert clock.slept == []
    clock.now += 0.001
    pause()
    pause()
    assert clock.slept == [0.005]


def test_work_in_a_hurry_rests_no_more() -> None:
    clock = Clock()
    pause = Slices(0.001, 0.005, clock=clock, sleep=clock.sleep)
    pause.hurry()
    clock.now += 1
    pause()
    assert clock.slept == [0.0]


def test_what_is_set_for_compiling_is_set_back_after_it_even_where_it_fails() -> None:
    before = gc.get_threshold(), sys.getswitchinterval()
    with contextlib.suppress(ZeroDivisionError), beside_deciding():
        assert gc.get_threshold()[2] > 1_000_000
        assert sys.getswitchinterval() < 0.001
        raise ZeroDivisionError
    assert (gc.get_threshold(), sys.getswitchinterval()) == before


def test_young_garbage_is_still_collected_while_compiling() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    with beside_deciding():
        gone = weakref.ref(Cycle())
        keep = [[] for _ in range(5000)]
        assert gone() is None
    assert keep


class Node:
    """One link of a chain, so long that its end in one go would be felt."""

    def __init__(self, below: Node | None) -> None:
        self.below = below


def test_dismantling_ends_everything_in_as_many_steps_as_there_are_objects() -> None:
    chain = None
    for _ in range(1000):
        chain = Node(chain)
    gone = weakref.ref(chain)
    roots: list[object] = [chain]
    del chain
    pauses: list[int] = []
    assert dismantle(roots, lambda: pauses.append(1)) >= 1000
    assert roots == []
    assert gone() is None
    assert len(pauses) >= 2000


def test_dismantling_leaves_alone_what_others_hold() -> None:
    shared = {"rule": [1]}
    dismantle([{"table": shared}], no_pause)
    assert shared == {"rule": [1]}


def test_no_rule_of_a_table_is_in_a_cycle_so_that_frozen_ones_end_without_a_collection() -> None:
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
