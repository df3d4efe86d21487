"""Settings: one YAML file and `ZTA_` environment variables, the environment winning, to one frozen `Settings`.

model        the fields, their defaults, and what each alone must satisfy
environment  variables to values by path
load         file and environment to `Settings`, or every fault with its place and how to mend it
"""

from __future__ import annotations

from zta_authz.settings.load import load_settings, parse_settings
from zta_authz.settings.model import Settings

__all__ = ["Settings", "load_settings", "parse_settings"]
