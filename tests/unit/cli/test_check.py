from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.policies import operation, policy, source
from zta_authz.cli import main

if TYPE_CHECKING:
    from pathlib import Path

WEB = source(principals=["cluster.local/ns/default/sa/web"])
GOOD = policy("good", WEB)
SHADOWED = [GOOD, policy("closed", WEB, action="DENY")]
OPEN = policy("open", operation(paths=["/healthz"]))
NOT_ALONE = policy("loose", source(notPrincipals=["a/b"]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with nothing of the environment that settings are read from."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, name: str, *documents: dict[str, Any]) -> None:
    (folder / name).write_text("\n---\n".join(json.dumps(document, indent=1) for document in documents))


def test_policies_without_faults_exit_with_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "a.yaml", GOOD)
    assert main(["check", "--strict-warnings", "a.yaml"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "ok (files: 1, policies: 1, rules: 1, warnings: 0, notes: 0)\n"
    assert captured.err == ""


def test_every_fault_of_every_file_is_one_line_with_its_location(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "a.yaml", {**GOOD, "knd": "x"})
    (folder / "b.yaml").write_text("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicys\n")
    assert main(["check", "."]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith(("a.yaml", "b.yaml"))]
    assert [line.partition(": ")[0] for line in lines] == ["a.yaml:23:2", "b.yaml:2:7"]
    assert "did you mean `AuthorizationPolicy`?" in lines[1]


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--strict-warnings"], 1)])
def test_warnings_exit_with_1_only_with_strict_warnings(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int
) -> None:
    write(folder, "a.yaml", *SHADOWED)
    assert main(["check", "a.yaml", *arguments]) == status
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("a.yaml:10: warning: rule 0 of `default/good`: it never decides: rule 0 of DENY policy")
    assert "[shadowed]; narrow the DENY rule" in first
    assert last == "ok (files: 1, policies: 2, rules: 2, warnings: 1, notes: 0)"


def test_a_note_is_not_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "a.yaml", OPEN)
    assert main(["check", "a.yaml", "--strict-warnings"]) == 0
    assert "a.yaml:10: info: rule 0 of `default/open`: it requires no identity" in capsys.readouterr().out


def test_warnings_of_loading_count_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "a.yaml", NOT_ALONE)
    assert main(["check", "a.yaml", "--strict-warnings"]) == 1
    assert "warning: `notPrincipals` alone admits callers" in capsys.readouterr().out


def test_json_has_the_whole_explanation_in_documented_fields(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "a.yaml", *SHADOWED, NOT_ALONE)
    assert main(["check", "a.yaml", "--output", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["apiVersion"], answer["kind"], answer["ok"]) == ("zta.dev/v1", "CheckResult", True)
    assert answer["summary"] == {"sources": 1, "policies": 3, "rules": 3, "warnings": 2, "notes": 0}
    assert len(answer["digest"]) == 64
    document, shadowed = answer["warnings"]
    assert document["column"]
    assert {key: document[key] for key in ("kind", "level", "policy")} == {
        "kind": "document",
        "level": "warning",
        "policy": None,
    }
    assert {key: shadowed[key] for key in ("kind", "policy", "rule", "source", "line")} == {
        "kind": "shadowed",
        "policy": "default/good",
        "rule": 0,
        "source": "a.yaml",
        "line": 10,
    }
    assert set(document) == set(shadowed)


def test_json_has_faults_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "a.yaml", {**GOOD, "knd": "x"})
    assert main(["check", "a.yaml", "missing", "--output", "json"]) == 2
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert captured.err == ""
    assert answer["ok"] is False
    assert [(fault["source"], fault["line"]) for fault in answer["faults"]] == [("a.yaml", 23), ("missing", None)]


def test_policies_are_those_of_the_settings_where_none_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "a.yaml", GOOD)
    (folder / "settings.yaml").write_text("policies: [a.yaml]\n")
    assert main(["check", "--config", "settings.yaml"]) == 0
    assert "files: 1" in capsys.readouterr().out


def test_wrong_settings_are_faults(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "settings.yaml").write_text("semantics: lax\n")
    assert main(["check", "--config", "settings.yaml"]) == 2
    assert capsys.readouterr().err.startswith("settings.yaml:1:12: `semantics`")


def test_the_semantics_can_be_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "a.yaml", policy("p", source(principals=["cluster.local/ns/default/sa/web x"])))
    assert main(["check", "a.yaml", "--strict-warnings"]) == 1
    assert "not a valid SPIFFE ID [never_matches]" in capsys.readouterr().out
    assert main(["check", "a.yaml", "--strict-warnings", "--semantics", "istio"]) == 0


def test_ambiguous_paths_are_reported_only_if_they_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "a.yaml", policy("p", {**WEB, **operation(paths=["/a//b"])}))
    (folder / "settings.yaml").write_text("paths: {ambiguous: accept}\n")
    assert main(["check", "a.yaml", "--strict-warnings"]) == 1
    assert "refused before any rule is evaluated" in capsys.readouterr().out
    assert main(["check", "a.yaml", "--strict-warnings", "--config", "settings.yaml"]) == 0


def test_labels_are_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "a.yaml", GOOD)
    with pytest.raises(SystemExit) as ended:
        main(["check", "a.yaml", "--label", "app"])
    assert ended.value.code == 2
    assert "--label" in capsys.readouterr().err


def test_text_of_policies_can_not_control_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "a.yaml", policy("p", {**WEB, **operation(paths=["/[red]\x1b[2J?"])}))
    main(["check", "a.yaml"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "/[red]\\x1b[2J?" in out


def test_skipped_files_and_documents_are_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "team").mkdir()
    write(folder, "team/a.YAML", GOOD, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}})
    (folder / "team" / "b.txt").write_text("b")
    assert main(["check", "--strict-warnings", "."]) == 0
    foreign, skipped, summary = capsys.readouterr().out.splitlines()
    assert "team/a.YAML:" in foreign
    assert "info: Service (apiVersion `v1`) is not read" in foreign
    assert skipped.startswith(
        "team/b.txt: info: is not read as policies: its name does not end in .yaml, .yml or .json"
    )
    assert summary == "ok (files: 1, policies: 1, rules: 1, warnings: 0, notes: 2)"
    assert main(["check", "--output", "json", "."]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert [(warning["kind"], warning["level"]) for warning in warnings] == [("skipped", "info")] * 2


AUTHENTICATION = {
    "apiVersion": "security.istio.io/v1",
    "kind": "RequestAuthentication",
    "metadata": {"name": "jwt"},
}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"issuer": "https://iss.example", "jwksUri": "http://iss.example/keys"}, "the URL's scheme must be https"),
        ({"issuer": "https://iss.example", "jwksUri": "https://10.1.2.3/keys"}, "address is not permitted"),
        ({"issuer": "iss"}, "discovery at issuer `iss`"),
        ({"issuer": "https://iss.example", "jwksUri": "https://iss.example/keys"}, None),
        ({"issuer": "https://iss.example"}, None),
    ],
)
def test_keys_that_the_settings_do_not_permit_to_fetch_are_warned_of(
    folder: Path, capsys: pytest.CaptureFixture[str], rule: dict[str, Any], message: str | None
) -> None:
    write(folder, "a.yaml", GOOD, {**AUTHENTICATION, "spec": {"jwtRules": [rule]}})
    assert main(["check", "--strict-warnings", "a.yaml"]) == (0 if message is None else 1)
    assert (message or "ok (") in capsys.readouterr().out


def test_settings_may_allow_keys_over_http(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"issuer": "https://iss.example", "jwksUri": "http://iss.example/keys"}
    write(folder, "a.yaml", GOOD, {**AUTHENTICATION, "spec": {"jwtRules": [rule]}})
    (folder / "settings.yaml").write_text("jwks: {allow_http: true}\n")
    assert main(["check", "--strict-warnings", "--config", "settings.yaml", "a.yaml"]) == 0, capsys.readouterr().out


def test_a_rule_on_tokens_that_nothing_verifies_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "a.yaml", policy("p", source(requestPrincipals=["*"])))
    assert main(["check", "a.yaml"]) == 0
    assert "no RequestAuthentication applies to these workloads" in capsys.readouterr().out


def test_a_rule_that_orders_a_token_is_warned_of_if_the_settings_mint_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = {"response": {"mint": {"audience": "orders"}}, "rules": [WEB]}
    write(
        folder, "a.yaml", {"apiVersion": "zta.dev/v1", "kind": "AccessPolicy", "metadata": {"name": "a"}, "spec": rules}
    )
    (folder / "off.yaml").write_text("{}")
    (folder / "on.yaml").write_text("minting: {issuer: 'https://zta.example', keys: keys.yaml}")
    warned = []
    for arguments in ([], ["--config", "off.yaml"], ["--config", "on.yaml"]):
        assert main(["check", "a.yaml", *arguments]) == 0
        warned.append("the settings have no `minting.issuer`" in capsys.readouterr().out)
    assert warned == [False, True, False]
