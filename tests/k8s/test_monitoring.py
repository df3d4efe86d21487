"""Alerts, their tests, their pages in the runbook and the dashboard, and that they speak of metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.k8s.manifests import K8S, OVERLAYS, ROOT, authorizers, of_kind, render
from zta_authz.errors import Reason
from zta_authz.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MONITORING = K8S / "monitoring"
RUNBOOK = ROOT / "docs" / "runbook.md"
STORIES = ("rules_test.yaml", "rules_days_test.yaml")
NEEDED = {
    "ZtaDenialsJump",
    "ZtaInstanceDown",
    "ZtaUnauthorizedAccess",
    "ZtaTrustBundleExpires",
    "ZtaOwnCertificateExpires",
    "ZtaReloadFailing",
    "ZtaFactDataUnusable",
    "ZtaAdministratorUnreachable",
    "ZtaViewStale",
    "ZtaAdministratorFailing",
    "ZtaAuditDrops",
    "ZtaAuditSinkFailing",
    "ZtaTrafficDoubled",
    "ZtaSlow",
}
PARTS = ("**What it means.**", "**What to run.**", "**What to change.**")


@cache
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboard() -> Any:
    return json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Of the rules and of the dashboard."""
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])
    yield from (each["expr"] for each in dashboard()["annotations"]["list"])
    yield from (each["definition"] for each in dashboard()["templating"]["list"] if "definition" in each)


def exposed() -> set[str]:
    """Every series that /metrics can show: docs/metrics.md has them, and is held to what is shown."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^- \*\*`((?:zta|process)_\w+)`\*\* \((\w+)", page, flags=re.MULTILINE)
    parts = {f"{name}_{part}" for name, kind in rows if kind == "histogram" for part in ("bucket", "sum", "count")}
    return {name for name, kind in rows if kind != "histogram"} | parts


def shown() -> set[str]:
    """Some of what /metrics shows."""
    families = re.findall(r"^# TYPE (\S+) (\w+)", Metrics("1").render().decode(), flags=re.MULTILINE)
    return {name if kind != "histogram" else f"{name}_bucket" for name, kind in families}


def test_the_table_of_metrics_is_of_what_is_shown() -> None:
    assert len(shown()) > 10
    assert shown() - exposed() == set()


def used(expression: str) -> set[str]:
    """The series that an expression names."""
    return set(re.findall(r"\b(zta(?:_[a-z0-9]+)+|zta:[a-z0-9_:]+)\b", expression))


def test_every_series_that_is_used_exists() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    found = set().union(*(used(expression) for expression in expressions()))
    assert len(found) > 12
    assert found - exposed() - recorded == set()


def test_a_series_that_does_not_exist_would_be_seen() -> None:
    assert used("rate(zta_decision_total[5m])") - exposed() == {"zta_decision_total"}


def test_every_reason_and_verdict_that_is_named_exists() -> None:
    text = " ".join(expressions())
    reasons = {reason for listed in re.findall(r'reason=~?"([^"]+)"', text) for reason in listed.split("|")}
    assert len(reasons) > 10
    assert reasons - {str(reason) for reason in Reason} == set()
    assert set(re.findall(r'verdict=~?"([^"]+)"', text)) == {"deny"}


def test_the_alerts_that_an_operator_needs_are_there() -> None:
    assert set(alerts()) >= NEEDED
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in {"critical", "warning"}, name
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}, name
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"


def test_every_alert_has_a_page_in_the_runbook_and_every_page_an_alert() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    pages = dict(re.findall(r"^## (Zta\w+)\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL))
    assert list(pages) == list(alerts())
    for name, page in pages.items():
        assert [part for part in PARTS if part not in page] == [], name


def test_the_runbook_names_reasons_metrics_and_settings_that_exist() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    assert used(text) - exposed() - {rule["record"] for rule in rules() if "record" in rule} == set()
    named = set(re.findall(r"`((?:token|peer|dpop|api_key)_[a-z_]+)`", text))
    assert named - {str(reason) for reason in Reason} == set()


def test_prometheus_operator_gets_the_same_rules(kubectl: Path) -> None:
    written = yaml.safe_load((MONITORING / "rules.yaml").read_text(encoding="utf-8"))
    for overlay in OVERLAYS:
        (rule,) = of_kind(render(kubectl, overlay), "PrometheusRule")
        assert rule["spec"] == written


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_prometheus_operator_scrapes_the_authorizers_health_port(kubectl: Path, overlay: str) -> None:
    manifests = render(kubectl, overlay)
    (monitor,) = [each for each in of_kind(manifests, "PodMonitor") if each["metadata"]["name"] == "zta-authz"]
    ((workload, container),) = authorizers(manifests)
    assert monitor["metadata"]["namespace"] == workload["metadata"]["namespace"]
    template = workload["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
    assert endpoint["path"] == "/metrics"


def promtool_says(promtool: Path, *arguments: str, folder: Path = MONITORING) -> tuple[int, str]:
    command = [str(promtool), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_promtool_takes_the_rules(promtool: Path) -> None:
    assert promtool_says(promtool, "check", "rules", "rules.yaml")[0] == 0


def test_the_alerts_fire_when_they_should_and_are_silent_on_an_ordinary_day(promtool: Path) -> None:
    status, text = promtool_says(promtool, "test", "rules", *STORIES)
    assert status == 0, text


def test_every_alert_is_tested_both_ways() -> None:
    files = [yaml.safe_load((MONITORING / name).read_text(encoding="utf-8")) for name in STORIES]
    cases = [case for file in files for test in file["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(alerts())
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(alerts())


@pytest.mark.parametrize(
    ("written", "broken"),
    [
        ("> 0.05", "> 0.95"),
        ("{severity: critical}", "{severity: loud}"),
        ("offset 1d", "offset 9d"),
        ("> 0.1", "> 0.3"),
    ],
)
def test_a_changed_rule_is_noticed(promtool: Path, tmp_path: Path, written: str, broken: str) -> None:
    text = (MONITORING / "rules.yaml").read_text(encoding="utf-8")
    assert written in text
    (tmp_path / "rules.yaml").write_text(text.replace(written, broken))
    for name in STORIES:
        (tmp_path / name).write_text((MONITORING / name).read_text(encoding="utf-8"))
    assert promtool_says(promtool, "test", "rules", *STORIES, folder=tmp_path)[0] != 0


def test_promtool_takes_the_expressions_of_the_dashboard(promtool: Path, tmp_path: Path) -> None:
    kept = [
        target["expr"].replace("$namespace", ".*").replace("$job", ".*") for p in panels() for target in p["targets"]
    ]
    assert not any("$" in expression for expression in kept)
    listed = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(kept)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": listed}]}))
    status, text = promtool_says(promtool, "check", "rules", "rules.yaml", folder=tmp_path)
    assert status == 0, text


def test_the_dashboards_panels_explain_themselves_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    board = dashboard()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
