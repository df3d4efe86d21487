"""Draws the demo's table as a picture of a terminal: `python -m envoy.demo.picture docs/images/make-run.svg`.

Runs the HatShop story through a real Envoy first, in a directory that is removed afterwards. The same rows give the
same file, so a changed picture is a changed table.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from envoy.demo.report import table
from envoy.demo.row_runner import run_row
from envoy.demo.stack import StackOptions, running
from envoy.demo.story import STORY

WIDTH: Final = 120
"""Columns: wide enough for what each row tries, narrow enough to be read on a page."""
_THEME: Final = TerminalTheme(
    (24, 28, 34),
    (216, 222, 233),
    [
        (24, 28, 34),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (216, 222, 233),
    ],
)
_FONT: Final = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_SVG: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title">
<title id="title">The table that make run prints: COUNT requests, what was expected and what came back</title>
<style>
.{unique_id}-matrix {{ font-family: FONT; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: FONT; font-size: 18px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
""".replace("FONT", _FONT).replace("COUNT", str(len(STORY)))
"""As rich's own, without fonts that a reader's browser would fetch from elsewhere."""


def picture() -> str:
    """Play the story and return its table as SVG. Raises ProcessError where a process of the demo does not start."""
    console = Console(width=WIDTH, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with (
        tempfile.TemporaryDirectory(prefix="zta-demo-") as directory,
        running(Path(directory), StackOptions(administrator=True)) as stack,
    ):
        results = [run_row(stack, row) for row in STORY]
    good = sum(not row_result.faults for row_result in results)
    shown = table(results, WIDTH)
    shown.title = None
    console.print(Text("$ make run ONCE=1", "bold"))
    console.print(shown)
    console.print(
        f"{good} of {len(results)} as expected", style="green" if good == len(results) else "red", highlight=False
    )
    return console.export_svg(title="HatShop, through a real Envoy", theme=_THEME, code_format=_SVG, unique_id="run")


def main() -> int:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description="The demo's table, as a picture of a terminal.")
    parser.add_argument("file", type=Path)
    file: Path = parser.parse_args().file
    file.write_text("\n".join(line.rstrip() for line in picture().splitlines()) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
