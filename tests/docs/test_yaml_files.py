"""Every YAML file of docs/, envoy/ and k8s/ has a check, and the check fails when the file is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.fences import ROOT
from tests.docs.yaml_files import REGISTRY, Field, Skip, check_of, fields, files, misspelt

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = 3
"""How many fields of each file are misspelt in turn."""
FILES = [pytest.param(file, id=str(file.relative_to(ROOT))) for file in files()]


def judged(file: Path, text: str, folder: Path) -> str:
    """What the file's check says against `text`, "" if it takes it. Skips where its program is missing."""
    check = check_of(file)
    assert check is not None
    folder.mkdir()
    try:
        check(file, text, folder)
    except Skip as reason:
        pytest.skip(str(reason))
    except Exception as error:  # noqa: BLE001 whatever a check raises is its way of saying no
        return f"{type(error).__name__}: {error}"
    return ""


def sample(text: str) -> list[Field]:
    """Some of the fields, from all over the file, the last one included."""
    every = fields(text)
    step = max(1, len(every) // SAMPLE)
    return every[::-1][::step][:SAMPLE]


@pytest.mark.parametrize("file", FILES)
def test_every_file_has_a_check(file: Path) -> None:
    assert check_of(file) is not None, "say in tests/docs/yaml_files.py what checks it"


@pytest.mark.parametrize("file", FILES)
def test_each_file_passes_its_check_and_broken_it_fails(file: Path, tmp_path: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert judged(file, text, tmp_path / "whole") == ""
    assert judged(file, f"{text}\n]: [\n", tmp_path / "torn") != ""
    assert sample(text)
    for number, field in enumerate(sample(text)):
        verdict = judged(file, misspelt(text, field), tmp_path / str(number))
        assert verdict != "", f"nobody noticed `{'.'.join(field.path)}x`"


def test_every_line_of_the_registry_is_used() -> None:
    used = {check_of(file) for file in files()}
    assert [pattern for pattern, check in REGISTRY.items() if check not in used] == []


def test_a_file_without_a_check_is_noticed() -> None:
    assert check_of(ROOT / "docs" / "examples" / "new.yaml") is None
    assert check_of(ROOT / "envoy" / "new.yaml") is None


PATCHED = [*sorted((ROOT / "k8s").rglob("*envoy-filter.yaml")), ROOT / "k8s/overlays/envoy-gateway/evidence.yaml"]


@pytest.mark.parametrize("file", PATCHED, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_field_of_a_patch_of_envoys_configuration_is_one_that_envoy_knows(file: Path, tmp_path: Path) -> None:
    text = file.read_text(encoding="utf-8")
    unnoticed = [
        ".".join(field.path)
        for number, field in enumerate(fields(text))
        if not judged(file, misspelt(text, field), tmp_path / str(number))
    ]
    assert unnoticed == []
