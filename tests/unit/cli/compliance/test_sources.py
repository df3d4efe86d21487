from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.compliance.installations import check_of, installation, report
from zta_authz.cli import main
from zta_authz.cli.compliance import sources

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)
REFUSED = {
    "no YAML": ("a: [\n", ":2:1: not valid YAML"),
    "a list": ("- a\n", ":1:1: a manifest is a mapping, not a list"),
    "no kind": ("metadata: {name: a}\n", ":1:1: `apiVersion` or `kind` is missing"),
    "a template": ("{{ if .Values.x }}\nkind: A\n", ":1"),
    "a key twice": (CONFIG_MAP + "kind: ConfigMap\n", ":4:1: duplicate key `kind`"),
    "a bomb": (BOMB, "aliases expand to too much"),
    "a tag": (CONFIG_MAP + "data: !!python/object/apply:os.system [id]\n", ":4:7: tag"),
    "no metadata": ("apiVersion: v1\nkind: A\nmetadata: 3\n", ":3:11: `metadata` is an integer"),
    "two of one name": (CONFIG_MAP + "---\n" + CONFIG_MAP, ":5:1: duplicate ConfigMap a (the first is at"),
    "a kustomization": (
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n",
        "`kubectl kustomize DIRECTORY | zta-authz compliance -`",
    ),
    "nothing": ("# only a comment\n", ":1:1: the file has no manifest"),
    "lists in lists": (
        "apiVersion: v1\nkind: List\nitems: " + "[{apiVersion: v1, kind: List, items: " * 4 + "[]" + "}]" * 4 + "\n",
        "lists are nested",
    ),
    "deep nesting": ("a: " + "[" * 80 + "]" * 80, "nesting is deeper"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unreadable_input_exits_with_2_and_its_location(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = REFUSED[name]
    file = tmp_path / "a.yaml"
    file.write_text(text)
    assert main(["compliance", str(file)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert str(file) in output.err
    assert expected in output.err


def test_bytes_that_are_not_utf_8_are_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_bytes(b"kind: \xff\n")
    assert main(["compliance", str(tmp_path)]) == 2
    assert "a.yaml:1:7: the file is not UTF-8" in capsys.readouterr().err


def test_a_pipe_in_the_directory_is_refused_and_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    assert main(["compliance", str(tmp_path)]) == 2
    assert "is not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_directory_without_manifests_and_a_missing_path_are_faults(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compliance", str(tmp_path / name)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_faults_are_json_if_the_output_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compliance", str(tmp_path / "missing"), "--output", "json"]) == 2
    assert '"kind": "Faults"' in capsys.readouterr().out


def test_a_directory_is_read_recursively_without_hidden_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "broken.yaml").write_text("a: [")
    (tmp_path / ".broken.yaml").write_text("a: [")
    (tmp_path / "notes.txt").write_text("a: [")
    documents = installation().split("---\napiVersion")
    for number, document in enumerate(documents):
        (tmp_path / "b" / f"{number}.yml").write_text(document if number == 0 else f"apiVersion{document}")
    assert main(["compliance", str(tmp_path)]) == 1
    assert f"{tmp_path}/b/3.yml:4" in capsys.readouterr().out.replace("\n", "")


def test_links_to_directories_are_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "broken.yaml").write_text("a: [")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "all.yaml").write_text(installation())
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere")
    assert main(["compliance", str(tmp_path / "here")]) == 1
    assert capsys.readouterr().err == ""


def test_sources_of_kustomize_are_refused_with_the_command_that_renders_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("base", "overlays/a"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "kustomization.yaml").write_text("resources: []\n")
    assert main(["compliance", str(tmp_path)]) == 2
    assert f"`kubectl kustomize {tmp_path}/overlays/a | zta-authz compliance -`" in capsys.readouterr().err


def test_the_number_of_files_is_limited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_FILES", 2)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.yaml").write_text(CONFIG_MAP)
    assert main(["compliance", str(tmp_path)]) == 2
    assert "the input has more than 2 files" in capsys.readouterr().err


def test_the_number_of_objects_is_limited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_DOCUMENTS", 2)
    (tmp_path / "a.yaml").write_text("\n---\n".join(CONFIG_MAP.replace("name: a", f"name: {n}") for n in "abc"))
    assert main(["compliance", str(tmp_path)]) == 2
    assert "more than 2 objects" in capsys.readouterr().err


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Stdin:
        buffer = io.BytesIO(installation().encode())

    monkeypatch.setattr(sys, "stdin", Stdin())
    assert main(["compliance", "-"]) == 1
    assert "<stdin>:" in capsys.readouterr().out


def test_objects_in_a_list_are_found_with_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: shop},\n"
    text = f"apiVersion: v1\nkind: List\nitems:\n- {policy}   spec: {{mtls: {{mode: PERMISSIVE}}}}}}\n"
    (gap,) = check_of(report(tmp_path, capsys, text), "clients-mtls")["missing"]
    assert (gap["line"], gap["field"]) == (5, "PeerAuthentication shop/a: spec.mtls.mode")


def test_where_kustomize_took_an_object_from_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: a\n  namespace: shop\n"
        "  annotations:\n    config.kubernetes.io/origin: |\n      path: ../../istio/peer.yaml\n"
        "spec: {mtls: {mode: PERMISSIVE}}\n"
    )
    (gap,) = check_of(report(tmp_path, capsys, text), "clients-mtls")["missing"]
    assert gap["field"] == "PeerAuthentication shop/a (../../istio/peer.yaml): spec.mtls.mode"
