"""`zta-authz serve`: answer Envoy until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from zta_authz.settings import Settings


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "serve",
        help="answer Envoy's authorization checks",
        description="Answer Envoy's authorization checks until SIGTERM or SIGINT, then drain and exit with status 0.",
        epilog=epilog(
            "0 stopped by a signal, 2 settings or documents have faults",
            "settings.md",
            "zta-authz serve --config settings.yaml",
            "ZTA_WORKLOAD__NAMESPACE=orders zta-authz serve    # every setting can be an environment variable",
        ),
    )
    command.add_argument(
        "--config", metavar="FILE", help="settings file in YAML (default: built-in defaults and environment)"
    )
    command.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # how a supervisor starts its workers
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve. Raises `FaultsError` before anything is served if the settings or documents have faults."""
    # Silence gRPC's own log lines, which can't be formatted as JSON. This must happen before grpc is imported.
    # GRPC_VERBOSITY=ERROR in the environment shows them again.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from zta_authz.service.app import serve
    from zta_authz.settings import load_settings
    from zta_authz.telemetry.service_log import log_python_warnings_and_exceptions

    def read() -> Settings:
        return load_settings(arguments.config, os.environ)

    if arguments.worker is not None:
        from zta_authz.service.workers.worker import run_worker

        log_python_warnings_and_exceptions()
        run_worker(arguments.worker)
        return 0
    settings = read()
    log_python_warnings_and_exceptions()
    with _beside(settings, arguments.config):
        if settings.workers > 1:
            from zta_authz.service.workers.supervisor import supervise

            return supervise(settings, arguments.config)
        serve(settings, arguments.config, read)
    return 0


def _beside(settings: Settings, config: str | None) -> AbstractContextManager[object]:
    """The administrator that runs beside the service, if the settings have one."""
    if not settings.administrator.embedded:
        return nullcontext()
    from zta_authz.service.embedded import EmbeddedAdministrator

    return EmbeddedAdministrator(config)
