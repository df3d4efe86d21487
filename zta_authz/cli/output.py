"""What commands print: JSON as documented in docs/cli.md, colours only where a person looks at it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from zta_authz.errors import Fault

API_VERSION: Final = "zta.dev/v1"
_PLAIN_WIDTH: Final = 200
"""Columns of tables in files and pipes."""


def add_output_argument(command: argparse.ArgumentParser) -> None:
    """`--output`."""
    command.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="what to print (default: text)"
    )


def stdout_console() -> Console:
    """Standard output. What is printed is text of others: no markup, no emoji codes; tables are wide in pipes."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, emoji=False, highlight=False, width=_PLAIN_WIDTH)


def print_json(kind: str, fields: dict[str, Any]) -> None:
    """One JSON object on standard output; `kind` says which."""
    print(json.dumps({"apiVersion": API_VERSION, "kind": kind, **fields}, indent=2))


def fault_fields(fault: Fault) -> dict[str, Any]:
    """A fault in JSON; `line` and `column` are null where there is no place."""
    return {
        "source": fault.source,
        "line": fault.line or None,
        "column": fault.column or None,
        "message": fault.message,
        "hint": fault.hint,
    }


def one_line(text: str) -> str:
    """`text` without line ends and control characters: file names and keys could otherwise steer the terminal."""
    shown = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return "".join(shown).encode("utf-8", "backslashreplace").decode()
