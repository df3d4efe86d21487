"""What docs/compliance.md promises."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.unit.cli.compliance.installations import installation, report
from zta_authz.cli.compliance import sources
from zta_authz.cli.compliance.catalogue import CHECKS, REQUIREMENTS
from zta_authz.cli.compliance.checks.tokens import SOON_SECONDS
from zta_authz.cli.compliance.evidence import Status
from zta_authz.cli.compliance.report import NOTICE
from zta_authz.policy.yaml.nodes import MAX_DEPTH

if TYPE_CHECKING:
    import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "compliance.md").read_text(encoding="utf-8")


def rows(section: str) -> list[list[str]]:
    table = TEXT.partition(f"## {section}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:] if not row[0].startswith(" ---")]


def test_every_check_is_documented_as_it_is_and_no_other() -> None:
    assert rows("Checks") == [
        [f"`{check.id}`", " ".join((check.run.__doc__ or "").split()), ", ".join(check.requirements), check.reads]
        for check in CHECKS
    ]


def test_every_requirement_is_documented_as_it_is_and_no_other() -> None:
    assert rows("Tenets and controls") == [
        [requirement.id, requirement.title, "; ".join(requirement.beyond)] for requirement in REQUIREMENTS
    ]


def test_every_status_is_documented() -> None:
    assert [row[0] for row in rows("What a status means")] == [f"`{status.value}`" for status in Status]


def test_the_bounds_are_the_documented_ones() -> None:
    mib = sources.MAX_TOTAL_CHARACTERS // 1_048_576
    assert (
        f"{sources.MAX_FILES} files and {mib} MiB, {sources.MAX_DOCUMENTS:,} objects, {MAX_DEPTH} levels"
        in TEXT.replace("\n", " ")
    )
    assert f"within {SOON_SECONDS / 86400:g} days" in TEXT


def test_the_json_has_the_documented_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documented = json.loads(TEXT.partition("```json\n")[2].partition("```")[0])
    answer = report(tmp_path, capsys, installation())
    assert documented["notice"] == NOTICE
    assert (documented["kind"], list(documented), list(documented["summary"])) == (
        answer["kind"],
        list(answer),
        list(answer["summary"]),
    )
    for name in ("requirements", "checks"):
        assert list(documented[name][0]) == list(answer[name][0])
    for name in ("satisfied", "missing", "cannotBeSeen"):
        assert fields(documented, name) == fields(answer, name)


def fields(answer: dict[str, Any], name: str) -> list[str]:
    return next(list(check[name][0]) for check in answer["checks"] if check[name])


def test_the_page_is_in_the_list_of_commands_and_in_the_index() -> None:
    assert "[`zta-authz compliance`](compliance.md)" in (DOCS / "cli.md").read_text(encoding="utf-8")
    assert "(compliance.md)" in (DOCS / "index.md").read_text(encoding="utf-8")
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert "(docs/compliance.md)" in readme
    assert re.search(r"certification", TEXT)
