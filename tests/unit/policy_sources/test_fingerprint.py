"""Fingerprints differ whenever files differ, without reading them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.configmap import ConfigMapMount, replace_by_rename
from zta_authz.policy_sources.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_without_a_change_the_fingerprint_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    assert fingerprint([str(tmp_path)]) == fingerprint([str(tmp_path)])


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.yaml").write_text("other"),
        lambda folder: (folder / "a.yaml").write_text("b"),  # as long as before
        lambda folder: (folder / "b.yml").write_text("new"),
        lambda folder: (folder / "b.JSON").write_text("new"),
        lambda folder: (folder / "below" / "deep" / "d.yaml").write_text("other"),
        lambda folder: (folder / "below" / "deep" / "e.yml").write_text("new"),
        lambda folder: (folder / "below" / "deep" / "d.yaml").unlink(),
        lambda folder: shutil.rmtree(folder / "below"),
        lambda folder: (folder / "below").rename(folder / "above"),
        lambda folder: (folder / "link.yaml").symlink_to("below/deep/d.yaml"),
        lambda folder: (folder / "nowhere").symlink_to("x"),
        lambda folder: (folder / "a.yaml").unlink(),
        lambda folder: (folder / "a.yaml").rename(folder / "c.yaml"),
        lambda folder: replace_by_rename(folder / "a.yaml", "a"),
        lambda folder: os.utime(folder / "a.yaml", (1, 1)),
        lambda folder: (folder / "a.yaml").chmod(0o400),
        shutil.rmtree,
    ],
)
def test_every_change_in_a_directory_changes_the_fingerprint(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = tmp_path / "policies"
    (folder / "below" / "deep").mkdir(parents=True)
    (folder / "below" / "deep" / "d.yaml").write_text("d")
    (folder / "a.yaml").write_text("a")
    before = fingerprint([str(folder)])
    change(folder)
    assert fingerprint([str(folder)]) != before


def test_other_files_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    before = fingerprint([str(tmp_path)])
    (tmp_path / "notes.txt").write_text("n")
    (tmp_path / ".a.yaml.swp").write_text("n")
    assert fingerprint([str(tmp_path)]) == before


def test_a_swapped_configmap_changes_the_fingerprint_even_with_the_same_texts(tmp_path: Path) -> None:
    mount = ConfigMapMount(tmp_path / "mount", {"a.yaml": "a"})
    before = fingerprint([str(mount.path)])
    mount.update({"a.yaml": "a"})
    assert fingerprint([str(mount.path)]) != before


def test_links_to_a_configured_file_are_followed(tmp_path: Path) -> None:
    mount = ConfigMapMount(tmp_path / "mount", {"a.yaml": "a"})
    path = str(mount.path / "a.yaml")
    before = fingerprint([path])
    mount.update({"a.yaml": "b"})
    assert fingerprint([path]) != before


def test_a_missing_path_has_a_fingerprint_too(tmp_path: Path) -> None:
    path = tmp_path / "later.yaml"
    before = fingerprint([str(path)])
    assert before == fingerprint([str(path)])
    path.write_text("a")
    assert fingerprint([str(path)]) != before
    assert fingerprint(["\0"]) == fingerprint(["\0"])
