"""How long a response stays fresh: `max-age` of `Cache-Control`, less its `Age` (RFC 9111)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CHARACTERS: Final = 16 * 1024
"""Limit for all values of the header together. Honest servers send about a hundred characters."""

_ESCAPED: Final = re.compile(r"\\.")
_SECONDS: Final = re.compile(r'"?([0-9]+)"?')
_MANY_SECONDS: Final = 2**31  # RFC 9111 section 1.2.2: the value of a number that is too large


def max_age(cache_control: str, age: str = "") -> float | None:
    """Return for how many seconds a response with these header values is still fresh; None if they don't say.

    `no-store` and `no-cache` count as 0. The smallest of several `max-age` counts. A `max-age` that is not a number is
    ignored, and so is a `Cache-Control` of more than `MAX_CHARACTERS`.
    """
    if len(cache_control) > MAX_CHARACTERS:
        return None
    lifetimes: list[float] = []
    for name, value in _directives(cache_control):
        if name in ("no-store", "no-cache"):
            lifetimes.append(0)
        elif name == "max-age" and (seconds := _seconds(value)) is not None:
            lifetimes.append(seconds)
    return max(0, min(lifetimes) - (_seconds(age.strip()) or 0)) if lifetimes else None


def _directives(cache_control: str) -> Iterator[tuple[str, str]]:
    """Yield each directive's name in lower case and its value ("" if none), split at commas outside quotes.

    Takes time linear in the length for any text, because the server controls it.
    """
    parts = _ESCAPED.sub("", cache_control).split('"')
    parts[1::2] = [quoted.replace(",", " ") for quoted in parts[1::2]]
    for directive in '"'.join(parts).split(","):
        name, _, value = directive.partition("=")
        yield name.strip().lower(), value.strip()


def _seconds(text: str) -> int | None:
    match = _SECONDS.fullmatch(text)
    if match is None:
        return None
    digits = match[1]
    return _MANY_SECONDS if len(digits) > 10 else min(int(digits), _MANY_SECONDS)
