"""Prints the trace of one decision of the demo: Envoy's spans and zta-authz's, as a tree.

    python -m envoy.demo.trace [DECISION_ID]

The default is the last decision. Spans arrive up to two seconds after the response; the program waits five seconds.
`DEMO_DIR` is the directory of the demo (default: `.run`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

DECISIONS, SPANS = "decisions.jsonl", "spans.jsonl"
_WAIT_SECONDS = 5.0
_ID = "zta.decision_id"
_SHOWN = ("http.method", "http.url", "http.status_code", "zta.verdict", "zta.reason", "zta.policy", "zta.rule")

Fields = dict[str, Any]


def _lines(file: Path) -> list[Fields]:
    try:
        written = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in written[: written.rfind("\n") + 1].splitlines()]


def last_decision(root: Path) -> str:
    """Return the id of the last recorded decision; "" if there is none."""
    ids = [record["decision_id"] for record in _lines(root / DECISIONS) if "decision_id" in record]
    return ids[-1] if ids else ""


def spans_of(root: Path, decision: str) -> list[Fields]:
    """Return the spans of the decision's trace; [] while the decision's span or one of its parents is missing."""
    spans = _lines(root / SPANS)
    own = [span for span in spans if span["attributes"].get(_ID) == decision]
    trace = [span for span in spans if own and span["trace"] == own[0]["trace"]]
    known = {span["span"] for span in trace}
    complete = own and not any(span["parent"] and span["parent"] not in known for span in trace)
    return trace if complete else []


def tree(spans: list[Fields]) -> Iterator[str]:
    """Yield one line for each span and event, children below their parents."""
    known = {span["span"] for span in spans}
    yield f"trace {spans[0]['trace']}"
    roots = [span for span in spans if span["parent"] not in known]
    for span in sorted(roots, key=lambda span: int(span["start"])):
        yield from _branch(span, spans, "  ")


def _branch(span: Fields, spans: list[Fields], indent: str) -> Iterator[str]:
    shown = [f"{name.rpartition('.')[2]}={span['attributes'][name]}" for name in _SHOWN if name in span["attributes"]]
    yield f"{indent}{span['service']}: {span['name']}  {span['ms']:.2f} ms  {' '.join(shown)}".rstrip()
    for event in span["events"]:
        took = event.get("zta.duration_ns")
        yield f"{indent}  - {event['name']}" + (f"  {int(took) / 1e6:.3f} ms" if took is not None else "")
    below = [child for child in spans if child["parent"] == span["span"]]
    for child in sorted(below, key=lambda child: int(child["start"])):
        yield from _branch(child, spans, indent + "  ")


def main() -> int:
    """Parse the command line, wait for the spans and print them."""
    parser = argparse.ArgumentParser(description="Print the trace of one decision of the demo.")
    parser.add_argument("decision", nargs="?", default="", help="id of the decision (default: the last one)")
    arguments = parser.parse_args()
    root = Path(os.environ.get("DEMO_DIR", ".run"))
    decision = arguments.decision or last_decision(root)
    deadline = time.monotonic() + _WAIT_SECONDS
    while not (trace := spans_of(root, decision)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if not trace:
        sys.stderr.write(f"no trace of decision `{decision}` in {root / SPANS}: is the demo running?\n")
        return 1
    print("\n".join(tree(trace)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
