"""`zta-authz explain`: decide one request, and print the rule that decides or what is missing for an allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.output import add_output_argument

if TYPE_CHECKING:
    import argparse

EXIT_DENY: Final = 1


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog
    from zta_authz.cli.command_inputs import add_settings_arguments
    from zta_authz.cli.request_arguments import add_subject_arguments

    command = subparsers.add_parser(
        "explain",
        help="decide one request and explain the decision",
        description="Decide one request with the code that `serve` uses, and explain the decision.",
        epilog=epilog(
            "0 allow, 1 deny, 2 the policies or the request can't be read",
            "cli.md#explain",
            "zta-authz explain GET /orders --principal spiffe://cluster.local/ns/default/sa/frontend",
            "zta-authz explain POST /orders --claim iss=https://issuer.example --claim sub=ann --header x-team=a",
            "zta-authz explain GET /payroll --fact network.country=DE --fact device.managed=true",
            "zta-authz explain --request request.yaml --policies policies/ -l app=orders -o json",
        ),
        usage="zta-authz explain (METHOD [PATH] [request options] | --request FILE) [options]",
    )
    add_subject_arguments(command)
    add_output_argument(command)
    add_settings_arguments(command)
    command.set_defaults(run=run, usage_error=command.error)


def run(arguments: argparse.Namespace) -> int:
    """Explain. Raises `FaultsError` with all faults of the settings, the policies and the request."""
    import time

    from zta_authz.cli.decision_output import decision_fields, print_lines, time_text
    from zta_authz.cli.output import print_json, stdout_console
    from zta_authz.cli.request_arguments import load_subject

    evaluator, subject = load_subject(arguments)
    at = time.time() if arguments.at is None else arguments.at
    explanation = evaluator.explain(subject, at)
    if arguments.output == "json":
        print_json("Explanation", {"at": time_text(at), **decision_fields(evaluator, subject, explanation)})
    else:
        console = stdout_console()
        for line in print_lines(evaluator, subject, explanation):
            console.print(line, soft_wrap=True)
    return 0 if explanation.decision.allowed else EXIT_DENY
