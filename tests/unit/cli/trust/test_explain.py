"""`zta-authz trust explain`: components, lost points with the facts behind them, and what would raise the level."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.devices import HEAD, SPEC, record
from zta_authz.cli import main

if TYPE_CHECKING:
    from pathlib import Path

POLICIES = """
apiVersion: zta.dev/v1
kind: TrustModel
metadata: {name: m, namespace: default}
spec:
  allowedCountries: [DE]
  components:
    behavior: {assume: 100}
---
apiVersion: zta.dev/v1
kind: ResourceClassification
metadata: {name: data, namespace: default}
spec:
  default: internal
  rules:
  - {class: restricted, to: [{operation: {paths: ["/payroll"]}}]}
  demands: {restricted: {level: HIGH, device: 90}}
"""
GOOD_DEVICE = ("managed", "encrypted", "firewall", "antivirus")
USER = ("--claim", "sub=ann", "--claim", 'amr=["mfa"]', "--claim", "account_created_at=1", "--claim")
CLASS_LINE = (
    "class `restricted` (default/data) demands at least level HIGH, device 90, which the request does not have "
    "(level, device); without device.unmanaged (+40), device.unencrypted (+30)"
)
NETWORK = ("country=DE", "anonymous=false", "reputation=90", "corporate=false")


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    (tmp_path / "policies.yaml").write_text(POLICIES)
    return tmp_path / "policies.yaml"


def good(*but: str) -> list[str]:
    """Arguments for a request with every fact good, except those in `but` (NAME=VALUE)."""
    facts = [f"device.{name}=true" for name in GOOD_DEVICE] + [f"network.{fact}" for fact in NETWORK]
    return [*USER, "security_violations=0", *(word for fact in (*facts, *but) for word in ("--fact", fact))]


def explained(capsys: pytest.CaptureFixture[str], policies: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["trust", "explain", "GET", *arguments, "--policies", str(policies), "-o", "json"])
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, answer


def test_a_request_with_every_fact_good_reaches_the_highest_level(
    policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, answer = explained(capsys, policies, "/", *good())
    assert (status, answer["level"], answer["score"], answer["lost"], answer["change"]) == (0, "HIGH", 100.0, [], [])
    assert (answer["sessionSeconds"], answer["reverifySeconds"], answer["model"]) == (7200, 300, "default/m")
    assert answer["components"][1] == {"name": "device", "score": 100.0, "weight": 25, "floor": 40.0, "assumed": False}
    assert answer["components"][3]["assumed"] is True
    assert answer["class"] == {
        "name": "internal", "source": "default/data", "demand": None, "unmet": [], "change": [],
    }  # fmt: skip


def test_each_lost_point_has_its_fact_state_and_source(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("device.encrypted=stale", "network.reputation=10", "device.managed=false")
    status, answer = explained(capsys, policies, "/payroll", *good(*more), "--level", "HIGH")
    assert (status, answer["level"], answer["heldDownBy"]) == (1, "DENY", ["floor device"])
    assert [(lost["signal"], lost["state"], lost["points"], lost["source"]) for lost in answer["lost"]] == [
        ("unmanaged", "false", 40.0, "assumed"),
        ("unencrypted", "stale", 30.0, "assumed"),
        ("badReputation", "false", 50.0, "assumed"),
    ]
    assert answer["target"] == "HIGH"
    assert [change["signal"] for change in answer["change"]] == ["unmanaged"]
    assert answer["class"]["unmet"] == ["level", "device"]
    assert [change["signal"] for change in answer["class"]["change"]] == ["unmanaged", "unencrypted"]


def test_without_a_level_the_next_higher_one_is_the_target(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("network.country=absent", "device.managed=false", "device.firewall=false", "network.anonymous=absent")
    status, answer = explained(capsys, policies, "/", *good(*more))
    assert (status, answer["level"], answer["target"]) == (0, "MEDIUM", "HIGH")


def test_the_text_says_the_same(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = good("device.encrypted=stale", "device.managed=false")
    assert main(["trust", "explain", "GET", "/payroll", *arguments, "--policies", str(policies)]) == 1
    lines = capsys.readouterr().out.splitlines()
    facts = [line for line in lines if line.startswith(("network: ", "device: "))]
    assert [line.partition(";")[0] for line in facts] == [
        "network: country `DE`, from assumed",
        "device: `assumed` by assumed",
    ]
    assert [line for line in lines if line not in facts] == [
        "DENY  score 79.41, by default/m",
        "  user         100  weight 25, floor 40",
        "  device        30  weight 25, floor 40",
        "      -40 unmanaged: on, from assumed",
        "      -30 unencrypted: stale, from assumed",
        "  network      100  weight 15, floor 40",
        "  behavior     100  weight 20, floor 40, assumed",
        "held down by floor device",
        "session 0 s, verify again after 300 s",
        CLASS_LINE,
        "to reach LOW: without device.unmanaged (+40)",
    ]


def test_facts_come_from_the_sources_of_the_settings(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = policies.parent
    (folder / "devices.jsonl").write_text(json.dumps(record()))
    policies.write_text(POLICIES + "---\n" + HEAD + SPEC)
    settings = folder / "settings.yaml"
    settings.write_text(json.dumps({"facts": {"directory": str(folder)}}))
    status, answer = explained(capsys, policies, "/", "--config", str(settings), "--at", "2027-01-15T08:00:00Z")
    assert status == 1
    unknown = [lost for lost in answer["lost"] if lost["signal"] == "unknownDevice"]
    assert (unknown[0]["state"], unknown[0]["source"]) == ("false", "default/fleet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fact", "trust.level=HIGH"), "trust is assumed; remove it"),
        (("--fact", "colour=red"), "`colour` is not the name of a fact; write network.country"),
        (("-l", "app=other", "-n", "elsewhere"), "no TrustModel selects the workload; add a TrustModel"),
    ],
)
def test_what_cannot_be_assessed_is_a_fault(
    policies: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert main(["trust", "explain", "GET", "/", *arguments, "--policies", str(policies)]) == 2
    assert message in capsys.readouterr().err


def test_a_refused_request_is_not_trusted_whatever_its_score(
    policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = good()
    status, answer = explained(capsys, policies, "/", "--principal", "no-spiffe-id", *arguments)
    assert status == 1
    assert answer["refused"].startswith("peer_")


def test_facts_of_the_command_line_replace_those_of_the_file(
    policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = policies.parent / "request.yaml"
    request.write_text("facts: {network: {country: DE, reputation: 90}, device: {id: x, managed: true}}")
    arguments = ["--fact", "zta.remote.country=KP", "--fact", "device.encrypted=true", "--policies", str(policies)]
    assert main(["trust", "explain", "--request", str(request), *arguments, "-o", "json"]) == 1
    lost = {loss["signal"] for loss in json.loads(capsys.readouterr().out)["lost"]}
    assert {"countryNotAllowed", "anonymousNetwork"} <= lost
    assert lost.isdisjoint({"unmanaged", "unencrypted", "badReputation"})
