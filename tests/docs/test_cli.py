"""docs/cli.md and docs/policy-tests.md match the commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zta_authz.cli import main
from zta_authz.cli.policy_tests import OPTION_FIELDS
from zta_authz.cli.request_files import FIELDS
from zta_authz.policy.lint.linter import MAX_COMPARED, Kind
from zta_authz.settings import Settings

if TYPE_CHECKING:
    import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
CLI = (DOCS / "cli.md").read_text(encoding="utf-8")
TESTS = (DOCS / "policy-tests.md").read_text(encoding="utf-8")


def documented(text: str, kind: str) -> Any:
    """Return the JSON example of one kind."""
    examples = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    return next(example for example in examples if example["kind"] == kind)


def shape(value: Any) -> Any:
    """The names of fields, without their values; of lists, the first item's."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    main([*arguments, "--output", "json"])
    return json.loads(capsys.readouterr().out)


def test_every_field_of_a_request_is_documented_and_no_other() -> None:
    section = CLI.partition("### A request, written down")[2].partition("###")[0]
    items = re.findall(r"^- ((?:`\w+`(?:, )?)+): ", section, re.MULTILINE)
    names = [name for item in items for name in re.findall(r"`(\w+)`", item)]
    assert sorted(names) == sorted(FIELDS)


def test_every_kind_of_warning_is_documented_and_no_other() -> None:
    kinds = set(re.findall(r"^- `(\w+)` \((?:warning|info)\): ", CLI, re.MULTILINE))
    assert kinds == {*(kind.value for kind in Kind), "document", "skipped"}


def test_the_bound_on_comparisons_is_the_documented_one() -> None:
    assert f"at most {MAX_COMPARED} DENY rules" in CLI


def test_the_options_of_tests_are_settings_and_documented() -> None:
    assert set(OPTION_FIELDS) <= set(Settings.model_fields)
    assert [name for name in OPTION_FIELDS if f"`{name}`" not in TESTS] == []


def test_the_example_in_the_text_is_the_beginning_of_the_tested_one() -> None:
    shown = TESTS.partition("```yaml\n")[2].partition("```")[0]
    plain = re.sub(r"\s+#.*", "", shown).split()
    whole = re.sub(r"(?m)^#.*$", "", (DOCS / "examples" / "hatshop_test.yaml").read_text(encoding="utf-8")).split()
    assert whole[: len(plain)] == plain


def test_json_of_check_has_the_documented_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "examples" / "policies" / "hatshop.yaml").read_text(encoding="utf-8")
    file = tmp_path / "a.yaml"
    file.write_text(f"{text}\n---\n{text.replace('name: ', 'name: copy-')}")
    example = documented(CLI, "CheckResult")
    given = answer(capsys, "check", str(file))
    assert given["warnings"]
    assert shape({**given, "faults": example["faults"]}) == shape(example)
    file.write_text("kind: x\n")
    assert shape(answer(capsys, "check", str(file))["faults"]) == shape(example["faults"])


def test_json_of_explain_has_the_documented_fields(capsys: pytest.CaptureFixture[str]) -> None:
    example = documented(CLI, "Explanation")
    request = str(DOCS / "examples" / "requests" / "delete-hat.yaml")
    given = answer(
        capsys,
        "explain",
        "--policies",
        str(DOCS / "examples" / "policies"),
        "--label",
        "app=hatshop",
        "--request",
        request,
    )
    filled = {"matchedWithoutDeciding", "places"}  # empty here; their fields are tested where there are some
    assert shape({**given, **{name: example[name] for name in filled}}) == shape(example)


def test_json_of_test_has_the_documented_fields(capsys: pytest.CaptureFixture[str]) -> None:
    example = documented(TESTS, "PolicyTestResult")
    given = answer(capsys, "test", str(DOCS / "examples"))
    first, expected = given["tests"][0], example["tests"][0]
    assert set(given) == set(example)
    assert set(first) == set(expected)
    assert set(given["summary"]) == set(example["summary"])
