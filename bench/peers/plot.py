"""Draws a run: `python -m bench.peers.plot results.json performance.png`. Needs matplotlib (requirements.txt)."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib.pyplot as plt

from bench.peers import names
from bench.peers.report import find, median, overheads

_COLOURS: Final = {
    names.FAST: "#0b6e4f",
    names.GRPCIO: "#6bbf9c",
    names.EMPTY: "#8a8a8a",
    names.GO: "#1f77b4",
    names.OPA_RULES: "#d95f02",
    names.OPA_KEYED: "#f0a35e",
    names.OPA_LIST: "#8c3b00",
    names.OPA_ENVOY: "#c51b7d",
    names.RBAC: "#7570b3",
    names.RBAC_AND_FAST: "#3f3a8c",
}


def cpu_by_rules(axes: Any, result: dict[str, Any], case: str) -> None:
    """CPU of a check over the number of rules, both axes logarithmic."""
    parts = [part for part in result["closed"] if part["case"] == case and part["in_flight"] == 32]
    for name, colour in _COLOURS.items():
        seen = [(part["rules"], median(part["rounds"][name], "cpu_us")) for part in parts if name in part["rounds"]]
        if seen:
            axes.plot(*zip(*seen, strict=True), marker="o", color=colour, label=name)
    axes.set(xscale="log", yscale="log", xlabel="rules", ylabel="CPU us a check, whole process")
    axes.legend(fontsize=7)
    axes.set_title("Closed loop, " + ("no token" if case == "principal" else "with a token"))


def tail_by_rate(axes: Any, result: dict[str, Any]) -> None:
    """The 99th percentile over the rate."""
    parts = [part for part in result["open"] if part["case"] == "token"]
    for name, colour in _COLOURS.items():
        seen = [(part["rate"], median(part["rounds"][name], "p99_ms")) for part in parts if name in part["rounds"]]
        if seen:
            axes.plot(*zip(*seen, strict=True), marker="o", color=colour, label=name)
    axes.set(xlabel="calls a second", ylabel="p99 ms", yscale="log", title="Open loop, 1,000 rules, with a token")
    axes.legend(fontsize=7)


def added_by_check(axes: Any, result: dict[str, Any]) -> None:
    """What each check adds to a request through Envoy: the median, and above it the 99th percentile."""
    part = find(result["envoy"], rules=1000)
    if part is None:
        axes.axis("off")
        return
    shown = [name for name in part["rounds"] if name != names.NONE]
    for figure, height in (("p99_ms", 0.8), ("p50_ms", 0.4)):
        added = [statistics.median(overheads(part["rounds"], name, figure)) for name in shown]
        axes.barh(shown, added, height, color=[_COLOURS[name] for name in shown], alpha=0.5 if height > 0.5 else 1.0)
    axes.invert_yaxis()
    axes.set(xlabel="ms added: p50 (dark), p99 (light)", title=f"Through Envoy, 1,000 rules, {part['rate']:,.0f}/s")


def main() -> None:
    """Read the figures, write the picture."""
    result = json.loads(Path(sys.argv[1]).read_text())
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    cpu_by_rules(axes[0][0], result, "principal")
    cpu_by_rules(axes[0][1], result, "token")
    tail_by_rate(axes[1][0], result)
    added_by_check(axes[1][1], result)
    for axes_of_plot in axes.flat:
        axes_of_plot.grid(alpha=0.3)
    figure.savefig(sys.argv[2], dpi=110)


if __name__ == "__main__":
    main()
