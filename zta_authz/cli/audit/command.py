"""The command line of `zta-authz audit`."""

from __future__ import annotations

import argparse
import re
from typing import Final

from zta_authz.cli.output import add_output_argument

_PAGE: Final = "decision-log.md#verifying"
_ACCESS_PAGE: Final = "access-log.md#verifying"
_EXAMPLE: Final = "zta-authz audit verify decisions.jsonl"
_CLOCK_TOLERANCE: Final = 5.0
_MAX_TOLERANCE: Final = 86400.0
_MAX_DIGITS: Final = 18
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "audit",
        help="verify decision logs and access logs, and show how access came about",
        description="Verify decision logs and access logs, or show the steps and uses of a request for access.",
        epilog=epilog("0 yes, 1 no, 2 files or keys can't be read", _PAGE, _EXAMPLE),
    )
    actions = command.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    _add_verify(actions)
    _add_show(actions)


def _add_verify(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from zta_authz.cli.argument_parser import epilog

    verify = actions.add_parser(
        "verify",
        help="detect records that were changed, removed, reordered, truncated or rewritten",
        description="Verify the hash chain of decision logs and access logs, and their signed checkpoints if given. "
        "With --access-log, verify too that the access log explains what each decision rests on.",
        epilog=epilog(
            "0 all logs are unchanged and explained, 1 at least one is not, 2 files or keys can't be read",
            _PAGE,
            _EXAMPLE,
            f"{_EXAMPLE} --checkpoints checkpoints.jsonl --public-key audit.pub.pem -o json",
            f"{_EXAMPLE} --access-log access.jsonl",
        ),
    )
    verify.add_argument("files", nargs="*", metavar="FILE", help="files of one or several logs, in any order")
    _add_access_log(verify, required=False)
    verify.add_argument(
        "--clock-tolerance",
        metavar="SECONDS",
        type=_seconds,
        default=_CLOCK_TOLERANCE,
        help="how much the clocks of decision points and of the administrator's store may differ "
        f"(default: {_CLOCK_TOLERANCE:g})",
    )
    verify.add_argument(
        "--checkpoints",
        metavar="FILE",
        action="append",
        default=[],
        help="signed checkpoints of a log; may be repeated",
    )
    verify.add_argument("--public-key", metavar="FILE", help="the Ed25519 public key (PEM) of the checkpoints")
    verify.add_argument(
        "--first-record",
        metavar="NUMBER",
        type=_number,
        help="the number of the first record, if older records are archived elsewhere (default: 1)",
    )
    add_output_argument(verify)
    verify.set_defaults(run=run_verify, usage_error=verify.error)


def _add_show(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from zta_authz.cli.argument_parser import epilog

    show = actions.add_parser(
        "show",
        help="show how access came about: who asked, who approved, each use, and the end",
        description="Show the events of a request, grant or revocation, and the decisions that rest on it, in order of "
        "their times. This does not verify the logs.",
        epilog=epilog(
            "0 shown, 1 the logs have nothing about it, 2 files can't be read",
            _ACCESS_PAGE,
            "zta-authz audit show --access-log access.jsonl --request 0123456789abcdef decisions.jsonl*",
        ),
    )
    show.add_argument("files", nargs="*", metavar="FILE", help="files of decision logs, for the uses")
    _add_access_log(show, required=True)
    what = show.add_mutually_exclusive_group(required=True)
    what.add_argument("--request", metavar="ID", type=_id, help="the request for access, and its grant")
    what.add_argument("--grant", metavar="ID", type=_id, help="the grant, and its request")
    what.add_argument("--revocation", metavar="ID", type=_id, help="the revocation")
    add_output_argument(show)
    show.set_defaults(run=run_show)


def _add_access_log(command: argparse.ArgumentParser, *, required: bool) -> None:
    command.add_argument(
        "--access-log",
        metavar="PATH",
        action="append",
        default=[],
        required=required,
        help="the administrator's access log; its finished files beside it are read too; may be repeated for replicas",
    )


def run_verify(arguments: argparse.Namespace) -> int:
    """Verify."""
    from zta_authz.cli.audit.verify import run

    return run(arguments)


def run_show(arguments: argparse.Namespace) -> int:
    """Show."""
    from zta_authz.cli.audit.show import run

    return run(arguments)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= len(text) <= _MAX_DIGITS:
        raise argparse.ArgumentTypeError("not a record number")
    return int(text)


def _seconds(text: str) -> float:
    if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text, re.ASCII) is None or float(text) > _MAX_TOLERANCE:
        raise argparse.ArgumentTypeError("write a number of seconds from 0 to 86400")
    return float(text)


def _id(text: str) -> str:
    if _ID.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("not an ID")
    return text
