"""Output of commands: JSON as documented in docs/cli.md, and text with colours on terminals only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from zta_authz.errors import Fault

API_VERSION: Final = "zta.dev/v1"
_PLAIN_WIDTH: Final = 200
"""The width of tables that are written to files and pipes, in columns."""


def add_output_argument(command: argparse.ArgumentParser) -> None:
    """Add `--output`."""
    command.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="output format (default: text)"
    )


def stdout_console() -> Console:
    """Return a console for standard output. It interprets no markup, because output contains untrusted text."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, emoji=False, highlight=False, width=_PLAIN_WIDTH)


def print_json(kind: str, fields: dict[str, Any]) -> None:
    """Print one JSON object of type `kind` to standard output."""
    print(json.dumps({"apiVersion": API_VERSION, "kind": kind, **fields}, indent=2))


def fault_fields(fault: Fault) -> dict[str, Any]:
    """Return a fault as JSON fields; `line` and `column` are null if unknown."""
    return {
        "source": fault.source,
        "line": fault.line or None,
        "column": fault.column or None,
        "message": fault.message,
        "hint": fault.hint,
    }


def one_line(text: str) -> str:
    """Escape line ends and control characters: file names and keys must not control the terminal."""
    shown = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return "".join(shown).encode("utf-8", "backslashreplace").decode()
