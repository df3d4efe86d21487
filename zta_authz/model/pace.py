"""How compiling shares the processor with deciding: it calls a `Pause` often, whoever gives one waits there."""

from __future__ import annotations

from collections.abc import Callable

Pause = Callable[[], None]
"""Called between small pieces of work, some microseconds to a millisecond of it. May block, never raises."""


def no_pause() -> None:
    """Go on at once."""
