"""How long an answer says that it holds: `max-age` of `Cache-Control`, less its `Age` (RFC 9111)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CHARACTERS: Final = 16 * 1024
"""Of the header's values together; those of honest servers have about a hundred."""

_ESCAPED: Final = re.compile(r"\\.")
_SECONDS: Final = re.compile(r'"?([0-9]+)"?')
_MANY_SECONDS: Final = 2**31  # RFC 9111 section 1.2.2: what a number too large to count with is taken for


def max_age(cache_control: str, age: str = "") -> float | None:
    """Seconds for which the answer is still fresh, from the values of these headers; None where it does not say.

    `no-store` and `no-cache` are 0. Of several `max-age` the least counts; one that is no number is passed over, and so
    is a whole `Cache-Control` of more than `MAX_CHARACTERS`.
    """
    if len(cache_control) > MAX_CHARACTERS:
        return None
    found: list[float] = []
    for name, value in _directives(cache_control):
        if name in ("no-store", "no-cache"):
            found.append(0)
        elif name == "max-age" and (seconds := _seconds(value)) is not None:
            found.append(seconds)
    return max(0, min(found) - (_seconds(age.strip()) or 0)) if found else None


def _directives(cache_control: str) -> Iterator[tuple[str, str]]:
    """Each directive's name in lower case and its value ("" without one): split at the commas outside quotes.

    Time is linear in the length, whatever the text: the other side writes it.
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
