"""Small files: read with a bound, and stamped so that each change is noticed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from zta_authz.errors import SettingsErrors
from zta_authz.keys.regular_files import file_stamp, read_regular

if TYPE_CHECKING:
    from pathlib import Path


def test_one_byte_more_than_the_bound_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")
    assert read_regular(str(tmp_path / "file"), 3, "bundles") == b"abcd"
    assert read_regular(str(tmp_path / "file"), 6, "bundles") == b"abcdef"


@pytest.mark.parametrize("name", ["missing", ".", "pipe"])
def test_what_is_no_readable_file_is_a_fault_that_names_the_setting(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsErrors, match=r"minting\.keys"):
        read_regular(str(tmp_path / name), 3, "minting.keys")


def test_a_file_that_is_replaced_or_written_with_its_old_times_gets_another_stamp(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    assert file_stamp(path) == (0, 0, 0, 0)
    (tmp_path / "file").write_text("a", encoding="utf-8")
    first = file_stamp(path)
    (tmp_path / "file").write_text("b", encoding="utf-8")
    os.utime(path, ns=(first[1], first[1]))
    assert file_stamp(path) != first
