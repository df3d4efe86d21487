from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.policies import operation, policy
from zta_authz.cli import main

GET = policy("reads", operation(methods=["GET"]), operation(methods=["HEAD"]))
WATCH = policy("watch", operation(paths=["/a"]), operation(paths=["/b"]), action="AUDIT")
NO_ADMIN = policy("no-admin", operation(paths=["/admin"]), action="DENY")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policies.yaml").write_text("\n---\n".join(map(json.dumps, (GET, WATCH, NO_ADMIN))))


def suite(name: str, *requests: dict[str, Any]) -> None:
    tests = [{"name": str(request), "request": request, "expect": {"verdict": "allow"}} for request in requests]
    document = {"apiVersion": "zta.dev/v1", "kind": "PolicyTest", "policies": ["policies.yaml"], "tests": tests}
    Path(name).write_text(json.dumps(document))


def coverage(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    main(["test", ".", "--coverage", "--output", "json", *arguments])
    return json.loads(capsys.readouterr().out)["coverage"]


def missed(answer: Any) -> list[tuple[str, int, str]]:
    return [(rule["policy"], rule["rule"], rule["action"]) for rule in answer["notReached"]]


def test_rules_that_no_test_reaches_are_listed_with_their_location(capsys: pytest.CaptureFixture[str]) -> None:
    suite("a_test.yaml", {"method": "GET", "path": "/a"})
    answer = coverage(capsys)
    assert (answer["rules"], answer["reached"]) == (5, 2), (
        "the ALLOW rule that decided, and the AUDIT rule that matched"
    )
    assert missed(answer) == [
        ("default/reads", 1, "ALLOW"),
        ("default/watch", 1, "AUDIT"),
        ("default/no-admin", 0, "DENY"),
    ]
    assert answer["notReached"][0]["source"] == "policies.yaml"


def test_a_denial_covers_its_rule_and_documents_are_counted_together(capsys: pytest.CaptureFixture[str]) -> None:
    suite("a_test.yaml", {"method": "GET", "path": "/a"}, {"path": "/admin"})
    suite("b_test.yaml", {"method": "HEAD", "path": "/b"})
    assert coverage(capsys) == {"rules": 5, "reached": 5, "notReached": []}


def test_only_tests_that_ran_count(capsys: pytest.CaptureFixture[str]) -> None:
    suite("a_test.yaml", {"method": "GET"}, {"path": "/admin"})
    assert ("default/no-admin", 0, "DENY") in missed(coverage(capsys, "-k", "get"))


def test_text_names_each_rule_and_says_how_many_were_reached(capsys: pytest.CaptureFixture[str]) -> None:
    suite("a_test.yaml", {"method": "GET"})
    assert main(["test", ".", "--coverage"]) == 0, "what is not reached fails nothing"
    lines = capsys.readouterr().out.splitlines()
    assert "policies.yaml:1: ALLOW policy default/reads, rule 1: no test reaches it" in lines
    assert lines[-2] == "1 of 5 rules reached"


def test_coverage_is_printed_only_with_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    suite("a_test.yaml", {"method": "GET"})
    assert main(["test", ".", "--output", "json"]) == 0
    assert "coverage" not in json.loads(capsys.readouterr().out)
