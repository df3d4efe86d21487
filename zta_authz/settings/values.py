"""Types and checks shared by all sections of the settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _without_controls(text: str) -> str:
    """Return `text`, a path or name. Control characters would break file names (NUL) or log lines (line ends)."""
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise invalid("contains a control character", "remove it")
    return text


Text = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_without_controls)]
PositiveSeconds = Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of all sections: frozen, strictly typed, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def invalid(message: str, hint: str) -> PydanticCustomError:
    """Build the error for an invalid value: what is wrong (never the value itself) and what to write instead."""
    return PydanticCustomError("zta", "{message}", {"message": message, "hint": hint})


def distinct(items: tuple[str, ...]) -> tuple[str, ...]:
    """Return `items` if they contain no duplicates."""
    for item in items:
        if items.count(item) > 1:
            raise invalid("the list contains a value twice", "remove one of the two")
    return items
