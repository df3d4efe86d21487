"""The operator's commands. Each is one module with `register(subparsers)` and `run(arguments) -> exit status`."""

from __future__ import annotations

from zta_authz.cli.main import main

__all__ = ["main"]
