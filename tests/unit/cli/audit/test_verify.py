"""`zta-authz audit verify`: findings by file and line, exit status 0, 1 or 2."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.audit_logs import KEY_PEM, PUBLIC_PEM, read_lines, write_log
from zta_authz.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five signed decisions in the working directory."""
    write_log(tmp_path, 5, signed=True)
    (tmp_path / "public.pem").write_bytes(PUBLIC_PEM)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "decisions.jsonl"


SIGNED = ("--checkpoints", "checkpoints.jsonl", "--public-key", "public.pem")


def verify(*arguments: str) -> int:
    return main(["audit", "verify", "decisions.jsonl", *arguments])


def test_an_unchanged_log_exits_with_0(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(*SIGNED) == 0
    assert capsys.readouterr().out == "ok: records 1 to 6, 5 decisions, files: 1, checkpoints: 1\n"


def test_a_changed_line_is_reported_with_status_1(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_bytes(log.read_bytes().replace(b"0" * 31 + b"2", b"0" * 31 + b"9"))
    assert verify() == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("decisions.jsonl:4: changed: record 4 is not the one that record 5 follows")
    assert out[-1].startswith("CHANGED: ")


def test_json_has_every_finding(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_bytes(b"".join(read_lines(log)[:-1]))
    assert verify(*SIGNED, "--output", "json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["kind"], answer["ok"], answer["findingCount"]) == ("AuditVerification", False, 1)
    assert answer["findings"] == [
        {
            "file": "decisions.jsonl",
            "line": 5,
            "seq": 5,
            "kind": "cut",
            "message": "the log ends with record 5, but checkpoint 1 covers record 6",
        }
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("missing.jsonl",),
        ("--checkpoints", "checkpoints.jsonl"),
        ("--checkpoints", "missing.jsonl", "--public-key", "public.pem"),
        ("--checkpoints", "checkpoints.jsonl", "--public-key", "checkpoints.jsonl"),
    ],
)
def test_unreadable_files_exit_with_2(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert verify(*arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no newline, so it might be a torn line"])
def test_a_file_without_records_is_not_reported_as_unchanged(
    log: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    log.write_bytes(content)
    assert verify() == 2
    assert "there are no records" in capsys.readouterr().err


def test_the_private_key_is_not_taken_for_the_public_one(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (log.parent / "private.pem").write_bytes(KEY_PEM)
    assert verify("--checkpoints", "checkpoints.jsonl", "--public-key", "private.pem") == 2
    assert "openssl pkey" in capsys.readouterr().err


def test_names_can_not_control_the_terminal(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = log.with_name("a\x1b[2J")
    hostile.write_bytes(b"x\n")
    assert main(["audit", "verify", hostile.name]) == 1
    assert "\x1b" not in capsys.readouterr().out


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The signed logs of two workers, side by side as `workers: 2` writes them."""
    for number in (1, 2):
        own = tmp_path / f"own{number}"
        own.mkdir()
        write_log(own, 10 * number, max_bytes=4096, signed=True)
        for file in own.iterdir():
            name = file.name.replace("decisions.", f"decisions.worker{number}.")
            file.rename(tmp_path / name.replace("checkpoints.", f"checkpoints.worker{number}."))
        own.rmdir()
    (tmp_path / "public.pem").write_bytes(PUBLIC_PEM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(directory: Path, pattern: str) -> list[str]:
    return sorted(file.name for file in directory.glob(pattern))


def test_files_of_a_shell_wildcard_can_be_verified(log: Path) -> None:
    assert (log.parent / "decisions.jsonl.lock").exists()
    assert main(["audit", "verify", *names(log.parent, "decisions.jsonl*"), *SIGNED]) == 0
    assert main(["audit", "verify", "decisions.jsonl.lock"]) == 2


def test_a_lock_file_with_content_is_read(log: Path) -> None:
    (log.parent / "decisions.jsonl.lock").write_bytes(b"hidden\n")
    assert main(["audit", "verify", *names(log.parent, "decisions.jsonl*")]) == 1


def test_the_logs_of_several_workers_are_verified_one_by_one(workers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = names(workers, "decisions.*")
    signed = [f"--checkpoints={name}" for name in names(workers, "checkpoints.*")]
    assert main(["audit", "verify", *files]) == 0
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == ["ok", "ok"]
    assert main(["audit", "verify", *files, *signed, "--public-key=public.pem", "--output=json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["decisions"], sorted(log["decisions"] for log in answer["logs"])) == (30, [10, 20])
    assert all(log["checkpoints"] and log["ok"] for log in answer["logs"])
    assert main(["audit", "verify", *files, signed[0], "--public-key=public.pem"]) == 1
    assert "there is no checkpoint of this log" in capsys.readouterr().out


def test_a_log_that_is_replaced_by_another_workers_is_detected(
    workers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = names(workers, "decisions.worker2.*")
    checkpoints = ["--checkpoints=checkpoints.worker1.jsonl", "--public-key=public.pem"]
    assert main(["audit", "verify", *second, *checkpoints]) == 1
    assert main(["audit", "verify", second[-2], *checkpoints]) == 1
    assert "another_log" in capsys.readouterr().out


def test_missing_first_records_are_found_unless_first_record_is_given(
    workers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = names(workers, "decisions.worker2.*")
    files.remove("decisions.worker2.jsonl.00000001")
    assert main(["audit", "verify", *files]) == 1
    first = capsys.readouterr().out.partition("--first-record ")[2].partition(")")[0]
    assert main(["audit", "verify", *files, f"--first-record={first}"]) == 0
    assert main(["audit", "verify", *files, f"--first-record={int(first) + 1}"]) == 1
    assert main(["audit", "verify", *names(workers, "decisions.*"), "--first-record=2"]) == 2
