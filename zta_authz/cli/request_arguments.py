"""Command-line arguments that describe a request: `GET /orders --principal spiffe://... --claim sub=a`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zta_authz.cli.policy_evaluator import PolicyEvaluator
    from zta_authz.cli.request_files import Subject
    from zta_authz.errors import Fault

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


def add_subject_arguments(command: argparse.ArgumentParser) -> None:
    """Add what `load_subject` reads: a request, assumed facts, the time and the policies. The caller adds settings."""
    from zta_authz.cli.time_argument import time_argument

    add_request_arguments(command)
    command.add_argument(
        "--fact",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_fact,
        help="assume a fact, such as network.country=DE or device.managed=stale; may be repeated",
    )
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


def load_subject(arguments: argparse.Namespace) -> tuple[PolicyEvaluator, Subject]:
    """Load the policies and read the request. Raises `FaultsError` with all faults of the settings and of both."""
    from dataclasses import replace

    from zta_authz.cli.command_inputs import options_for, read_settings
    from zta_authz.cli.fact_arguments import read_fact_arguments, with_facts
    from zta_authz.cli.policy_evaluator import PolicyEvaluator
    from zta_authz.errors import FaultsError, collect_faults

    read_subject = _subject_reader(arguments)
    settings = read_settings(arguments)
    faults: list[Fault] = []
    with collect_faults(faults):
        subject = read_subject()
    facts = read_fact_arguments(SOURCE, arguments.fact, faults) if arguments.fact else None
    with collect_faults(faults):
        options = options_for(settings, arguments.policies)
        evaluator = PolicyEvaluator(arguments.policies or settings.policies, options, settings)
    if faults:
        raise FaultsError(faults)
    return evaluator, replace(subject, facts=with_facts(subject.facts, facts))


def _subject_reader(arguments: argparse.Namespace) -> Callable[[], Subject]:
    """Return a function that reads the request. Exits with status 2 unless exactly one request is given."""
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
        command = " ".join(word for word in (arguments.command, getattr(arguments, "action", "")) if word)
        example = f"for example `{command} GET /orders`, or a file: `{command} --request FILE`"
        arguments.usage_error(f"give a request, {example}")
    return lambda: read_arguments(fields, caller)


def _caller(text: str) -> str:
    from zta_authz.model.spiffe import SpiffeId

    try:
        return str(SpiffeId.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fact(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign or not value:
        raise argparse.ArgumentTypeError("write NAME=VALUE, for example network.country=DE or device.managed=true")
    return name, value


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
