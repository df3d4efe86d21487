"""`zta-authz COMMAND`: argument parsing, and faults as lines on standard error.

Exit status: 0 done, 1 an unexpected failure or what the command says, 2 wrong usage, settings or documents.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from zta_authz import __version__
from zta_authz.cli import audit, check, compliance, explain, replay, serve, test_policies
from zta_authz.cli.envoy_config import command as envoy_config
from zta_authz.cli.output import fault_fields, print_faults, print_json
from zta_authz.errors import FaultsError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_FAULTS: Final = 2
EXIT_UNREAD: Final = 1
_COMMANDS: Final = (serve, check, explain, test_policies, replay, compliance, audit, envoy_config)


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    root = argparse.ArgumentParser(
        prog="zta-authz", description="Zero-trust external authorization for Envoy and Istio."
    )
    root.add_argument("--version", action="version", version=f"zta-authz {__version__}")
    subparsers = root.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.register(subparsers)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    arguments = parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except FaultsError as error:
        if getattr(arguments, "output", "text") == "json":
            print_json("Faults", {"faults": [fault_fields(fault) for fault in error.faults]})
        else:
            print_faults(error.faults)
        return EXIT_FAULTS
    except BrokenPipeError:  # whoever reads has enough; nothing more can be written, also not at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD
    except KeyboardInterrupt:
        return 130
    return status
