"""`zta-authz unrevoke`: lift a revocation."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from zta_authz.cli.access import print_item, run_action
from zta_authz.cli.administrator_client import add_client_arguments
from zta_authz.cli.output import add_output_argument

if TYPE_CHECKING:
    import argparse

    from zta_authz.cli.administrator_client import AdministratorClient


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "unrevoke",
        help="lift a revocation",
        description="Lift a revocation at the administrator. Decision points stop refusing within a second.",
        epilog=epilog(
            "0 lifted, 1 the administrator refused it, 2 no answer or faults",
            "access.md",
            "zta-authz unrevoke op-0f4c19e2b7d5a8630f4c19e2b7d5a863 --reason 'it was found'",
        ),
    )
    command.add_argument("id", metavar="REVOCATION", help="its ID, as `zta-authz revoke list` shows it")
    command.add_argument("--reason", required=True, help="why")
    add_client_arguments(command)
    add_output_argument(command)
    command.set_defaults(run=lambda arguments: run_action(_lift, arguments))


def _lift(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    from zta_authz.cli.access_output import revocation_lines

    revocation = client.call("POST", f"/revocations/{quote(arguments.id, safe='')}/lift", {"reason": arguments.reason})
    return print_item("Revocation", revocation, revocation_lines(revocation), arguments)
