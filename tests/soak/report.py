"""What a soak has found: a table for people, and what was wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.soak.load import Answered

WARM_UP = 0.4
"""The part of the run after which memory should be flat."""
SLOPE_FROM_SECONDS = 300.0
MAX_SLOPE_KIB_PER_MINUTE = 4096.0
IN_FLIGHT = 3
"""Senders, each with one request at a time: so many calls can be in work when a process dies."""


@dataclass(frozen=True, slots=True)
class Late:
    """What became of calls whose time was over: told by Envoy, and counted by the service (all workers together).

    Envoy's timeouts are those of whole calls, which it tells the service, and of tries, which it does not.
    """

    envoy_timeouts: int
    envoy_tries: int
    answered: float
    denied: float
    failed: float

    @classmethod
    def told(cls, metrics: str, envoy_timeouts: int, envoy_tries: int) -> Late:
        """From the page `/metrics`."""
        return cls(
            envoy_timeouts,
            envoy_tries,
            answered=_sum(metrics, "zta_late_answers_total"),
            denied=_sum(metrics, "zta_decisions_total", reason="deadline_exceeded"),
            failed=_sum(metrics, "zta_calls_failed_total"),
        )

    @property
    def counted(self) -> float:
        """By the service."""
        return self.answered + self.denied + self.failed


def _sum(metrics: str, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@dataclass(frozen=True, slots=True)
class Result:
    """Of one run. `memory` are seconds since its begin and KiB of the worker that lived; `undecided` as Envoy counts."""

    seconds: float
    answered: Sequence[Answered]
    wrong: Sequence[Answered]
    exact: int
    undecided: int
    broken: Sequence[str]
    late: Late
    memory: Sequence[tuple[float, int]]
    kills: int
    events: Sequence[tuple[str, int]]

    @property
    def unanswered(self) -> int:
        """Requests that were turned away because no decision came, as the senders saw it."""
        return sum(each.status == 503 and not each.decided for each in self.answered)

    def slope(self) -> float:
        """KiB a minute that the steady worker grows by after the warm-up: least squares."""
        flat = self._after_warm_up()
        if len(flat) < 3:
            return 0.0
        mean_at, mean_size = (sum(column) / len(flat) for column in zip(*flat, strict=True))
        spread = sum((at - mean_at) ** 2 for at, _ in flat)
        return float(60 * sum((at - mean_at) * (size - mean_size) for at, size in flat) / spread)

    def _after_warm_up(self) -> list[tuple[float, int]]:
        return [(at, size) for at, size in self.memory if at >= WARM_UP * self.seconds and size]

    def faults(self) -> Iterator[str]:
        """What went wrong, in words."""
        yield from (f"wrong: {each}" for each in self.wrong[:20])
        yield from (f"connection: {text}" for text in self.broken[:5])
        if self.unanswered != self.undecided:
            yield f"{self.unanswered} requests had no decision, but Envoy counted {self.undecided}"
        if self.unanswered > IN_FLIGHT * self.kills:
            yield f"{self.unanswered} requests had no decision, with {self.kills} workers killed"
        if self.late.envoy_timeouts > self.late.counted + IN_FLIGHT * self.kills:
            yield f"Envoy waited in vain {self.late.envoy_timeouts} times, but late are {self.late}"
        if self.seconds >= SLOPE_FROM_SECONDS and self.slope() > MAX_SLOPE_KIB_PER_MINUTE:
            yield f"memory grows by {self.slope():.0f} KiB a minute"

    def table(self) -> str:
        """One line for each measurement."""
        times = sorted(each.ended - each.sent for each in self.answered)
        sizes = [size / 1024 for _, size in self.memory if size]
        warm = [size / 1024 for _, size in self._after_warm_up()] or sizes
        late, flat = self.late, self.seconds * (1 - WARM_UP)
        rows = [
            ("seconds", f"{self.seconds:.0f}"),
            ("requests", f"{len(self.answered)}"),
            ("wrong verdicts", f"{len(self.wrong)}, {self.exact} could have only one right answer"),
            ("without a decision", f"{self.unanswered}, by Envoy's count {self.undecided}"),
            ("Envoy waited in vain", f"{late.envoy_timeouts} calls to their deadline, {late.envoy_tries} tries"),
            ("late, by our count", f"{late.denied:.0f} denied, {late.answered:.0f} decided, {late.failed:.0f} dropped"),
            ("latency", f"median {_ms(times, 50)}, p99 {_ms(times, 99)}, p99.9 {_ms(times, 99.9)}"),
            *((name, f"{count}") for name, count in self.events),
            ("memory of a worker", f"{sizes[0]:.0f} MiB at first, {warm[0]:.0f} warm, {sizes[-1]:.0f} at the end"),
            ("its slope, warm", f"{self.slope() / 1024:+.2f} MiB a minute over {flat:.0f} s"),
        ]
        return "".join(f"{name:24}{value}\n" for name, value in rows)


def _ms(times: Sequence[float], percent: float) -> str:
    return f"{times[min(len(times) - 1, int(len(times) * percent / 100))] * 1000:.1f} ms"
