"""Merge the metrics of several processes into one exposition in Prometheus' text format.

Counters and histograms are added up, including those of workers that ended: a sum that decreased would look like a
restart. For gauges, the value that alerts need is used: the earliest of times (first expiry, first load), the sum of
what is queued or held, otherwise the largest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and its labels."""

_SUMMED: Final = frozenset(("counter", "histogram", "summary"))
_EARLIEST: Final = ("_timestamp_seconds", "_start_time_seconds")
_SUMMED_GAUGES: Final = ("_records", "_in_flight", "_bytes", "_connections", "_entries")


class Exposition:
    """Metric families by name, in order of first appearance, with samples merged as they are added."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str, dict[Key, float]]] = {}

    def add(self, text: str, *, ended: bool = False) -> None:
        """Merge the exposition of one process; if it has `ended`, only counters and histograms. Raises ValueError."""
        for family in text_string_to_metric_families(text):
            if ended and family.type not in _SUMMED:
                continue
            samples = self._families.setdefault(family.name, (family.type, family.documentation, {}))[2]
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                previous = samples.get(key)
                value = float(sample.value)
                samples[key] = value if previous is None else _merged(family.type, sample.name, previous, value)

    def gauge(self, name: str, help_text: str, value: float) -> None:
        """Set a gauge of the supervisor."""
        self._families[name] = ("gauge", help_text, {(name, ()): value})

    def counter(self, name: str, help_text: str, value: float) -> None:
        """Set a counter of the supervisor; `name` has no `_total`."""
        self._families[name] = ("counter", help_text, {(name + "_total", ()): value})

    def render(self) -> bytes:
        """Return the text, with the content type `telemetry.metrics.CONTENT_TYPE`."""
        lines: list[str] = []
        for name, (kind, help_text, samples) in self._families.items():
            shown = f"{name}_total" if kind == "counter" else name
            lines.append(f"# HELP {shown} {_escape(help_text)}\n# TYPE {shown} {kind}\n")
            lines.extend(_line(key, value) for key, value in samples.items())
        return "".join(lines).encode()


def _merged(kind: str, name: str, one: float, other: float) -> float:
    if name.endswith(_EARLIEST):
        return min(one, other)
    if kind in _SUMMED or name.endswith(_SUMMED_GAUGES):
        return one + other
    return max(one, other)


def _line(key: Key, value: float) -> str:
    name, labels = key
    label_text = ",".join(f'{label}="{_escape(text, quotes=True)}"' for label, text in labels)
    number: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return f"{name}{{{label_text}}} {number}\n" if label_text else f"{name} {number}\n"


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def merged(running: Iterable[bytes], ended: Exposition) -> Exposition:
    """Merge the expositions of `running` processes with the counters of `ended` ones."""
    whole = Exposition()
    whole.add(ended.render().decode())
    for text in running:
        whole.add(text.decode())
    return whole
