"""`zta-authz trust simulate`: whose level changes with a new model, counted from decision logs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from tests.support.check_requests import DECISION_ID, allow, attributes
from tests.support.policies import identity, policy
from tests.support.trust import DEVICE, MEASURED, MODEL, NETWORK, NOW, USER, inputs, trust_model
from zta_authz.audit.record import encode_line, make_record
from zta_authz.audit.sinks import capture
from zta_authz.cli import main
from zta_authz.cli.trust import simulate
from zta_authz.model.decision import DecisionFacts
from zta_authz.model.facts import Fact, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OLD = trust_model()
STRICTER = MEASURED.replace("behavior: {assume: 100}", "behavior: {assume: 100}, device: {signals: [%s]}") % (
    "{name: unencrypted, points: -90}, {name: unmanaged, points: -40}"
)
CAPPED = """
  allowedCountries: [DE]
  components:
    behavior: {assume: 100}
    user:
      signals:
      - {name: noMfa, points: -30, caps: LOW}
"""


def line(
    user: Mapping[str, Any] = USER, subject: str = "ann", now: float = NOW, model: str = "", **device: bool | Fact
) -> bytes:
    """A record of an allow by the old model, of a request with every fact good but these."""
    request = inputs(user, {**DEVICE, **device})
    trust = renamed(OLD.assess(request), model)
    facts = DecisionFacts(NETWORK, request.facts.device, trust)
    caller = identity(claims={"iss": "https://i", "sub": subject})
    decision = structs.replace(allow(), facts=facts, identity=caller)
    return encode_line(make_record(capture(attributes(), decision, DECISION_ID, now)))


def renamed(assessment: Any, model: str) -> Any:
    return replace(assessment, model=model) if model else assessment


def simulated(
    folder: Path, lines: list[bytes], spec: str, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict[str, Any]]:
    (folder / "log.jsonl").write_bytes(b"".join(lines))
    (folder / "new.yaml").write_text(MODEL + "spec:\n" + spec)
    arguments = ["--log", str(folder / "log.jsonl"), "--model", str(folder / "new.yaml"), "-o", "json", *more]
    status = main(["trust", "simulate", *arguments])
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, answer


def test_with_the_same_model_nobody_drops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line(), line(encrypted=False), line({}, managed=Fact(None, Unknown.STALE))]
    status, answer = simulated(tmp_path, lines, MEASURED, capsys)
    assert status == 0
    assert answer["summary"] == {
        "requests": 3, "same": 3, "dropped": 0, "rose": 0, "undecided": 0, "mayDrop": 0,
        "notAssessed": 0, "otherModels": 0, "unread": 0,
    }  # fmt: skip


def test_who_drops_is_grouped_by_level_caller_and_signal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line(), line(encrypted=False), line(encrypted=False), line(encrypted=False, subject="bob")]
    status, answer = simulated(tmp_path, lines, STRICTER, capsys)
    assert (status, answer["summary"]["dropped"], answer["summary"]["same"]) == (1, 3, 1)
    assert answer["changes"][0]["from"] == "HIGH"
    assert (answer["changes"][0]["to"], answer["changes"][0]["count"]) == ("DENY", 3)
    assert len(answer["changes"][0]["examples"]) == 3
    assert [(row["caller"], row["count"]) for row in answer["callers"]] == [
        ("ann (https://i)", 2),
        ("bob (https://i)", 1),
    ]
    assert answer["causes"] == [{"signal": "device.unencrypted", "from": "HIGH", "to": "DENY", "count": 3}]


def test_who_rises_is_counted_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    laxer = MEASURED.replace("behavior: {assume: 100}", "behavior: {assume: 100}, device: {assume: 100}")
    lines = [line(encrypted=False, managed=False)]
    status, answer = simulated(tmp_path, lines, laxer, capsys)
    assert (status, answer["summary"]["rose"], answer["summary"]["dropped"]) == (0, 1, 0)
    assert {row["signal"] for row in answer["causes"]} == {"device.unencrypted", "device.unmanaged"}


def test_a_change_without_a_signal_is_one_of_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, answer = simulated(
        tmp_path, [line()], "  allowedCountries: [DE]\n  components: {behavior: {assume: 0}}\n", capsys
    )
    assert status == 1
    assert [row["signal"] for row in answer["causes"]] == ["levels, floors or weights"]


def test_what_a_record_does_not_say_is_not_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = CAPPED.replace("noMfa, ", "contractor, when: 'claims.kind == \"x\"', ")
    status, answer = simulated(tmp_path, [line(), line(managed=False, encrypted=False)], spec, capsys)
    assert (status, answer["summary"]["undecided"], answer["summary"]["mayDrop"]) == (0, 1, 1)
    assert answer["undecided"] == [{"needs": "user.contractor", "count": 1}]
    assert answer["summary"]["same"] == 1, "a level that is certain whatever the signal's state is counted"


def test_a_record_of_an_earlier_version_is_undecided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = json.loads(line())
    del fields["trust"]["signals"]
    for name in ("device", "network"):
        fields[name] = None
    old = json.dumps(fields).encode() + b"\n"
    _, answer = simulated(tmp_path, [old], MEASURED, capsys)
    assert answer["undecided"] == [{"needs": "(the record has no states of signals)", "count": 1}]


def test_lines_that_are_no_records_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = json.loads(line())
    hostile = [
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"schema": 1}\n',
        b"9" * 6000 + b"\n",
        json.dumps({**good, "trust": []}).encode() + b"\n",
        json.dumps({**good, "trust": {**good["trust"], "level": ["HIGH"]}}).encode() + b"\n",
        json.dumps({**good, "trust": {**good["trust"], "model": {}}}).encode() + b"\n",
        json.dumps({**good, "rule": [], "rule_name": {}}).encode() + b"\n",
        json.dumps({**good, "time": "0001-01-01T00:00:00+23:59"}).encode() + b"\n",
    ]
    odd = [
        {**good, "device": {"fields": [], "unknown": 3}},
        {**good, "network": {"unknown": {"country": []}, "country": {}}},
        {**good, "trust": {**good["trust"], "signals": {"noMfa": [], "x": None}, "lost": [1, {"component": []}]}},
        {**good, "trust": {**good["trust"], "signals": ["noMfa"], "components": 7}, "resource_class": {}},
        {**good, "token_subject": "\ud800\x1b[2J", "api_client": []},
    ]
    lines = [*hostile, *(json.dumps(fields).encode() + b"\n" for fields in odd), line()]
    _, answer = simulated(tmp_path, lines, MEASURED, capsys)
    assert answer["summary"]["unread"] == len(hostile)
    assert answer["summary"]["requests"] == len(odd) + 1
    assert len(answer["unread"]) == 3
    status = main(["trust", "simulate", "--log", str(tmp_path / "log.jsonl"), "--model", str(tmp_path / "new.yaml")])
    text = capsys.readouterr().out
    assert status in (0, 1)
    assert "\x1b" not in text


def test_what_is_counted_by_name_is_bounded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "MAX_GROUPS", 5)
    lines = [line(encrypted=False, subject=f"user{number}") for number in range(20)]
    _, answer = simulated(tmp_path, lines, STRICTER, capsys)
    assert [row["count"] for row in answer["callers"]] == [15, 1, 1, 1, 1, 1]
    assert answer["callers"][0]["caller"] == "(others)"


def test_earlier_decisions_and_other_models_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line(now=NOW - 86400), line(), line(model="shop/other")]
    _, answer = simulated(tmp_path, lines, MEASURED, capsys, "--since", "2027-01-15T00:00:00Z")
    assert (answer["summary"]["requests"], len(answer["models"])) == (2, 2)
    _, answer = simulated(tmp_path, lines, MEASURED, capsys, "--replaces", "shop/other")
    assert (answer["summary"]["requests"], answer["summary"]["otherModels"]) == (1, 2)


def test_several_new_models_apply_to_those_of_the_same_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = MEASURED + "---\n" + MODEL.replace("name: m", "name: m2") + "spec:\n" + STRICTER
    lines = [line(encrypted=False), line(encrypted=False, model="default/m2"), line(model="default/x")]
    status, answer = simulated(tmp_path, lines, spec, capsys)
    summary = answer["summary"]
    assert (status, summary["same"], summary["dropped"], summary["otherModels"]) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("lines", "spec", "message"),
    [
        ([line()], "  leastReputation: 900\n", "leastReputation"),
        ([b"{}\n"], MEASURED, "no record can be assessed with the new model"),
    ],
)
def test_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[bytes], spec: str, message: str
) -> None:
    status, answer = simulated(tmp_path, lines, spec, capsys)
    assert status == 2
    assert message in answer["faults"][0]["message"]


def test_a_file_without_a_model_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.yaml").write_text(json.dumps(policy("p", {})))
    arguments = ["--log", str(tmp_path / "absent.jsonl"), "--model", str(tmp_path / "empty.yaml")]
    assert main(["trust", "simulate", *arguments]) == 2
    errors = capsys.readouterr().err
    assert "the file has no TrustModel; write a TrustModel; `zta-authz trust default` prints one" in errors
    assert "absent.jsonl: cannot be read" in errors
