"""Cooperative scheduling of compilation: the compiler calls a `Pause` often, so that decisions get the processor."""

from __future__ import annotations

from collections.abc import Callable

Pause = Callable[[], None]
"""Called between steps that take some microseconds to a millisecond. May block, never raises."""


def no_pause() -> None:
    """Continue at once."""
