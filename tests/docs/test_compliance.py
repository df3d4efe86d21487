"""docs/compliance.md matches the checks and the report."""

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


def items(section: str) -> list[str]:
    """Return the list items of a section, each in one line and without its bullet."""
    text = TEXT.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return [" ".join(item.split()) for item in re.findall(r"^- (\*\*.*(?:\n  .*)*)", text, re.MULTILINE)]


def test_every_check_is_documented_as_it_is_and_no_other() -> None:
    assert items("Checks") == [
        f"**`{check.id}`** ({', '.join(check.requirements)}): {' '.join((check.run.__doc__ or '').split())} "
        f"Reads: {check.reads}."
        for check in CHECKS
    ]


def test_every_requirement_is_documented_as_it_is_and_no_other() -> None:
    assert items("Tenets and controls") == [
        f"**{requirement.id}**: {requirement.title}. Not shown by manifests: {'; '.join(requirement.beyond)}."
        for requirement in REQUIREMENTS
    ]


def test_every_status_is_documented() -> None:
    assert [item.partition("**: ")[0] for item in items("What a status means")] == [
        f"**`{status.value}`" for status in Status
    ]


def test_the_bounds_are_the_documented_ones() -> None:
    mib = sources.MAX_TOTAL_CHARACTERS // 1_048_576
    assert (
        f"{sources.MAX_FILES} files and {mib} MiB, {sources.MAX_DOCUMENTS:,} objects, {MAX_DEPTH} levels"
        in " ".join(TEXT.split())
    )
    assert f"within {SOON_SECONDS / 86400:g} days" in " ".join(TEXT.split())


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
