from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.configmap import ConfigMapMount
from zta_authz.errors import DocumentErrors, Fault
from zta_authz.model.options import Options, Workload
from zta_authz.pdp.snapshot import SourceText
from zta_authz.policy_sources import walk
from zta_authz.policy_sources.files import MAX_FILE_BYTES, SnapshotHolder, load_snapshot, read_sources
from zta_authz.policy_sources.walk import MAX_DEPTH, SHOWN_SKIPPED

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


def notes_of(*paths: Path | str) -> list[Fault]:
    notes: list[Fault] = []
    read_sources([str(path) for path in paths], [], notes)
    return notes


def names(folder: Path) -> list[str]:
    return [os.path.relpath(source.name, folder) for source in read(folder)]


def make(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_policy_files_of_a_directory_and_its_subdirectories_are_read_in_order_of_name(tmp_path: Path) -> None:
    make(tmp_path, "b.yaml", "a.yml", "c.json", "D.YAML", "e.Yml", "f.JSON", "b/z.yaml", "b/a/d.yaml", "team-a/x.yaml")
    assert names(tmp_path) == [
        *("D.YAML", "a.yml", "b/a/d.yaml", "b/z.yaml", "b.yaml", "c.json", "e.Yml", "f.JSON", "team-a/x.yaml"),
    ]


def test_skipped_names_are_reported_with_the_reason(tmp_path: Path) -> None:
    make(tmp_path, "a.yaml", "c.txt", ".hidden.yaml", ".git/x.yaml", "b/kustomization.yaml", "b/README", "b/p.yaml.bak")
    (tmp_path / "lost+found").mkdir()
    assert names(tmp_path) == ["a.yaml"]
    reasons = {os.path.relpath(note.source, tmp_path): note.message.partition(": ")[2] for note in notes_of(tmp_path)}
    ending = "its name does not end in .yaml, .yml or .json"
    assert reasons == {
        ".git": "its name begins with a dot",
        ".hidden.yaml": "its name begins with a dot",
        "b/README": ending,
        "b/kustomization.yaml": "it is kustomize's own",
        "b/p.yaml.bak": ending,
        "c.txt": ending,
        "lost+found": "it is the file system's own",
    }


def test_many_skipped_names_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.yaml", *(f"{number:03}.txt" for number in range(SHOWN_SKIPPED + 7)))
    notes = notes_of(tmp_path)
    assert len(notes) == SHOWN_SKIPPED + 1
    assert notes[-1].message == "7 more names are not read as policies"


def test_the_advice_to_rename_is_given_only_where_it_helps(tmp_path: Path) -> None:
    make(tmp_path, "a.yaml", ".b.yaml", "c.txt", "kustomization.yaml", "lost+found/d.yaml")
    (tmp_path / "again").symlink_to(".")
    advised = [os.path.basename(note.source) for note in notes_of(tmp_path) if "rename" in note.hint]
    assert advised == [".b.yaml", "c.txt"]


def test_circular_links_end_and_a_linked_directory_is_read_once(tmp_path: Path) -> None:
    make(tmp_path, "set/a.yaml", "elsewhere/b.yaml")
    (tmp_path / "set" / "loop").symlink_to("..")
    (tmp_path / "set" / "self").symlink_to(".")
    (tmp_path / "set" / "more").symlink_to("../elsewhere")
    assert names(tmp_path / "set") == ["a.yaml", "loop/elsewhere/b.yaml"]
    assert [note.message for note in notes_of(tmp_path / "set")] == [
        "is not read as policies: it links to a directory that is already read"
    ] * 3


def test_the_depth_of_directories_is_limited(tmp_path: Path) -> None:
    make(tmp_path, "a.yaml", "/".join(["d"] * (MAX_DEPTH + 1)) + "/x.yaml")
    (fault,) = faults_of(tmp_path)
    assert fault.message == f"directories are nested deeper than {MAX_DEPTH}"


def test_the_number_of_names_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_ENTRIES", 20)
    make(tmp_path, *(f"{folder}/{number}.yaml" for folder in "abc" for number in range(9)))
    (fault,) = faults_of(tmp_path)
    assert fault.message == "contains more than 20 names"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_subdirectory_is_a_fault(tmp_path: Path) -> None:
    make(tmp_path, "a.yaml", "b/c.yaml")
    (tmp_path / "b").chmod(0)
    try:
        (fault,) = faults_of(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)
    assert fault.source == str(tmp_path / "b")


def test_a_dangling_link_to_a_possible_directory_is_a_fault(tmp_path: Path) -> None:
    make(tmp_path, "a.yaml")
    (tmp_path / "team").symlink_to("not-mounted")
    (fault,) = faults_of(tmp_path)
    assert fault.source == str(tmp_path / "team")
    assert fault.message == "links to `not-mounted`, which does not exist: policies may be missing"
    assert fault.hint == "mount or create the link's target, or remove the link"


def test_nested_config_map_mounts_are_all_read(tmp_path: Path) -> None:
    outer = ConfigMapMount(tmp_path / "policies", {"z.yaml": "1", "gone.yaml": "1"})
    (outer.path / "team").mkdir()
    inner = ConfigMapMount(outer.path / "team" / "orders", {"o.json": "1"})
    assert names(outer.path) == ["gone.yaml", "team/orders/o.json", "z.yaml"]
    outer.update({"z.yaml": "2"})
    inner.update({"o.json": "2", "p.yaml": "2"})
    assert names(outer.path) == ["team/orders/o.json", "team/orders/p.yaml", "z.yaml"]
    assert {source.text for source in read(outer.path)} == {"2"}
    assert notes_of(outer.path) == []


def test_directories_in_a_config_map_are_read_in_its_current_version(tmp_path: Path) -> None:
    make(tmp_path, "..2026_1/sub/a.yaml", "..2026_2/sub/b.yaml")
    (tmp_path / "..data").symlink_to("..2026_2")
    (tmp_path / "sub").symlink_to("..data/sub")
    assert names(tmp_path) == ["sub/b.yaml"]


def test_a_configured_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "policies.txt"
    file.write_text("a")
    assert read(file) == [SourceText(str(file), "a")]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    assert len(read(tmp_path, tmp_path / "a.yaml", tmp_path)) == 1


def mount_config_map(directory: Path, version: str, content: str) -> None:
    """Write a ConfigMap as kubelet does when it mounts or updates one."""
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


def test_a_pipe_does_not_block_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    (fault,) = faults_of(tmp_path)
    assert fault.message == "is not a regular file"


def test_a_file_that_is_not_utf8_is_a_fault_with_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"kind: a\nname: \xff")
    (fault,) = faults_of(tmp_path)
    assert (fault.line, fault.column, fault.message) == (2, 7, "the file is not UTF-8")


def test_a_huge_file_is_refused_with_its_size_and_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as stream:
        stream.truncate(50 * 1024 * 1024)
    (fault,) = faults_of(tmp_path)
    assert fault.message == "the file has 50.0 MiB, more than the limit of 32 MiB"


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES)
    assert len(read(tmp_path)[0].text) == MAX_FILE_BYTES


def test_a_valid_set_becomes_a_snapshot(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HATSHOP)
    snapshot = load_snapshot([str(tmp_path)], Options(workload=Workload(labels={"app": "hatshop"})))
    assert snapshot.sources == (str(tmp_path / "a.yaml"),)


def test_faults_of_reading_and_compiling_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Nonsense\napiVersion: zta.dev/v1\n")
    with pytest.raises(DocumentErrors) as caught:
        load_snapshot([str(tmp_path), str(tmp_path / "none")], Options())
    assert {fault.source for fault in caught.value.faults} == {str(tmp_path / "a.yaml"), str(tmp_path / "none")}


def test_the_holder_returns_the_snapshot_published_last(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HATSHOP)
    holder = SnapshotHolder()
    assert holder.current() is None
    snapshot = load_snapshot([str(tmp_path)], Options())
    holder.publish(snapshot)
    assert holder.current() is snapshot
