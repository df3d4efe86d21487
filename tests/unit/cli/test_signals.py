"""`zta-authz signals` against a running administrator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.operations_api import running
from tests.support.security_events import IDP
from tests.unit.cli.test_access import Terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Terminal]:
    async with running(tmp_path) as api:
        yield Terminal(api, tmp_path, capsys)


async def test_held_events_are_listed_released_and_discarded(terminal: Terminal) -> None:
    assert await terminal.run("", "signals", "list") == (0, "no event is held\n", "")
    await terminal.api.hold("one")
    await terminal.api.hold("two")
    held = {event["jti"]: event for event in (await terminal.json("", "signals", "list"))["held"]}
    _, out, _ = await terminal.run("", "signals", "list")
    assert f"{held['one']['id']}  istio-system/idp  session-revoked  tenant_wide" in out
    assert f"issuer {IDP}" in out
    status, out, _ = await terminal.run("", "signals", "release", held["one"]["id"], "--reason", "INC-1")
    assert status == 0
    assert f"  about          issuer {IDP}" in out
    assert "  source         istio-system/idp, jti one" in out
    status, _, err = await terminal.run("", "signals", "release", held["one"]["id"], "--reason", "INC-1")
    assert (status, err) == (1, "refused: not_found: no such event is held: somebody decided about it\n")
    discarded = await terminal.json("", "signals", "discard", held["two"]["id"], "--reason", "a test")
    assert discarded["item"]["jti"] == "two"
    revoked = await terminal.json("", "revoke", "list")
    assert [item["what"] for item in revoked["revocations"]] == ["issuer"]
