from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from zta_authz.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def status(capsys: pytest.CaptureFixture[str], folder: Path, settings: str, *arguments: str) -> list[str]:
    """Return the messages of the faults; no service runs in this test."""
    (folder / "settings.yaml").write_text(settings)
    assert main(["status", "--config", str(folder / "settings.yaml"), "--output", "json", *arguments]) == 2
    return [f"{fault['source']}: {fault['message']}" for fault in json.loads(capsys.readouterr().out)["faults"]]


def test_without_an_admin_listener_it_says_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(capsys, tmp_path, "{}") == ["admin.listen: the admin API is disabled in these settings"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "dns:///x", "/run/a.sock"])
def test_only_unix_sockets_are_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str) -> None:
    (message,) = status(capsys, tmp_path, "{}", "--admin", address)
    assert message == f"--admin: `{address}` is not a Unix socket, and this command does not support mutual TLS"


def test_a_service_that_does_not_answer_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (message,) = status(capsys, tmp_path, f'admin: {{listen: "unix:{tmp_path}/a.sock"}}')
    assert message.startswith(f"unix:{tmp_path}/a.sock: the admin API does not answer: UNAVAILABLE")


def test_each_worker_is_asked_at_its_own_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (message,) = status(capsys, tmp_path, f'workers: 2\nadmin: {{listen: "unix:{tmp_path}/a.sock"}}')
    assert message.startswith(f"unix:{tmp_path}/a.sock.1: ")
