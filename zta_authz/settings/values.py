"""What all parts of the settings are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1, max_length=4096)]
PositiveSeconds = Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)]


class Section(BaseModel):
    """What every part of the settings shares: frozen, strict in types, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)
