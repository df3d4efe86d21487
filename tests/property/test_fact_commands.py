"""`explain` and `test` decide a request with the same facts as the service does."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.property.fact_invariants import decided
from tests.property.fact_shapes import NOW, FactShapes, texts_of
from tests.support.policies import snapshot
from zta_authz.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.property.fact_shapes import State
    from zta_authz.model.decision import Decision
    from zta_authz.model.facts import Fact

AT = datetime.fromtimestamp(NOW, UTC).isoformat()
_SETS = 12
_STATES = 6
_MARK = "unknown fact: "


def written(state: State) -> dict[str, Any]:
    """The request as it is in a file, with the mark before the state of an unknown fact."""
    device = {name: shown(name, fact) for name, fact in (state.device.fields or {}).items()}
    if state.device.device_id:
        device["id"] = state.device.device_id
    names = ("country", "asn", "anonymous", "reputation", "corporate")
    network = {name: shown(name, getattr(state.network, name)) for name in names}
    asked: dict[str, Any] = {"method": state.request.method, "path": state.request.path, "host": state.request.host}
    asked["source"] = {"ip": state.request.source.ip, "port": state.request.source.port}
    asked["destination"] = {"ip": state.request.destination.ip, "port": state.request.destination.port}
    if state.claims is not None:
        asked["claims"] = state.claims
    signals = {name: shown(name, getattr(state.signals, name)) for name in ("risk", "assurance")}
    facts = {"network": network, "signals": signals}
    return asked | {"facts": facts | ({"device": device} if state.device.device_id else {})}


def shown(name: str, fact: Fact) -> Any:
    if fact.unknown is not None:
        return _MARK + fact.unknown
    return datetime.fromtimestamp(int(fact.value or 0), UTC).isoformat() if name == "lastSeen" else fact.value


def as_text(document: dict[str, Any]) -> str:
    """The text of a file. The state of an unknown fact has no quotes, unlike a text."""
    return re.sub(f'"{_MARK}([a-z]+)"', r"\1", json.dumps(document))


def sayable(state: State) -> bool:
    """Whether a file can say it: no numbers beyond what JSON readers agree on, and no empty texts of a device."""
    claims = state.claims or {}
    empty = any(fact.value == "" for fact in (state.device.fields or {}).values())
    return not empty and not any(type(value) is int and abs(value) > 2**53 for value in claims.values())


@pytest.mark.parametrize("number", range(_SETS))
def test_every_command_decides_a_request_with_facts_as_the_service_does(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = FactShapes(Random(f"commands {number}"))
    documents = shapes.documents()
    compiled = snapshot(*texts_of(documents))
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "p.yaml").write_text("\n---\n".join(texts_of(documents)))
    drawn = (shapes.state(documents) for _ in range(_STATES))
    states = [(state, decided(compiled, state)) for state in drawn if sayable(state)]
    for state, decision in states:
        asked = tmp_path / "request.yaml"
        asked.write_text(as_text(written(state)))
        status = main(["explain", "--request", str(asked), "--policies", str(policies), "--at", AT, "-o", "json"])
        answer = json.loads(capsys.readouterr().out)
        expected = (str(decision.verdict), str(decision.reason), decision.policy or None, decision.rule)
        assert (answer["verdict"], answer["reason"], answer["policy"], answer["rule"]) == expected, answer
        assert status in (0, 1)
    tests = tmp_path / "facts_test.yaml"
    tests.write_text(as_text(_policy_test(states)))
    assert main(["test", str(tests)]) == (0 if states else 2), capsys.readouterr().out


def _policy_test(states: list[tuple[State, Decision]]) -> dict[str, Any]:
    tests = []
    for number, (state, decision) in enumerate(states):
        expect: dict[str, Any] = {"verdict": str(decision.verdict), "reason": str(decision.reason)}
        if decision.policy:
            expect |= {"policy": decision.policy, "rule": decision.rule}
        tests.append({"name": f"state {number}", "request": written(state), "expect": expect})
    head = {"apiVersion": "zta.dev/v1", "kind": "PolicyTest", "policies": ["policies"], "at": AT}
    return head | {"tests": tests}
