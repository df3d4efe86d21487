"""Builds the peers that are Go programs with the go command, and reports why a peer is missing.

Usage: `python -m bench.peers.install`; what is built goes to `build/peers`. `OPA_ENVOY_SOURCE` names a checkout of
OPA-Envoy to build in place of what Go's client installs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
BINARIES: Final = HERE.parents[1] / "build" / "peers"
OPA_ENVOY: Final = "github.com/open-policy-agent/opa-envoy-plugin/cmd/opa-envoy-plugin"
_SECONDS: Final = 1200


@dataclass(frozen=True, slots=True)
class Built:
    """A built program, or the reason why it is missing."""

    path: Path | None
    reason: str = ""


def install() -> dict[str, Built]:
    """Build all; the result is stored beside the programs for `installed`."""
    BINARIES.mkdir(parents=True, exist_ok=True)
    built = {
        "goauthz": _go("goauthz", ["build", "-o", str(BINARIES / "goauthz"), "."], HERE / "goauthz"),
        "opaauthz": _go("opaauthz", ["build", "-o", str(BINARIES / "opaauthz"), "."], HERE / "opaauthz"),
        "opa-envoy-plugin": _opa_envoy(os.environ.get("OPA_ENVOY_SOURCE", "")),
    }
    reasons = {name: binary.reason for name, binary in built.items()}
    (BINARIES / "reasons.json").write_text(json.dumps(reasons, indent=2))
    return built


def installed() -> dict[str, Built]:
    """Return the result of the last `install`."""
    try:
        reasons: dict[str, str] = json.loads((BINARIES / "reasons.json").read_text())
    except OSError:
        return {name: Built(None, "run `make bench-peers`") for name in ("goauthz", "opaauthz", "opa-envoy-plugin")}
    return {name: Built(None if reason else BINARIES / name, reason) for name, reason in reasons.items()}


def _opa_envoy(source: str) -> Built:
    name = "opa-envoy-plugin"
    if source:
        return _go(name, ["build", "-o", str(BINARIES / name), f"./cmd/{name}"], Path(source))
    return _go(name, ["install", f"{OPA_ENVOY}@latest"], BINARIES)


def _go(name: str, arguments: list[str], directory: Path) -> Built:
    program = shutil.which("go")
    if program is None:
        return Built(None, "there is no `go` here")
    environment = os.environ | {"GOBIN": str(BINARIES)}
    try:
        done = subprocess.run(
            [program, *arguments],
            cwd=directory, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Built(None, f"`go {arguments[0]}` took more than {_SECONDS} s")
    if done.returncode:
        return Built(None, _reason(arguments[0], done.stderr))
    return Built(BINARIES / name)


def _reason(command: str, stderr: str) -> str:
    """Return the end of Go's output without addresses, which depend on the machine."""
    lines = [re.sub(r"\s*reading https?://\S+", "", line).strip() for line in stderr.splitlines() if line.strip()]
    return f"`go {command}`: " + " ".join(lines[-2:])[-300:]


def main() -> None:
    """Install the peers and print the result."""
    for name, binary in install().items():
        print(f"{name:18} {binary.path.name if binary.path else 'skipped: ' + binary.reason}")


if __name__ == "__main__":
    main()
