"""Clients can't forge headers of zta-authz in any spelling, even if Envoy accepts underscores."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from envoy.demo.client import Request
from envoy.demo.identities import spiffe_id
from envoy.demo.stack import Stack, StackOptions, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    "x.zta.principal",
    "x-zta.principal",
    "x~zta~principal",
    "x-zta-trust-level",
    "X-Zta-Trust-Score",
    "x_zta_trust_level",
    "x-zta.trust-level",
    "x-zta_session_expires",
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
    forwarded = {
        name: value for name, value in answer.upstream_headers() if re.sub("[^a-z0-9]", "-", name).startswith("x-zta-")
    }
    trust = {"x-zta-trust-level", "x-zta-trust-score", "x-zta-session-expires"}
    assert set(forwarded) == {"x-zta-principal", "x-zta-decision-id", *trust}
    assert FORGED not in forwarded.values()
    assert forwarded["x-zta-principal"] == spiffe_id("frontend")
    assert len(forwarded["x-zta-decision-id"]) == 32


def test_other_headers_arrive_as_they_were_sent(stack: Stack) -> None:
    headers = (("x-colour", "red"), ("x-colour", "blue"), ("hat_size", "58"), ("x-empty", ""))
    seen = stack.send("frontend", Request(path="/orders", headers=headers)).upstream_headers()
    assert [value for name, value in seen if name == "x-colour"] == ["red", "blue"]
    assert ("hat_size", "58") in seen
    assert ("x-empty", "") in seen


OPEN = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: open, namespace: default}
spec:
  rules:
    - to: [{operation: {paths: ["/open"]}}]
    - to: [{operation: {paths: ["/team"]}}]
      response: {headers: {set: [{name: x-team, value: hats}]}}
"""


class ShowsLittle(Stack):
    """An Envoy whose filter sends us one header only."""

    def write_bootstrap(self) -> Path:
        """Envoy's configuration with `allowed_headers`."""
        file = super().write_bootstrap()
        text = file.read_text()
        shown = '"encode_raw_headers": true'
        assert text.count(shown) == 1
        only = json.dumps({"patterns": [{"exact": "content-type"}]})
        file.write_text(text.replace(shown, f'{shown}, "allowed_headers": {only}'))
        return file


def test_forged_headers_that_the_filter_does_not_send_do_not_reach_the_upstream(
    envoy_binary: Path, tmp_path: Path
) -> None:
    """Of what we never saw we remove the names that are ours or that some policy sets."""
    policy = tmp_path / "open.yaml"
    policy.write_text(OPEN)
    settings = {"policies": [str(policy)], "peer": {"verify_certificate": "when_present"}}
    options = StackOptions(envoy=envoy_binary, settings=settings)
    forged = tuple((name, FORGED) for name in ("x-zta-principal", "x-zta-decision-id", "x-team", "x-other"))
    with running(tmp_path / "stack", options, kind=ShowsLittle) as stack:
        seen = dict(stack.send(None, Request(path="/open", headers=forged)).upstream_headers())
        team = dict(stack.send(None, Request(path="/team", headers=forged)).upstream_headers())
    assert [name for name, value in seen.items() if value == FORGED] == ["x-other"]
    assert (seen.get("x-team"), team.get("x-team")) == (None, "hats")
    assert len(seen["x-zta-decision-id"]) == 32
