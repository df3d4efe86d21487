from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.policies import operation, policy, source, when
from zta_authz.cli import main

FRONTEND = "spiffe://cluster.local/ns/default/sa/frontend"
SHOP = policy("shop", {**source(principals=["cluster.local/ns/default/sa/frontend"]), **operation(methods=["GET"])})


@pytest.fixture(autouse=True)
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policies.yaml").write_text(json.dumps(SHOP))


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["explain", *arguments, "--policies", "policies.yaml", "--output", "json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_request_is_explained_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    status, answer = explain(capsys, "GET", "/orders", "--principal", FRONTEND)
    assert (status, answer["policy"], answer["identity"]["assumed"]) == (0, "default/shop", ["principal"])
    status, answer = explain(capsys, "PUT", "/orders", "--principal", FRONTEND)
    assert (status, answer["nearest"][0]["failed"]) == (1, ["methods: saw `PUT`, rule has `GET`"])


def test_it_is_decided_as_the_same_request_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    clauses = [
        when("request.headers[x-team]", "b"),
        when("source.ip", "10.0.0.0/8"),
        when("request.auth.claims[groups]", "staff"),
    ]
    rule = {**operation(hosts=["shop.example"], paths=["/a"]), "when": [clause["when"][0] for clause in clauses]}
    Path("policies.yaml").write_text(json.dumps(policy("all", rule)))
    fields = {
        "method": "GET",
        "path": "/a",
        "host": "shop.example",
        "headers": {"X-Team": ["a", "b"]},
        "claims": {"sub": "7", "level": 3, "groups": ["staff", "ops"]},
        "source": {"ip": "10.1.2.3"},
    }
    Path("request.yaml").write_text(json.dumps(fields))
    at = ("--at", "2027-01-31T18:00:00Z")
    in_file = explain(capsys, "--request", "request.yaml", *at)
    options = ["--host", "shop.example", "--header", "X-Team=a", "--header", "X-Team=b", "--source-ip", "10.1.2.3"]
    options += ["--claim", "sub=7", "--claim", "level=3", "--claim", 'groups=["staff", "ops"]']
    assert in_file[0] == 0
    assert explain(capsys, "GET", "/a", *options, *at) == in_file
    assert explain(capsys, "GET", "/b", *options, *at) != in_file
    repeated = [*options[:-1], "groups=staff", "--claim", "groups=ops"]
    assert explain(capsys, "GET", "/a", *repeated, *at) == in_file


def test_a_wrong_argument_is_a_fault_as_in_a_request_file(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ("--source-ip", "1.2", "--header", "a b=1", "--claim", "iat=soon")
    status, answer = explain(capsys, "GET", *wrong)
    assert (status, answer["kind"]) == (2, "Faults")
    assert {fault["source"] for fault in answer["faults"]} == {"command line"}
    assert len(answer["faults"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a request, for example `explain GET /orders`, or a file"),
        (["--principal", FRONTEND], "give a request"),
        (["/orders"], "write the method first, for example: GET /orders"),
        (["GET", "/", "--request", "r.yaml"], "--request contains the whole request: leave out method, path"),
        (["GET", "--binary"], "--binary requires --request FILE"),
        (["GET", "--claim", "sub"], "write NAME=VALUE, for example sub=ann"),
        (["GET", "--header", "=x"], "write NAME=VALUE, for example x-team=orders"),
    ],
)
def test_wrong_usage_gets_a_hint(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explain", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
