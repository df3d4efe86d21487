"""Hints for numbers written with a unit although the setting's name implies it: `drain_seconds: 1m`."""

from __future__ import annotations

import re
from typing import Final

_WITH_UNIT: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([A-Za-z]{1,3})")
_TIMES: Final = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_SIZES: Final = {
    "B": 1, "k": 1000, "K": 1000, "kB": 1000, "KB": 1000, "M": 10**6, "MB": 10**6, "G": 10**9, "GB": 10**9,
    "Ki": 2**10, "KiB": 2**10, "Mi": 2**20, "MiB": 2**20, "Gi": 2**30, "GiB": 2**30,
}  # fmt: skip
_UNITS: Final = (
    ("_seconds", "seconds", _TIMES),
    ("_ms", "milliseconds", {unit: factor * 1000 for unit, factor in _TIMES.items()}),
    ("_bytes", "bytes", _SIZES),
)


def number_without_unit(field: str, value: object) -> str:
    """Return what to write instead of a number with a unit, such as `1m`, or "" if that is not the mistake."""
    match = _WITH_UNIT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return ""
    number, unit = float(match[1]), match[2]
    for ending, name, factors in _UNITS:
        if field.endswith(ending) and unit in factors:
            plain = f"{number * factors[unit]:.10g}"
            return f"write `{plain}`: {name}, as a number without a unit"
    return ""
