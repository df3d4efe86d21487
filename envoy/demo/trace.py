"""Prints the trace of one decision of the demo: Envoy's spans and zta-authz's, as a tree.

    python -m envoy.demo.trace [DECISION_ID]

Without an id, that of the last decision. Spans come up to two seconds after the answer; it waits five for them.
`DEMO_DIR` is where the demo runs (`.run` without it).
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
    """The id of the last record of the decision log, "" if there is none."""
    ids = [record["decision_id"] for record in _lines(root / DECISIONS) if "decision_id" in record]
    return ids[-1] if ids else ""


def spans_of(root: Path, decision: str) -> list[Fields]:
    """The spans of the trace that the decision belongs to, [] while its own span, or one above it, is not there."""
    spans = _lines(root / SPANS)
    own = [span for span in spans if span["attributes"].get(_ID) == decision]
    trace = [span for span in spans if own and span["trace"] == own[0]["trace"]]
    known = {span["span"] for span in trace}
    complete = own and not any(span["parent"] and span["parent"] not in known for span in trace)
    return trace if complete else []


def tree(spans: list[Fields]) -> Iterator[str]:
    """One line for each span and event, children below their parents."""
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
    """Read the command line, wait for the spans, print them."""
    parser = argparse.ArgumentParser(description="The trace of one decision of the demo.")
    parser.add_argument("decision", nargs="?", default="", help="its id (default: the last one's)")
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
