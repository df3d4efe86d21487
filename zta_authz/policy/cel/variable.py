"""A variable of conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.policy.rules.inputs import Inputs


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of conditions: its CEL type and how it is read."""

    type: Any
    read: Callable[[Inputs], Any]
    doc: str
