"""`zta-authz audit show`: one query tells the story of a request, a grant or a revocation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.access_logs import (
    GRANT,
    HOLDER,
    NOON,
    REQUEST,
    AccessLogFile,
    decision_line,
    grant_item,
    use,
    write_decisions,
)
from zta_authz.administrator.access_events import Actor, EventKind, EventObject
from zta_authz.cli.main import main
from zta_authz.model.decision import AccessBasis


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for access from beginning to end, something else beside it, and the logs of two replicas."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zta_authz.cli.audit.show.MAX_USES", 2)
    data = []
    for name in ("access.jsonl", "second.jsonl"):
        log = AccessLogFile(tmp_path / name)
        log.add_approval()
        other = EventObject("request", "f" * 16, {"entitlement": "default/other"})
        log.add(EventKind.ACCESS_REQUESTED, other, NOON, reason=f"like {REQUEST}")
        log.add_grant(EventKind.ACCESS_REVOKED, NOON + 100, grant_item(until=NOON + 100))
        signal = {"items": ("view/revocation/set-1",)}
        log.add(EventKind.SIGNAL_ACCEPTED, EventObject("signal", "jti"), NOON + 5, detail=signal)
        log.add(EventKind.REVOCATION_ADDED, EventObject("revocation", "set-1"), NOON + 5, actor=Actor("signal-source"))
        log.close()
        data.append((tmp_path / name).read_bytes())
    write_decisions(
        tmp_path / "decisions.jsonl",
        use(NOON + 50, 1),
        use(NOON + 1, 2),
        use(NOON + 2, 3, grant_id="0" * 16),
        use(NOON + 60, 4),
        decision_line(AccessBasis(revocation="set-1"), NOON + 6, 5),
    )


STORY = ["access.requested", "access.approved", "access.activated", "allow", "allow", "access.revoked"]


@pytest.mark.parametrize("what", [("--request", REQUEST), ("--grant", GRANT)])
@pytest.mark.usefixtures("logs")
def test_the_whole_story_in_order_of_time(what: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "show", "--access-log", "access.jsonl", *what, "decisions.jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == STORY
    assert f'request {REQUEST} by {HOLDER.spiffe_id}: "INC-4711"; entitlement default/payments-db' in lines[0]
    assert "by https://idp.example/boss (decision bbbb" in lines[1]
    assert "until 2023-11-14T23:13:20+00:00" in lines[1]
    assert f"(decision {2:032x}, decisions.jsonl:3, allow_policy)" in lines[3]
    assert lines[-1] == "and 1 more decisions"


@pytest.mark.usefixtures("logs")
def test_json_has_the_events_and_the_uses(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--access-log", "access.jsonl", "--request", REQUEST, "decisions.jsonl", "--output", "json"]
    assert main(["audit", "show", *arguments]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert (fields["kind"], fields["request"], fields["grant"], fields["revocation"]) == (
        *("AccessHistory", REQUEST, GRANT),
        None,
    )
    assert [event["kind"] for event in fields["events"]] == [kind for kind in STORY if kind != "allow"]
    assert (fields["useCount"], len(fields["uses"])) == (3, 2)
    assert fields["uses"][0]["grant"]["id"] == GRANT


@pytest.mark.usefixtures("logs")
def test_a_revocation_is_shown_with_its_signal_and_its_denials(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "show", "--access-log", "access.jsonl", "--revocation", "set-1", "decisions.jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["signal.accepted", "revocation.added", "deny"]


@pytest.mark.usefixtures("logs")
def test_an_event_that_several_replicas_have_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("copy.jsonl").write_bytes(Path("access.jsonl").read_bytes())
    logs = ["--access-log", "access.jsonl", "--access-log", "copy.jsonl"]
    assert main(["audit", "show", *logs, "--request", REQUEST]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.usefixtures("logs")
def test_an_unknown_id_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "show", "--access-log", "access.jsonl", "--grant", "1" * 16, "decisions.jsonl"]) == 1
    assert capsys.readouterr().out == "nothing in these logs\n"


def test_missing_files_exit_with_2(tmp_path: Path) -> None:
    assert main(["audit", "show", "--access-log", str(tmp_path / "none"), "--grant", GRANT]) == 2


@pytest.mark.parametrize("name", ["", "a b", '"', "../x", "é", "x" * 200])
def test_what_is_no_id_is_wrong_usage(name: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["audit", "show", "--access-log", "access.jsonl", f"--grant={name}"])
    assert caught.value.code == 2


def test_reasons_can_not_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = AccessLogFile(tmp_path / "access.jsonl")
    log.add(EventKind.ACCESS_REQUESTED, EventObject("request", REQUEST), NOON, reason="\x1b[2J\n2023 access.approved")
    log.close()
    assert main(["audit", "show", "--access-log", str(tmp_path / "access.jsonl"), "--request", REQUEST]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 1
