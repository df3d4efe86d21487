"""`zta-authz access`: ask for access, approve and deny it, end it, and list it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from zta_authz.cli.administrator_client import CallRefused, add_client_arguments, client_of
from zta_authz.cli.output import add_output_argument, one_line, print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping

    from zta_authz.cli.administrator_client import AdministratorClient

    Action = Callable[["AdministratorClient", argparse.Namespace], int]

EXIT_REFUSED: Final = 1
_PAGE: Final = 200
_STATUS: Final = "0 done, 1 the administrator refused it, 2 no answer or faults"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "access",
        help="ask for access for a while, approve it, and end it",
        description="Just-in-time access: ask the administrator for a grant of an AccessEntitlement, decide on "
        "requests of others, and end grants.",
        epilog=epilog(
            _STATUS,
            "access.md",
            "zta-authz access request payments/payments-db --for 1h --reason 'INC-4711 stuck order'",
            "zta-authz access list",
            "zta-authz access approve 4d1f0c8a9b2e7f63 --comment 'agreed by phone'",
        ),
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_request(actions)
    _add_approve(actions)
    for name, run, what, text in (
        ("deny", _deny, "REQUEST", "deny a request"),
        ("withdraw", _withdraw, "REQUEST", "withdraw your own request"),
        ("end", _end, "GRANT", "end your own grant"),
        ("revoke", _revoke, "GRANT", "end the grant of somebody else"),
        ("review", _review, "GRANT", "close the review that follows an emergency"),
        ("show", _show, "ID", "show a request or a grant"),
    ):
        action = _add(actions, name, run, text)
        action.add_argument("id", metavar=what, help="its ID")
        if name in ("deny", "review"):
            action.add_argument("--comment", default="", help="what the log says about it")
        if name in ("end", "revoke"):
            action.add_argument("--reason", default="", help="why")
    listing = _add(actions, "list", _list, "list requests that wait, and grants in force")
    listing.add_argument("what", nargs="?", choices=("requests", "grants"), help="only these (default: both)")
    listing.add_argument("--all", action="store_true", help="also those that are over")


def _add(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: Action, text: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    add_client_arguments(action)
    add_output_argument(action)
    action.set_defaults(run=lambda arguments: run_action(run, arguments))
    return action


def _add_request(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    action = _add(actions, "request", _request, "ask for access")
    action.add_argument("entitlement", metavar="NAMESPACE/NAME", help="the AccessEntitlement, as the denial names it")
    action.add_argument("--for", dest="duration", metavar="DURATION", required=True, help="how long, such as 1h30m")
    action.add_argument("--reason", default="", help="why; the entitlement may require a pattern")
    action.add_argument("--start", metavar="TIME", default="", help="when it begins (RFC 3339; default: when approved)")
    action.add_argument(
        "--emergency", action="store_true", help="have access at once, without approval; somebody reviews it afterwards"
    )


def _add_approve(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    action = _add(actions, "approve", _approve, "approve a request, after showing it")
    action.add_argument("id", metavar="REQUEST", help="its ID")
    action.add_argument("--for", dest="duration", metavar="DURATION", default=0, help="shorten it, such as to 30m")
    action.add_argument("--comment", default="", help="what the log says about it")
    action.add_argument(
        "--scope", metavar="SHA256", help="the `scope_sha256` of the request that you saw; nothing is asked then"
    )


def run_action(action: Action, arguments: argparse.Namespace) -> int:
    """Run one action with a client. A refusal is printed, and is exit status 1. Raises `FaultsError`."""
    client = client_of(arguments)
    try:
        return action(client, arguments)
    except CallRefused as refused:
        if arguments.output == "json":
            print_json("Refusal", {"reason": refused.reason, "detail": refused.detail})
        else:
            print(one_line(f"refused: {refused}"), file=sys.stderr)
        return EXIT_REFUSED
    finally:
        client.close()


def _path(arguments: argparse.Namespace, collection: str) -> str:
    return f"/access/{collection}/{quote(arguments.id, safe='')}"


def _post(
    client: AdministratorClient, arguments: argparse.Namespace, collection: str, step: str, body: Mapping[str, Any]
) -> dict[str, Any]:
    return client.call("POST", f"{_path(arguments, collection)}/{step}", body)


def _request(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    body = {"entitlement": arguments.entitlement, "duration": arguments.duration, "reason": arguments.reason}
    if arguments.emergency:
        return _print_grant(client.call("POST", "/access/break-glass", body), arguments)
    if arguments.start:
        body["start"] = arguments.start
    return _print_request(client.call("POST", "/access/requests", body), arguments)


def _approve(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    scope = arguments.scope
    if scope is None:
        request = client.call("GET", _path(arguments, "requests"))
        if not _confirmed(request):
            print("nothing is approved", file=sys.stderr)
            return EXIT_REFUSED
        scope = request["scope_sha256"]
    body = {"scope_sha256": scope, "duration": arguments.duration, "comment": arguments.comment}
    return _print_request(_post(client, arguments, "requests", "approve", body), arguments)


def _confirmed(request: Mapping[str, Any]) -> bool:
    """Show the request and ask, on a terminal. Without one, nobody has seen the request."""
    from zta_authz.cli.access_output import request_lines

    if not sys.stdin.isatty():
        print("this is no terminal: write --scope with the `scope_sha256` of `access show -o json`", file=sys.stderr)
        return False
    for line in request_lines(request):
        print(one_line(line), file=sys.stderr)
    print("Approve it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _deny(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    body = {"comment": arguments.comment}
    return _print_request(_post(client, arguments, "requests", "deny", body), arguments)


def _withdraw(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    return _print_request(_post(client, arguments, "requests", "withdraw", {}), arguments)


def _end(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    body = {"reason": arguments.reason}
    return _print_grant(_post(client, arguments, "grants", "end", body), arguments)


def _revoke(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    body = {"reason": arguments.reason}
    return _print_grant(_post(client, arguments, "grants", "revoke", body), arguments)


def _review(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    body = {"comment": arguments.comment}
    return _print_grant(_post(client, arguments, "grants", "review", body), arguments)


def _show(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    try:
        return _print_request(client.call("GET", _path(arguments, "requests")), arguments)
    except CallRefused as refused:
        if refused.reason != "not_found":
            raise
    return _print_grant(client.call("GET", _path(arguments, "grants")), arguments)


def _list(client: AdministratorClient, arguments: argparse.Namespace) -> int:
    lists: dict[str, list[dict[str, Any]]] = {}
    if arguments.what != "grants":
        states: tuple[str, ...] = ("",) if arguments.all else ("requested",)
        lists["requests"] = all_items(client, "/access/requests", "requests", states)
    if arguments.what != "requests":
        states = ("",) if arguments.all else ("active", "scheduled")
        lists["grants"] = all_items(client, "/access/grants", "grants", states)
    if arguments.output == "json":
        print_json("AccessList", lists)
        return 0
    for line in _list_lines(lists):
        print(one_line(line))
    return 0


def all_items(client: AdministratorClient, path: str, name: str, states: Iterable[str] = ("",)) -> list[dict[str, Any]]:
    """All items of a list, page by page, in each of `states` ("": in every state)."""
    items: list[dict[str, Any]] = []
    for state in states:
        after = ""
        while True:
            query = {"limit": str(_PAGE)} | ({"state": state} if state else {}) | ({"after": after} if after else {})
            page = client.call("GET", path, query=query)
            items += page[name]
            after = page["next"]
            if not after:
                break
    return items


def _list_lines(lists: Mapping[str, list[dict[str, Any]]]) -> Iterable[str]:
    from zta_authz.cli.access_output import duration_text, subject_text, table_lines

    requests, grants = lists.get("requests"), lists.get("grants")
    if requests is not None:
        rows = [("REQUEST", "STATE", "ENTITLEMENT", "REQUESTER", "FOR", "APPROVALS", "REASON")]
        rows += [
            (
                request["id"], request["state"], request["entitlement"], subject_text(request["requester"]),
                duration_text(request["duration_seconds"]),
                f"{len(request['approvals'])} of {request['approvals_needed']}", request["reason"],
            )
            for request in requests
        ]  # fmt: skip
        yield from table_lines(rows) if requests else ["no requests"]
    if grants is not None:
        rows_of_grants = [("GRANT", "STATE", "ENTITLEMENT", "HOLDER", "UNTIL", "REASON")]
        rows_of_grants += [
            (
                grant["id"], grant["state"], grant["entitlement"], subject_text(grant["subject"]),
                grant["until"], grant["reason"],
            )
            for grant in grants
        ]  # fmt: skip
        yield from table_lines(rows_of_grants) if grants else ["no grants"]


def _print_request(request: dict[str, Any], arguments: argparse.Namespace) -> int:
    from zta_authz.cli.access_output import request_lines

    return print_item("AccessRequest", request, request_lines(request), arguments)


def _print_grant(grant: dict[str, Any], arguments: argparse.Namespace) -> int:
    from zta_authz.cli.access_output import grant_lines

    return print_item("AccessGrant", grant, grant_lines(grant), arguments)


def print_item(kind: str, fields: dict[str, Any], lines: Iterable[str], arguments: argparse.Namespace) -> int:
    """Print one item as text or JSON. Returns 0."""
    if arguments.output == "json":
        print_json(kind, {"item": fields})
        return 0
    for line in lines:
        print(one_line(line))
    return 0
