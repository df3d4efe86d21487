"""Command-line arguments that describe a request: `GET /orders --principal spiffe://... --claim sub=a`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.cli.request_files import Subject

SOURCE: Final = "command line"
"""The source of faults in a request that is given as arguments."""
_ALWAYS_TEXT: Final = frozenset(("iss", "sub", "aud", "jti", "azp", "client_id", "scope"))


def add_request_arguments(command: argparse.ArgumentParser) -> None:
    """Add METHOD, PATH and the options that describe the rest of the request."""
    group = command.add_argument_group("the request (alternatively in a file: --request)")
    group.add_argument("method", metavar="METHOD", nargs="?", type=_method, help="the HTTP method, for example GET")
    group.add_argument(
        "path", metavar="PATH", nargs="?", help="the path with its query, for example /orders?page=2 (default: /)"
    )
    group.add_argument("--principal", metavar="SPIFFE_ID", help="assume that the peer was verified as this workload")
    group.add_argument(
        "--claim",
        metavar="NAME=VALUE",
        action="append",
        type=_claim,
        help="assume a verified token with this claim; VALUE may be JSON; repeat the option for a list",
    )
    group.add_argument(
        "--header", metavar="NAME=VALUE", action="append", type=_header, help="a request header; may be repeated"
    )
    group.add_argument("--host", metavar="HOST", help="the host that the client requests")
    group.add_argument("--source-ip", metavar="ADDRESS", help="the client's IP address as the proxy sees it")


def _method(text: str) -> str:
    if text.startswith("/"):
        raise argparse.ArgumentTypeError(f"write the method first, for example: GET {text}")
    return text


def _claim(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError("write NAME=VALUE, for example sub=ann or 'groups=[\"staff\"]'")
    try:
        return name, value if name in _ALWAYS_TEXT else json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _header(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError("write NAME=VALUE, for example x-team=orders")
    return name, value


def given_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the given arguments as fields of a YAML request; {} if none were given."""
    fields = {
        "method": arguments.method,
        "path": arguments.path,
        "principal": arguments.principal,
        "host": arguments.host,
        "claims": _grouped(arguments.claim) if arguments.claim else None,
        "headers": _grouped(arguments.header) if arguments.header else None,
        "source": {"ip": arguments.source_ip} if arguments.source_ip else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _grouped(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the values by name, as a list if a name occurs several times."""
    values: dict[str, list[Any]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: given[0] if len(given) == 1 else given for name, given in values.items()}


def read_arguments(fields: dict[str, Any], caller: str) -> Subject:
    """Read the request with these fields. Raises `FaultsError` with all faults."""
    from dataclasses import replace

    from zta_authz.cli.request_files import request_in
    from zta_authz.errors import Fault, FaultsError

    try:
        subject = request_in(SOURCE, json.dumps(fields))
    except FaultsError as error:  # drop the line and column, which refer to the generated text
        raise FaultsError([Fault(SOURCE, 0, 0, fault.message, fault.hint) for fault in error.faults]) from None
    return replace(subject, caller=caller)
