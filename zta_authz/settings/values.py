"""What all parts of the settings are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _without_controls(text: str) -> str:
    """`text`, which a path or a name may be; no file system takes a NUL, and no line of a log a line end."""
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise wrong("holds a control character", "write the value without it")
    return text


Text = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_without_controls)]
PositiveSeconds = Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)]


class Section(BaseModel):
    """What every part of the settings shares: frozen, strict in types, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def wrong(message: str, hint: str) -> PydanticCustomError:
    """A fault of one value: what is wrong (never the value itself) and what to write instead."""
    return PydanticCustomError("zta", "{message}", {"message": message, "hint": hint})


def distinct(items: tuple[str, ...]) -> tuple[str, ...]:
    """`items`, if each is there once."""
    for item in items:
        if items.count(item) > 1:
            raise wrong("the same value stands in the list twice", "leave one of the two")
    return items
