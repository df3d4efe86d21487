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


def test_a_log_as_it_was_written_is_status_0(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(*SIGNED) == 0
    assert capsys.readouterr().out == "ok: records 1 to 6, 5 decisions, files: 1, checkpoints: 1\n"


def test_a_changed_line_is_named_and_status_1(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_bytes(log.read_bytes().replace(b"0" * 31 + b"2", b"0" * 31 + b"9"))
    assert verify() == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("decisions.jsonl:4: changed: record 4 is not the one that record 5 follows")
    assert out[-1].startswith("NOT AS IT WAS WRITTEN: ")


def test_json_has_every_finding(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_bytes(b"".join(read_lines(log)[:-1]))
    assert verify(*SIGNED, "--output", "json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["ok"], said["findingCount"]) == ("AuditVerification", False, 1)
    assert said["findings"] == [
        {
            "file": "decisions.jsonl",
            "line": 5,
            "seq": 5,
            "kind": "cut",
            "message": "the log ends with record 5, but checkpoint 1 saw record 6",
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
def test_what_can_not_be_read_is_status_2(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert verify(*arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no newline, so it might be a torn line"])
def test_a_file_without_a_record_is_not_called_as_it_was_written(
    log: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    log.write_bytes(content)
    assert verify() == 2
    assert "there are no records" in capsys.readouterr().err


def test_the_private_key_is_not_taken_for_the_public_one(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (log.parent / "private.pem").write_bytes(KEY_PEM)
    assert verify("--checkpoints", "checkpoints.jsonl", "--public-key", "private.pem") == 2
    assert "openssl pkey" in capsys.readouterr().err


def test_what_stands_in_names_does_not_steer_the_terminal(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = log.with_name("a\x1b[2J")
    hostile.write_bytes(b"x\n")
    assert main(["audit", "verify", hostile.name]) == 1
    assert "\x1b" not in capsys.readouterr().out
