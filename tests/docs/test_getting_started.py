"""Run the commands of docs/getting-started.md against the demo and compare their output."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from envoy.demo.authz_connection import free_port
from envoy.demo.envoyproc import NOT_FOUND, find_envoy
from tests.docs.fences import ROOT, Fence, fences_of
from tests.e2e.test_demo import Demo, _environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = ROOT / "docs" / "getting-started.md"
MARK = "@@ the next block"
PORTS = ("8443", "8080")
"""The ports on the page. The test replaces them by free ones."""


def steps() -> list[tuple[Fence, Fence | None]]:
    """Return each block to run with the block of output that follows it."""
    blocks = fences_of(PAGE)
    pairs: list[tuple[Fence, Fence | None]] = []
    for at, fence in enumerate(blocks):
        if fence.language == "sh" and "run" in fence.marks:
            after = blocks[at + 1] if at + 1 < len(blocks) else None
            pairs.append((fence, after if after is not None and "output" in after.marks else None))
    return pairs


def shows(line: str, shown: str) -> bool:
    """Return whether the line matches the shown one, in which `…` matches anything."""
    return re.fullmatch(".*".join(map(re.escape, shown.rstrip().split("…"))), line.rstrip()) is not None


def missing(printed: str, shown: str) -> list[str]:
    """Return the shown lines that were not printed, in order."""
    lines = iter(printed.splitlines())
    return [expected for expected in shown.splitlines() if not any(shows(line, expected) for line in lines)]


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A directory like a clone after `make run`, with the demo serving in it."""
    binary = find_envoy()
    if binary is None:
        pytest.skip(NOT_FOUND)
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, started in {"zta-authz": "-m zta_authz ", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {started}"$@"\n')
        (programs / name).chmod(0o755)
    place = tmp_path / ".venv-envoy/lib/python3/site-packages/envoy/_bin"
    place.mkdir(parents=True)
    (place / "envoy").symlink_to(binary)
    demo = Demo(_environment(binary, tmp_path / ".run"), tmp_path / ".run")
    yield tmp_path
    demo.end(15)


def run(script: str, directory: Path) -> tuple[int, str]:
    """Run a shell script and return its status and output. Kills everything that it started."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ZTA_")}
    shell = subprocess.Popen(
        ["bash", "-e", "-c", script],
        cwd=directory,
        env={**clean, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=100)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    return shell.returncode, output


def test_the_commands_print_what_the_page_shows(checkout: Path) -> None:
    blocks = steps()
    assert len(blocks) >= 7
    script = f"\necho; echo {shlex.quote(MARK)}\n".join(fence.text for fence, _ in blocks)
    script = re.sub(r"\bsleep (\d+)", lambda wait: f"sleep {2 * int(wait[1])}", script)  # the tests share the machine
    for port in PORTS:
        script = script.replace(port, str(free_port()))
    status, output = run(script, checkout)
    assert status == 0, output
    printed = output.split(MARK)
    assert len(printed) == len(blocks)
    for (fence, shown), text in zip(blocks, printed, strict=True):
        assert shown is None or missing(text, shown.text) == [], f"{fence} printed:\n{text}"


def test_a_line_that_was_not_printed_is_noticed() -> None:
    assert missing("200\n403\n", "403\n200\n") == ["200"]
    assert missing("trace abc\n", "trace …\n") == []
    assert missing("verdict=deny\n", "verdict=allow\n") == ["verdict=allow"]
