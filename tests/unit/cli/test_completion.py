from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from zta_authz.cli import main
from zta_authz.cli.main import _COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

SHELLS = ("bash", "fish", "zsh")


def script(capsys: pytest.CaptureFixture[str], shell: str) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("exp", ["explain"]),
        ("audit ", ["verify", "show"]),
        ("audit verify --pub", ["--public-key"]),
        ("check --sem", ["--semantics"]),
        ("check --semantics ", ["strict", "istio"]),
        ("check -o j", ["json"]),
        ("envoy-config --client-certificates ", ["required", "optional"]),
        ("schema Iss", ["IssuerPolicy"]),
        ("completion ", ["bash", "fish", "zsh"]),
        ("check pol", ["policies.yaml"]),
        ("serve --wor", []),
    ],
)
def test_bash_completes_commands_options_values_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: str, completed: list[str]
) -> None:
    (tmp_path / "policies.yaml").write_text("")
    words = ["zta-authz", *typed.split(" ")]
    ask = (
        f"{script(capsys, 'bash')}\nCOMP_WORDS=({' '.join(repr(word) for word in words)})\n"
        f"COMP_CWORD={len(words) - 1}\n_zta_authz\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    ended = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    assert [line for line in ended.stdout.splitlines() if line] == completed


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_is_in_each_script_and_nothing_that_is_hidden(
    capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    made = script(capsys, shell)
    assert [name for name in _COMMANDS if name not in made] == []
    assert "--worker " not in made
    assert "-l worker " not in made


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_can_be_read_by_its_shell(capsys: pytest.CaptureFixture[str], shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "script"
    file.write_text(script(capsys, shell))
    assert subprocess.run([shell, "-n", str(file)], check=False).returncode == 0
