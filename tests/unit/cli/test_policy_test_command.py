from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from tests.support.policies import operation, policy, source
from zta_authz.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
FRONTEND = "spiffe://cluster.local/ns/default/sa/frontend"
SHOP = policy("shop", {**source(principals=["cluster.local/ns/default/sa/frontend"]), **operation(methods=["GET"])})
GET: dict[str, Any] = {"name": "get", "request": {"principal": FRONTEND}, "expect": {"verdict": "allow"}}
PUT: dict[str, Any] = {
    "name": "put",
    "request": {"principal": FRONTEND, "method": "PUT"},
    "expect": {"verdict": "allow", "reason": "allow_policy", "policy": "default/shop", "rule": 0},
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes `shop_test.yaml` with these tests, and the policies it names, into the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies.yaml").write_text(json.dumps(SHOP))

    def write(*tests: Any, name: str = "shop_test.yaml", **fields: Any) -> None:
        document = {"apiVersion": "zta.dev/v1", "kind": "PolicyTest", "policies": ["policies.yaml"], "tests": tests}
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(json.dumps({**document, **fields}, indent=1))

    return write


def test_the_documented_example_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(EXAMPLES)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "9 tests: 9 passed, 0 failed"


@pytest.mark.parametrize("folder", ["policies", "trust"])
def test_the_documented_policies_are_clean(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    assert main(["check", "--strict-warnings", str(EXAMPLES / folder)]) == 0


def test_passing_tests_are_a_line_each(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(GET)
    assert main(["test", "shop_test.yaml"]) == 0
    assert capsys.readouterr().out == "pass  shop_test.yaml:8  get\n1 tests: 1 passed, 0 failed\n"


def test_a_failure_shows_the_differences_and_the_explanation(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(GET, PUT)
    assert main(["test", "."]) == 1
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "FAIL shop_test.yaml:17 put"
    assert lines[2:7] == [
        "expected got",
        "verdict allow deny",
        "reason allow_policy no_matching_policy",
        "policy default/shop none",
        "rule 0 none",
    ]
    assert "default/shop, rule 0 (policies.yaml:1)" in lines
    assert "methods: saw `PUT`, rule has `GET`" in lines
    assert lines[-1] == "2 tests: 1 passed, 1 failed"


def test_only_expected_fields_are_compared(write: Any) -> None:
    write({**PUT, "expect": {"verdict": "deny"}})
    assert main(["test", "."]) == 0
    write({**PUT, "expect": {"verdict": "deny", "reason": "deny_policy"}})
    assert main(["test", "."]) == 1


@pytest.mark.parametrize("wrong", [{"verdict": "deny"}, {"policy": "default/other"}, {"rule": 1}])
def test_each_expectation_can_fail(write: Any, wrong: dict[str, Any]) -> None:
    right = {"verdict": "allow", "reason": "allow_policy", "policy": "default/shop", "rule": 0}
    write({**GET, "expect": right})
    assert main(["test", "."]) == 0
    write({**GET, "expect": {**right, **wrong}})
    assert main(["test", "."]) == 1


def test_json_has_every_result(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(GET, PUT)
    assert main(["test", ".", "--output", "json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["kind"], answer["summary"]) == ("PolicyTestResult", {"tests": 2, "passed": 1, "failed": 1})
    passed, failed = answer["tests"]
    assert (passed["name"], passed["passed"], passed["source"], passed["line"]) == ("get", True, "shop_test.yaml", 8)
    assert failed["expected"] == PUT["expect"]
    assert failed["got"] == {"verdict": "deny", "reason": "no_matching_policy", "policy": None, "rule": None}
    assert failed["decision"]["nearest"][0]["failed"] == ["methods: saw `PUT`, rule has `GET`"]


def test_junit_reports_failures_and_escapes_invalid_xml_characters(write: Any) -> None:
    write(GET, {**PUT, "name": 'a "<put>" & \u0007\ud800', "request": {**PUT["request"], "path": "/\u0000<x>"}})
    Path("shop_test.yaml").write_text(Path("shop_test.yaml").read_text().replace("\\ud800", "\\x01"))
    assert main(["test", ".", "--junit", "report.xml"]) == 1
    (suite,) = ElementTree.parse("report.xml").getroot()
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("shop_test.yaml", "2", "1")
    passed, failed = suite
    assert (passed.get("name"), passed.get("classname"), len(passed)) == ("get", "shop_test.yaml", 0)
    assert failed.get("name") == 'a "<put>" & \\x07\\x01'
    (failure,) = failed
    assert failure.get("message") == "differs in verdict, reason, policy, rule"
    assert "verdict: expected allow, got deny" in (failure.text or "")


def test_junit_reports_errors_if_no_test_could_run(write: Any) -> None:
    write(GET, policies=["missing.yaml"])
    assert main(["test", ".", "--junit", "report.xml"]) == 2
    (suite,) = ElementTree.parse("report.xml").getroot()
    assert (suite.get("errors"), suite[0][0].tag) == ("1", "error")
    assert "missing.yaml" in (suite[0][0].get("message") or "")


def test_a_report_that_can_not_be_written_is_a_fault(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(GET)
    assert main(["test", ".", "--junit", "missing/report.xml"]) == 2
    assert "missing/report.xml: cannot be written" in capsys.readouterr().err


def test_tests_are_found_below_directories_and_run_once(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(GET, name="deep/a_test.yaml", policies=["../policies.yaml"])
    write(GET, name="b_test.yml")
    assert main(["test", ".", "b_test.yml"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in out[:-1]] == ["b_test.yml:8", "deep/a_test.yaml:8"]


def test_no_tests_is_a_fault(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "."]) == 2
    assert "the directory has no test files; name test files `*_test.yaml`" in capsys.readouterr().err
    Path("empty_test.yaml").write_text("# nothing\n")
    assert main(["test", "."]) == 2
    assert "the file has no test" in capsys.readouterr().err


def test_options_choose_semantics_and_workload(write: Any) -> None:
    write({**GET, "request": {"principal": "client.example"}}, policies=["any.yaml"])
    Path("any.yaml").write_text(json.dumps(policy("any", source(principals=["*"]), namespace="shop")))
    assert main(["test", "."]) == 1
    options = {"semantics": "istio", "workload": {"namespace": "shop"}}
    write({**GET, "request": {"principal": "client.example"}}, policies=["any.yaml"], options=options)
    assert main(["test", "."]) == 0


def test_the_environment_does_not_change_what_a_test_means(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZTA_WORKLOAD__NAMESPACE", "other")
    write(GET)
    assert main(["test", "."]) == 0


ACCESS = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: soon}
spec: {effectiveFrom: 2030-01-01T00:00:00Z, rules: [{from: [{source: {principals: ["*"]}}]}]}
"""


def test_each_test_can_have_its_own_time(write: Any) -> None:
    Path("policies.yaml").parent.joinpath("soon.yaml").write_text(ACCESS)
    later = {**GET, "name": "later", "at": "2030-01-01T00:00:00Z"}
    sooner = {**GET, "expect": {"verdict": "deny"}}
    write(sooner, later, policies=["soon.yaml"], at="2029-12-31T23:59:59Z")
    assert main(["test", "."]) == 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"knd": "x"}, "unknown field `knd` in PolicyTest; did you mean `kind`?"),
        ({"kind": "PolicyTst"}, "`kind` is `PolicyTst`; write `PolicyTest`"),
        ({"apiVersion": "v1"}, "`apiVersion` is `v1`; write `zta.dev/v1`"),
        ({"policies": []}, "`policies` is an empty list"),
        ({"policies": ["missing"]}, "missing: there is no such file or directory"),
        ({"options": {"semantic": "x"}}, "unknown field `semantic` in options; did you mean `semantics`?"),
        ({"options": {"semantics": "lax"}}, "`options.semantics`: "),
        ({"options": {"workload": {"trust_domain": "A"}}}, "`options.workload.trust_domain`: a trust domain is"),
        ({"options": {"workload": {"name": "A"}}}, "`options.workload.name`: Extra inputs are not permitted"),
        (
            {"options": {"workloads": [{"principal": FRONTEND, "namespace": "a"}] * 2}},
            "two workloads have this principal",
        ),
        ({"at": "noon"}, "`at` is not a time; write an RFC 3339 time with an offset"),
        ({"tests": []}, "`tests` is an empty list"),
        ({"tests": [GET, GET]}, "duplicate test `get` (first at line"),
        ({"tests": [{"name": "x", "expect": {"verdict": "deny"}}]}, "a test has no `request`"),
        ({"tests": [{**GET, "expct": {}}]}, "unknown field `expct` in a test; did you mean `expect`?"),
        ({"tests": [{**GET, "expect": {}}]}, "expect has no `verdict`"),
        ({"tests": [{**GET, "expect": {"verdict": "allowed"}}]}, "unknown verdict `allowed`; did you mean `allow`?"),
        (
            {"tests": [{**GET, "expect": {"verdict": "deny", "reason": "deny_polcy"}}]},
            "unknown reason `deny_polcy`; did you mean `deny_policy`?",
        ),
        (
            {"tests": [{**GET, "expect": {"verdict": "deny", "policy": "shop"}}]},
            "`policy` is `shop`, without its namespace; write `default/shop`",
        ),
        ({"tests": [{**GET, "expect": {"verdict": "deny", "rule": 0}}]}, "`rule` requires `policy`"),
        ({"tests": [{**GET, "expect": {"verdict": "deny", "rule": -1}}]}, "`rule` is not the name or number of a rule"),
        ({"tests": [{**GET, "request": {"path": 7}}]}, "`path` has the integer `7` where a string is expected"),
    ],
)
def test_faults_of_a_test_have_their_location(
    write: Any, capsys: pytest.CaptureFixture[str], change: dict[str, Any], fault: str
) -> None:
    write(GET, **change)
    assert main(["test", "."]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert fault in captured.err
    assert "shop_test.yaml:" in captured.err or "missing" in fault


def test_faults_of_all_files_are_reported_together(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(GET, name="a_test.yaml", knd="x")
    write(GET, name="b_test.yaml", policies=["broken.yaml"])
    Path("broken.yaml").write_text("kind: x\n")
    Path("c_test.yaml").write_bytes(b"\xff")
    assert main(["test", "."]) == 2
    err = capsys.readouterr().err
    assert all(name in err for name in ("a_test.yaml:", "broken.yaml:1:1", "c_test.yaml:1:1: the file is not UTF-8"))


def test_a_revoked_principal_is_denied_in_policy_tests_and_skipped_checks_are_noted(
    write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def revoke(*ids: str) -> None:
        spec = {"spiffeIds": [{"id": name} for name in ids], "certificates": [{"serial": "01"}]}
        document = {"apiVersion": "zta.dev/v1", "kind": "RevocationList", "metadata": {"name": "list"}, "spec": spec}
        Path("policies.yaml").write_text("\n---\n".join(map(json.dumps, (SHOP, document))))

    write(GET, {**GET, "name": "again"})
    revoke(FRONTEND + "2")
    assert main(["test", "."]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: not checked")]
    assert len(notes) == 1, "for both tests together"
    revoke(FRONTEND)
    assert main(["test", "."]) == 1
    assert "peer_revoked" in capsys.readouterr().out


NAMED = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: shop}
spec:
  rules:
  - {name: writes, to: [{operation: {methods: [PUT]}}]}
  - {name: reads, to: [{operation: {methods: [GET]}}]}
"""


@pytest.mark.parametrize(("rule", "status"), [("reads", 0), (1, 0), ("writes", 1), (0, 1)])
def test_a_rule_is_expected_by_its_name_or_its_number(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str | int, status: int
) -> None:
    write({**GET, "expect": {"verdict": "allow", "policy": "default/shop", "rule": rule}})
    (tmp_path / "policies.yaml").write_text(NAMED)
    assert main(["test", ".", "--output", "json"]) == status
    (test,) = json.loads(capsys.readouterr().out)["tests"]
    assert test["got"]["rule"] == ("reads" if isinstance(rule, str) else 1)
    assert test["decision"]["ruleName"] == "reads"


def test_a_filter_runs_only_tests_of_that_name(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write({**GET, "name": "Ann reads"}, {**GET, "name": "bob reads"}, {**PUT, "name": "bob writes"})
    for pattern, summary in [("ANN", "1 tests: 1"), ("reads", "2 tests: 2"), ("bob r*", "1 tests: 1")]:
        assert main(["test", ".", "-k", pattern]) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"{summary} passed")
    assert main(["test", "."]) == 1


def test_a_filter_that_matches_no_test_is_a_fault(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(GET)
    assert main(["test", ".", "--filter", "r*"]) == 2
    assert "no test name matches `r*`" in capsys.readouterr().err


def test_watching_can_not_be_combined_with_json_or_junit(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(GET)
    with pytest.raises(SystemExit):
        main(["test", ".", "--watch", "-o", "json"])
    assert "--watch can't be combined with" in capsys.readouterr().err


def test_watching_runs_again_after_a_change_even_if_the_policies_had_faults(write: Any, tmp_path: Path) -> None:
    write(GET)
    (tmp_path / "tests").mkdir()
    test = (tmp_path / "shop_test.yaml").rename(tmp_path / "tests" / "shop_test.yaml")
    test.write_text(test.read_text().replace("policies.yaml", "../policies.yaml"))
    (tmp_path / "policies.yaml").write_text("kind: x\n")
    command = [sys.executable, "-m", "zta_authz", "test", "tests", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any("watching" in line for line in process.stderr), "faults end nothing"
        (tmp_path / "policies.yaml").write_text(json.dumps(SHOP))
        assert next(line for line in process.stdout if "tests:" in line) == "1 tests: 1 passed, 0 failed\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_a_challenge_can_be_expected(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = {
        "apiVersion": "zta.dev/v1",
        "kind": "AccessPolicy",
        "metadata": {"name": "fresh", "namespace": "default"},
        "spec": {"rules": [{"require": {"authentication": {"acr": ["phr"]}}}]},
    }
    Path("policies.yaml").write_text(json.dumps(fresh))
    refund = {"name": "refund", "request": {"claims": {"iss": "https://i", "sub": "ann", "acr": "pwd"}}}
    write({**refund, "expect": {"deny": "step_up_required", "acr": ["phr"]}})
    assert main(["test", "."]) == 0
    for wrong in ({"deny": "trust_too_low"}, {"deny": "step_up_required", "acr": ["phrh"]}, {"verdict": "allow"}):
        write({**refund, "expect": wrong})
        assert main(["test", "."]) == 1
    capsys.readouterr()
    for faulty, message in (
        ({"deny": "step_up_required", "verdict": "deny"}, "both `deny` and `verdict`"),
        ({"deny": "allow_policy"}, "unknown reason `allow_policy`"),
        ({"acr": ["phr"]}, "expect has no `verdict`"),
    ):
        write({**refund, "expect": faulty})
        assert main(["test", "."]) == 2
        assert message in capsys.readouterr().err


TRUST = """
apiVersion: zta.dev/v1
kind: TrustModel
metadata: {name: m, namespace: default}
spec: {allowedCountries: [DE], components: {behavior: {assume: 100}}}
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: p, namespace: default}
spec: {rules: [{require: {trust: {level: HIGH, device: 80}}}]}
"""
FACTS = {
    "device": dict.fromkeys(("managed", "encrypted", "firewall", "antivirus"), True),
    "network": {"country": "DE", "anonymous": False, "reputation": 90},
}
USER = {"sub": "ann", "amr": ["mfa"], "account_created_at": 1, "security_violations": 0}


def test_trust_can_be_expected(write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = {"claims": USER, "facts": FACTS}
    good = {"level": "HIGH", "score": 100, "user": 100.0, "behavior": 100}
    case = {"name": "good", "request": request, "expect": {"verdict": "allow", "trust": good}}
    worse = {"name": "worse", "request": {**request, "claims": {}}, "expect": {"trust": good}}
    write(case, worse)
    (tmp_path / "policies.yaml").write_text(TRUST)
    assert main(["test", "."]) == 1
    out = capsys.readouterr().out
    assert "trust.level     HIGH      DENY" in out
    assert "trust.user      100.0     10.0" in out
    assert "2 tests: 1 passed, 1 failed" in out


def test_an_assessment_that_no_rule_read_is_shown_where_it_differs(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write({"name": "worse", "request": {"claims": {}, "facts": FACTS}, "expect": {"trust": {"level": "HIGH"}}})
    (tmp_path / "policies.yaml").write_text(
        TRUST.replace("{require: {trust: {level: HIGH, device: 80}}}", "{to: [{operation: {paths: [/other]}}]}")
    )
    assert main(["test", "."]) == 1
    out = capsys.readouterr().out
    assert "DENY  no_matching_policy" in out
    assert "trust   level DENY (score 73.52); held down by floor user; lost user.noMfa -30 (absent)" in out


def test_without_a_trust_model_no_expected_trust_is_met(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write({"name": "none", "request": {}, "expect": {"trust": {"level": "DENY"}}})
    assert main(["test", "."]) == 1
    assert "trust.level  DENY      none" in capsys.readouterr().out


def test_an_assumed_assessment_counts_instead_of_the_models(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def case(name: str, trust: dict[str, Any], expect: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "request": {"claims": USER, "facts": {"trust": trust}}, "expect": expect}

    write(
        case("enough", {"level": "HIGH", "device": 80}, {"verdict": "allow", "trust": {"level": "HIGH", "score": 0}}),
        case("a score that is left out is 0", {"level": "HIGH"}, {"deny": "trust_too_low"}),
        case("a lower level", {"level": "MEDIUM", "device": 100}, {"deny": "trust_too_low"}),
    )
    (tmp_path / "policies.yaml").write_text(TRUST)
    assert main(["test", "."]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("trust", "message"),
    [
        ({}, "`expect.trust` is empty"),
        ({"level": "HIHG"}, "unknown level `HIHG`; did you mean `HIGH`?"),
        ({"score": 70.555}, "`expect.trust.score` is not a score"),
        ({"user": "70"}, "`expect.trust.user` is not a score"),
        ({"user": True}, "`expect.trust.user` is not a score"),
        ({"device": 10**40}, "`expect.trust.device` is not a score"),
        ({"posture": 3}, "unknown field `posture` in expect.trust"),
    ],
)
def test_a_wrong_expectation_of_trust_is_a_fault(
    write: Any, capsys: pytest.CaptureFixture[str], trust: dict[str, Any], message: str
) -> None:
    write({"name": "x", "request": {}, "expect": {"trust": trust}})
    assert main(["test", "."]) == 2
    assert message in capsys.readouterr().err


def test_the_audience_of_a_minted_token_can_be_expected(write: Any) -> None:
    rules = {"response": {"mint": {"audience": "orders.shop"}}, "rules": [{}]}
    document = {"apiVersion": "zta.dev/v1", "kind": "AccessPolicy", "metadata": {"name": "a"}, "spec": rules}
    Path("mint.yaml").write_text(json.dumps(document))
    for request, audience, status in (
        ({"principal": FRONTEND}, "orders.shop", 0),
        ({"principal": FRONTEND}, "payments", 1),
        ({"method": "GET"}, "orders.shop", 1),
    ):
        expect = {"verdict": "allow", "mint": audience}
        write({"name": "mints", "request": request, "expect": expect}, policies=["mint.yaml"])
        assert main(["test", "."]) == status
