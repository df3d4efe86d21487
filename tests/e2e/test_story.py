"""Each row of the HatShop demo through the real Envoy: identity, rules, tokens, paths and forged headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envoy.demo.client import Request
from envoy.demo.row_runner import decision_id, find_decision, run_row
from envoy.demo.stack import StackOptions, running
from envoy.demo.story import STORY, Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envoy.demo.stack import Stack


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The demo's stack, with an administrator."""
    options = StackOptions(envoy=envoy_binary, administrator=True)
    with running(tmp_path_factory.mktemp("stack"), options) as started:
        yield started


@pytest.mark.parametrize("row", STORY, ids=lambda row: row.what)
def test_each_row_of_the_demo_has_the_expected_result(stack: Stack, row: Row) -> None:
    assert run_row(stack, row).faults == ()


def test_a_row_that_expects_something_else_is_reported(stack: Stack) -> None:
    wrong = Row(
        "the attacker gets in", "attacker", Request(path="/orders"), 200, "allow_policy", "default/hatshop-policy"
    )
    faults = run_row(stack, wrong).faults
    assert any("status 403, not 200" in fault for fault in faults)
    assert any("reason no_matching_policy, not allow_policy" in fault for fault in faults)


def test_a_denied_request_does_not_reach_the_upstream(stack: Stack) -> None:
    before = stack.upstream_requests()
    assert stack.send("attacker", Request(path="/orders")).status == 403
    assert stack.send("frontend", Request(path="/orders")).status == 200
    assert stack.upstream_requests() == before + 1


def test_a_denial_tells_the_caller_a_reason_and_an_id_but_no_policy(stack: Stack) -> None:
    answer = stack.send("frontend", Request(path="/admin"))
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == answer.status == 403
    assert problem["reason"] == "deny_policy"
    assert problem["decision_id"] == decision_id(answer)
    assert b"no-admin" not in answer.body
    assert find_decision(stack.decisions, problem["decision_id"]).policy == "default/no-admin-from-here"


def test_a_refused_token_is_answered_as_rfc_6750_says(stack: Stack) -> None:
    bearer = ("authorization", f"Bearer {stack.layout.token('expired').read_text()}")
    answer = stack.send("frontend", Request(path="/account", headers=(bearer,)))
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("path", ["/a/../orders", "/%2e%2e/orders", "/./orders", "/orders?next=//x", "/orders#a"])
def test_the_path_decided_on_is_the_path_the_upstream_serves(stack: Stack, path: str) -> None:
    answer = stack.send("frontend", Request(path=path))
    if answer.status == 200:
        assert answer.json()["path"].startswith("/orders")
    else:
        assert answer.status == 400


def test_neither_tokens_nor_keys_are_in_any_log(stack: Stack) -> None:
    bearer = stack.layout.token("valid").read_text()
    stack.send("frontend", Request(path="/account", headers=(("authorization", f"Bearer {bearer}"),)))
    signature = bearer.rsplit(".", 1)[1]
    for log in (stack.decisions, stack.layout.root / "zta-authz.log", stack.layout.root / "envoy.log"):
        text = log.read_text()
        assert signature not in text
        assert "PRIVATE KEY" not in text
