"""The metrics of several processes as those of one, in Prometheus' text format.

Counters and histograms are added up, and what an ended worker had counted stays in the sum: a sum that went back would
look like a restart of everything. Of gauges the number that matters to an alert is shown: the earliest of times (what
ends first, what was loaded first), the sum of what is queued or held, else the largest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and its labels."""

_ADDED: Final = frozenset(("counter", "histogram", "summary"))
_EARLIEST: Final = ("_timestamp_seconds", "_start_time_seconds")
_HELD: Final = ("_records", "_in_flight", "_bytes", "_connections", "_entries")


class Exposition:
    """Families by name in the order of their first appearance, with samples that are merged as they are added."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str, dict[Key, float]]] = {}

    def add(self, text: str, *, ended: bool = False) -> None:
        """Merge what one process shows; of one that has `ended`, only what it counted. Raises ValueError."""
        for family in text_string_to_metric_families(text):
            if ended and family.type not in _ADDED:
                continue
            samples = self._families.setdefault(family.name, (family.type, family.documentation, {}))[2]
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                known = samples.get(key)
                value = float(sample.value)
                samples[key] = value if known is None else _merged(family.type, sample.name, known, value)

    def gauge(self, name: str, help_text: str, value: float) -> None:
        """Show a number of the supervisor's own."""
        self._families[name] = ("gauge", help_text, {(name, ()): value})

    def counter(self, name: str, help_text: str, value: float) -> None:
        """Show a number of the supervisor's own that only grows; `name` is without `_total`."""
        self._families[name] = ("counter", help_text, {(name + "_total", ()): value})

    def render(self) -> bytes:
        """The text, to be served as `telemetry.metrics.CONTENT_TYPE`."""
        lines: list[str] = []
        for name, (kind, help_text, samples) in self._families.items():
            shown = f"{name}_total" if kind == "counter" else name
            lines.append(f"# HELP {shown} {_escape(help_text)}\n# TYPE {shown} {kind}\n")
            lines.extend(_line(key, value) for key, value in samples.items())
        return "".join(lines).encode()


def _merged(kind: str, name: str, one: float, other: float) -> float:
    if name.endswith(_EARLIEST):
        return min(one, other)
    if kind in _ADDED or name.endswith(_HELD):
        return one + other
    return max(one, other)


def _line(key: Key, value: float) -> str:
    name, labels = key
    inside = ",".join(f'{label}="{_escape(text, quotes=True)}"' for label, text in labels)
    number: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return f"{name}{{{inside}}} {number}\n" if inside else f"{name} {number}\n"


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def merged(running: Iterable[bytes], ended: Exposition) -> Exposition:
    """What the `running` processes show, on top of what the `ended` ones have counted."""
    whole = Exposition()
    whole.add(ended.render().decode())
    for text in running:
        whole.add(text.decode())
    return whole
