"""Measure the CPU time of one decision without transport: parse, verify, evaluate rules, record, encode.

There are 1,000 policies, and the identity caches are warm, as for every request of a caller except its first. CPU time
is measured because machines are shared. The parts are measured separately and add up to about the total.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

from bench import scenario
from zta_authz.audit.record import encode_line, make_record
from zta_authz.audit.sinks import capture
from zta_authz.authorizer import Authorizer
from zta_authz.ext_authz.request import CheckRequestParser
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.ext_authz.servicer import CheckServicer
from zta_authz.pdp.decide import combine, evaluate
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy_sources.files import SnapshotHolder, load_snapshot
from zta_authz.settings import load_settings
from zta_authz.telemetry.observer import build_observer

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.model.decision import Decision
    from zta_authz.model.request import RequestAttributes
    from zta_authz.ports import Metadata

TARGET_US = 40.0
_ROUNDS = 51
_CALLS = 200
_ID = "0" * 32


class _Recorder:
    """An audit sink that does all the work for a record, including the writer's, and discards the result."""

    def record(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
        table_digest: str = "",
    ) -> bool:
        """Build the bytes that a real sink would write."""
        return bool(encode_line(make_record(capture(request, decision, decision_id, now))))


def _median_us(call: Callable[[], object]) -> float:
    call()
    rounds = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        for _ in range(_CALLS):
            call()
        rounds.append((time.process_time() - started) / _CALLS * 1e6)
    return round(statistics.median(rounds), 2)


def measure(case: str, policies: int) -> dict[str, float]:
    """Return the microseconds of the whole decision and of its parts."""
    with tempfile.TemporaryDirectory() as directory:
        case_files = scenario.build(case, policies, Path(directory))
        settings = load_settings(str(case_files.config), {})
        snapshot = load_snapshot(settings.policies, settings.options())
    holder = SnapshotHolder()
    holder.publish(snapshot)
    parse, encode = CheckRequestParser().parse, ResponseEncoder().encode
    authorizer = Authorizer(parse, encode, holder, _Recorder(), build_observer())
    servicer = CheckServicer(authorizer)
    gc.collect()
    gc.freeze()
    request, evidence = parse(case_files.request)
    now = time.time()
    decision = evaluate(snapshot, request, evidence, now)
    if not decision.allowed:
        raise SystemExit(f"the scenario is broken: {decision}")

    def whole() -> bytes:
        return servicer.check(case_files.request)

    view = snapshot.table.default_view
    return {
        "whole": _median_us(whole),
        "parse": _median_us(lambda: parse(case_files.request)),
        "verify identity": _median_us(lambda: snapshot.verifier.verify(request, evidence, now)),
        "match rules": _median_us(
            lambda: combine(view, Inputs(request, decision.identity, snapshot.options, now), default_allow=False)
        ),
        "decide": _median_us(lambda: evaluate(snapshot, request, evidence, now)),
        "audit note": _median_us(lambda: capture(request, decision, _ID, now)),
        "audit record": _median_us(lambda: encode_line(make_record(capture(request, decision, _ID, now)))),
        "answer": _median_us(lambda: encode(decision, _ID, request)),
    }


def main() -> int:
    """Print the costs. Returns 1 if a whole decision is above the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--policies", type=int, default=1000)
    parser.add_argument("--output", choices=("text", "json"), default="text")
    chosen = parser.parse_args()
    rows = {case: measure(case, chosen.policies) for case in scenario.CASES}
    if chosen.output == "json":
        print(json.dumps({"policies": chosen.policies, "us": rows}, indent=2))
    else:
        print(f"{'':18}" + "".join(f"{case:>12}" for case in rows))
        for part in next(iter(rows.values())):
            print(f"{part:18}" + "".join(f"{row[part]:>9} us" for row in rows.values()))
    return int(any(row["whole"] > TARGET_US for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
