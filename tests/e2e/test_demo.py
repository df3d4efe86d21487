"""`make run` from the outside: the table, the curl commands as they are printed, and nothing left running."""

from __future__ import annotations

import html
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envoy.demo.envoyproc import BINARY_VARIABLE
from envoy.demo.run import DIRECTORY_VARIABLE, PORT_VARIABLE
from envoy.demo.stack import SOCKETS_LINK
from envoy.demo.story import STORY

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
RUN = [sys.executable, str(REPOSITORY / "envoy" / "demo" / "run.py")]
IN_BACKGROUND = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
"""As a shell's `&` starts it: with SIGINT ignored, which must not keep it from being stopped."""


def _environment(envoy_binary: Path, directory: Path) -> dict[str, str]:
    """Without `COLUMNS`, to which pytest-xdist sets 80: the table is as wide as it is for a reader without a terminal."""
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return {**kept, BINARY_VARIABLE: str(envoy_binary), DIRECTORY_VARIABLE: str(directory)}


def _processes(mark: str) -> list[str]:
    """The command lines of running processes whose environment, which children inherit, names `mark`."""
    processes = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:  # it ended while we looked
            continue
        if mark.encode() in environment and state != "Z":
            processes.append(line)
    return processes


def _wait_until_gone(mark: str) -> list[str]:
    deadline = time.monotonic() + 10
    while (left := _processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _rows(text: str) -> list[list[str]]:
    """The words of each line of the table in `text`."""
    return [line.split() for line in text.splitlines() if line.rstrip().endswith(" ok")]


def _text_of_picture(svg: str) -> str:
    """The lines of the terminal that is drawn."""
    lines: dict[int, str] = {}
    for number, text in re.findall(r'clip-path="url\(#\w+-line-(\d+)\)">([^<]*)', svg):
        lines[int(number)] = lines.get(int(number), "") + " " + html.unescape(text)
    return "\n".join(line for _, line in sorted(lines.items()))  # cells end with no-break spaces, which `split` takes


def _is_part_of(shown: list[str], row: list[str]) -> bool:
    """True if the words of `shown` stand in `row` in their order; the picture has fewer columns."""
    words = iter(row)
    return all(word in words for word in shown)


class Demo:
    """A demo that serves; `output` is what it printed until it was ready."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [*IN_BACKGROUND, *RUN],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.output = ""
        for line in self.process.stdout:
            self.output += line
            if line.startswith("The decision log"):
                break
        assert "Serving on" in self.output, self.output

    def end(self, number: int) -> int:
        """Send a signal to the demo alone, and wait for it to end."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        with self.process.stdout as rest:
            rest.read()
        return self.process.wait(30)


@pytest.fixture
def demo(envoy_binary: Path, tmp_path: Path) -> Iterator[Demo]:
    """A demo of each test's own."""
    directory = tmp_path / "demo"
    started = Demo(_environment(envoy_binary, directory), directory)
    yield started
    if started.process.poll() is None:
        started.end(signal.SIGKILL)


def test_once_prints_every_row_and_ends_well(envoy_binary: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*RUN, "--once"],
        cwd=REPOSITORY,
        env=_environment(envoy_binary, tmp_path / "demo"),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(STORY)} of {len(STORY)} as expected" in done.stdout
    printed = _rows(done.stdout)
    quoted = _rows((REPOSITORY / "README.md").read_text())
    assert len(quoted) >= 5
    assert [row for row in quoted if row not in printed] == [], "README.md shows other rows"
    pictured = _rows(_text_of_picture((REPOSITORY / "docs/images/make-run.svg").read_text(encoding="utf-8")))
    assert len(pictured) == len(printed)
    differ = [shown for shown, row in zip(pictured, printed, strict=True) if not _is_part_of(shown, row)]
    assert differ == [], "the picture shows another table: `make pictures`"
    assert _wait_until_gone(str(tmp_path)) == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_printed_curl_commands_work_as_they_stand(demo: Demo) -> None:
    lines = demo.output.replace("\\\n", "").splitlines()
    commands = [(lines[at - 1], line) for at, line in enumerate(lines) if line.startswith("curl ")]
    assert len(commands) >= 5
    for what, command in commands:
        done = subprocess.run(  # the point is that a shell takes it as it stands
            command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        if what.startswith("# allowed"):
            assert '"path": "/' in done.stdout
        else:
            assert re.match(r"HTTP/\S+ 40[13] ", done.stdout), done.stdout
            assert '"decision_id"' in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing_running(demo: Demo, number: signal.Signals) -> None:
    assert _processes(str(demo.directory))
    assert demo.end(number) == 0
    assert _wait_until_gone(str(demo.directory)) == []


def test_a_killed_demo_leaves_nothing_running_and_can_be_restarted(demo: Demo, envoy_binary: Path) -> None:
    sockets = (demo.directory / SOCKETS_LINK).readlink()
    assert demo.end(signal.SIGKILL) == -signal.SIGKILL
    assert _wait_until_gone(str(demo.directory)) == []
    again = Demo(_environment(envoy_binary, demo.directory), demo.directory)
    assert not sockets.exists()
    assert again.end(signal.SIGTERM) == 0


def test_a_second_demo_in_the_same_directory_is_refused(demo: Demo, envoy_binary: Path) -> None:
    done = subprocess.run(
        [*RUN, "--once"],
        cwd=REPOSITORY,
        env=_environment(envoy_binary, demo.directory),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "another demo is running" in done.stderr
    assert demo.process.poll() is None


def test_a_directory_with_other_files_is_not_emptied(envoy_binary: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    environment = _environment(envoy_binary, tmp_path)
    done = subprocess.run(
        [*RUN, "--once"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert DIRECTORY_VARIABLE in done.stderr
    assert precious.read_text() == "keep me"


def test_an_invalid_port_is_refused(envoy_binary: Path, tmp_path: Path) -> None:
    environment = {**_environment(envoy_binary, tmp_path / "demo"), PORT_VARIABLE: "many"}
    done = subprocess.run(
        [*RUN, "--once"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert f"{PORT_VARIABLE} is `many`" in done.stderr


def test_everything_minted_is_for_its_owner_only(demo: Demo) -> None:
    assert demo.directory.stat().st_mode & 0o077 == 0
    secret = [*demo.directory.glob("tls/*"), *demo.directory.glob("tokens/*")]
    assert secret
    for path in secret:
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert not list(demo.directory.rglob("ca.key"))
