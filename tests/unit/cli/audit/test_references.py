"""`zta-authz audit verify --access-log`: each decision rests on what the access log has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec import structs

from tests.support.access_logs import (
    BOSS,
    ENTITLEMENT,
    GRANT,
    HOLDER,
    NOON,
    AccessLogFile,
    decision_line,
    grant_item,
    use,
    write_decisions,
)
from zta_authz.administrator.access_checks import LATEST_START_SECONDS
from zta_authz.administrator.access_events import EventKind, EventObject
from zta_authz.administrator.view_items import SubjectItem
from zta_authz.audit.masking import Maskable, MaskAction, Masker, MaskRule
from zta_authz.audit.record import DecisionRecord, encode_line
from zta_authz.cli.audit.access_history import BEGINNINGS, ENDS
from zta_authz.cli.audit.references import OLDEST_GRANT_SECONDS
from zta_authz.cli.main import main
from zta_authz.model.access import Grant, Subject
from zta_authz.model.decision import AccessBasis
from zta_authz.policy.documents.access_entitlement import LONGEST_GRANT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.administrator.view_items import GrantItem


@pytest.fixture
def access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AccessLogFile]:
    """An access log in the working directory."""
    monkeypatch.chdir(tmp_path)
    log = AccessLogFile(tmp_path / "access.jsonl")
    yield log
    log.close()


def verify(*lines: bytes, options: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    """The status and the answer for a log of these decisions."""
    write_decisions(Path("decisions.jsonl"), *lines)
    return answer("decisions.jsonl", "--access-log", "access.jsonl", *options)


def answer(*arguments: str) -> tuple[int, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr("builtins.print", written.append)
        status = main(["audit", "verify", *arguments, "--output", "json"])
    return status, json.loads(written[0])


def kinds(result: tuple[int, dict[str, Any]]) -> list[str]:
    status, fields = result
    found = [finding["kind"] for finding in fields["findings"]]
    assert (status, fields["ok"], fields["findingCount"]) == (int(bool(found)), not found, len(found))
    return found


def test_decisions_on_an_approved_grant_are_explained(access: AccessLogFile) -> None:
    access.add_approval()
    status, fields = verify(use(NOON + 1), use(NOON + 3599, 2))
    assert (status, fields["findings"]) == (0, [])
    assert fields["references"] == {
        "ok": True,
        "grants": 2,
        "documentGrants": 0,
        "revocations": 0,
        "signals": 0,
        "olderThanLog": 0,
        "findingCount": 0,
    }
    assert (fields["decisions"], fields["accessEvents"]) == (2, 3)


def test_a_grant_that_nobody_approved_is_found_with_its_place(access: AccessLogFile) -> None:
    asked = EventObject("request", GRANT, {"entitlement": ENTITLEMENT})
    access.add(EventKind.ACCESS_REQUESTED, asked, NOON)
    access.add(EventKind.ACCESS_APPROVED, asked, NOON)  # one of two approvals begins no grant
    status, fields = verify(use(NOON + 1))
    assert status == 1
    (finding,) = fields["findings"]
    assert finding == {
        "file": "decisions.jsonl",
        "line": 2,
        "seq": 2,
        "kind": "grant_unknown",
        "message": f"decision {1:032x} rests on grant {GRANT}, which no event of the access log begins",
    }


@pytest.mark.parametrize("begins", sorted(BEGINNINGS))
def test_each_kind_of_event_that_begins_a_grant_is_enough(access: AccessLogFile, begins: str) -> None:
    access.add_grant(EventKind(begins), NOON)
    assert kinds(verify(use(NOON + 1))) == []


@pytest.mark.parametrize("ends", sorted(ENDS))
def test_a_grant_that_was_ended_explains_only_earlier_decisions(access: AccessLogFile, ends: str) -> None:
    access.add_approval()
    access.add_grant(EventKind(ends), NOON + 100, grant_item(until=NOON + 100))
    assert kinds(verify(use(NOON + 99), use(NOON + 104.9, 2), use(NOON + 105, 3))) == ["grant_ended"]


def test_time_ends_a_grant_even_if_no_event_says_so(access: AccessLogFile) -> None:
    access.add_approval()
    result = verify(use(NOON + 3606))
    assert kinds(result) == ["grant_ended"]
    assert "6.0 s after it ended" in result[1]["findings"][0]["message"]


def test_a_grant_explains_no_decision_before_it(access: AccessLogFile) -> None:
    access.add_approval(NOON + 50)
    assert kinds(verify(use(NOON + 46))) == []
    Path("decisions.jsonl").unlink()
    assert kinds(verify(use(NOON + 44))) == ["grant_not_begun"]


def test_a_scheduled_grant_explains_no_decision_before_its_start(access: AccessLogFile) -> None:
    access.add_grant(EventKind.ACCESS_APPROVED, NOON - 1000)
    assert kinds(verify(use(NOON - 10))) == ["grant_not_begun"]


@pytest.mark.parametrize(("tolerance", "expected"), [("0", ["grant_ended"]), ("1", []), ("0.5", ["grant_ended"])])
def test_the_tolerance_of_clocks_can_be_set(access: AccessLogFile, tolerance: str, expected: list[str]) -> None:
    access.add_approval()
    late = use(NOON + 3600.6)
    assert kinds(verify(late, options=("--clock-tolerance", tolerance))) == expected


@pytest.mark.parametrize("tolerance", ["-1", "nan", "inf", "1e3", "86401", "x"])
def test_other_tolerances_are_refused(access: AccessLogFile, tolerance: str) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "verify", "--access-log", "access.jsonl", f"--clock-tolerance={tolerance}"])


@pytest.mark.parametrize(
    "item",
    [
        grant_item(entitlement="default/other"),
        grant_item(until=NOON + 3000),
        grant_item(holder=SubjectItem(spiffe_id="spiffe://cluster.local/ns/default/sa/other")),
    ],
    ids=["entitlement", "end", "workload"],
)
def test_a_grant_that_differs_from_the_access_log_is_found(access: AccessLogFile, item: GrantItem) -> None:
    access.add_grant(EventKind.ACCESS_APPROVED, NOON, item)
    assert kinds(verify(use(NOON + 1))) == ["grant_differs"]


def changed(line: bytes, **fields: str) -> bytes:
    return encode_line(structs.replace(json_record(line), **fields))


def json_record(line: bytes) -> DecisionRecord:
    return msgspec.json.decode(line, type=DecisionRecord)


@pytest.mark.parametrize(("subject", "expected"), [("ann", []), ("bob", ["grant_differs"]), ("", []), ("an...", [])])
def test_the_holder_is_compared_unless_masked(access: AccessLogFile, subject: str, expected: list[str]) -> None:
    issuer = "https://idp.example"
    access.add_grant(EventKind.ACCESS_APPROVED, NOON, grant_item(holder=SubjectItem(issuer, "ann")))
    assert kinds(verify(changed(use(NOON + 1), token_issuer=issuer, token_subject=subject))) == expected


@pytest.mark.parametrize("how", MaskAction)
def test_masked_callers_are_not_compared(access: AccessLogFile, how: MaskAction) -> None:
    access.add_approval()
    masker = Masker((MaskRule(Maskable.PRINCIPAL, how),), b"k" * 32)
    assert kinds(verify(encode_line(masker.mask(json_record(use(NOON + 1)))))) == []


def test_grants_of_documents_need_no_event(access: AccessLogFile) -> None:
    access.add_approval()
    grant = Grant("document/default/oncall", ENTITLEMENT, Subject(spiffe_id=HOLDER.spiffe_id), 0.0, float("inf"))
    result = verify(decision_line(AccessBasis(grant), NOON))
    assert kinds(result) == []
    assert result[1]["references"]["documentGrants"] == 1


def test_revocations_and_signals_need_an_event_before(access: AccessLogFile) -> None:
    access.add(EventKind.REVOCATION_ADDED, EventObject("revocation", "r1"), NOON)
    access.add(EventKind.SIGNAL_ACCEPTED, EventObject("signal", "jti-1"), NOON)
    access.add(EventKind.SIGNAL_DISCARDED, EventObject("signal", "jti-2"), NOON)
    known = decision_line(AccessBasis(revocation="r1", signal="jti-1"), NOON + 1)
    unknown = decision_line(AccessBasis(revocation="r2", signal="jti-2"), NOON + 1, 2)
    early = decision_line(AccessBasis(revocation="r1", signal="jti-1"), NOON - 6, 3)
    assert kinds(verify(known, unknown, early)) == ["revocation_unknown", "signal_unknown"] * 2


def test_an_operation_that_was_denied_is_found(access: AccessLogFile) -> None:
    access.add_approval()
    denied = decision_line(AccessBasis(), NOON, int(BOSS.decision_id, 16))
    assert kinds(verify(denied)) == ["operation_denied"]


def test_a_changed_access_log_is_found(access: AccessLogFile) -> None:
    access.add_approval()
    text = access.path.read_bytes()
    access.path.write_bytes(text.replace(b"INC-4711", b"INC-4712"))
    result = verify(use(NOON + 1))
    assert kinds(result) == ["changed"]
    assert result[1]["references"]["ok"]


def test_decisions_that_may_be_older_than_the_access_log_are_only_counted(tmp_path: Path) -> None:
    log = AccessLogFile(tmp_path / "access.jsonl", max_bytes=4096)
    for number in range(40):
        log.add(EventKind.REVOCATION_ADDED, EventObject("revocation", f"r{number}"), NOON)
    log.close()
    (tmp_path / "access.jsonl.00000001").unlink()
    later = NOON + OLDEST_GRANT_SECONDS + 1
    write_decisions(
        tmp_path / "decisions.jsonl",
        use(NOON + 1),
        decision_line(AccessBasis(revocation="gone"), NOON + 1, 2),
        use(later, 3, until=later + 1),
    )
    result = answer(str(tmp_path / "decisions.jsonl"), "--access-log", str(tmp_path / "access.jsonl"))
    assert kinds(result) == ["head_missing", "grant_unknown"]
    assert result[1]["references"]["olderThanLog"] == 2
    assert "2 decisions" in result[1]["notes"][-1]["message"]


def test_no_grant_can_be_older_than_is_assumed() -> None:
    assert OLDEST_GRANT_SECONDS >= LATEST_START_SECONDS + LONGEST_GRANT


def test_the_logs_of_two_replicas_count_together(access: AccessLogFile) -> None:
    access.add_approval()
    other = AccessLogFile(access.path.with_name("other.jsonl"), first_revision=4)
    other.add_grant(EventKind.ACCESS_REVOKED, NOON + 100)
    other.close()
    both = ("--access-log", "other.jsonl")
    assert kinds(verify(use(NOON + 200))) == []
    assert kinds(answer("decisions.jsonl", "--access-log", "access.jsonl", *both)) == ["grant_ended"]


def test_finished_files_of_the_access_log_are_read_too(tmp_path: Path) -> None:
    log = AccessLogFile(tmp_path / "access.jsonl", max_bytes=4096)
    log.add_approval()
    for number in range(40):
        log.add(EventKind.REVOCATION_ADDED, EventObject("revocation", f"r{number}"), NOON)
    log.close()
    write_decisions(tmp_path / "decisions.jsonl", use(NOON + 1))
    result = answer(str(tmp_path / "decisions.jsonl"), "--access-log", str(tmp_path / "access.jsonl"))
    assert kinds(result) == []
    assert result[1]["files"] > 2


def test_text_says_what_was_compared(access: AccessLogFile, capsys: pytest.CaptureFixture[str]) -> None:
    access.add_approval()
    write_decisions(Path("decisions.jsonl"), use(NOON + 1), use(NOON + 4000, 2))
    assert main(["audit", "verify", "decisions.jsonl", "--access-log", "access.jsonl"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("ok: records 1 to 4, 3 access events, files: 1, checkpoints: 0")
    assert lines[1].endswith("ok: records 1 to 3, 2 decisions, files: 1, checkpoints: 0")
    assert lines[2].startswith("decisions.jsonl:3: grant_ended: decision ")
    assert lines[3] == (
        "references: NOT EXPLAINED: decisions that rest on grants: 2 (0 of documents), on revocations: 0, on signals: 0"
    )


def test_an_access_log_can_be_verified_alone(access: AccessLogFile, capsys: pytest.CaptureFixture[str]) -> None:
    access.add_approval()
    assert main(["audit", "verify", "access.jsonl"]) == 0
    assert capsys.readouterr().out == "ok: records 1 to 4, 3 access events, files: 1, checkpoints: 0\n"
    assert main(["audit", "verify", "--access-log", "access.jsonl"]) == 0


@pytest.mark.parametrize("path", ["missing.jsonl", "missing/access.jsonl"])
def test_an_access_log_that_is_missing_exits_with_2(
    access: AccessLogFile, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    write_decisions(Path("decisions.jsonl"), use(NOON))
    assert main(["audit", "verify", "decisions.jsonl", "--access-log", path]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_nothing_to_verify_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["audit", "verify"])
    assert caught.value.code == 2
    assert "--access-log" in capsys.readouterr().err


@pytest.mark.parametrize(
    "hostile",
    [
        b'{"schema":"zta.dev/decision/v1","time":7}',
        b'{"schema":"zta.dev/decision/v1","time":"x","revocation":"r"}',
        b"[" * 5000,
    ],
)
def test_lines_that_are_no_records_are_no_crash(access: AccessLogFile, hostile: bytes) -> None:
    access.add_approval()
    write_decisions(Path("decisions.jsonl"), use(NOON))
    with Path("decisions.jsonl").open("ab") as file:
        file.write(hostile + b"\n")
    assert "unreadable" in kinds(answer("decisions.jsonl", "--access-log", "access.jsonl"))
