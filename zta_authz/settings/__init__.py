"""Settings: one YAML file and `ZTA_` environment variables, which override it, loaded into a frozen `Settings`.

model        the fields, their defaults, and checks of single fields
environment  environment variables to values by path
load         file and environment to `Settings`, or every fault with its place and how to fix it
"""

from __future__ import annotations

from zta_authz.settings.load import load_settings, parse_settings
from zta_authz.settings.model import Settings

__all__ = ["Settings", "load_settings", "parse_settings"]
