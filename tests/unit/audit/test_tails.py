"""Lines are read from the end of a log, across its files and whatever a crash left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zta_authz.audit.tails import newest_lines

if TYPE_CHECKING:
    from pathlib import Path


def test_lines_come_newest_first_across_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.00000001").write_bytes(b"1\n2\n")
    (tmp_path / "a.jsonl.00000002").write_bytes(b"3\n")
    (tmp_path / "a.jsonl").write_bytes(b"4\n5\n6, torn")
    (tmp_path / "a.jsonl.lock").write_bytes(b"")
    (tmp_path / "a.jsonl.gz").write_bytes(b"other\n")
    assert list(newest_lines(tmp_path / "a.jsonl")) == [b"5", b"4", b"3", b"2", b"1"]


@pytest.mark.parametrize("content", [b"", b"torn", b"\n", b"1\n", b"1\n\n2\n", b"1\n2", b"\ntorn"])
@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_the_size_of_a_block_makes_no_difference(
    content: bytes, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zta_authz.audit.tails._BLOCK_BYTES", block)
    (tmp_path / "a.jsonl").write_bytes(content)
    assert list(newest_lines(tmp_path / "a.jsonl")) == content.split(b"\n")[:-1][::-1]


def test_a_missing_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(newest_lines(tmp_path / "none"))
