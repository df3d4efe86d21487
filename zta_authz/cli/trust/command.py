"""The command line of `zta-authz trust`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.output import add_output_argument
from zta_authz.cli.time_argument import time_argument

if TYPE_CHECKING:
    import argparse

_PAGE: Final = "cli.md#trust"
_LEVELS: Final = ("LOW", "MEDIUM", "HIGH")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "trust",
        help="explain a request's trust, or try another trust model",
        description="Explain the trust of a request, print the default model, or apply a new model to decision logs.",
        epilog=epilog("0 yes, 1 no, 2 faults", _PAGE, "zta-authz trust default > model.yaml"),
    )
    actions = command.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    _add_explain(actions)
    _add_default(actions)
    _add_simulate(actions)


def _add_explain(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from zta_authz.cli.argument_parser import epilog
    from zta_authz.cli.command_inputs import add_settings_arguments
    from zta_authz.cli.request_arguments import add_subject_arguments

    explain = actions.add_parser(
        "explain",
        help="assess one request, and print each lost point and what would raise the level",
        description="Assess one request with the trust model of its workload. Print components, lost points with the "
        "facts behind them, what holds the level down, and the fewest signals that would raise it.",
        epilog=epilog(
            "0 the request has the level of --level (without it: a level above DENY), 1 it does not, 2 faults",
            _PAGE,
            "zta-authz trust explain GET /payroll --claim sub=ann --fact device.managed=true --policies policies/",
            "zta-authz trust explain --request request.yaml --level HIGH -o json",
        ),
        usage="zta-authz trust explain (METHOD [PATH] [request options] | --request FILE) [options]",
    )
    add_subject_arguments(explain)
    explain.add_argument("--level", choices=_LEVELS, help="the level to reach (default: the next higher one)")
    add_output_argument(explain)
    add_settings_arguments(explain)
    explain.set_defaults(run=run_explain, usage_error=explain.error)


def _add_default(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from zta_authz.cli.argument_parser import epilog

    default = actions.add_parser(
        "default",
        help="print the default trust model as a document",
        description="Print a TrustModel document with every value that a document without them has.",
        epilog=epilog("0 printed", _PAGE, "zta-authz trust default > policies/trust.yaml"),
    )
    default.set_defaults(run=run_default)


def _add_simulate(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from zta_authz.cli.argument_parser import epilog

    simulate = actions.add_parser(
        "simulate",
        help="apply a new trust model to decision logs, and print who would drop or rise",
        description="Assess the requests of decision logs with a new trust model. Print whose level changes, and why.",
        epilog=epilog(
            "0 no level drops, 1 some drop, 2 faults, or no record can be assessed",
            _PAGE,
            "zta-authz trust simulate --log decisions.jsonl --model new-model.yaml",
            "zta-authz trust simulate --log logs/ --model new-model.yaml --since 2027-01-31T00:00:00Z -o json",
        ),
    )
    simulate.add_argument(
        "--log", metavar="FILE", nargs="+", required=True, help="decision logs, or directories of them"
    )
    simulate.add_argument("--model", metavar="FILE", required=True, help="a file with the new TrustModel")
    simulate.add_argument(
        "--since", metavar="TIME", type=time_argument, help="only decisions since this time, RFC 3339 (default: all)"
    )
    simulate.add_argument(
        "--replaces",
        metavar="NAMESPACE/NAME",
        help="only requests that this model assessed (default: those of the model of the same name if there are "
        "several new models, otherwise all)",
    )
    add_output_argument(simulate)
    simulate.set_defaults(run=run_simulate)


def run_explain(arguments: argparse.Namespace) -> int:
    """Explain."""
    from zta_authz.cli.trust.explain import run

    return run(arguments)


def run_default(arguments: argparse.Namespace) -> int:
    """Print the default model."""
    from zta_authz.cli.trust.default_model import default_model

    del arguments
    print(default_model(), end="")
    return 0


def run_simulate(arguments: argparse.Namespace) -> int:
    """Simulate."""
    from zta_authz.cli.trust.simulate import run

    return run(arguments)
