"""Draw the figures of a run: `python -m bench.peers.plot results.json performance.png`.

Each title states what its panel shows, with numbers of the run that is drawn. Needs matplotlib (requirements.txt).
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.peers import names
from bench.peers.report import find, median, overheads

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLOURS: Final = {
    names.FAST: "#0b6e4f",
    names.GRPCIO: "#4a9c7d",
    names.EMPTY: "#6e6e6e",
    names.GO: "#1f77b4",
    names.OPA_RULES: "#d95f02",
    names.OPA_KEYED: "#c98a3f",
    names.OPA_LIST: "#8c3b00",
    names.OPA_ENVOY: "#c51b7d",
    names.RBAC: "#7570b3",
    names.RBAC_AND_FAST: "#3f3a8c",
}
_NEAREST: Final = 0.065
"""How close two labels may come, as a part of the axis' height."""

Points = list[tuple[float, float]]


def lines(axes: Any, series: dict[str, Points], ticks: Sequence[float], y_ticks: Sequence[float]) -> None:
    """Draw each series, on a logarithmic vertical axis, with its name beside its last point."""
    for name, points in series.items():
        strong = name == names.FAST
        axes.plot(*zip(*points, strict=True), marker="o", markersize=5, lw=2.6 if strong else 1.5, color=_COLOURS[name])
    axes.set_yscale("log")
    for axis, places in ((axes.xaxis, ticks), (axes.yaxis, y_ticks)):
        axis.set_major_locator(FixedLocator(places))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    label_ends(axes, series)


def label_ends(axes: Any, series: dict[str, Points]) -> None:
    """Write each name to the right of its line, moved up where two would overlap."""
    to_part = (axes.transData + axes.transAxes.inverted()).transform
    lowest = -1.0
    for name, points in sorted(series.items(), key=lambda item: item[1][-1][1]):
        height = max(to_part(points[-1])[1], lowest + _NEAREST)
        lowest = height
        axes.annotate(
            name,
            xy=points[-1],
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            color=_COLOURS[name],
            fontweight="bold" if name == names.FAST else "normal",
            arrowprops={"arrowstyle": "-", "color": _COLOURS[name], "lw": 0.6, "shrinkA": 0, "shrinkB": 4},
        )


def beside_go(figures: dict[str, float], form: str) -> str:
    """The Go server's figure for a title, "" in a run without it."""
    return f" (Go: {figures[names.GO]:{form}} ms)" if names.GO in figures else ""


def cpu_by_rules(axes: Any, result: dict[str, Any], case: str) -> None:
    """CPU of a check over the number of rules, both axes logarithmic."""
    parts = [part for part in result["closed"] if part["case"] == case and part["in_flight"] == 32]
    series = {
        name: [(part["rules"], median(part["rounds"][name], "cpu_us")) for part in parts if name in part["rounds"]]
        for name in _COLOURS
    }
    series = {name: points for name, points in series.items() if points}
    axes.set_xscale("log")
    lines(axes, series, [part["rules"] for part in parts], [30, 100, 300, 1_000, 3_000, 10_000, 30_000])
    axes.set(xlabel="rules", ylabel="CPU per check, whole process (us)")
    (few, least), (many, most) = series[names.FAST][0], series[names.FAST][-1]
    tokens = "Without a token" if case == "principal" else "With certificate and token"
    axes.set_title(
        f"{tokens}, zta fast needs\n{least:.0f} us of CPU with {few:,} rules and {most:.0f} us with {many:,}"
    )


def tail_by_rate(axes: Any, result: dict[str, Any]) -> None:
    """The 99th percentile over the rate."""
    parts = [part for part in result["open"] if part["case"] == "token"]
    series = {
        name: [(part["rate"], median(part["rounds"][name], "p99_ms")) for part in parts if name in part["rounds"]]
        for name in _COLOURS
    }
    series = {name: points for name, points in series.items() if points}
    lines(axes, series, [part["rate"] for part in parts], [0.3, 0.5, 1, 2, 3, 5, 8])
    axes.set(xlabel="calls per second (1,000 rules, with a token)", ylabel="p99 latency (ms)")
    rate = parts[-1]["rate"]
    fast, go = series[names.FAST][-1][1], series[names.GO][-1][1]
    axes.set_title(
        f"At {rate:,.0f} calls/s, 99 % of zta fast's answers\ntake less than {fast:.1f} ms (Go: {go:.1f} ms)"
    )


def added_by_check(axes: Any, result: dict[str, Any]) -> None:
    """What each check adds to a request through Envoy: the median, and above it the 99th percentile."""
    part = find(result["envoy"], rules=1000)
    if part is None:
        axes.axis("off")
        return
    shown = [name for name in part["rounds"] if name != names.NONE]
    added = {
        figure: [statistics.median(overheads(part["rounds"], name, figure)) for name in shown]
        for figure in ("p50_ms", "p99_ms")
    }
    colours = [_COLOURS[name] for name in shown]
    for figure, shift, alpha in (("p50_ms", -0.2, 1.0), ("p99_ms", 0.2, 0.45)):
        places = [at + shift for at in range(len(shown))]
        bars = axes.barh(places, added[figure], 0.38, color=colours, alpha=alpha)
        axes.bar_label(bars, [f"{value:.2f} {figure[:3]}" for value in added[figure]], padding=3, fontsize=9)
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.set_xlim(0, max(added["p99_ms"]) * 1.2)
    axes.set(xlabel=f"latency added to a request (ms), {part['rate']:,.0f} requests/s, 1,000 rules")
    medians = dict(zip(shown, added["p50_ms"], strict=True))
    axes.set_title(
        f"Through Envoy, zta fast adds {medians[names.FAST]:.2f} ms\nat the median{beside_go(medians, '.2f')}"
    )


def main() -> None:
    """Read the figures, write the picture."""
    result = json.loads(Path(sys.argv[1]).read_text())
    plt.rcParams.update(
        {"font.size": 10.5, "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left"}
    )
    figure, axes = plt.subplots(2, 2, figsize=(14, 10))
    figure.subplots_adjust(left=0.075, right=0.895, bottom=0.06, top=0.93, wspace=0.58, hspace=0.33)
    cpu_by_rules(axes[0][0], result, "principal")
    cpu_by_rules(axes[0][1], result, "token")
    tail_by_rate(axes[1][0], result)
    added_by_check(axes[1][1], result)
    for panel in axes.flat:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(sys.argv[2], dpi=100)


if __name__ == "__main__":
    main()
