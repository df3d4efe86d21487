"""`zta-authz explain`: decide one request, and print the rule that decides or what is missing for an allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.output import add_output_argument
from zta_authz.cli.time_argument import time_argument

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from zta_authz.cli.request_files import Subject
    from zta_authz.errors import Fault

EXIT_DENY: Final = 1


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog
    from zta_authz.cli.command_inputs import add_settings_arguments
    from zta_authz.cli.request_arguments import add_request_arguments

    command = subparsers.add_parser(
        "explain",
        help="decide one request and explain the decision",
        description="Decide one request with the code that `serve` uses, and explain the decision.",
        epilog=epilog(
            "0 allow, 1 deny, 2 the policies or the request can't be read",
            "cli.md#explain",
            "zta-authz explain GET /orders --principal spiffe://cluster.local/ns/default/sa/frontend",
            "zta-authz explain POST /orders --claim iss=https://issuer.example --claim sub=ann --header x-team=a",
            "zta-authz explain --request request.yaml --policies policies/ -l app=orders -o json",
        ),
        usage="zta-authz explain (METHOD [PATH] [request options] | --request FILE) [options]",
    )
    add_request_arguments(command)
    command.add_argument(
        "--policies",
        metavar="PATH",
        nargs="+",
        default=[],
        help="files or directories (default: `policies` of the settings)",
    )
    command.add_argument(
        "--request", metavar="FILE", help="a request in YAML or a recorded CheckRequest; `-` reads standard input"
    )
    command.add_argument(
        "--binary", action="store_true", help="read the request as a CheckRequest without detecting its format"
    )
    command.add_argument(
        "--at", metavar="TIME", type=time_argument, help="decide as of this time, RFC 3339 (default: now)"
    )
    command.add_argument(
        "--caller",
        metavar="SPIFFE_ID",
        type=_caller,
        help="the SPIFFE ID of the proxy that sends the check (default: a proxy on the Unix socket)",
    )
    add_output_argument(command)
    add_settings_arguments(command)
    command.set_defaults(run=run, usage_error=command.error)


def _caller(text: str) -> str:
    from argparse import ArgumentTypeError

    from zta_authz.model.spiffe import SpiffeId

    try:
        return str(SpiffeId.parse(text))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _subject_reader(arguments: argparse.Namespace) -> Callable[[], Subject]:
    """Return a function that reads the request. Exits with status 2 unless exactly one request is given."""
    from zta_authz.cli.request_arguments import given_fields, read_arguments
    from zta_authz.cli.request_files import load_request

    fields, caller = given_fields(arguments), arguments.caller or ""
    if arguments.request and fields:
        arguments.usage_error(
            f"--request contains the whole request: leave out {', '.join(fields)}, or leave out --request"
        )
    if not arguments.request and arguments.binary:
        arguments.usage_error("--binary requires --request FILE")
    if arguments.request:
        return lambda: load_request(arguments.request, binary=arguments.binary, caller=caller)
    if arguments.method is None:
        arguments.usage_error("give a request, for example `explain GET /orders`, or a file: `explain --request FILE`")
    return lambda: read_arguments(fields, caller)


def run(arguments: argparse.Namespace) -> int:
    """Explain. Raises `FaultsError` with all faults of the settings, the policies and the request."""
    import time

    from zta_authz.cli.command_inputs import options_for, read_settings
    from zta_authz.cli.decision_output import decision_fields, print_lines, time_text
    from zta_authz.cli.output import print_json, stdout_console
    from zta_authz.cli.policy_evaluator import PolicyEvaluator
    from zta_authz.errors import FaultsError

    read_subject = _subject_reader(arguments)
    settings = read_settings(arguments)
    faults: list[Fault] = []
    evaluator = subject = None
    try:
        subject = read_subject()
    except FaultsError as error:
        faults += error.faults
    try:
        options = options_for(settings, arguments.policies)
        evaluator = PolicyEvaluator(arguments.policies or settings.policies, options, settings)
    except FaultsError as error:
        faults += error.faults
    if evaluator is None or subject is None:
        raise FaultsError(faults)
    at = time.time() if arguments.at is None else arguments.at
    explanation = evaluator.explain(subject, at)
    if arguments.output == "json":
        print_json("Explanation", {"at": time_text(at), **decision_fields(evaluator, subject, explanation)})
    else:
        console = stdout_console()
        for line in print_lines(evaluator, subject, explanation):
            console.print(line, soft_wrap=True)
    return 0 if explanation.decision.allowed else EXIT_DENY
