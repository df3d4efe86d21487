"""Faults of settings that are valid on their own and contradict each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zta_authz.settings.environment import Path


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """Settings that contradict each other, reported at `path` unless one of `depends` is itself invalid."""

    path: Path
    message: str
    hint: str
    depends: tuple[Path, ...]
