"""What commands print: one fault a line, coloured only where a person looks at it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.errors import Fault


def print_faults(faults: Iterable[Fault]) -> None:
    """Each fault as one line on standard error."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for fault in faults:
        if console.is_terminal:
            console.print(_coloured(fault))
        else:
            print(one_line(str(fault)), file=sys.stderr)


def one_line(text: str) -> str:
    """`text` without line ends and control characters: file names and keys could otherwise steer the terminal."""
    shown = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return "".join(shown).encode("utf-8", "backslashreplace").decode()


def _coloured(fault: Fault) -> Text:
    place = f"{fault.source}:{fault.line}:{fault.column}" if fault.line else fault.source
    line = Text(one_line(place), style="bold")
    line.append(": ", style="not bold")
    line.append(one_line(fault.message), style="not bold red")
    if fault.hint:
        line.append("; ", style="not bold")
        line.append(one_line(fault.hint), style="not bold green")
    return line
