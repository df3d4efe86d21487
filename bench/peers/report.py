"""Tables and targets from the figures of a run: `python -m bench.peers.report results.json`, as Markdown.

Servers are compared within each round, where they run one after the other. The report has the median of the rounds.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.peers import names

if TYPE_CHECKING:
    from collections.abc import Sequence

GO_MODULES: Final = (
    "google.golang.org/grpc", "github.com/envoyproxy/go-control-plane/envoy", "github.com/open-policy-agent/opa",
)  # fmt: skip
CPU_US, RATIO_EMPTY, RATIO_OPA_FEW, RATIO_OPA_MANY, RATIO_OVERHEAD = 120.0, 2.5, 2.0, 10.0, 1.5
_CASES: Final = {"principal": "the proxy's word", "token": "SVID and RS256 token"}
_SHORT: Final = {"principal": "no token", "token": "token"}
Rounds = list[dict[str, float]]


def median(rounds: Rounds, figure: str) -> float:
    """Return the median of one figure over the rounds."""
    return statistics.median(result[figure] for result in rounds)


def ratio(above: Rounds, below: Rounds, figure: str) -> float:
    """Return the median over the rounds of the ratio of two servers' figures."""
    return statistics.median(a[figure] / b[figure] for a, b in zip(above, below, strict=True))


def overheads(rounds: dict[str, Rounds], name: str, figure: str) -> list[float]:
    """Return what a configuration adds compared to no check, for each round."""
    return [a[figure] - b[figure] for a, b in zip(rounds[name], rounds[names.NONE], strict=True)]


def find(rows: list[dict[str, Any]], **parameters: object) -> dict[str, Any] | None:
    """Return the first part of a run with these parameters."""
    return next((row for row in rows if all(row[key] == value for key, value in parameters.items())), None)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table: the first column left-aligned, numbers right-aligned."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "| " + " | ".join([cells[0].ljust(widths[0]), *padded[1:]]) + " |"

    rule = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join((line(head), rule, *map(line, rows)))


def closed_tables(result: dict[str, Any]) -> list[str]:
    """Yield the tables of calls per second, CPU and memory in the closed loop."""
    parts = []
    for part in result["closed"]:
        rows = [
            [
                name,
                f"{median(rounds, 'calls_per_second'):,.0f}",
                f"{median(rounds, 'cpu_us'):,.1f}",
                f"{median(rounds, 'p50_ms'):,.2f}",
                f"{median(rounds, 'p99_ms'):,.2f}",
                f"{part['resident_mb'][name]:,}",
            ]
            for name, rounds in part["rounds"].items()
        ]
        title = f"Closed loop: {part['rules']:,} rules, {_CASES[part['case']]}, {part['in_flight']} in flight"
        head = ("server", "calls/s", "CPU us/check", "p50 ms", "p99 ms", "RSS MB")
        parts.append(f"{title} (load {part['load']:.1f})\n\n{table(head, rows)}")
    return parts


def cpu_matrix(result: dict[str, Any]) -> str:
    """CPU of a check by server and number of rules, in both cases, with 32 calls in flight."""
    parts = [part for part in result["closed"] if part["in_flight"] == 32]
    columns = sorted(parts, key=lambda part: (part["case"], part["rules"]))
    servers: dict[str, Rounds] = max((part["rounds"] for part in parts), key=len, default={})
    rows = [
        [
            name,
            *(f"{median(part['rounds'][name], 'cpu_us'):,.0f}" if name in part["rounds"] else "" for part in columns),
        ]
        for name in servers
    ]
    head = ["CPU us/check", *(f"{part['rules']:,}, {_SHORT[part['case']]}" for part in columns)]
    return table(head, rows)


def open_tables(result: dict[str, Any]) -> list[str]:
    """Latencies at fixed rates."""
    parts = []
    for case, meaning in _CASES.items():
        rows = [
            [
                f"{name}, {part['rate']:,.0f}/s",
                *(f"{median(rounds, figure):,.2f}" for figure in ("p50_ms", "p99_ms", "p999_ms", "late_p99_ms")),
                f"{median(rounds, 'cpu_us'):,.1f}",
            ]
            for part in result["open"]
            if part["case"] == case
            for name, rounds in part["rounds"].items()
        ]
        if rows:
            loads = ", ".join(f"{part['load']:.1f}" for part in result["open"] if part["case"] == case)
            head = ("server and rate", "p50 ms", "p99 ms", "p99.9 ms", "client late p99 ms", "CPU us/check")
            parts.append(f"Open loop: 1,000 rules, {meaning} (load {loads})\n\n{table(head, rows)}")
    return parts


def envoy_tables(result: dict[str, Any]) -> list[str]:
    """What each configuration of Envoy adds."""
    parts = []
    for part in result["envoy"]:
        rows = [
            [
                name,
                *(f"{median(rounds, figure):,.2f}" for figure in ("p50_ms", "p99_ms", "p999_ms")),
                *(
                    f"{statistics.median(overheads(part['rounds'], name, figure)):+,.2f}"
                    for figure in ("p50_ms", "p99_ms")
                ),
                *(f"{median(rounds, figure):,.0f}" for figure in ("envoy_cpu_us", "server_cpu_us")),
            ]
            for name, rounds in part["rounds"].items()
        ]
        head = ("check", "p50 ms", "p99 ms", "p99.9 ms", "p50 added", "p99 added", "Envoy us", "server us")
        title = f"Through Envoy: {part['rules']:,} rules, {part['rate']:,.0f} requests/s (load {part['load']:.1f})"
        if part["overloaded"]:
            title += f"; could not keep up: {', '.join(part['overloaded'])}"
        parts.append(f"{title}\n\n{table(head, rows)}")
    return parts


def targets(result: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Return the targets: name, target value, measured value, and whether it is met."""
    rows: list[tuple[str, str, str, bool]] = []
    for in_flight in (32, 1):
        part = find(result["closed"], case="token", rules=1000, in_flight=in_flight)
        if part is None:
            continue
        full, empty = part["rounds"][names.FAST], part["rounds"][names.EMPTY]
        cost, times = median(full, "cpu_us"), ratio(full, empty, "calls_per_second")
        what = f"1,000 rules, SVID and token, {in_flight} in flight"
        rows.append((f"CPU of a check, {what}", f"<= {CPU_US:.0f} us", f"{cost:.1f} us", cost <= CPU_US))
        rows.append(
            (f"calls/s beside empty grpc.aio, {what}", f">= {RATIO_EMPTY}x", f"{times:.2f}x", times >= RATIO_EMPTY)
        )
    for rules, wish in ((10, RATIO_OPA_FEW), (10_000, RATIO_OPA_MANY)):
        for case in _CASES:
            part = find(result["closed"], case=case, rules=rules, in_flight=32)
            for name in names.OPA if part else ():
                if part and name in part["rounds"]:
                    times = ratio(part["rounds"][name], part["rounds"][names.FAST], "cpu_us")
                    what = f"checks per CPU-second beside {name}, {rules:,} rules, {_CASES[case]}"
                    rows.append((what, f">= {wish:g}x", f"{times:.1f}x", times >= wish))
    for part in result["envoy"]:
        if names.GO in part["rounds"]:
            full, go = (statistics.median(overheads(part["rounds"], name, "p99_ms")) for name in (names.FAST, names.GO))
            what = f"p99 added through Envoy beside the Go server, {part['rules']:,} rules"
            rows.append(
                (
                    what,
                    f"<= {RATIO_OVERHEAD}x",
                    f"{full / go:.2f}x ({full:.2f} / {go:.2f} ms)",
                    full <= RATIO_OVERHEAD * go,
                )
            )
    return rows


def text(result: dict[str, Any]) -> str:
    """Everything."""
    rows = [[what, wish, measured, "yes" if met else "no"] for what, wish, measured, met in targets(result)]
    about = [f"{name}: {value}" for name, value in result["about"].items()]
    missing = [f"skipped: {name}: {reason}" for name, reason in result["about"]["missing"].items()]
    tables = [cpu_matrix(result), *closed_tables(result), *open_tables(result), *envoy_tables(result)]
    return "\n\n".join(["\n".join(about + missing), table(("target", "wish", "measured", "met"), rows), *tables])


if __name__ == "__main__":
    print(text(json.loads(Path(sys.argv[1]).read_text())))
