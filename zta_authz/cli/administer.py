"""`zta-authz administer`: grant and revoke access, receive signals, and publish both to decision points."""

from __future__ import annotations

import argparse
import os


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "administer",
        help="grant and revoke access, and publish it to decision points",
        description="Run the administrator until SIGTERM or SIGINT: requests for access, grants, revocations and "
        "signals. Decision points (`zta-authz serve`) follow it.",
        epilog=epilog(
            "0 stopped by a signal, 1 a part failed, 2 settings or documents have faults, or the store can't be opened",
            "administrator.md",
            "zta-authz administer --config settings.yaml",
        ),
    )
    command.add_argument(
        "--config", metavar="FILE", help="settings file in YAML (default: built-in defaults and environment)"
    )
    command.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)  # how `serve` starts it
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the administrator. Raises `FaultsError` with what prevents the start."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before grpc is imported: its log lines are not JSON
    from zta_authz.administrator.app import administer
    from zta_authz.settings import load_settings
    from zta_authz.telemetry.service_log import log_python_warnings_and_exceptions

    settings = load_settings(arguments.config, os.environ)
    log_python_warnings_and_exceptions()
    administer(settings, embedded=arguments.embedded)
    return 0
