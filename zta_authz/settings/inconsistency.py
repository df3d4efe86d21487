"""What is wrong with settings that are right each on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zta_authz.settings.environment import Path


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """Settings that don't go together, reported at `path`; nothing can be said while one of `depends` is wrong."""

    path: Path
    message: str
    hint: str
    depends: tuple[Path, ...]
