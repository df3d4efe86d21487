"""A request in the arguments of a command: `GET /orders --principal spiffe://... --claim sub=a`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.cli.request_files import Subject

SOURCE: Final = "command line"
"""The place of faults in such a request."""
_ALWAYS_TEXT: Final = frozenset(("iss", "sub", "aud", "jti", "azp", "client_id", "scope"))


def add_request_arguments(command: argparse.ArgumentParser) -> None:
    """METHOD, PATH and the options that complete the request."""
    group = command.add_argument_group("the request (or in a file: --request)")
    group.add_argument("method", metavar="METHOD", nargs="?", type=_method, help="like GET, as the client sends it")
    group.add_argument("path", metavar="PATH", nargs="?", help="like /orders?page=2 (default: /)")
    group.add_argument("--principal", metavar="SPIFFE_ID", help="assume that the peer is verified as this")
    group.add_argument(
        "--claim",
        metavar="NAME=VALUE",
        action="append",
        type=_claim,
        help="assume a verified token with this claim; VALUE may be JSON; repeat for a list",
    )
    group.add_argument(
        "--header", metavar="NAME=VALUE", action="append", type=_header, help="a request header; may be repeated"
    )
    group.add_argument("--host", metavar="HOST", help="the host that the client asks for")
    group.add_argument("--source-ip", metavar="ADDRESS", help="the address that the proxy sees as the client's")


def _method(text: str) -> str:
    if text.startswith("/"):
        raise argparse.ArgumentTypeError(f"the method comes first, like: GET {text}")
    return text


def _claim(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError("write NAME=VALUE, like sub=ann or 'groups=[\"staff\"]'")
    try:
        return name, value if name in _ALWAYS_TEXT else json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _header(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError("write NAME=VALUE, like x-team=orders")
    return name, value


def given_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of the request that `arguments` describe, as a request in YAML has them; none were given: empty."""
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
    """Values by name; a list where a name was given several times."""
    values: dict[str, list[Any]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: given[0] if len(given) == 1 else given for name, given in values.items()}


def read_arguments(fields: dict[str, Any], caller: str) -> Subject:
    """The request with these fields. Raises `FaultsError` as for a request in a file."""
    from dataclasses import replace

    from zta_authz.cli.request_files import request_in
    from zta_authz.errors import Fault, FaultsError

    try:
        subject = request_in(SOURCE, json.dumps(fields))
    except FaultsError as error:  # a line and column of text that nobody wrote
        raise FaultsError([Fault(SOURCE, 0, 0, fault.message, fault.hint) for fault in error.faults]) from None
    return replace(subject, caller=caller)
