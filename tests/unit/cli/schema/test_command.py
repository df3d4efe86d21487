"""`zta-authz schema`: lists, prints and writes schemas."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from zta_authz.cli import main
from zta_authz.cli.schema.catalogue import schema_for
from zta_authz.cli.schema.names import NAMES

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_kind_all_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(NAMES)
    assert main(["schema", "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["kind"], [schema["name"] for schema in answer["schemas"]]) == ("Schemas", list(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_a_kind_prints_its_schema(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["schema", name]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(schema_for(name)))


def test_a_directory_gets_one_file_for_each_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "schemas"
    assert main(["schema", "--directory", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(folder / f"{name}.json") for name in NAMES]
    assert json.loads((folder / "all.json").read_text(encoding="utf-8"))["allOf"]


def test_a_directory_gets_only_the_kind_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "TrustModel", "--directory", str(tmp_path), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(tmp_path / "TrustModel.json")]
    assert [file.name for file in tmp_path.iterdir()] == ["TrustModel.json"]


def test_a_file_that_cannot_be_written_and_a_misspelt_kind_give_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["schema", "--directory", str(tmp_path / "file")]) == 2
    assert "file/AccessPolicy.json: cannot be written" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["schema", "AccesPolicy"])
    assert (ended.value.code, "did you mean `AccessPolicy`?" in capsys.readouterr().err) == (2, True)
