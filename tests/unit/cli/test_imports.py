"""Commands import only what they need, so that they start quickly."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zta_authz.cli.main import _COMMANDS, parser

HEAVY = {"grpc", "google", "pydantic", "aiohttp", "cryptography", "rich", "yaml", "opentelemetry", "prometheus_client"}
LOOK = "import sys; from zta_authz.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: print(*sys.modules)"


def imported(*arguments: str) -> set[str]:
    answer = subprocess.run([sys.executable, "-c", LOOK, *arguments], capture_output=True, text=True, check=True)
    return {name for name in answer.stdout.split() if name.isidentifier()}


@pytest.mark.parametrize("arguments", [("--version",), ("serve", "--help")])
def test_version_and_help_import_no_heavy_module(arguments: tuple[str, ...]) -> None:
    assert imported(*arguments) & HEAVY == set()


def test_each_command_is_registered_by_the_name_it_is_found_under() -> None:
    for name in _COMMANDS:
        with pytest.raises(SystemExit) as caught:
            parser((name,)).parse_args([name, "--help"])
        assert caught.value.code == 0


def test_a_service_that_exports_nothing_imports_neither_the_sdk_nor_envoys_messages() -> None:
    look = "import sys, zta_authz.service.app, zta_authz.service.workers.supervisor; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    heavy = {"opentelemetry.sdk", "opentelemetry.exporter", "requests", "envoy_data_plane", "grpc_tools.protoc"}
    assert heavy & set(answer.stdout.split()) == set()
