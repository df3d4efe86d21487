"""How long an answer says that it holds: `max-age` of `Cache-Control`, less its `Age` (RFC 9111)."""

from __future__ import annotations

import re
from typing import Final

_DIRECTIVE: Final = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^",\s]*))?\s*(?:,|$)')
_SECONDS: Final = re.compile(r'"?([0-9]+)"?')
_MANY_SECONDS: Final = 2**31  # RFC 9111 section 1.2.2: what a number too large to count with is taken for


def max_age(cache_control: str, age: str = "") -> float | None:
    """Seconds for which the answer is still fresh, from the values of these headers; None where it does not say.

    `no-store` and `no-cache` are 0. Of several `max-age` the least counts; one that is no number is passed over.
    """
    found: list[float] = []
    for name, value in _DIRECTIVE.findall(cache_control):
        if name.lower() in ("no-store", "no-cache"):
            found.append(0)
        elif name.lower() == "max-age" and (seconds := _seconds(value)) is not None:
            found.append(seconds)
    return max(0, min(found) - (_seconds(age.strip()) or 0)) if found else None


def _seconds(text: str) -> int | None:
    match = _SECONDS.fullmatch(text)
    if match is None:
        return None
    digits = match[1]
    return _MANY_SECONDS if len(digits) > 10 else min(int(digits), _MANY_SECONDS)
