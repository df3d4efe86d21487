"""`python -m tests.differential.run`: many random policy sets and requests, Envoy's verdict beside ours.

Exit status 0 if they agree everywhere, 1 if not, 2 without an Envoy to ask.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, TextIO

import yaml

from tests.differential.aim import requests_for
from tests.differential.compare import REFUSED, compare
from tests.differential.envoy_runner import envoy_binary
from tests.differential.generator import policy_set
from tests.differential.shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.differential.compare import Result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and say by the exit status whether there was a disagreement."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential.run", description=__doc__)
    parser.add_argument("--sets", type=int, default=1000, help="policy sets (%(default)s)")
    parser.add_argument("--requests", type=int, default=21, help="requests a set (%(default)s)")
    parser.add_argument("--seed", type=int, help="which sets and requests; a random one by default")
    parser.add_argument("--first", type=int, default=0, help="number of the first set (%(default)s)")
    parser.add_argument("--batch", type=int, default=100, help="sets in one Envoy (%(default)s)")
    parser.add_argument("--shrink", type=int, default=5, help="disagreements to make small (%(default)s)")
    options = parser.parse_args(arguments)
    binary = envoy_binary()
    if binary is None:
        _say("no Envoy: `make setup` installs one, or ZTA_ENVOY names one", sys.stderr)
        return 2
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    _say(f"seed {seed}: {options.sets} policy sets, {options.requests} requests each")
    return asyncio.run(_run(binary, seed, options))


async def _run(binary: Path, seed: int, options: argparse.Namespace) -> int:
    tally = Tally()
    started = time.monotonic()
    numbers = range(options.first, options.first + options.sets)
    for first in range(0, len(numbers), options.batch):
        sets = [policy_set(seed, number) for number in numbers[first : first + options.batch]]
        cases = [(policies, requests_for(policies, seed, options.requests)) for policies in sets]
        for results in await compare(binary, cases):
            tally.add(results)
        if sys.stderr.isatty():
            _say(f"{tally.decided} requests, {len(tally.disagreements)} disagreements", sys.stderr)
    _say(tally.report(time.monotonic() - started))
    kinds: dict[object, Result] = {}
    for result in tally.disagreements:
        kinds.setdefault(result.signature, result)
    for result in [*kinds.values(), *tally.disagreements][: options.shrink]:
        _say(describe(await shrink(binary, result)))
    return 1 if tally.disagreements else 0


def _say(text: str, stream: TextIO = sys.stdout) -> None:
    stream.write(f"{text}\n")
    stream.flush()


class Tally:
    """What was asked and how it was answered."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.disagreements: list[Result] = []
        self.answers: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.refused_sets = 0

    @property
    def decided(self) -> int:
        """Requests Envoy came to a verdict on."""
        return sum(self.answers[name] for name in ("200 allowed", "401 denied", "403 denied"))

    def add(self, results: Sequence[Result]) -> None:
        """Count the results of one set."""
        self.refused_sets += any(result.reason == REFUSED for result in results)
        for result in results:
            outcome = result.outcome
            if outcome.allowed is None:
                self.answers[f"{outcome.status} not decided"] += 1
                continue
            self.answers[f"{outcome.status} {'allowed' if outcome.allowed else 'denied'}"] += 1
            self.reasons[result.reason] += 1
            if not result.agrees:
                self.disagreements.append(result)

    def report(self, seconds: float) -> str:
        """The counts, as text."""
        lines = [f"{self.decided} requests decided by both in {seconds:.0f} s"]
        lines += [f"  Envoy: {count:6} {name}" for name, count in sorted(self.answers.items())]
        lines += [f"  ours:  {count:6} {name}" for name, count in sorted(self.reasons.items())]
        if self.refused_sets:
            lines.append(f"{self.refused_sets} policy sets did not load")
        lines.append(f"{len(self.disagreements)} disagreements")
        for signature, count in Counter(result.signature for result in self.disagreements).most_common():
            lines.append(f"  {count:6} Envoy {'allows' if signature[0] else 'denies'}, ours: {signature[1]}")
        return "\n".join(lines)


def describe(result: Result) -> str:
    """The disagreement as text: who said what, and the case as YAML."""
    outcome = result.outcome
    ours = "does not load" if result.reason == REFUSED else "allows" if result.ours else "denies"
    head = f"--- Envoy answers {outcome.status}; ours {ours}: {result.reason} ({result.detail})"
    return f"{head}\n{yaml.safe_dump(result.case.data(), sort_keys=False, width=120)}"


if __name__ == "__main__":
    sys.exit(main())
