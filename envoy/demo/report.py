"""What the demo prints: the table, and commands to try by hand."""

from __future__ import annotations

import shlex
from itertools import compress
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from envoy.demo.identities import Layout
    from envoy.demo.row_runner import RowResult

MIN_WIDTH = 150
"""The width of the table if the output is not a terminal."""
_NEEDED = {"what": 106, "expected": 116, "policy, rule": MIN_WIDTH}
"""The minimum widths for these columns. The others fit into 80 columns."""


def table(results: Sequence[RowResult], width: int = MIN_WIDTH) -> Table:
    """One line a request: what came back for which reason, and on wider screens what was expected and who decided."""
    result = Table(
        title="HatShop, through a real Envoy", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0)
    )
    headings = ("who", "request", "what", "expected", "got", "policy, rule", "reason", "")
    shown = [width >= _NEEDED.get(heading, 0) for heading in headings]
    for heading in compress(headings, shown):
        result.add_column(heading, overflow="fold")
    for row_result in results:
        row = row_result.row
        cells: tuple[str | Text, ...] = (
            row.peer or "(nobody)",
            f"{row.request.method} {row.request.path}",
            row.what,
            str(row.status),
            str(row_result.answer.status),
            str(row_result.logged),
            row_result.logged.reason,
            Text("; ".join(row_result.faults), "bold red") if row_result.faults else Text("ok", "green"),
        )
        result.add_row(*compress(cells, shown))
    return result


def _curl(port: int, layout: Layout, here: Path, peer: str | None, *rest: str) -> str:
    def shown(path: Path) -> str:
        return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))

    lines = [f"curl -sS --cacert {shown(layout.ca)}"]
    if peer is not None:
        lines.append(f"--cert {shown(layout.certificate(peer))} --key {shown(layout.key(peer))}")
    return " \\\n  ".join([*lines, *rest, f"https://localhost:{port}"])


def commands(port: int, layout: Layout, here: Path) -> list[tuple[str, str]]:
    """Return commands to try, as (description, command). Paths are relative to `here` if possible."""
    token = layout.token("valid")
    token_file = shlex.quote(str(token.relative_to(here) if token.is_relative_to(here) else token))
    bearer = f'-H "authorization: Bearer $(cat {token_file})"'
    return [
        ("allowed: what reached the upstream", _curl(port, layout, here, "frontend") + "/orders"),
        ("allowed, with a user", _curl(port, layout, here, "frontend", bearer) + "/account"),
        ("denied: no user", _curl(port, layout, here, "frontend", "-i") + "/account"),
        ("denied: not named by any policy", _curl(port, layout, here, "attacker", "-i") + "/orders"),
        ("denied: no certificate", _curl(port, layout, here, None, "-i") + "/orders"),
    ]
