"""Revocations apply from the first call after the list is loaded, even with warm caches, through the real Envoy."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from envoy.demo.client import Request
from envoy.demo.stack import StackOptions, running
from envoy.demo.tokens import ISSUER, SUBJECT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envoy.demo.stack import Stack

FRONTEND = "spiffe://cluster.local/ns/default/sa/frontend"


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {"reload": {"poll_seconds": 0.05, "debounce_seconds": 0.05}}
    root = tmp_path_factory.mktemp("stack")
    with running(root, StackOptions(envoy=envoy_binary, settings=settings)) as running_stack:
        yield running_stack


def revoke(stack: Stack, **spec: object) -> None:
    document = {
        "apiVersion": "zta.dev/v1",
        "kind": "RevocationList",
        "metadata": {"name": "incident", "namespace": "default"},
        "spec": {"comment": "a test", **spec},
    }
    path = stack.layout.policies / "revoked.yaml"
    aside = path.with_suffix(".aside")
    aside.write_text(json.dumps(document))
    aside.rename(path)


def restore(stack: Stack) -> None:
    (stack.layout.policies / "revoked.yaml").unlink(missing_ok=True)


def until(stack: Stack, request: Request, status: int) -> None:
    deadline = time.monotonic() + 15
    while stack.send("frontend", request).status != status:
        assert time.monotonic() < deadline, f"never answered with {status}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("spec", "reason", "status"),
    [
        ({"spiffeIds": [{"id": FRONTEND}]}, "peer_revoked", 403),
        ({"subjects": [{"subject": SUBJECT, "issuer": ISSUER}]}, "token_revoked", 401),
    ],
    ids=["the peer", "the token's subject"],
)
def test_a_revocation_holds_for_every_call_once_it_is_in_force(
    stack: Stack, spec: dict[str, list[dict[str, str]]], reason: str, status: int
) -> None:
    token = stack.layout.token("valid").read_text()
    asked = Request(path="/account", headers=(("authorization", f"Bearer {token}"),))
    for _ in range(20):  # the caches are warm
        assert stack.send("frontend", asked).status == 200
    revoke(stack, **spec)
    try:
        until(stack, asked, status)
        answers = [stack.send("frontend", asked) for _ in range(20)]
        assert {answer.status for answer in answers} == {status}
        assert {answer.json().get("reason") for answer in answers} == {reason}
        assert not any(answer.reached_upstream for answer in answers)
    finally:
        restore(stack)
    until(stack, asked, 200)
