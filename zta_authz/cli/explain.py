"""`zta-authz explain`: what would be decided on one request, by which rule, or what was missing for an allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.output import add_output_argument
from zta_authz.cli.times import time_argument

if TYPE_CHECKING:
    import argparse

    from zta_authz.errors import Fault

EXIT_DENY: Final = 1


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.loading import add_settings_arguments

    command = subparsers.add_parser(
        "explain",
        help="decide one request and say why",
        description="Decide one request on the same core that serves, and say why it comes out so.",
        epilog="Exit status: 0 allow, 1 deny, 2 policies or request can't be read.",
    )
    command.add_argument(
        "--policies", metavar="PATH", nargs="+", default=[], help="files or directories (default: the settings')"
    )
    command.add_argument(
        "--request", metavar="FILE", required=True, help="a request in YAML, or a recorded CheckRequest; - reads stdin"
    )
    command.add_argument("--binary", action="store_true", help="the request is a CheckRequest, whatever it looks like")
    command.add_argument(
        "--at", metavar="TIME", type=time_argument, help="time of the decision, RFC 3339 (default: now)"
    )
    command.add_argument(
        "--caller",
        metavar="SPIFFE_ID",
        type=_caller,
        help="the proxy that asks (default: a Unix socket)",
    )
    add_output_argument(command)
    add_settings_arguments(command)
    command.set_defaults(run=run)


def _caller(text: str) -> str:
    from argparse import ArgumentTypeError

    from zta_authz.model.spiffe import SpiffeId

    try:
        return str(SpiffeId.parse(text))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def run(arguments: argparse.Namespace) -> int:
    """Explain. Raises `FaultsError` with everything that is wrong with settings, policies and request."""
    import time

    from zta_authz.cli.bench import Bench
    from zta_authz.cli.loading import options_for, read_settings
    from zta_authz.cli.outcome import decision_fields, print_lines, time_text
    from zta_authz.cli.output import print_json, stdout_console
    from zta_authz.cli.requests import load_request
    from zta_authz.errors import FaultsError

    settings = read_settings(arguments)
    faults: list[Fault] = []
    bench = subject = None
    try:
        subject = load_request(arguments.request, binary=arguments.binary, caller=arguments.caller or "")
    except FaultsError as error:
        faults += error.faults
    try:
        bench = Bench(arguments.policies or settings.policies, options_for(settings, arguments.policies))
    except FaultsError as error:
        faults += error.faults
    if bench is None or subject is None:
        raise FaultsError(faults)
    at = time.time() if arguments.at is None else arguments.at
    explanation = bench.explain(subject, at)
    if arguments.output == "json":
        print_json("Explanation", {"at": time_text(at), **decision_fields(bench, subject, explanation)})
    else:
        console = stdout_console()
        for line in print_lines(bench, subject, explanation):
            console.print(line, soft_wrap=True)
    return 0 if explanation.decision.allowed else EXIT_DENY
