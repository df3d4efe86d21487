"""Print faults to standard error, one line each, optionally with an excerpt of the file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from zta_authz.cli.output import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.text import Text

    from zta_authz.errors import Fault


def print_faults(faults: Iterable[Fault], *, excerpts: bool = False) -> None:
    """Print each fault as one line to standard error; with `excerpts`, the source line below it."""
    from rich.console import Console
    from rich.text import Text

    from zta_authz.cli.excerpt import Excerpts

    sources = Excerpts()
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for fault in faults:
        if console.is_terminal:
            console.print(_coloured(fault))
        else:
            print(one_line(str(fault)), file=sys.stderr)
        for line in sources.of(fault) if excerpts else ():
            console.print(Text(line, style="dim"))


def _coloured(fault: Fault) -> Text:
    from rich.text import Text

    place = f"{fault.source}:{fault.line}:{fault.column}" if fault.line else fault.source
    line = Text(one_line(place), style="bold")
    line.append(": ", style="not bold")
    line.append(one_line(fault.message), style="not bold red")
    if fault.hint:
        line.append("; ", style="not bold")
        line.append(one_line(fault.hint), style="not bold green")
    return line
