"""`zta-authz signals`: list held security events, and release or discard one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from zta_authz.cli.access import all_items, print_item, run_action
from zta_authz.cli.administrator_client import add_client_arguments
from zta_authz.cli.output import add_output_argument, one_line, print_json

if TYPE_CHECKING:
    import argparse

    from zta_authz.cli.administrator_client import AdministratorClient


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "signals",
        help="list held security events, and release or discard them",
        description="Security events about a whole tenant, or about too many subjects, have no effect until somebody "
        "releases them at the administrator.",
        epilog=epilog(
            "0 done, 1 the administrator refused it, 2 no answer or faults",
            "signals.md#held-events",
            "zta-authz signals list",
            "zta-authz signals release 3f2a9c04d1e85b7760aa19c2f4e3b8d5 --reason 'INC-4711 the tenant was breached'",
        ),
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list held events", description="List held events.")
    add_client_arguments(listing)
    add_output_argument(listing)
    listing.set_defaults(run=lambda arguments: run_action(_list, arguments))
    for name, text in (("release", "put in force what a held event changes"), ("discard", "discard a held event")):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument("id", metavar="EVENT", help="its ID, as `zta-authz signals list` shows it")
        action.add_argument("--reason", required=True, help="why")
        add_client_arguments(action)
        add_output_argument(action)
        action.set_defaults(run=lambda arguments: run_action(_decide, arguments))


def _list(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    from zta_authz.cli.access_output import table_lines

    items = all_items(client, "/signals", "held")
    if arguments.output == "json":
        print_json("HeldEventList", {"held": items})
        return 0
    rows = [("EVENT", "SOURCE", "TYPE", "WHY", "HAPPENED AT", "WOULD CHANGE"), *map(_row, items)]
    for line in table_lines(rows) if items else ["no event is held"]:
        print(one_line(line))
    return 0


def _decide(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    from zta_authz.cli.access_output import held_lines

    path = f"/signals/{quote(arguments.id, safe='')}/{arguments.action}"
    held = client.call("POST", path, {"reason": arguments.reason})
    return print_item("HeldEvent", held, held_lines(held), arguments)


def _row(held: dict[str, Any]) -> tuple[str, ...]:
    from zta_authz.cli.access_output import changed_subjects

    kind = held["event_type"].rpartition("/")[2]
    return held["id"], held["source"], kind, held["why"], held["happened_at"], ", ".join(changed_subjects(held))
