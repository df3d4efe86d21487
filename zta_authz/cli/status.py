"""`zta-authz status`: print the state of a running service, read from its admin API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zta_authz.cli.output import add_output_argument

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from zta_authz.admin.client import ServiceStatus
    from zta_authz.ports import FollowingStatus
    from zta_authz.settings import Settings

EXIT_NOT_WELL: Final = 1
_UNIX: Final = "unix:"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "status",
        help="print the state of a running service",
        description="Print the policies and keys that a running service uses, from its admin API over a Unix socket.",
        epilog=epilog(
            "0 ready, 1 not ready or the policies on disk were refused, 2 no answer or faults",
            "admin.md",
            "zta-authz status --config settings.yaml",
            "zta-authz status --admin unix:/run/zta-authz/admin.sock -o json",
        ),
    )
    command.add_argument("--config", metavar="FILE", help="the settings file of the service, which has `admin.listen`")
    command.add_argument(
        "--admin", metavar="unix:/PATH", help="the socket of the admin API (default: `admin.listen` of the settings)"
    )
    add_output_argument(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask each worker. Raises `FaultsError` if one does not answer."""
    import os

    from zta_authz.admin.client import fetch_status
    from zta_authz.cli.output import print_json, stdout_console
    from zta_authz.settings import load_settings

    addresses = _addresses(arguments.admin, load_settings(arguments.config, os.environ))
    statuses = [(address, fetch_status(address)) for address in addresses]
    if arguments.output == "json":
        print_json("Status", {"services": [_fields(address, status) for address, status in statuses]})
    else:
        console = stdout_console()
        for address, status in statuses:
            for line in _lines(address, status):
                console.print(line, soft_wrap=True)
    return 0 if all(status.ready and not status.load_errors for _, status in statuses) else EXIT_NOT_WELL


def _addresses(given: str | None, settings: Settings) -> list[str]:
    """Return the socket of each worker. Raises `FaultsError` if the admin API has no Unix socket."""
    from zta_authz.errors import Fault, FaultsError

    address = given or settings.admin.listen
    where = "--admin" if given else "admin.listen"
    if address is None:
        hint = "set it to a Unix socket, for example `unix:/run/zta-authz/admin.sock`, or use --admin"
        raise FaultsError([Fault(where, 0, 0, "the admin API is disabled in these settings", hint)])
    if not address.startswith(_UNIX):
        hint = "use a Unix socket; docs/admin.md describes the API for other clients"
        raise FaultsError(
            [
                Fault(
                    where, 0, 0, f"`{address}` is not a Unix socket, and this command does not support mutual TLS", hint
                )
            ]
        )
    if given or settings.workers == 1:
        return [address]
    return [f"{address}.{number}" for number in range(1, settings.workers + 1)]


def _fields(address: str, status: ServiceStatus) -> dict[str, Any]:
    from zta_authz.cli.decision_output import time_text
    from zta_authz.cli.output import fault_fields

    return {
        "address": address,
        "ready": status.ready,
        "version": status.version,
        "uptimeSeconds": round(status.uptime, 1),
        "digest": status.table_digest or None,
        "loadedAt": time_text(status.loaded_at) if status.loaded_at else None,
        "sources": list(status.sources),
        "loadErrors": [fault_fields(fault) for fault in status.load_errors],
        "warnings": [fault_fields(fault) for fault in status.warnings],
        "keys": [
            {
                "kind": keys.keys.kind.value,
                "name": keys.keys.name,
                "count": keys.keys.count,
                "ageSeconds": round(keys.age, 1),
                "expiresAt": time_text(keys.keys.expires_at) if keys.keys.expires_at else None,
            }
            for keys in status.keys
        ],
        "following": _following_fields(status.following),
    }


def _following_fields(following: FollowingStatus | None) -> dict[str, Any] | None:
    if following is None:
        return None
    return {
        "address": following.address,
        "connected": following.connected,
        "ageSeconds": None if following.age is None else round(following.age, 1),
        "stale": following.stale,
        "revision": following.revision,
        "items": following.items,
    }


def _lines(address: str, status: ServiceStatus) -> Iterator[str]:
    from zta_authz.cli.decision_output import time_text
    from zta_authz.cli.output import one_line

    yield one_line(f"{address}  {'ready' if status.ready else 'NOT READY'}")
    yield one_line(f"  version   {status.version}, up for {round(status.uptime)} s")
    since = f", loaded at {time_text(round(status.loaded_at))}" if status.loaded_at else ""
    yield one_line(f"  policies  {status.table_digest[:12] or 'none loaded'}{since}")
    for source in status.sources:
        yield one_line(f"            {source}")
    for keys in status.keys:
        ends = f", until {time_text(round(keys.keys.expires_at))}" if keys.keys.expires_at else ""
        kind = keys.keys.kind.value.replace("_", " ")
        yield one_line(f"  keys      {kind} {keys.keys.name}: {keys.keys.count}, {round(keys.age)} s old{ends}")
    if status.following is not None:
        yield one_line(f"  follows   {_following_text(status.following)}")
    for fault in status.load_errors:
        yield one_line(f"  REFUSED   {fault}")
    for fault in status.warnings:
        yield one_line(f"  warning   {fault}")


def _following_text(following: FollowingStatus) -> str:
    items = ", ".join(f"{count} {kind}s" for kind, count in sorted(following.items.items()))
    state = "connected" if following.connected else "NOT CONNECTED"
    if following.age is None:
        return f"{following.address}: {state}, nothing was received yet"
    old = ", TOO OLD" if following.stale else ""
    return f"{following.address}: {state}, {round(following.age)} s old{old}, revision {following.revision}, {items}"
