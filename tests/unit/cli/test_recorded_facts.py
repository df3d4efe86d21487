"""Replays of decisions that rest on facts: certain where the record says enough, and undecidable otherwise."""

from __future__ import annotations

import json
from itertools import product
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.check_requests import DECISION_ID, check_request
from tests.support.policies import identity, request, snapshot
from tests.support.trust import DEVICE, MODEL, NETWORK, NOW, USER
from zta_authz.audit.record import encode_line, make_record
from zta_authz.audit.sinks import capture
from zta_authz.cli import main
from zta_authz.model.facts import (
    NO_DEVICE,
    NO_NETWORK_FACTS,
    DeviceFacts,
    Fact,
    FactViews,
    NetworkFacts,
    Unknown,
    known,
)
from zta_authz.pdp.decide import Caller, decide

if TYPE_CHECKING:
    from pathlib import Path

TRUST = MODEL + "spec: {allowedCountries: [DE], components: {behavior: {assume: 100}}}\n"
CLASSES = """
apiVersion: zta.dev/v1
kind: ResourceClassification
metadata: {name: data, namespace: default}
spec:
  default: internal
  rules: [{class: restricted, to: [{operation: {paths: ["/payroll"]}}]}]
  demands: {restricted: {level: HIGH}}
"""
INVENTORY = """
apiVersion: zta.dev/v1
kind: DeviceInventory
metadata: {name: fleet, namespace: default}
spec: {source: {file: d.jsonl}, id: id, identify: {tokenClaim: d}, fields: {managed: m, encrypted: e}}
"""
GOOD = DeviceFacts("laptop-1", "token", "default/fleet", {name: known(value) for name, value in DEVICE.items()})
STALE = DeviceFacts(
    "laptop-1", "token", "default/fleet", {name: Fact(None, Unknown.STALE) for name in (*DEVICE, "lastSeen")}
)
ABROAD = NetworkFacts(known("KP"), known(1), known(True), known(10), known(False))


def access(rule: str, action: str = "ALLOW", name: str = "p") -> str:
    head = f"apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: default}}\n"
    return head + f"spec: {{action: {action}, rules: [{rule}]}}\n"


def record(
    policies: str, network: NetworkFacts, device: DeviceFacts, path: str = "/payroll", user: Any = USER
) -> tuple[str, bytes]:
    """The verdict of these policies on a request with these facts, and its record."""
    claims = {"iss": "https://i", "sub": "ann", **user}
    caller = Caller(identity(claims=claims))
    asked = request(path=path)
    views = FactViews(assumed_network=network, assumed_device=device)
    decision = decide(snapshot(policies), asked, caller, NOW, views=views)
    return decision.verdict, encode_line(make_record(capture(asked, decision, DECISION_ID, NOW)))


def replayed(folder: Path, capsys: pytest.CaptureFixture[str], lines: list[bytes], policies: str) -> dict[str, Any]:
    (folder / "log.jsonl").write_bytes(b"".join(lines))
    (folder / "new.yaml").write_text(policies)
    (folder / "settings.yaml").write_text("peer: {trust_proxy: true}\n")
    named = ["--policies", str(folder / "new.yaml"), "--config", str(folder / "settings.yaml")]
    main(["replay", str(folder / "log.jsonl"), *named, "-o", "json"])
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


RULES = [
    "{require: {network: {countries: [DE]}}}",
    "{require: {network: {notCountries: [KP], anonymous: false}}}",
    "{require: {device: {managed: true, encrypted: true}}}",
    "{require: {trust: {level: HIGH}}}",
    "{require: {trust: {user: 90, device: 60}}}",
    "{when: [{key: zta.remote.country, values: [DE]}, {key: zta.trust.level, notValues: [DENY]}]}",
    "{when: [{key: zta.device.managed, values: ['true']}, {key: zta.resource.class, values: [restricted]}]}",
]


@pytest.mark.parametrize("rule", RULES)
def test_the_same_policies_give_the_same_verdict_for_each_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str
) -> None:
    policies = "---\n".join((access(rule), INVENTORY, TRUST, CLASSES))
    lines, verdicts = [], set()
    for network, device, user, path in product((NETWORK, ABROAD), (GOOD, STALE), (USER, {}), ("/payroll", "/other")):
        verdict, line = record(policies, network, device, path, user)
        verdicts.add(verdict)
        lines.append(line)
    summary = replayed(tmp_path, capsys, lines, policies)["summary"]
    assert len(verdicts) == 2
    assert (summary["changed"], summary["requests"]) == (0, len(lines))
    assert summary["same"] > len(lines) // 2


def test_a_new_rule_on_recorded_facts_changes_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = "---\n".join((access("{require: {network: {countries: [DE, KP]}, device: {managed: true}}}"), TRUST))
    lines = [record(old, network, GOOD)[1] for network in (NETWORK, ABROAD)]
    new = access("{require: {network: {countries: [DE]}, device: {managed: true}}}")
    assert replayed(tmp_path, capsys, lines, new)["summary"]["changed"] == 2, "no inventory: the device is absent"
    new = access("{require: {network: {countries: [DE]}}}")
    answer = replayed(tmp_path, capsys, lines, new)
    assert (answer["summary"]["same"], answer["summary"]["changed"]) == (1, 1)
    assert answer["changes"][0]["to"]["verdict"] == "deny"
    deny = access("{when: [{key: zta.remote.anonymous, values: ['true']}]}", "DENY", "d")
    answer = replayed(tmp_path, capsys, lines, "---\n".join((access("{}"), deny)))
    assert answer["changes"][0]["to"]["policy"] == "default/d"


def test_a_new_demand_of_a_class_changes_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = "---\n".join((access("{require: {trust: {level: LOW}}}"), TRUST))
    lines = [record(old, NETWORK, GOOD, "/payroll", {**USER, "amr": ["pwd"], "security_violations": 3})[1]]
    assert replayed(tmp_path, capsys, lines, old)["summary"]["same"] == 1
    demanding = CLASSES.replace("{level: HIGH}", "{user: 80}")
    answer = replayed(tmp_path, capsys, lines, f"{old}---\n{demanding}")
    assert answer["summary"]["changed"] == 1
    other = [line.replace(b'"/payroll"', b'"/other"') for line in lines]
    assert replayed(tmp_path, capsys, other, f"{old}---\n{demanding}")["summary"]["same"] == 1


@pytest.mark.parametrize(
    "rule",
    [
        "{require: {network: {countries: [DE]}}}",
        "{when: [{key: zta.remote.country, notValues: [KP]}]}",
        "{require: {trust: {level: HIGH}}}",
    ],
)
def test_facts_that_no_rule_read_are_undecidable(tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str) -> None:
    line = record(access("{to: [{operation: {paths: ['/payroll']}}]}"), NETWORK, GOOD)[1]
    answer = replayed(tmp_path, capsys, [line], "---\n".join((access(rule), INVENTORY, TRUST)))
    assert answer["summary"]["undecidable"] == 1
    assert answer["undecidable"][0]["needs"].startswith(("require.", "zta."))


def test_what_a_class_demands_of_a_request_without_recorded_trust_is_undecidable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = record(access("{}"), NO_NETWORK_FACTS, NO_DEVICE)[1]
    answer = replayed(tmp_path, capsys, [line], "---\n".join((access("{}"), INVENTORY, TRUST, CLASSES)))
    assert answer["undecidable"] == [{"needs": "what the class of the resource demands", "count": 1}]
    masked = json.dumps({**json.loads(line), "path": "hmac-sha256:00"}).encode()
    answer = replayed(tmp_path, capsys, [masked], "---\n".join((access("{}"), INVENTORY, TRUST, CLASSES)))
    assert answer["summary"]["undecidable"] == 1


def test_a_device_of_another_inventory_is_undecidable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = "{require: {device: {managed: true}}}"
    line = record(access(rule), NETWORK, GOOD)[1]
    same = replayed(tmp_path, capsys, [line], "---\n".join((access(rule), INVENTORY)))
    assert same["summary"]["same"] == 1
    other = replayed(tmp_path, capsys, [line], "---\n".join((access(rule), INVENTORY.replace("fleet", "other"))))
    assert other["summary"]["undecidable"] == 1


def test_facts_that_count_as_absent_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "request").write_bytes(check_request(path="/a").SerializeToString())
    policies = tmp_path / "old.yaml"
    policies.write_text(access("{require: {network: {countries: [DE]}}}"))
    main(["replay", str(tmp_path / "request"), "--policies", str(policies), "--against", str(policies), "-o", "json"])
    assert json.loads(capsys.readouterr().out)["notes"] == [
        "rules read facts, and the settings name no source of facts: they count as absent"
    ]
    settings = tmp_path / "settings.yaml"
    settings.write_text('networks: {corporate: ["10.0.0.0/8"]}\n')
    arguments = ["--policies", str(policies), "--against", str(policies), "--config", str(settings)]
    assert main(["replay", str(tmp_path / "request"), *arguments]) == 0
    assert "note: facts are those of the files now" in capsys.readouterr().out


def test_values_of_other_types_are_not_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policies = "---\n".join((access("{require: {network: {countries: [DE]}, trust: {level: HIGH}}}"), INVENTORY, TRUST))
    line = json.loads(record(policies, NETWORK, GOOD)[1])
    odd = [
        {**line, "network": {**line["network"], "country": 7}},
        {**line, "network": []},
        {**line, "trust": None, "device": {"fields": {"managed": []}, "unknown": {}, "inventory": 1}},
        {**line, "trust": {"signals": {"noMfa": True}}, "device": {"fields": {}, "unknown": {"x": []}}},
    ]
    lines = [json.dumps(fields).encode() + b"\n" for fields in odd]
    summary = replayed(tmp_path, capsys, lines, policies)["summary"]
    assert (summary["undecidable"], summary["changed"]) == (len(odd), 0)


JSON_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 10**400, 1e308, "", "x" * 3000, "\ud800", "absent", [], [[]], {}, {"a": 1}, ["on"], {"managed": []},
)  # fmt: skip


def mutated(value: Any, random: Random) -> Any:
    """A copy of a JSON value in which one part is another value, or missing."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        name = random.choice(sorted(value))
        changed = {**value, name: mutated(value[name], random)}
        if random.random() < 0.1:
            del changed[name]
        return changed
    if isinstance(value, list) and value and random.random() < 0.8:
        at = random.randrange(len(value))
        return [*value[:at], mutated(value[at], random), *value[at + 1 :]]
    return random.choice(JSON_VALUES)


def test_no_line_of_a_log_is_an_exception(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policies = "---\n".join((*map(access, RULES[:1]), *(access(r, "AUDIT", f"a{n}") for n, r in enumerate(RULES[1:]))))
    policies += f"---\n{INVENTORY}---\n{TRUST}---\n{CLASSES}"
    random = Random(13)
    good = [
        json.loads(record(policies, NETWORK, device, user=user)[1]) for device in (GOOD, STALE) for user in (USER, {})
    ]
    lines = [json.dumps(mutated(random.choice(good), random)).encode() + b"\n" for _ in range(3000)]
    summary = replayed(tmp_path, capsys, lines, policies)["summary"]
    assert summary["unread"] > 100
    assert summary["same"] > 1000
    (tmp_path / "model.yaml").write_text(TRUST)
    named = ["--log", str(tmp_path / "log.jsonl"), "--model", str(tmp_path / "model.yaml")]
    assert main(["trust", "simulate", *named, "-o", "json"]) in (0, 1)
    counts = json.loads(capsys.readouterr().out)["summary"]
    seen = sum(counts[name] for name in ("requests", "notAssessed", "unread", "otherModels"))
    assert len(lines) - 30 < seen <= len(lines), "records that could not be encoded are not counted"
    assert main(["trust", "simulate", *named]) in (0, 1)
