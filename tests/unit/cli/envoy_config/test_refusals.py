"""`zta-authz envoy-config` refuses invalid options and settings."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import pytest

from tests.unit.cli.envoy_config.settings import TLS, settings_file
from zta_authz.cli import main

PROJECT = Path(__file__).resolve().parents[4] / "pyproject.toml"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The faults, and nothing on standard output."""
    assert main(["envoy-config", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "where", "what"),
    [
        (["--authz", "unix:/run/a\nb.sock"], "--authz", "control character"),
        (["--authz", "unix:/run/../a.sock"], "--authz", "`..`"),
        (["--authz", "unix:a.sock"], "--authz", "absolute path"),
        (["--style", "sidecar", "--authz", "127.0.0.1:9191"], "--authz", "style sidecar requires Unix sockets"),
        (["--style", "mtls", "--authz", "unix:/a"], "--authz", "style mtls requires TCP"),
        (["--style", "mtls", "--authz", "0.0.0.0:9191"], "--authz", "all interfaces"),
        (["--style", "mtls", "--authz", "A_B:9191"], "--authz", "not an IP address, and not a DNS name"),
        (["--authz", "unix:/a", "--authz", "unix:/a"], "--authz", "given twice"),
        (["--workers", "0"], "--workers", "not a number from 1 to 64"),
        (["--workers", "65"], "--workers", "not a number from 1 to 64"),
        (["--authz", "unix:/" + "x" * 105, "--workers", "2"], "--workers", "at most 107"),
        (["--style", "mtls", "--workers", "2"], "--workers", "share a port"),
        (["--authz-id", "spiffe://a/b"], "--authz-id", "do not use TLS"),
        (["--trust-domain", "a"], "--trust-domain", "do not use TLS"),
        (["--style", "mtls", "--authz-id", "https://a/b"], "--authz-id", "spiffe://"),
        (["--style", "mtls", "--authz-id", "spiffe://a/b\n"], "--authz-id", "SPIFFE ID"),
        (["--style", "mtls", "--trust-domain", "A.example"], "--trust-domain", "trust domain"),
        (["--timeout", "0s"], "--timeout", "1ms to 60s"),
        (["--timeout", "61s"], "--timeout", "1ms to 60s"),
        (["--timeout", "0.2"], "--timeout", "1ms to 60s"),
        (["--timeout", "-1s"], "--timeout", "1ms to 60s"),
        (["--body-bytes", "1k"], "--body-bytes", "not a number"),
        (["--body-bytes", "4194304"], "--body-bytes", "at most 4194304 bytes"),
        (["--listen", "unix:/run/x"], "--listen", "a Unix socket is not supported"),
        (["--listen", "example.com:1"], "--listen", "not an IP address"),
        (["--listen", "0.0.0.0:0"], "--listen", "port 0"),
        (["--upstream", "0.0.0.0:8080"], "--upstream", "all interfaces"),
        (["--upstream", "my_app:8080"], "--upstream", "not an IP address, and not a DNS name"),
        (["--upstream", "localhost:0"], "--upstream", "port 0"),
        (["--admin", "0.0.0.0:9901"], "--admin", "other machines"),
        (["--admin", "10.0.0.1:9901"], "--admin", "other machines"),
        (["--tls-dir", "tls"], "--tls-dir", "starts with `/`"),
        (["--tls-dir", "/etc/../tls"], "--tls-dir", "`..`"),
        (["--otlp", "http://otel:4317"], "--otlp", "not an IP address"),
        (["--upstream", "127.0.0.1:8443"], "addresses", "--listen and --upstream have the same address"),
        (["--listen", "127.0.0.1:9901"], "addresses", "--listen and --admin have the same address"),
        (["--upstream", "unix:/run/zta-authz/authz.sock"], "addresses", "--upstream and zta-authz have the same"),
        (["--listen", "127.0.0.1:9192"], "addresses", "`health.listen` have the same address"),
    ],
)
def test_invalid_options_are_refused_by_name(
    arguments: list[str], where: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (fault,) = refused(capsys, *_joined(arguments))
    assert fault.startswith(f"{where}: ")
    assert what in fault
    assert "; " in fault  # what to write instead


def _joined(arguments: list[str]) -> list[str]:
    """`--option=value`, so that a value may begin with a dash."""
    return [f"{name}={value}" for name, value in zip(arguments[::2], arguments[1::2], strict=True)]


@pytest.mark.parametrize(
    ("text", "arguments", "what"),
    [
        ('listen: ["127.0.0.1:9191"]', ["--style", "sidecar"], "does not listen on a Unix socket"),
        ('listen: ["unix:/a"]', ["--style", "mtls"], "does not listen on TCP"),
        ('listen: ["127.0.0.1:9191"]', [], "`tls` is not set"),
        ('listen: ["0.0.0.0:9191"]' + TLS, [], "is not an address that Envoy can connect to"),
        ('listen: ["127.0.0.1:0"]' + TLS, [], "port 0"),
        ('listen: ["unix:/a/../b"]', [], "`..`"),
        ("http2: {max_message_bytes: 8192}", ["--body-bytes", "8192"], "at most 8192 bytes"),
    ],
)
def test_settings_that_envoy_can_not_use_are_refused(
    text: str, arguments: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fault,) = refused(capsys, "--config", settings_file(tmp_path, text + "\n"), *arguments)
    assert what in fault


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1%lo]:9192"])
def test_a_health_listener_that_can_not_conflict_is_ignored(
    listen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_file(tmp_path, f'health: {{listen: "{listen}"}}\n')
    assert main(["envoy-config", "--config", config, "--part", "cluster"]) == 0
    assert "authz.sock" in capsys.readouterr().out


def test_all_faults_are_reported_together_and_as_json_if_requested(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--timeout", "soon", "--upstream", "nowhere", "--output", "json"]
    assert main(["envoy-config", *arguments]) == 2
    faults = json.loads(capsys.readouterr().out)["faults"]
    assert [fault["source"] for fault in faults] == ["--timeout", "--upstream"]


def test_wrong_settings_are_reported_as_by_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings_file(tmp_path, "lisen: [a]\n")
    assert refused(capsys, "--config", config)[0] == f"{config}:1:1: unknown field `lisen`; did you mean `listen`?"


def test_without_envoys_messages_it_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("zta_authz.cli.envoy_config.bootstrap")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "envoy_data_plane.envoy.config.bootstrap.v3", None)
    (fault,) = refused(capsys)
    assert "envoy-data-plane, a dependency of zta-authz, is not installed" in fault
    assert "pip install envoy-data-plane" in fault
    needed = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert [need for need in needed if need.startswith("envoy-data-plane")] != []
