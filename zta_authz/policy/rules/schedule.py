"""The times at which a policy or rule is in force: a start, an end, and weekly windows in a time zone.

Each decision compares its own time, so nothing is reloaded when a window opens or closes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from zta_authz.policy.yaml.nodes import Mapping, Node, Scalar
from zta_authz.policy.yaml.values import moment

if TYPE_CHECKING:
    from zta_authz.policy.yaml.fields import Reader

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MINUTES_A_DAY: Final = 1440
_SHOWN: Final = 7
CLOCK: Final = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")

END_OF_TIME: Final = 253_370_764_800.0
"""The year 9999, in seconds since the epoch: Python can't represent later times in every time zone."""


@dataclass(frozen=True, slots=True)
class WeeklyWindow:
    """Minutes `[start, end)` of the given days (0 is Monday). An `end` at or before `start` is on the next day."""

    days: frozenset[int]
    start: int
    end: int

    def holds(self, day: int, minute: int) -> bool:
        """Whether `minute` of weekday `day` is in the window."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)

    def __str__(self) -> str:
        days = "every day" if len(self.days) == len(DAYS) else ",".join(DAYS[day] for day in sorted(self.days))
        start, end = (f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (self.start, self.end))
        return f"{days} {start}-{end}"


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """In force in `[start, end)` (seconds since the epoch) and, if there are weekly windows, in any of them."""

    start: float
    end: float
    zone: ZoneInfo | None
    windows: tuple[WeeklyWindow, ...]
    text: str

    def holds(self, now: float) -> bool:
        """Whether `now` is in the window."""
        if not self.start <= now < self.end:
            return False
        if not self.windows:
            return True
        local = datetime.fromtimestamp(now, self.zone or UTC)
        minute = local.hour * 60 + local.minute
        return any(window.holds(local.weekday(), minute) for window in self.windows)

    def __str__(self) -> str:
        return self.text


def read_times(reader: Reader, node: Mapping) -> TimeWindow | None:
    """Read `effectiveFrom`, `expiresAt` (RFC 3339) and `schedule` of `node`; None without any of them."""
    first, last, schedule = node.get("effectiveFrom"), node.get("expiresAt"), node.get("schedule")
    if first is None and last is None and schedule is None:
        return None
    start = moment(reader, node, "effectiveFrom", float("-inf"))
    end = moment(reader, node, "expiresAt", float("inf"))
    if last is not None and start >= end:
        reader.fault(last, "`expiresAt` is not after `effectiveFrom`", "it would never be in force")
    zone, windows = (None, ()) if schedule is None else _schedule(reader, schedule)
    parts = [f"{name} {value.value}" for name, value in (("from", first), ("until", last)) if isinstance(value, Scalar)]
    if schedule is not None:
        shown = "; ".join(map(str, windows[:_SHOWN])) + (
            f"; {len(windows) - _SHOWN} more" if len(windows) > _SHOWN else ""
        )
        parts.append(f"{shown} in {zone.key if zone else '?'}")
    return TimeWindow(start, end, zone, windows, ", ".join(parts))


def _schedule(reader: Reader, node: Node) -> tuple[ZoneInfo | None, tuple[WeeklyWindow, ...]]:
    mapping = reader.mapping(node, "schedule", ("timeZone", "windows"))
    if mapping is None:
        return None, ()
    zone_node = reader.required(mapping, "timeZone", "schedule")
    windows = reader.required(mapping, "windows", "schedule")
    zone = None if zone_node is None else _zone(reader, zone_node)
    items = [] if windows is None else reader.items(windows, "windows", "weekly windows")
    return zone, tuple(window for item in items if (window := _window(reader, item)) is not None)


def _zone(reader: Reader, node: Node) -> ZoneInfo | None:
    name = reader.string(node, "timeZone")
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        reader.fault(node, f"unknown time zone `{name}`", "write an IANA name like `Europe/Berlin` or `UTC`")
        return None


def _window(reader: Reader, node: Node) -> WeeklyWindow | None:
    mapping = reader.mapping(node, "a weekly window", ("days", "from", "to"))
    if mapping is None:
        return None
    days = mapping.get("days")
    chosen = set(range(7)) if days is None else set()
    for item in [] if days is None else reader.strings(days, "days"):
        if item.value in DAYS:
            chosen.add(DAYS.index(item.value))
        else:
            reader.fault(item, f"unknown day `{item.value}`", f"one of {', '.join(DAYS)}")
    start, end = (_clock(reader, mapping, name) for name in ("from", "to"))
    if start is None or end is None:
        return None
    return WeeklyWindow(frozenset(chosen), start, end)


def _clock(reader: Reader, node: Mapping, name: str) -> int | None:
    """`HH:MM` as minutes of the day; `24:00` is the end of it."""
    value = reader.required(node, name, "a weekly window")
    if value is None:
        return None
    time = CLOCK.fullmatch(value.value) if isinstance(value, Scalar) else None
    total = int(time[1]) * 60 + int(time[2]) if time is not None else _MINUTES_A_DAY + 1
    if total > _MINUTES_A_DAY:
        reader.fault(value, f"`{name}` is not a time of day", 'write it in quotes like "09:30"')
        return None
    return total
