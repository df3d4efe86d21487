"""Facts in request files: what they assume, what explain says of them, and every fault at its place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.mmdb import write_mmdb
from zta_authz.cli import main
from zta_authz.cli.request_files import request_in
from zta_authz.errors import FaultsError
from zta_authz.model.decision import DecisionFacts
from zta_authz.model.facts import DeviceFacts, Fact, Unknown, known
from zta_authz.pdp.explain_facts import fact_lines

if TYPE_CHECKING:
    from pathlib import Path

POLICIES = """
apiVersion: zta.dev/v1
kind: TrustModel
metadata: {name: m, namespace: default}
spec:
  allowedCountries: [DE]
  components: {behavior: {assume: 100}}
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: p, namespace: default}
spec:
  rules:
  - to: [{operation: {paths: ["/payroll"]}}]
    require: {trust: {level: HIGH}}
  - to: [{operation: {paths: ["/near"]}}]
    require: {network: {countries: [DE]}}
"""
GOOD = """
path: /payroll
claims: {iss: https://i, sub: u, amr: [pwd, hwk], account_created_at: 1500000000, security_violations: 0}
facts:
  network: {country: DE, asn: 64500, anonymous: false, reputation: 90, corporate: false}
  device: {id: laptop-1, managed: true, encrypted: true, firewall: true, antivirus: true, lastSeen: 2026-11-30T10:00:00Z}
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICIES)
    return tmp_path / "policies"


def explained(policies: Path, request: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    file = policies.parent / "request.yaml"
    file.write_text(request)
    status = main(["explain", "--request", str(file), "--policies", str(policies), *more])
    return status, capsys.readouterr().out


def test_a_request_may_assume_facts(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = explained(policies, GOOD, capsys)
    assert status == 0
    assert "network country `DE`, from assumed" in out
    assert "device  `laptop-1` by assumed" in out
    assert "trust   level HIGH (score 100); by default/m; session 7200 s, verify again after 300 s" in out


def test_explain_says_what_would_lift_the_level(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = (
        GOOD.replace("[pwd, hwk]", "[pwd]")
        .replace("encrypted: true", "encrypted: stale")
        .replace("reputation: 90", "reputation: 10")
    )
    status, out = explained(policies, request, capsys)
    assert status == 1
    assert "lost user.noMfa -30, device.unencrypted -30 (stale), network.badReputation -50; by" in out
    assert "it would be reached without network.badReputation (+50)" in out


def test_a_request_may_assume_signals(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (policies / "s.yaml").write_text(
        "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: s, namespace: default}\n"
        "spec: {rules: [{to: [{operation: {paths: [/calm]}}], when: [{key: zta.signals.risk, values: [LOW]}]}]}\n"
    )
    for risk, status in (("LOW", 0), ("HIGH", 1), ("stale", 1), ("absent", 1)):
        assert explained(policies, f"path: /calm\nfacts: {{signals: {{risk: {risk}}}}}", capsys)[0] == status
    request = "path: /calm\nfacts: {signals: {risk: HIGH, assurance: NIST-AAL/nist-aal2}}"
    _, out = explained(policies, request, capsys)
    assert "signals risk `HIGH`, from assumed; assurance `NIST-AAL/nist-aal2`, from assumed" in out
    status, out = explained(policies, request, capsys, "--fact", "zta.signals.risk=LOW")
    assert status == 0
    assert "assurance `NIST-AAL/nist-aal2`" in out


def test_json_has_the_facts(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = explained(policies, GOOD, capsys, "--output", "json")
    assert '"facts": [' in out
    assert '"assumed": [' in out


def test_without_facts_they_are_absent(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = explained(policies, "path: /near", capsys)
    assert status == 1
    assert "require.network.countries: saw absent, rule has one of `DE`" in out


def test_the_settings_give_facts_that_the_request_does_not_assume(
    policies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mmdb(tmp_path / "geo.mmdb", {"193.99.0.0/16": {"country": "DE"}})
    config = tmp_path / "settings.yaml"
    config.write_text(f"networks: {{country: {tmp_path}/geo.mmdb}}")
    request = "path: /near\nsource: {ip: 193.99.144.80, port: 1}"
    assert explained(policies, request, capsys, "--config", str(config))[0] == 0
    assert explained(policies, request + "\nfacts: {network: {country: FR}}", capsys, "--config", str(config))[0] == 1
    assert explained(policies, request.replace("193.99", "193.98"), capsys, "--config", str(config))[0] == 1


def test_unknown_facts_are_written_as_their_state() -> None:
    facts = request_in(
        "r", 'facts: {network: {country: stale}, device: {a: absent, b: conflicting, c: "stale", d: 7, e: x}}'
    ).facts
    assert facts is not None
    assert facts.network is not None
    assert facts.network.country.unknown is Unknown.STALE
    assert facts.device is not None
    fields = {
        name: fact.value if fact.unknown is None else fact.unknown for name, fact in (facts.device.fields or {}).items()
    }
    assert fields == {"a": Unknown.ABSENT, "b": Unknown.CONFLICTING, "c": "stale", "d": 7, "e": "x"}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ("5", "`facts` is an integer"),
        ("{user: {}}", "unknown field `user`"),
        ("{network: {city: x}}", "unknown field `city`"),
        ("{network: {country: 5}}", "`facts.network.country` is not a text"),
        ("{network: {asn: AS5}}", "`facts.network.asn` is not a number"),
        ("{network: {corporate: 1}}", "`facts.network.corporate` is not `true` or `false`"),
        ("{network: [DE]}", "`facts.network` is a list"),
        ("{device: [a]}", "`facts.device` is a list"),
        ("{signals: [HIGH]}", "`facts.signals` is a list"),
        ("{signals: {risk: EXTREME}}", "`facts.signals.risk` is not a level of risk"),
        ("{signals: {assurance: 2}}", "`facts.signals.assurance` is not a text"),
        ("{device: {a: [1]}}", "`facts.device.a` is not a single value"),
        ("{device: {a: null}}", "`facts.device.a` is not a single value"),
        ("{device: {id: 5}}", "`facts.device.id` has the integer `5`"),
        ("{device: {managed: maybe}}", "`facts.device.managed` has a value that no inventory would give it"),
        ("{network: {reputation: 101}}", "`facts.network.reputation` is not from 0 to 100"),
        ("{device: {lastSeen: yesterday}}", "`facts.device.lastSeen` is not a time"),
    ],
)
def test_what_cannot_be_a_fact_is_a_fault(facts: str, message: str) -> None:
    with pytest.raises(FaultsError) as caught:
        request_in("r", f"path: /\nfacts: {facts}")
    assert message in str(caught.value)


def test_assumed_fields_are_read_as_an_inventory_reads_them() -> None:
    facts = request_in("r", "facts: {device: {id: absent, managed: yes, osVersion: 26, encrypted: 'off'}}").facts
    assert facts is not None
    assert facts.device is not None
    assert facts.device.device_id == ""
    fields = {name: fact.value for name, fact in (facts.device.fields or {}).items()}
    assert fields == {"managed": True, "osVersion": "26", "encrypted": False}


INVENTORY = """
apiVersion: zta.dev/v1
kind: DeviceInventory
metadata: {name: fleet, namespace: default}
spec:
  source: {file: devices.jsonl}
  id: id
  identify: {certificate: spiffeId, certificateField: spiffe}
  fields: {managed: managed, os: os, osVersion: version}
  times: {posture: at, seen: at}
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: managed, namespace: default}
spec:
  rules:
  - require: {device: {managed: true, osAtLeast: {macOS: "26.1"}}}
"""
AT = "2027-01-15T08:00:00Z"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Settings with an inventory of one device, and a database."""
    write_mmdb(tmp_path / "geo.mmdb", {"193.99.0.0/16": {"country": "DE"}})
    (tmp_path / "p.yaml").write_text(INVENTORY)
    record = {
        "id": "a",
        "spiffe": "spiffe://d/a",
        "managed": True,
        "os": "macOS",
        "version": "26.2",
        "at": 1_799_999_990,
    }
    (tmp_path / "devices.jsonl").write_text(json.dumps(record))
    config = tmp_path / "settings.yaml"
    config.write_text(
        f"policies: [{tmp_path}/p.yaml]\nfacts: {{directory: {tmp_path}}}\nnetworks: {{country: {tmp_path}/geo.mmdb}}\n"
    )
    return config


def explain(
    config: Path, capsys: pytest.CaptureFixture[str], *facts: str, peer: str = "spiffe://d/a"
) -> tuple[int, str]:
    given = [argument for fact in facts for argument in ("--fact", fact)]
    status = main(["explain", "GET", "--principal", peer, "--config", str(config), "--at", AT, *given])
    return status, capsys.readouterr().out


def test_an_assumed_id_gives_the_device_of_the_inventory(inventory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = explain(inventory, capsys, "device.id=a")
    assert status == 0
    assert "device  `a` by assumed, in default/fleet; managed `true`, observed 10 s ago, from default/fleet" in out
    assert "lastSeen `2027-01-15T07:59:50Z`" in out


def test_an_assumed_field_counts_instead_of_the_inventory(inventory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = explain(inventory, capsys, "device.id=a", "device.osVersion=15.1")
    assert status == 1
    assert "require.device.osAtLeast: saw `macOS 15.1`, from assumed, rule has at least `macOS 26.1`" in out
    assert "require.device.managed" not in out


def test_an_assumed_id_that_no_inventory_has_gives_no_field(
    inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = explain(inventory, capsys, "device.id=b")
    assert status == 1
    assert "device  `b` by assumed\n" in out
    assert "require.device.managed: saw absent" in out


def test_explain_says_how_to_assume_a_device_and_an_address(
    inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = explain(inventory, capsys)
    assert status == 1
    assert "the assumed peer has no certificate: to assume a device, add `--fact device.id=ID`" in out
    assert "so nothing is known of the network: add `--source-ip ADDRESS`" in out
    _, out = explain(inventory, capsys, "device.id=a", "network.country=DE")
    assert "note" not in out


def test_several_devices_of_one_caller_are_conflicting() -> None:
    conflicting = Fact(None, Unknown.CONFLICTING, None, "default/fleet")
    lines = fact_lines(DecisionFacts(device=DeviceFacts("", "", "default/fleet", {"managed": conflicting})), 0.0)
    assert lines == (
        "device: conflicting: several devices of default/fleet are named; managed conflicting, from default/fleet",
    )
    unnamed = DeviceFacts("", "assumed", "assumed", {"managed": known(True)})
    assert fact_lines(DecisionFacts(device=unnamed), 0.0) == ("device: not identified in assumed",)
