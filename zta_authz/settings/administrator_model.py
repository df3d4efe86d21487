"""Settings about the administrator: the one that a decision point follows, and how `zta-authz administer` runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from zta_authz.settings.field_types import Address
from zta_authz.settings.values import Section


class AdministratorSettings(Section):
    """The administrator that `zta-authz serve` follows; grants count for `max_age_seconds` after the last contact."""

    follow: Address | None = None
    max_age_seconds: Annotated[float, Field(ge=30, le=7 * 24 * 3600, allow_inf_nan=False)] = 600.0
