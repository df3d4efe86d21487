"""`zta-authz COMMAND`: argument parsing, and faults as lines on standard error.

Exit status: 0 done, 1 an unexpected failure, 2 wrong usage, settings or documents.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from zta_authz import __version__
from zta_authz.cli import serve
from zta_authz.cli.output import print_faults
from zta_authz.errors import FaultsError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_FAULTS: Final = 2
_COMMANDS: Final = (serve,)


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
        print_faults(error.faults)
        return EXIT_FAULTS
    except KeyboardInterrupt:
        return 130
    return status
