"""`make` while it installs: it shows how far it is, and fails where pip fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PIP = """#!/bin/sh
for number in $(seq 12); do echo "Collecting package-$number (from x)"; done
echo "  Downloading grpcio-1.80.whl (6.8 MB)"
echo "  Downloading small.whl (12 kB)"
echo "Installing collected packages: a, b"
echo "pip's error" >&2
exit STATUS
"""


@pytest.mark.parametrize("status", [0, 3])
def test_set_up_shows_its_progress_and_fails_where_pip_fails(tmp_path: Path, status: int) -> None:
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").write_text(PIP.replace("STATUS", str(status)))
    (environment / "bin" / "python").chmod(0o755)
    stamp = environment / ".installed"
    made = subprocess.run(
        ["make", f"VENV={environment}", str(stamp)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (made.returncode == 0, stamp.exists()) == (status == 0, status == 0)
    assert [line for line in made.stderr.splitlines() if line.startswith("  ")] == [
        "  10 packages found",
        "  Downloading grpcio-1.80.whl (6.8 MB)",
        "  installing the packages",
    ]
    assert "pip's error" in made.stderr
