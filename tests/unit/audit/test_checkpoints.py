"""Checkpoints: only lines signed with the key count, and numbering continues."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.support.audit_logs import KEY, KEY_PEM, OTHER_KEY, PUBLIC_PEM, read_lines
from zta_authz.audit.checkpoints import (
    CHECKPOINT_SCHEMA,
    BadCheckpoint,
    Checkpoint,
    CheckpointWriter,
    load_public_key,
    load_signing_key,
    read_checkpoint,
    sign_checkpoint,
)
from zta_authz.audit.hash_chain import Position

if TYPE_CHECKING:
    from pathlib import Path

CHECKPOINT = Checkpoint(CHECKPOINT_SCHEMA, 1, "2026-01-01T00:00:00+00:00", 1, 5, "a" * 64)
LINE = sign_checkpoint(CHECKPOINT, KEY).rstrip(b"\n")


def test_a_signed_checkpoint_is_read() -> None:
    assert read_checkpoint(LINE, load_public_key(PUBLIC_PEM)) == CHECKPOINT


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        LINE[:-2],
        LINE.replace(b'"seq":5', b'"seq":6'),
        LINE.replace(b'"signature":"', b'"signature":"!'),
        sign_checkpoint(CHECKPOINT, OTHER_KEY).rstrip(b"\n"),
    ],
)
def test_lines_without_a_valid_signature_are_refused(line: bytes) -> None:
    with pytest.raises(BadCheckpoint):
        read_checkpoint(line, KEY.public_key())


def test_a_signature_of_another_schema_is_refused() -> None:
    other = Checkpoint("zta.dev/other/v1", 1, "", 1, 5, "a" * 64)
    with pytest.raises(BadCheckpoint, match="another schema"):
        read_checkpoint(sign_checkpoint(other, KEY).rstrip(b"\n"), KEY.public_key())


def test_numbering_continues_after_a_restart_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jsonl"
    for seq in (5, 6):
        writer = CheckpointWriter(str(path), KEY)
        writer.write(Position(seq, "a" * 64), 1)
        writer.close()
        path.write_bytes(path.read_bytes() + b'{"schema":"zta')
    CheckpointWriter(str(path), KEY).close()
    checkpoints = [read_checkpoint(line.rstrip(b"\n"), KEY.public_key()) for line in read_lines(path)]
    assert [(checkpoint.number, checkpoint.seq) for checkpoint in checkpoints] == [(1, 5), (2, 6)]


def test_the_same_position_is_signed_once(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jsonl"
    writer = CheckpointWriter(str(path), KEY)
    for _ in range(2):
        writer.write(Position(5, "a" * 64), 1)
    assert writer.due(Position(5, "a" * 64)) is None
    assert writer.due(Position(6, "b" * 64)) is not None
    writer.close()
    assert len(read_lines(path)) == 1


@pytest.mark.parametrize("content", [b"precious", b"precious\n", sign_checkpoint(CHECKPOINT, OTHER_KEY)])
def test_a_file_with_other_content_is_not_changed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoints.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint"):
        CheckpointWriter(str(path), KEY)
    assert path.read_bytes() == content


def test_a_failed_checkpoint_is_reported_and_its_number_used_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoints.jsonl"
    writer = CheckpointWriter(str(path), KEY)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr("zta_authz.audit.checkpoints.os.fsync", fail)
        writer.write(Position(5, "a" * 64), 1)
    assert "No space left on device" in caplog.text
    assert writer.failure == "No space left on device"
    writer.write(Position(5, "a" * 64), 1)
    assert writer.failure == ""
    writer.close()
    assert [read_checkpoint(line.rstrip(b"\n"), KEY.public_key()).number for line in read_lines(path)] == [1]


def test_only_ed25519_keys_in_pem_are_accepted() -> None:
    assert load_signing_key(KEY_PEM).private_bytes_raw() == KEY.private_bytes_raw()
    for wrong in (b"", b"-----BEGIN PRIVATE KEY-----\n", PUBLIC_PEM):
        with pytest.raises(ValueError, match="not a private key"):
            load_signing_key(wrong)
    for wrong in (b"", KEY_PEM):
        with pytest.raises(ValueError, match="not a public key"):
            load_public_key(wrong)
