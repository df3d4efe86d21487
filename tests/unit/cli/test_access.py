"""`zta-authz access`, `revoke` and `unrevoke` against a running administrator."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.operations_api import DB, bearer, running
from zta_authz.cli.main import main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.operations_api import Api

WHY = ("--for", "1h", "--reason", "INC-7")


class Terminal:
    """Runs commands as persons."""

    def __init__(self, api: Api, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.api = api
        self._directory = directory
        self._capsys = capsys

    def token(self, person: str) -> str:
        file = self._directory / f"{person}.token"
        file.write_text(bearer(person).removeprefix("Bearer ") + "\n")
        return str(file)

    async def run(self, person: str, *arguments: str) -> tuple[int, str, str]:
        """The exit status, standard output and standard error."""
        who = ("--token-file", self.token(person)) if person else ()
        command = [*arguments, "--address", f"unix:{self.api.http}", *who]
        status = await asyncio.to_thread(main, command)
        printed = self._capsys.readouterr()
        return status, printed.out, printed.err

    async def json(self, person: str, *arguments: str) -> dict[str, Any]:
        status, out, err = await self.run(person, *arguments, "-o", "json")
        assert status == 0, err + out
        fields: dict[str, Any] = json.loads(out)
        return fields

    async def request(self, person: str = "dana") -> dict[str, Any]:
        item: dict[str, Any] = (await self.json(person, "access", "request", DB, *WHY))["item"]
        return item


@pytest.fixture
async def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Terminal]:
    async with running(tmp_path) as api:
        yield Terminal(api, tmp_path, capsys)


async def test_a_request_is_made_approved_shown_and_ended(terminal: Terminal) -> None:
    request = await terminal.request()
    assert (request["state"], request["entitlement"]) == ("requested", DB)
    scope = ("--scope", request["scope_sha256"])
    approved = await terminal.json("mary", "access", "approve", request["id"], "--for", "30m", *scope)
    grant_id = approved["item"]["grant_id"]
    shown = await terminal.json("dana", "access", "show", grant_id)
    assert (shown["kind"], shown["item"]["state"], shown["item"]["request_id"]) == (
        "AccessGrant",
        "active",
        request["id"],
    )
    ended = await terminal.json("dana", "access", "end", grant_id, "--reason", "done")
    assert ended["item"]["state"] == "ended"


async def test_a_refusal_is_printed_with_its_reason_and_is_status_1(terminal: Terminal) -> None:
    request = await terminal.request()
    scope = ("--scope", request["scope_sha256"])
    status, out, err = await terminal.run("dana", "access", "approve", request["id"], *scope)
    assert (status, out) == (1, "")
    assert err.startswith("refused: own_request: ")
    status, out, _ = await terminal.run("dana", "access", "approve", request["id"], *scope, "-o", "json")
    assert (status, json.loads(out)["kind"], json.loads(out)["reason"]) == (1, "Refusal", "own_request")


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("", 1)])
async def test_an_approval_on_a_terminal_shows_the_request_and_asks(
    terminal: Terminal, answer: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await terminal.request()
    stdin = io.StringIO(answer)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    got, out, err = await terminal.run("mary", "access", "approve", request["id"])
    assert got == status
    assert "dana of https://login.example" in err
    assert "INC-7" in err
    assert ("approved" in out) is (status == 0)


async def test_an_approval_without_a_terminal_needs_the_scope(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await terminal.request()
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    status, _, err = await terminal.run("mary", "access", "approve", request["id"])
    assert status == 1
    assert "--scope" in err
    assert (await terminal.json("mary", "access", "show", request["id"]))["item"]["state"] == "requested"


async def test_requests_are_denied_and_withdrawn_and_the_list_shows_what_is_open(terminal: Terminal) -> None:
    status, out, _ = await terminal.run("dana", "access", "list")
    assert (status, out) == (0, "no requests\nno grants\n")
    denied, withdrawn, waiting = [await terminal.request() for _ in range(3)]
    await terminal.json("mary", "access", "deny", denied["id"], "--comment", "not today")
    await terminal.json("dana", "access", "withdraw", withdrawn["id"])
    listed = await terminal.json("dana", "access", "list")
    assert [item["id"] for item in listed["requests"]] == [waiting["id"]]
    _, out, _ = await terminal.run("dana", "access", "list", "requests", "--all")
    assert out.splitlines()[0].split() == ["REQUEST", "STATE", "ENTITLEMENT", "REQUESTER", "FOR", "APPROVALS", "REASON"]
    assert {line.split()[1] for line in out.splitlines()[1:]} == {"denied", "withdrawn", "requested"}


async def test_access_in_an_emergency_is_reviewed_by_somebody_else(terminal: Terminal) -> None:
    taken = await terminal.json("olga", "access", "request", DB, "--for", "10m", "--reason", "INC-9", "--emergency")
    grant = taken["item"]
    assert grant["break_glass"] is True
    status, _, err = await terminal.run("olga", "access", "review", grant["id"])
    assert (status, "own_request" in err) == (1, True)
    revoked = await terminal.json("mary", "access", "revoke", grant["id"], "--reason", "over")
    assert revoked["item"]["state"] == "revoked"
    reviewed = await terminal.json("mary", "access", "review", grant["id"], "--comment", "justified")
    assert reviewed["item"]["review_due"] is None


async def test_revocations_are_made_listed_and_lifted(terminal: Terminal) -> None:
    why = ("--issuer", "https://login.example", "--issued-before", "now", "--reason", "laptop stolen")
    asked_at = datetime.now(UTC)
    item = (await terminal.json("", "revoke", "subject", "dana", *why))["item"]
    assert (item["what"], item["value"], item["before"] is None) == ("subject", "dana", False)
    assert datetime.fromisoformat(item["before"]) > asked_at, "tokens of this second live on"
    _, out, _ = await terminal.run("", "revoke", "list")
    assert item["id"] in out
    assert "laptop stolen" in out
    lifted = await terminal.json("", "unrevoke", item["id"], "--reason", "found again")
    assert lifted["item"]["id"] == item["id"]
    _, out, _ = await terminal.run("", "revoke", "list")
    assert out == "nothing is revoked\n"


async def test_control_characters_of_others_do_not_reach_the_terminal(terminal: Terminal) -> None:
    await terminal.api.request("dana")
    who = ("--issuer", "https://login.example", "--reason", "x")
    await terminal.json("", "revoke", "subject", "\u202eevil", *who)
    _, out, _ = await terminal.run("", "revoke", "list")
    assert "\u202e" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("subject", "dana"), "--reason"), (("list", "dana"), "no value"), (("list", "--issuer", "x"), "no value")],
)
def test_a_revocation_without_a_reason_and_a_list_of_something_are_wrong_usage(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["revoke", *arguments, "--address", "unix:/nonexistent"])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
