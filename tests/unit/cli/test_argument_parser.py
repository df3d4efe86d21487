from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.docs.fences import anchors
from zta_authz.cli import main
from zta_authz.cli.main import _COMMANDS, parser

ROOT = Path(__file__).resolve().parents[3]
ALL = [
    *([name] for name in _COMMANDS),
    *(["audit", "verify"], ["devices", "show"], ["devices", "check"]),
    *(["trust", "explain"], ["trust", "default"], ["trust", "simulate"]),
]
GROUPS = {"audit", "devices", "trust"}
"""Commands that only hold other commands: the rows of those in docs/cli.md say what an exit status means."""


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [[], *ALL], ids=" ".join)
def test_every_help_text_has_examples_that_can_be_typed(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    shown = help_of(capsys, *command).partition("Examples:\n")[2].partition("\n\n")[0]
    examples = [line.strip() for line in shown.splitlines()]
    assert examples
    for example in examples:
        typed = re.split(r"zta-authz ", example, maxsplit=1)[1].partition(" >")[0]
        words = shlex.split(typed, comments=True)
        parser().parse_args(words)
        assert words[: len(command)] == command


@pytest.mark.parametrize("command", [[], *ALL], ids=" ".join)
def test_every_help_text_names_a_page_that_exists(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    more = re.search(r"^More: (docs/[\w-]+\.md)(?:#([\w-]+))?", help_of(capsys, *command), re.MULTILINE)
    assert more is not None
    page = ROOT / more[1]
    assert page.is_file()
    assert more[2] is None or more[2] in anchors(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", [words for words in ALL if words[-1] not in GROUPS], ids=" ".join)
def test_every_help_text_has_the_exit_statuses_that_are_documented(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    statuses = re.search(r"^Exit status: ([^.]+)\.", help_of(capsys, *command), re.MULTILINE)
    assert statuses is not None
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert "| command | 0 | 1 | 2 |" in text
    row = re.search(rf"^\| `{' '.join(command)}` \|([^|]*)\|([^|]*)\|([^|]*)\|$", text, re.MULTILINE)
    assert row is not None
    documented = [str(status) for status, meaning in enumerate(row.groups()) if meaning.strip()]
    assert re.findall(r"\b\d\b", statuses[1]) == documented


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["exlain"], "`exlain`; did you mean `explain`?"),
        (["audit", "verfy"], "did you mean `verify`?"),
        (["check", "--lable", "app=x"], "unrecognized arguments: --lable; did you mean `--label`?"),
        (["check", "--lable=app=x"], "did you mean `--label`?"),
        (["envoy-config", "--parts", "filter"], "did you mean `--part`?"),
        (["check", "-o", "jsn"], "argument -o/--output: invalid value `jsn`; did you mean `json`?"),
        (["check", "--semantics", "x"], "`x`; choose from strict, istio"),
    ],
)
def test_a_misspelt_argument_gets_the_nearest_suggestion(
    capsys: pytest.CaptureFixture[str], arguments: list[str], suggestion: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    shown = capsys.readouterr().err
    assert (ended.value.code, shown.splitlines()[-1][-7:]) == (2, "--help)")
    assert suggestion in shown


def test_an_option_unlike_all_others_gets_no_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--zzz\x1b[2J"])
    errors = capsys.readouterr().err
    assert "did you mean" not in errors
    assert "\x1b" not in errors, "arguments can't steer the terminal"


def test_short_options_are_the_long_ones() -> None:
    short = parser().parse_args(["check", "-o", "json", "-n", "shop", "-l", "app=x"])
    long = parser().parse_args(["check", "--output", "json", "--namespace", "shop", "--label", "app=x"])
    assert vars(short) == vars(long)
