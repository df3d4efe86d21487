from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from zta_authz.errors import DocumentErrors, Fault
from zta_authz.model.options import Options, Workload
from zta_authz.pdp.snapshot import SourceText
from zta_authz.policy_sources.files import MAX_FILE_BYTES, SnapshotHolder, load_snapshot, read_sources

if TYPE_CHECKING:
    from pathlib import Path

HATSHOP = """
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: hatshop-policy}
spec:
  selector: {matchLabels: {app: hatshop}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/default/sa/frontend"]}}]
    to: [{operation: {methods: ["GET", "POST"]}}]
"""


def read(*paths: Path | str) -> list[SourceText]:
    faults: list[Fault] = []
    sources = read_sources([str(path) for path in paths], faults)
    assert faults == []
    return sources


def faults_of(*paths: Path | str) -> list[Fault]:
    faults: list[Fault] = []
    read_sources([str(path) for path in paths], faults)
    return faults


def test_a_directory_gives_its_yaml_files_by_name(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.txt", ".hidden.yaml"):
        (tmp_path / name).write_text(name)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "d.yaml").write_text("d")
    assert read(tmp_path) == [
        SourceText(str(tmp_path / "a.yml"), "a.yml"),
        SourceText(str(tmp_path / "b.yaml"), "b.yaml"),
    ]


def test_a_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "policies.txt"
    file.write_text("a")
    assert read(file) == [SourceText(str(file), "a")]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    assert len(read(tmp_path, tmp_path / "a.yaml", tmp_path)) == 1


def mount_config_map(directory: Path, version: str, content: str) -> None:
    """What kubelet does when it mounts or updates a ConfigMap."""
    (directory / version).mkdir()
    (directory / version / "p.yaml").write_text(content)
    (directory / "..data_tmp").symlink_to(version)
    os.rename(directory / "..data_tmp", directory / "..data")
    if not (directory / "p.yaml").is_symlink():
        (directory / "p.yaml").symlink_to("..data/p.yaml")


def test_a_mounted_config_map_is_read_through_kubelets_links(tmp_path: Path) -> None:
    mount_config_map(tmp_path, "..2026_1", "one")
    assert read(tmp_path) == [SourceText(str(tmp_path / "p.yaml"), "one")]
    mount_config_map(tmp_path, "..2026_2", "two")
    assert read(tmp_path) == [SourceText(str(tmp_path / "p.yaml"), "two")]


def test_a_missing_directory_is_a_fault(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path / "none")
    assert fault.message == "there is no such file or directory"


def test_a_directory_without_policy_files_is_a_fault(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path)
    assert fault.message == "the directory holds no policy files"


def test_a_dangling_link_is_a_fault_and_the_other_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("nowhere")
    (tmp_path / "b.yaml").write_text("b")
    faults: list[Fault] = []
    assert [source.text for source in read_sources([str(tmp_path)], faults)] == ["b"]
    assert [fault.source for fault in faults] == [str(tmp_path / "a.yaml")]


def test_a_pipe_does_not_stop_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    (fault,) = faults_of(tmp_path)
    assert fault.message == "is not a regular file"


def test_a_file_that_is_not_utf8_is_a_fault_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"kind: a\nname: \xff")
    (fault,) = faults_of(tmp_path)
    assert (fault.line, fault.column, fault.message) == (2, 7, "the file is not UTF-8")


def test_a_huge_file_is_refused_with_its_size_and_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as stream:
        stream.truncate(50 * 1024 * 1024)
    (fault,) = faults_of(tmp_path)
    assert fault.message == "the file has 50.0 MiB, more than the limit of 32 MiB"


def test_a_file_of_just_the_limit_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES)
    assert len(read(tmp_path)[0].text) == MAX_FILE_BYTES


def test_a_good_set_becomes_a_snapshot(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HATSHOP)
    snapshot = load_snapshot([str(tmp_path)], Options(workload=Workload(labels={"app": "hatshop"})))
    assert snapshot.sources == (str(tmp_path / "a.yaml"),)


def test_faults_of_reading_and_of_compiling_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Nonsense\napiVersion: v1\n")
    with pytest.raises(DocumentErrors) as caught:
        load_snapshot([str(tmp_path), str(tmp_path / "none")], Options())
    assert {fault.source for fault in caught.value.faults} == {str(tmp_path / "a.yaml"), str(tmp_path / "none")}


def test_the_holder_gives_what_was_published_last(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HATSHOP)
    holder = SnapshotHolder()
    assert holder.current() is None
    snapshot = load_snapshot([str(tmp_path)], Options())
    holder.publish(snapshot)
    assert holder.current() is snapshot
