"""What `check` says about facts that nothing gives, and about values that no fact has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.devices import HEAD as INVENTORY, SPEC
from tests.support.trust import MODEL
from zta_authz.cli import main

if TYPE_CHECKING:
    from pathlib import Path

ALL: dict[str, Any] = {
    "networks": {
        "country": "c.mmdb",
        "asn": "a.mmdb",
        "anonymous": "x.mmdb",
        "reputation": [{"file": "bad.txt"}],
        "corporate": ["10.0.0.0/8"],
    },
    "facts": {"directory": "/var/lib/facts"},
}
CLASSES = """
apiVersion: zta.dev/v1
kind: ResourceClassification
metadata: {name: data, namespace: default}
spec:
  default: internal
  rules: [{class: restricted, to: [{operation: {paths: ["/payroll"]}}]}]
  demands: {restricted: {level: HIGH}}
"""
TRUST = MODEL + "spec: {allowedCountries: [DE], components: {behavior: {assume: 100}}}\n"
DOCUMENTS = "---\n".join((INVENTORY + SPEC, CLASSES, TRUST))
TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: t, namespace: default}
spec: {jwtRules: [{issuer: https://a.example, jwksUri: https://a.example/keys}]}
---
apiVersion: zta.dev/v1
kind: IssuerPolicy
metadata: {name: a, namespace: default}
spec: {issuer: https://a.example, acrLevels: {phr: 2}}
---
apiVersion: zta.dev/v1
kind: IssuerPolicy
metadata: {name: b, namespace: default}
spec: {issuer: https://b.example, acrLevels: {phrh: 3}}
"""


def access(rule: str, action: str = "ALLOW") -> str:
    return (
        "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: p, namespace: default}\n"
        f'spec: {{action: {action}, rules: [{{from: [{{source: {{principals: ["*"]}}}}], {rule}}}]}}\n'
    )


def checked(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    documents: str,
    settings: dict[str, Any] | None = ALL,
) -> list[dict[str, Any]]:
    """The warnings and notes of `check`; `settings` None names no settings."""
    (folder / "p.yaml").write_text(documents)
    (folder / "settings.yaml").write_text(json.dumps({"root_namespace": "default", **(settings or {})}))
    named = [] if settings is None else ["--config", str(folder / "settings.yaml")]
    main(["check", str(folder / "p.yaml"), "-o", "json", *named])
    answer = json.loads(capsys.readouterr().out)
    assert answer["faults"] == []
    return [warning for warning in answer["warnings"] if warning["kind"] != "skipped"]


def without(*path: str) -> dict[str, Any]:
    """The settings without one of their fields."""
    section, field = path
    return {**ALL, section: {name: value for name, value in ALL[section].items() if name != field}}


RULES = [
    ("require: {network: {countries: [DE]}}", "country"),
    ("require: {network: {notCountries: [DE]}}", "country"),
    ("require: {network: {asns: [64500]}}", "asn"),
    ("require: {network: {anonymous: false}}", "anonymous"),
    ("require: {network: {reputationAtLeast: 50}}", "reputation"),
    ("require: {network: {corporate: true}}", "corporate"),
    ("when: [{key: zta.remote.country, notValues: [DE]}]", "country"),
    ("condition: 'remote.asn == 64500'", "asn"),
]


@pytest.mark.parametrize(("rule", "fact"), RULES)
def test_a_network_fact_without_a_source_never_allows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str, fact: str
) -> None:
    (finding,) = checked(tmp_path, capsys, access(rule), without("networks", fact))
    assert (finding["kind"], finding["level"], finding["line"]) == ("never_matches", "warning", 4)
    assert f"nothing gives `{fact}` of the client's address" in finding["message"]
    assert finding["hint"].startswith(f"set `networks.{fact}`")
    assert checked(tmp_path, capsys, access(rule)) == []


@pytest.mark.parametrize(("rule", "fact"), [rule for rule in RULES if "require" not in rule[0]])
def test_a_deny_on_a_fact_without_a_source_is_always_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str, fact: str
) -> None:
    (finding,) = checked(tmp_path, capsys, access(rule, "DENY"), without("networks", fact))
    assert (finding["kind"], finding["level"]) == ("always_unknown", "warning")
    assert f"nothing gives `{fact}`" in finding["message"]
    assert checked(tmp_path, capsys, access(rule, "DENY")) == []


def test_without_settings_a_source_may_be_configured_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finding,) = checked(tmp_path, capsys, access("require: {network: {countries: [DE]}}"), None)
    assert (finding["kind"], finding["level"]) == ("always_unknown", "info")
    assert "with the default settings" in finding["message"]


@pytest.mark.parametrize(
    ("rule", "documents", "reason", "hint"),
    [
        ("require: {device: {managed: true}}", "", "no DeviceInventory selects", "add a DeviceInventory"),
        ("require: {device: {manged: true}}", DOCUMENTS, "has the field `manged`", "did you mean `managed`?"),
        ("when: [{key: zta.device.colour, values: [red]}]", DOCUMENTS, "has the field `colour`", "add it to `fields`"),
        ("when: [{key: zta.device.id, values: [x]}]", "", "no DeviceInventory selects", "add a DeviceInventory"),
        ("condition: device.managed", "", "no DeviceInventory selects", "add a DeviceInventory"),
        ("require: {trust: {level: LOW}}", "", "no TrustModel selects", "add a TrustModel"),
        ("when: [{key: zta.trust.level, values: [HIGH]}]", "", "no TrustModel selects", "add a TrustModel"),
        ("when: [{key: zta.resource.class, values: [public]}]", "", "no ResourceClassification", "add a Resource"),
        ("when: [{key: zta.resource.class, values: [secret]}]", DOCUMENTS, "gives this class", "they give `internal`"),
        ("condition: 'resource.class == \"public\"'", "", "no ResourceClassification", "add a Resource"),
        (
            "require: {trust: {level: HIGH}}",
            TRUST,
            "no request has more than level DENY by `default/m`, because of device.unmanaged",
            "give these facts a source",
        ),
    ],
)
def test_a_fact_that_no_document_gives_never_allows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str, documents: str, reason: str, hint: str
) -> None:
    findings = checked(tmp_path, capsys, access(rule) + ("---\n" + documents if documents else ""))
    (finding,) = [one for one in findings if one["kind"] == "never_matches"]
    assert reason in finding["message"]
    assert finding["hint"].startswith(hint)


@pytest.mark.parametrize(
    "rule",
    [
        "require: {device: {managed: true, encrypted: true, seenWithin: 1h}, trust: {level: HIGH, device: 80}}",
        "when: [{key: zta.resource.class, notValues: [public]}, {key: zta.device.id, values: [x]}]",
        "when: [{key: zta.resource.class, values: [restricted]}, {key: zta.trust.level, values: [HIGH]}]",
        "condition: 'device.managed && trust.score > 80.0'",
    ],
)
def test_facts_with_a_source_are_no_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str) -> None:
    more = SPEC.replace("encrypted:", "firewall: fw, antivirus: av, encrypted:")
    documents = access(rule) + "---\n" + DOCUMENTS.replace(SPEC, more)
    assert checked(tmp_path, capsys, documents) == []


def test_an_inventory_that_is_not_read_gives_no_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = access("require: {device: {managed: true}}") + "---\n" + INVENTORY + SPEC
    (finding,) = checked(tmp_path, capsys, documents, without("facts", "directory"))
    assert "no inventory is read" in finding["message"]
    assert finding["hint"].startswith("set `facts.directory`")


def test_documents_for_other_workloads_give_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = (INVENTORY + SPEC).replace("namespace: default", "namespace: other")
    (tmp_path / "settings.yaml").write_text("")
    documents = access("require: {device: {managed: true}}") + "---\n" + elsewhere
    findings = checked(tmp_path, capsys, documents, {**ALL, "root_namespace": "istio-system"})
    assert "no DeviceInventory selects its workloads" in findings[0]["message"]


def test_a_model_that_trusts_nobody_is_a_warning_at_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finding,) = checked(tmp_path, capsys, MODEL + "spec: {allowedCountries: [DE]}\n", None)
    assert (finding["kind"], finding["line"]) == ("document", 1)
    assert "every request has the level DENY" in finding["message"]
    assert "floor device, floor behavior" in finding["message"]
    assert "`assume`" in finding["hint"]
    seed = MODEL + "spec: {seedCompatible: true}\n"
    assert checked(tmp_path, capsys, seed, None) == []


def test_a_demand_on_a_class_that_no_rule_gives_is_a_warning_at_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = DOCUMENTS.replace("demands: {", "demands: {confidential: {device: 50}, internal: {device: 1}, ")
    line = documents[: documents.index("  demands")].count("\n") + 1
    (finding,) = checked(tmp_path, capsys, documents)
    assert (finding["kind"], finding["line"], finding["column"]) == ("document", line, 13)
    assert "`demands.confidential` has no effect" in finding["message"]


@pytest.mark.parametrize(
    ("documents", "reason", "hint"),
    [
        (CLASSES, "no TrustModel selects its workloads", "add a TrustModel for them"),
        (
            DOCUMENTS.replace("namespace: default}\nspec: {allowed", "namespace: other}\nspec: {allowed"),
            "no TrustModel",
            "add",
        ),
        (
            DOCUMENTS,
            "no request has more than device 70 by `default/m`",
            "or ask for less",
        ),
    ],
)
def test_a_demand_that_no_request_can_meet_is_a_warning_at_its_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], documents: str, reason: str, hint: str
) -> None:
    documents = documents.replace("restricted: {level: HIGH}", "restricted: {level: HIGH, device: 90}")
    settings = {**ALL, "root_namespace": "istio-system"}
    (finding,) = [
        one for one in checked(tmp_path, capsys, documents, settings) if "class `restricted`" in one["message"]
    ]
    assert (finding["kind"], finding["column"]) == ("document", 1)
    assert f"every request for the class `restricted` is denied: {reason}" in finding["message"]
    assert hint in finding["hint"]
    met = DOCUMENTS.replace("restricted: {level: HIGH}", "restricted: {level: HIGH, device: 90}")
    met = met.replace("fields: {", "fields: {firewall: a, antivirus: b, ")
    assert checked(tmp_path, capsys, met, settings) == []


def test_an_inventory_without_the_time_of_a_state_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timeless = "\n".join(line for line in DOCUMENTS.splitlines() if "times:" not in line)
    messages = [finding["message"] for finding in checked(tmp_path, capsys, timeless)]
    assert "every device is stale: nothing says when its state was observed" in messages[0]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{network: {countries: [DE], notCountries: [DE, FR]}}", "contradict each other"),
        ("{network: {countries: [DE], corporate: true}}", "contradict each other"),
        ("{network: {anonymous: false, corporate: true}}", "contradict each other"),
        ("{network: {countries: [UK]}}", "`UK` never matches as written"),
        ("{authentication: {acrAtLeast: 3}}", "the highest level of an `acr` is 2"),
        ("{authentication: {acr: [phrh], acrAtLeast: 2}}", "no IssuerPolicy gives an `acr` of its issuers a level"),
    ],
)
def test_clauses_that_no_request_satisfies_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str, message: str
) -> None:
    findings = checked(tmp_path, capsys, access(f"require: {rule}") + "---\n" + TOKENS)
    assert [message in finding["message"] for finding in findings if finding["rule"] is not None] == [True]


def test_reachable_levels_and_countries_are_no_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = "require: {network: {countries: [DE, XK]}, authentication: {acr: [phr], acrAtLeast: 2}}"
    findings = checked(tmp_path, capsys, access(rule) + "---\n" + TOKENS)
    assert [finding for finding in findings if finding["rule"] is not None] == []


def test_rules_on_the_same_facts_are_duplicates_and_shadowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = "require: {network: {countries: [DE]}, trust: {level: HIGH}, device: {seenWithin: 1h}}"
    twice = access(rule) + "---\n" + access(rule).replace("name: p", "name: q")
    deny = access("when: [{key: zta.remote.country, values: [DE]}]", "DENY").replace("name: p", "name: d")
    more = SPEC.replace("encrypted:", "firewall: fw, antivirus: av, encrypted:")
    kinds = [
        finding["kind"]
        for finding in checked(tmp_path, capsys, "---\n".join((twice, deny, DOCUMENTS.replace(SPEC, more))))
    ]
    assert sorted(kinds) == ["duplicate", "shadowed", "shadowed"]


SIGNALS = """---
apiVersion: zta.dev/v1
kind: SignalSource
metadata: {name: idp, namespace: default}
spec: {issuer: https://a.example, subjects: {device: {inventory: fleet}}}
"""
ON_SIGNALS = [
    ("when: [{key: zta.signals.risk, values: [LOW]}]", "no SignalSource reports the risk of callers"),
    ("condition: 'signals.assurance == \"a/1\"'", "no SignalSource reports the assurance of callers"),
    ("require: {device: {signaledRisk: true}}", "no DeviceInventory of its workloads has the field `signaledRisk`"),
]


@pytest.mark.parametrize(("rule", "reason"), ON_SIGNALS)
def test_a_rule_on_signals_needs_a_source_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str, reason: str
) -> None:
    documents = access(rule) + "---\n" + DOCUMENTS
    [finding] = checked(tmp_path, capsys, documents)
    assert (finding["kind"], reason in finding["message"]) == ("never_matches", True)
    assert checked(tmp_path, capsys, documents + SIGNALS + "---" + TOKENS.partition("---")[0]) == []


@pytest.mark.parametrize(("act", "warned"), [("", False), (", act: {risk-level-change: ignore}", True)])
def test_a_model_that_vetoes_an_unknown_risk_needs_a_source_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], act: str, warned: bool
) -> None:
    users = "user: {signals: [{name: highRisk, points: -5, caps: DENY}]}"
    rest = ", ".join(f"{name}: {{assume: 100}}" for name in ("device", "network", "behavior"))
    model = MODEL + f"spec: {{components: {{{users}, {rest}}}}}\n"
    source = SIGNALS.replace(", subjects: {device: {inventory: fleet}}}", act + "}")
    warnings = checked(tmp_path, capsys, model + source + "---" + TOKENS.partition("---")[0])
    assert ["nothing gives user.highRisk" in warning["message"] for warning in warnings] == ([True] if warned else [])
