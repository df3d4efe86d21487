"""Just-in-time access in the demo: what developers and their manager do with `zta-authz` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from envoy.demo.processes import ProcessError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envoy.demo.stack import Stack

ENTITLEMENT = "default/payments-db"
MANAGER = "manager"
ACCESS_LOG = "access.jsonl"
_SECONDS = 30.0


def administrator_settings(root: Path, sockets: Path) -> dict[str, Any]:
    """Return the settings that make zta-authz run an administrator beside it, with its state in `root`."""
    return {
        "embedded": True,
        "store": {"url": f"sqlite:///{root}/administrator.sqlite"},
        "access_log": {"path": str(root / ACCESS_LOG)},
        "views": {"listen": [f"unix:{sockets}/views.sock"]},
        "operations": {"http": [f"unix:{operations_socket(sockets)}"]},
    }


def operations_socket(sockets: Path) -> Path:
    """Return the socket where people ask for access."""
    return sockets / "operations.sock"


def zta_authz(stack: Stack, person: str, *arguments: str) -> dict[str, Any]:
    """Run a command as `person`, and return its JSON. Raises `ProcessError` if it fails."""
    who = ["--address", f"unix:{operations_socket(stack.sockets)}", "--token-file", str(stack.layout.token(person))]
    command = [sys.executable, "-m", "zta_authz", *arguments, *who, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise ProcessError(f"zta-authz {' '.join(arguments)}: {done.stdout}{done.stderr}")
    fields: dict[str, Any] = json.loads(done.stdout)
    return fields


def _grant(stack: Stack, person: str) -> str:
    """`person` asks for an hour of access, and the manager approves. Returns the ID of the grant."""
    why = ("--for", "1h", "--reason", "INC-4711 stuck payment")
    request = zta_authz(stack, person, "access", "request", ENTITLEMENT, *why)["item"]
    scope = ("--scope", request["scope_sha256"])
    approved = zta_authz(stack, MANAGER, "access", "approve", request["id"], *scope)["item"]
    return str(approved["grant_id"])


def granted(person: str) -> Callable[[Stack], None]:
    """Return a step in which `person` asks for an hour of access, and the manager approves."""

    def step(stack: Stack) -> None:
        _grant(stack, person)

    return step


def ended(person: str) -> Callable[[Stack], None]:
    """Return a step in which `person` gets access, and ends it."""

    def step(stack: Stack) -> None:
        zta_authz(stack, person, "access", "end", _grant(stack, person))

    return step


def revoked(person: str, subject: str, issuer: str) -> Callable[[Stack], None]:
    """Return a step in which `person` gets access, and then all tokens of `subject` are revoked."""

    def step(stack: Stack) -> None:
        _grant(stack, person)
        reason = ("--reason", "laptop stolen")
        zta_authz(stack, MANAGER, "revoke", "subject", subject, "--issuer", issuer, *reason)

    return step
