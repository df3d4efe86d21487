"""Nobody can hand the upstream a header of ours, in whatever spelling, even where Envoy lets underscores through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envoy.demo.client import Request
from envoy.demo.identities import spiffe_id
from envoy.demo.stack import StackOptions, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envoy.demo.stack import Stack

FORGED = "forged-by-the-client"
SPELLINGS = (
    "x-zta-principal",
    "X-Zta-Principal",
    "x_zta_principal",
    "x-zta_principal",
    "X_ZTA-Principal",
    "x-zta-decision-id",
    "x_zta_decision_id",
    "x-zta-made-up",
    "x_zta_made_up",
)


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose Envoy takes header names with underscores, as Envoy does by default."""
    with running(
        tmp_path_factory.mktemp("stack"), StackOptions(reject_underscores=False, envoy=envoy_binary)
    ) as started:
        yield started


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_header_of_ours_from_the_client_never_reaches_the_upstream(stack: Stack, name: str) -> None:
    answer = stack.send("frontend", Request(path="/orders", headers=((name, FORGED),)))
    assert answer.status == 200
    assert FORGED not in [value for _, value in answer.upstream_headers()]


def test_many_forged_headers_at_once_leave_only_the_verified_principal(stack: Stack) -> None:
    headers = tuple((name, FORGED) for name in SPELLINGS * 3)
    answer = stack.send("frontend", Request(path="/orders", headers=headers))
    ours = {name: value for name, value in answer.upstream_headers() if name.replace("_", "-").startswith("x-zta-")}
    assert set(ours) == {"x-zta-principal", "x-zta-decision-id"}
    assert ours["x-zta-principal"] == spiffe_id("frontend")
    assert len(ours["x-zta-decision-id"]) == 32


def test_other_headers_arrive_as_they_were_sent(stack: Stack) -> None:
    headers = (("x-colour", "red"), ("x-colour", "blue"), ("hat_size", "58"), ("x-empty", ""))
    seen = stack.send("frontend", Request(path="/orders", headers=headers)).upstream_headers()
    assert [value for name, value in seen if name == "x-colour"] == ["red", "blue"]
    assert ("hat_size", "58") in seen
    assert ("x-empty", "") in seen
