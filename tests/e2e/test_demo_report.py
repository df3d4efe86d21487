"""The output of `make run` fits common terminals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from envoy.demo.authz_connection import unix_connection
from envoy.demo.client import Answer
from envoy.demo.envoyproc import REPOSITORY
from envoy.demo.identities import Layout, mint
from envoy.demo.report import MIN_WIDTH, commands, reasons, table
from envoy.demo.row_runner import LoggedDecision, RowResult
from envoy.demo.stack import authz_settings
from envoy.demo.story import EXPLAINED, STORY
from envoy.demo.why import explanations, request_file, why

if TYPE_CHECKING:
    from collections.abc import Sequence

STORY_AS_EXPECTED = [
    RowResult(row, Answer(row.status, {}, b""), LoggedDecision(row.policy, 0, row.reason)) for row in STORY
]


def lines(results: Sequence[RowResult], width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table(results, width))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize(
    ("width", "shown"),
    [(80, "peer_certificate_untrusted"), (120, "certificate of another CA"), (MIN_WIDTH, "default/payments-policy #0")],
)
def test_the_table_fits_the_screen_with_one_line_a_request(width: int, shown: str) -> None:
    printed = lines(STORY_AS_EXPECTED, width)
    assert len([line for line in printed if line.endswith(" ok")]) == len(STORY)
    assert max(map(len, printed)) <= width
    assert any(shown in line for line in printed)


def test_a_row_that_is_wrong_says_so_on_a_narrow_screen_too() -> None:
    wrong = RowResult(STORY[0], Answer(403, {}, b""), LoggedDecision(), ("status 403, not 200",))
    printed = lines([wrong], 80)
    assert max(map(len, printed)) <= 80
    assert " ok" not in "".join(printed)


def test_every_denial_that_depends_on_facts_is_explained_on_a_narrow_screen_too(tmp_path: Path) -> None:
    layout = mint(tmp_path)
    config = tmp_path / "zta-authz.yaml"
    config.write_text(json.dumps(authz_settings(layout, unix_connection(tmp_path / "socket"))))
    explained = explanations(layout, config, EXPLAINED)
    assert {explanation.decision.reason.value for _, explanation in explained} >= {
        "no_matching_policy",
        "step_up_required",
        "trust_too_low",
    }
    for row, explanation in explained:
        assert explanation.decision.reason.value == row.reason
        assert why(explanation)
        assert request_file(layout, row).stat().st_mode & 0o777 == 0o600
    console = Console(width=80)
    with console.capture() as captured:
        console.print(reasons(explained))
    assert max(map(len, captured.get().splitlines())) <= 80
    assert "require.network.countries" in captured.get()


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_pages_state_the_number_of_requests(page: str) -> None:
    assert f"{len(STORY)} requests" in (REPOSITORY / page).read_text(encoding="utf-8")


def test_each_line_of_the_curl_commands_fits_80_columns() -> None:
    shown = commands(65535, Layout(Path(".run")), Path())
    assert max(len(line) for _, command in shown for line in command.splitlines()) <= 80
