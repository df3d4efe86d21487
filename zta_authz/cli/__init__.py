"""The commands of `zta-authz`. Each is a module with `register(subparsers)` and `run(arguments) -> exit status`."""

from __future__ import annotations

import sys

if sys.argv[1:2] == ["serve"]:  # before all other imports: process 1 of a container must not miss its SIGTERM
    from zta_authz.signals import install_early_handlers

    install_early_handlers()

from zta_authz.cli.main import main

__all__ = ["main"]
