from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from zta_authz import __version__
from zta_authz.cli import main
from zta_authz.cli.fault_lines import print_faults
from zta_authz.cli.output import one_line
from zta_authz.errors import Fault

_POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec: {rules: [{from: [{source: {principals: ["cluster.local/ns/default/sa/a"]}}]}]}
"""


class Terminal(io.StringIO):
    """A terminal as standard error."""

    def isatty(self) -> bool:
        return True


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"zta-authz {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["dance"], ["serve", "--confg", "x"]])
def test_wrong_usage_ends_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: zta-authz" in capsys.readouterr().err


def test_faults_exit_with_2_and_print_one_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("policis: [a]\nsemantics: lax\n")
    assert main(["serve", "--config", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"{file}:1:1: unknown field `policis`; did you mean `policies`?",
        f"{file}:2:12: `semantics`: not one of the values of this field; write 'strict' or 'istio'",
    ]


def test_a_missing_relative_path_is_reported_with_the_current_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text("policies: [nowhere, /none]\n")
    assert main(["check", "--config", "settings.yaml"]) == 2
    absolute, relative = capsys.readouterr().err.splitlines()
    assert relative.endswith(f"; relative paths start at {tmp_path}")
    assert "counts from" not in absolute


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_closed_pipe_is_not_an_error(tmp_path: Path, output: str) -> None:
    rules = [{"to": [{"operation": {"paths": [f"/{number}"]}}]} for number in range(500)]
    spec = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "p"}}
    (tmp_path / "p.yaml").write_text(json.dumps({**spec, "spec": {"rules": rules}}))
    command = [sys.executable, "-m", "zta_authz", "check", "--output", output, str(tmp_path / "p.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


@pytest.mark.parametrize("command", [["check"], ["check", "--output", "json"], ["explain", "--request", "none"]])
def test_a_full_disk_is_named_and_no_traceback(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "p.yaml").write_text(_POLICY)
    policies = ["--policies", str(tmp_path), "--output", "json"] if command[0] == "explain" else [str(tmp_path)]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "zta_authz", *command, *policies], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (ended.returncode, ended.stderr) == (
        1,
        b"standard output: cannot be written: No space left on device\n",
    )


def test_a_closed_standard_output_is_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(_POLICY)
    command = f"exec {sys.executable} -m zta_authz check {tmp_path} >&-"
    ended = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_serving_needs_a_standard_output() -> None:
    """Otherwise records would go to the file or connection that gets the free descriptor."""
    command = f"exec {sys.executable} -m zta_authz serve >&-"
    ended = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"standard output: is closed")


def test_a_label_without_a_value_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--label", "app"])
    assert "--label: write KEY=VALUE, for example app=hatshop" in capsys.readouterr().err


def test_text_of_a_file_can_not_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_faults([Fault("a\nb", 1, 1, "unknown field `\x1b[2Jx\u202e\udcff`")])
    assert capsys.readouterr().err == "a\\nb:1:1: unknown field `\\x1b[2Jx\\u202e\\udcff`\n"


def test_text_of_any_alphabet_is_shown_as_it_is() -> None:
    assert one_line("größe ゼロ") == "größe ゼロ"


def test_faults_are_coloured_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_faults([Fault("a.yaml", 1, 2, "[red]wrong[/red]", "mend\x1bit")])
    shown = terminal.getvalue()
    assert "\x1b[" in shown
    assert "[red]wrong[/red]" in shown
    assert "mend\\x1bit" in shown
