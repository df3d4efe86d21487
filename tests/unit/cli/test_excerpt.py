from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from zta_authz.cli import main
from zta_authz.cli.excerpt import MAX_EXCERPTS, Excerpts
from zta_authz.errors import Fault

if TYPE_CHECKING:
    from pathlib import Path


def excerpt(folder: Path, text: str, line: int, column: int) -> list[str]:
    file = folder / "a.yaml"
    file.write_text(text, encoding="utf-8", newline="")
    return Excerpts().of(Fault(str(file), line, column, "wrong"))


def test_the_line_is_shown_with_a_mark_below_what_is_wrong(tmp_path: Path) -> None:
    shown = excerpt(tmp_path, "kind: X\nspec: {pahts: [a]}\n", 2, 8)
    assert shown == ["  |", "2 | spec: {pahts: [a]}", "  |        ^^^^^"]


def test_the_mark_stands_right_below_wide_and_escaped_characters(tmp_path: Path) -> None:
    assert excerpt(tmp_path, "ゼロ\x1b: xy", 1, 6)[1:] == ["1 | ゼロ\\x1b: xy", "  |           ^^"]


def test_a_long_line_is_cut_around_the_place(tmp_path: Path) -> None:
    _, line, mark = excerpt(tmp_path, "[" + "a, " * 1000 + "b]", 1, 1502)
    assert len(line) < 120
    assert line.startswith("1 | …")
    assert line[mark.index("^")] == "a"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028"])
def test_lines_are_counted_as_the_yaml_reader_counts_them(tmp_path: Path, end: str) -> None:
    assert excerpt(tmp_path, end.join(["a: 1", "b: 2", "c: 3"]), 3, 1)[1] == "3 | c: 3"


@pytest.mark.parametrize(
    "line",
    [
        "token: abc",
        "authorization: Basic x",
        "headers: {x-team: a}",
        "password: hunter2",
        "value: eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9",
        "- 00112233445566778899aabbccddeeff",
        "  cookie: session=1",
    ],
)
def test_a_line_that_may_hold_a_secret_is_not_shown(tmp_path: Path, line: str) -> None:
    assert excerpt(tmp_path, line, 1, 1) == []
    assert excerpt(tmp_path, "methods: [GET]", 1, 1) != []


@pytest.mark.parametrize(("line", "column"), [(0, 0), (9, 1)])
def test_a_fault_without_a_line_in_the_file_has_none(tmp_path: Path, line: int, column: int) -> None:
    assert excerpt(tmp_path, "a: 1", line, column) == []


@pytest.mark.parametrize("source", ["environment", "a\0b", "/", "/dev/zero"])
def test_a_source_that_is_no_file_has_none(source: str) -> None:
    assert Excerpts().of(Fault(source, 1, 1, "wrong")) == []


def test_the_number_of_excerpts_is_limited(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a\n" * 200)
    excerpts = Excerpts()
    given = [excerpts.of(Fault(str(file), line, 1, "wrong")) for line in range(1, 201)]
    assert sum(bool(excerpt) for excerpt in given) == MAX_EXCERPTS


def test_text_has_excerpts_and_neither_json_nor_serve_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("policis: [a]\n")
    assert main(["check", "--config", str(file)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{file}:1:1: unknown field `policis`; did you mean `policies`?",
        "  |",
        "1 | policis: [a]",
        "  | ^^^^^^^",
    ]
    assert main(["serve", "--config", str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["check", "--config", str(file), "--output", "json"]) == 2
    out, err = capsys.readouterr()
    assert (json.loads(out)["faults"][0]["line"], err) == (1, "")
