"""What the demo prints: the table, and commands to try by hand."""

from __future__ import annotations

import shlex
from itertools import compress
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from envoy.demo.story import AT_HOME
from envoy.demo.why import why

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from envoy.demo.identities import Layout
    from envoy.demo.row_runner import RowResult
    from envoy.demo.story import Row
    from zta_authz.pdp.explain import Explanation

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


def reasons(explained: Sequence[tuple[Row, Explanation]]) -> Table:
    """Why requests were denied, each in one line or a few."""
    result = Table(
        title="Why, as zta-authz explain says it", title_justify="left", box=None, show_header=False, pad_edge=False
    )
    result.add_column(no_wrap=True)
    result.add_column(overflow="fold")
    for row, explanation in explained:
        result.add_row(row.what, Text(why(explanation)))
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

    def bearer(name: str) -> str:
        token = layout.token(name)
        token_file = shlex.quote(str(token.relative_to(here) if token.is_relative_to(here) else token))
        return f'-H "authorization: Bearer $(cat {token_file})"'

    at_home = f'-H "{AT_HOME[0]}: {AT_HOME[1]}"'
    return [
        ("allowed: what reached the upstream", _curl(port, layout, here, "frontend") + "/orders"),
        ("allowed, with a user", _curl(port, layout, here, "frontend", bearer("valid")) + "/account"),
        ("denied: no user", _curl(port, layout, here, "frontend", "-i") + "/account"),
        ("denied: not named by any policy", _curl(port, layout, here, "attacker", "-i") + "/orders"),
        ("denied: no certificate", _curl(port, layout, here, None, "-i") + "/orders"),
        (
            "denied: a login that is too old, with a challenge for a new one",
            _curl(port, layout, here, "laptop", at_home, bearer("old-login"), "-i -X POST") + "/refunds/7",
        ),
    ]
