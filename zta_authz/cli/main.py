"""`zta-authz COMMAND`: parse the arguments, run the command, and print faults to standard error.

Exit status: see "Exit status" in docs/cli.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from zta_authz import __version__
from zta_authz.cli.argument_parser import DOCS, ArgumentParser
from zta_authz.cli.fault_lines import print_faults
from zta_authz.cli.output import fault_fields, print_json
from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

EXIT_FAULTS: Final = 2
EXIT_UNREAD: Final = 1
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_COMMANDS: Final = {
    "serve": "zta_authz.cli.serve",
    "administer": "zta_authz.cli.administer",
    "access": "zta_authz.cli.access",
    "revoke": "zta_authz.cli.revoke",
    "unrevoke": "zta_authz.cli.unrevoke",
    "signals": "zta_authz.cli.signals",
    "status": "zta_authz.cli.status",
    "check": "zta_authz.cli.check",
    "explain": "zta_authz.cli.explain",
    "test": "zta_authz.cli.policy_test_command",
    "replay": "zta_authz.cli.replay",
    "compliance": "zta_authz.cli.compliance",
    "devices": "zta_authz.cli.devices",
    "trust": "zta_authz.cli.trust.command",
    "audit": "zta_authz.cli.audit.command",
    "schema": "zta_authz.cli.schema.command",
    "envoy-config": "zta_authz.cli.envoy_config.command",
    "completion": "zta_authz.cli.completion",
}
"""The module of each command. It is imported on use: importing all modules takes half a second."""

_EXAMPLES: Final = """\
Examples:
  zta-authz check policies/
  zta-authz explain GET /orders --principal spiffe://cluster.local/ns/default/sa/frontend --policies policies/
  zta-authz serve --config settings.yaml"""


def parser(commands: Iterable[str] = _COMMANDS) -> argparse.ArgumentParser:
    """Return the argument parser for `commands`."""
    root = ArgumentParser(
        prog="zta-authz",
        description="Zero-trust external authorization for Envoy and Istio.",
        epilog=f"{_EXAMPLES}\n\nMore: {DOCS}cli.md, and `zta-authz COMMAND --help`",
    )
    root.add_argument("--version", action="version", version=f"zta-authz {__version__}")
    subparsers = root.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for command in commands:
        import_module(_COMMANDS[command]).register(subparsers)
    return root


def _asked_for(arguments: Sequence[str]) -> Iterable[str]:
    """Return the commands whose parsers are needed: the one named first, none for `--version`, otherwise all."""
    first = arguments[0] if arguments else ""
    if first in _COMMANDS:
        return (first,)
    return () if first == "--version" else _COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 1 if its output could not be written."""
    given = sys.argv[1:] if argv is None else argv
    arguments = parser(_asked_for(given)).parse_args(given)
    try:
        status = _run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        _give_up_stdout()
        return EXIT_UNREAD
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        _give_up_stdout()
        with contextlib.suppress(OSError):
            print(f"standard output: cannot be written: {error.strerror}", file=sys.stderr)
        return EXIT_UNREAD
    except KeyboardInterrupt:
        return 130
    return status


def _run(arguments: argparse.Namespace) -> int:
    try:
        if sys.stdout is None:
            _do_without_stdout(arguments.command)
        status: int = arguments.run(arguments)
    except FaultsError as error:
        faults = [_with_directory(fault) for fault in error.faults]
        if getattr(arguments, "output", "text") == "json":
            print_json("Faults", {"faults": [fault_fields(fault) for fault in faults]})
        else:
            print_faults(faults, excerpts=arguments.command != "serve")  # a service's log is read by machines
        return EXIT_FAULTS
    return status


def _with_directory(fault: Fault) -> Fault:
    """Add the current directory to the hint of a fault about a relative path that does not exist."""
    if "o such file" not in fault.message or os.path.isabs(fault.source):
        return fault
    hint = f"{fault.hint}; relative paths start at {Path.cwd()}".removeprefix("; ")
    return Fault(fault.source, fault.line, fault.column, fault.message, hint)


def _do_without_stdout(command: str) -> None:
    """Replace the closed standard output by /dev/null. Raises `FaultsError` for `serve`, which writes records to it."""
    if command == "serve":  # otherwise a client's connection could get descriptor 1, and receive the records
        message = "is closed, but decisions are recorded on it unless `audit.sink` is changed"
        raise FaultsError([Fault("standard output", 0, 0, message, "redirect it to a file, a pipe or /dev/null")])
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the process ends


def _give_up_stdout() -> None:
    """Redirect standard output to /dev/null, so that the flush at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
