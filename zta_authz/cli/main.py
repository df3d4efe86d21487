"""`zta-authz COMMAND`: argument parsing, and faults as lines on standard error.

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
    "status": "zta_authz.cli.status",
    "check": "zta_authz.cli.check",
    "explain": "zta_authz.cli.explain",
    "test": "zta_authz.cli.policy_test_command",
    "replay": "zta_authz.cli.replay",
    "compliance": "zta_authz.cli.compliance",
    "audit": "zta_authz.cli.audit",
    "envoy-config": "zta_authz.cli.envoy_config.command",
    "completion": "zta_authz.cli.completion",
}
"""Each command and its module, which is imported where it is asked for: all of them together take half a second."""

_EXAMPLES: Final = """\
Examples:
  zta-authz check policies/
  zta-authz explain GET /orders --principal spiffe://cluster.local/ns/default/sa/frontend --policies policies/
  zta-authz serve --config settings.yaml"""


def parser(commands: Iterable[str] = _COMMANDS) -> argparse.ArgumentParser:
    """The command line's grammar, with these commands."""
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
    """The commands that the arguments are about: one that is named first, none for `--version`, else all."""
    first = arguments[0] if arguments else ""
    if first in _COMMANDS:
        return (first,)
    return () if first == "--version" else _COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. What it prints is written when this returns, or it is status 1."""
    given = sys.argv[1:] if argv is None else argv
    arguments = parser(_asked_for(given)).parse_args(given)
    try:
        status = _run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough
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
    """`fault`, with the directory that its path counts from where a relative path leads nowhere."""
    if "o such file" not in fault.message or os.path.isabs(fault.source):
        return fault
    hint = f"{fault.hint}; a relative path counts from {Path.cwd()}".removeprefix("; ")
    return Fault(fault.source, fault.line, fault.column, fault.message, hint)


def _do_without_stdout(command: str) -> None:
    """Standard output was closed by whoever started this. Raises `FaultsError` for `serve`, which records on it."""
    if command == "serve":  # else records went into whatever gets the free descriptor: a client's connection
        message = "is closed, and decisions are recorded on it unless `audit.sink` says otherwise"
        raise FaultsError([Fault("standard output", 0, 0, message, "give it a file, a pipe or /dev/null")])
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process


def _give_up_stdout() -> None:
    """Nothing more can be written, also not at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
