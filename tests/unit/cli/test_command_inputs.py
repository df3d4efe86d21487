"""Every command reads the policy files that `serve` reads, in directories below as well."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.configmap import allow_path
from tests.unit.cli.compliance.installations import SETTINGS
from zta_authz.cli import main
from zta_authz.policy_sources.files import load_snapshot
from zta_authz.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

REQUEST = "method: GET\nhost: a.example\npath: /below\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    below = tmp_path / "policies" / "team" / "orders"
    below.mkdir(parents=True)
    (tmp_path / "policies" / "top.yaml").write_text(allow_path("top", "/top"))
    (below / "below.JSON").write_text(allow_path("below", "/below"))
    (below / "skipped.txt").write_text(allow_path("skipped", "/skipped"))
    return tmp_path


def printed_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_serve_and_check_read_the_same_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    served = load_snapshot([str(folder / "policies")], load_settings(None, {}).options())
    assert [policy.ref.name for policy in served.table.policies] == ["default/below", "default/top"]
    assert main(["check", "--output", "json", str(folder / "policies")]) == 0
    assert printed_json(capsys)["digest"] == served.digest


def test_explain_decides_by_policies_below(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "request.yaml").write_text(REQUEST)
    assert main(["explain", "--output", "json", "--policies", "policies", "--request", "request.yaml"]) == 0
    assert printed_json(capsys)["policy"] == "default/below"


def test_policy_tests_are_of_policies_below(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = (
        "tests: [{name: one, request: {method: GET, path: /below}, expect: {verdict: allow, policy: default/below}}]\n"
    )
    text = f"apiVersion: zta.dev/v1\nkind: PolicyTest\npolicies: [policies]\n{case}"
    (folder / "a_test.YAML").write_text(text)
    assert main(["test", str(folder)]) == 0, capsys.readouterr()


def test_compliance_reads_policies_below(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "settings.yaml").write_text(SETTINGS)
    (folder / "namespace.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")
    main(["compliance", "namespace.yaml", "--config", "settings.yaml", "--policies", "policies", "--output", "json"])
    answer = json.dumps(printed_json(capsys))
    assert '"policies/team/orders/below.JSON"' in answer
    assert '"policies/top.yaml"' in answer
    assert "skipped.txt" not in answer
