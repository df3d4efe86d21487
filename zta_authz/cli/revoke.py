"""`zta-authz revoke`: refuse a credential, a person, a workload or a device everywhere, now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zta_authz.cli.access import all_items, print_item, run_action
from zta_authz.cli.administrator_client import add_client_arguments
from zta_authz.cli.output import add_output_argument, one_line, print_json

if TYPE_CHECKING:
    import argparse

    from zta_authz.cli.administrator_client import AdministratorClient

WHAT: Final = (
    "subject", "session", "token", "certificate", "spiffe-id", "spiffe-prefix", "device", "email", "key", "issuer",
)  # fmt: skip
_LIST: Final = "list"
_STATUS: Final = "0 done, 1 the administrator refused it, 2 no answer or faults"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "revoke",
        help="refuse a person, session, token, certificate, workload or device everywhere, now",
        description="Revoke something at the administrator. All decision points that follow it refuse it within a "
        "second. `zta-authz revoke list` lists what is revoked.",
        epilog=epilog(
            _STATUS,
            "access.md",
            "zta-authz revoke subject dana --issuer https://login.example.com --reason 'laptop stolen'",
            "zta-authz revoke spiffe-id spiffe://cluster.local/ns/shop/sa/orders --reason 'key leaked'",
            "zta-authz revoke list",
        ),
    )
    command.add_argument("what", choices=(*WHAT, _LIST), help="what to revoke, or `list`")
    command.add_argument(
        "value", nargs="?", help="the `sub`, `sid`, `jti`, serial number or SHA-256, SPIFFE ID, device ID and so on"
    )
    command.add_argument("--issuer", default="", help="the `iss` of the tokens; for a device, its inventory")
    command.add_argument(
        "--issued-before", metavar="TIME", default="", help="only what was issued before (RFC 3339, or `now`)"
    )
    command.add_argument(
        "--until", metavar="TIME", default="", help="end the revocation then (default: lift it yourself)"
    )
    command.add_argument("--reason", default="", help="why; required to revoke")
    add_client_arguments(command)
    add_output_argument(command)
    command.set_defaults(run=run, parser=command)


def run(arguments: argparse.Namespace) -> int:
    """Revoke or list. Raises `FaultsError` without an answer."""
    if arguments.what == _LIST:
        if any((arguments.value, arguments.issuer, arguments.issued_before, arguments.until, arguments.reason)):
            arguments.parser.error(
                "`list` lists all revocations: it has no value and no --issuer, --issued-before, --until or --reason"
            )
        return run_action(_list, arguments)
    if not arguments.value or not arguments.reason:
        arguments.parser.error("a revocation needs a value and --reason")
    return run_action(_revoke, arguments)


def _revoke(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    from datetime import UTC, datetime, timedelta

    from zta_authz.cli.access_output import revocation_lines

    before = arguments.issued_before
    if before == "now":  # tokens have whole seconds: those of the second that has begun are refused too
        before = (datetime.now(UTC) + timedelta(seconds=1)).isoformat(timespec="seconds").replace("+00:00", "Z")
    body = {
        "what": arguments.what,
        "value": arguments.value,
        "issuer": arguments.issuer,
        "before": before,
        "until": arguments.until,
        "reason": arguments.reason,
    }
    revocation = client.call("POST", "/revocations", body)
    return print_item("Revocation", revocation, revocation_lines(revocation), arguments)


def _list(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    from zta_authz.cli.access_output import table_lines

    items = all_items(client, "/revocations", "revocations")
    if arguments.output == "json":
        print_json("RevocationList", {"revocations": items})
        return 0
    rows = [("REVOCATION", "WHAT", "VALUE", "ISSUER", "UNTIL", "REASON"), *map(_row, items)]
    for line in table_lines(rows) if items else ["nothing is revoked"]:
        print(one_line(line))
    return 0


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    until = item["until"] or "lifted"
    return (item["id"], item["what"], item["value"], item["issuer"] or "-", until, item["reason"])
