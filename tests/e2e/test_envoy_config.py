"""Envoy started on what `zta-authz envoy-config` prints from the service's own settings, with a real zta-authz."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import yaml

from envoy.demo.authz_connection import Mtls, free_port
from envoy.demo.client import Request
from envoy.demo.identities import AUTHZ_ID
from envoy.demo.processes import wait_until
from envoy.demo.stack import Stack, StackOptions, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ORDERS = Request(path="/orders")
TLS_FILES = {"server": "server", "authz-client": "server", "client-ca": "ca", "authz-ca": "ca"}
OTHER_ID = AUTHZ_ID + "-of-another"


class PrintedStack(Stack):
    """The demo's stack, but that its Envoy runs on what the command prints from the settings that zta-authz has."""

    more: tuple[str, ...] = ()

    def write_bootstrap(self) -> Path:
        tls = self.layout.root / "envoy-tls"
        tls.mkdir()
        for name, path in TLS_FILES.items():
            shutil.copyfile(self.layout.root / "tls" / f"{path}.pem", tls / f"{name}.pem")
            if not name.endswith("ca"):
                shutil.copyfile(self.layout.key(path), tls / f"{name}.key")
        arguments = {
            "--config": self.layout.root / "zta-authz.yaml",
            "--tls-dir": tls,
            "--listen": f"127.0.0.1:{free_port()}",
            "--upstream": f"unix:{self.sockets}/upstream.sock",
            "--admin": f"unix:{self.sockets}/admin.sock",
            "--timeout": "2s",  # build machines stall
        }
        given = [f"{name}={value}" for name, value in arguments.items()]
        command = [sys.executable, "-m", "zta_authz", "envoy-config", *given, *self.more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        file = self.layout.root / "envoy.yaml"
        file.write_text(done.stdout)
        return file


class PinnedOnAnother(PrintedStack):
    """Envoy expects an authorizer of another name."""

    more = (f"--authz-id={OTHER_ID}",)


@pytest.fixture(params=["sidecar with 2 workers", "mtls"])
def stack(request: pytest.FixtureRequest, envoy_binary: Path, tmp_path: Path) -> Iterator[Stack]:
    """Nothing but the settings says which style it is."""
    options = StackOptions(envoy=envoy_binary, settings={"audit": {"sink": "stdout"}}, workers=2)
    if request.param == "mtls":
        options = StackOptions(envoy=envoy_binary, mtls=Mtls())
    with running(tmp_path, options, kind=PrintedStack) as started:
        yield started


def endpoints(stack: Stack) -> set[str]:
    """Addresses of zta-authz that Envoy's health checks find well."""
    lines = [line.split("::") for line in stack.envoy.admin("/clusters")[1].splitlines()]
    return {line[1] for line in lines if line[0] == "zta_authz" and line[-2:] == ["health_flags", "healthy"]}


def test_it_allows_and_denies_and_fails_closed_while_zta_authz_is_down(stack: Stack) -> None:
    listening = yaml.safe_load((stack.layout.root / "zta-authz.yaml").read_text())["listen"][0]
    expected = {listening} if stack.options.mtls else {f"{listening.removeprefix('unix:')}.{n}" for n in (1, 2)}
    wait_until(lambda: endpoints(stack) == expected, stack.envoy.child)
    allowed = stack.send("frontend", ORDERS)
    assert allowed.status == 200
    denied = stack.send("attacker", ORDERS)
    assert denied.status == 403
    assert "x-zta-decision-id" in denied.headers
    stack.authz.stop()
    before = stack.upstream_requests()
    out = stack.send("frontend", ORDERS)
    assert out.status == 503
    assert "x-zta-decision-id" not in out.headers
    assert stack.upstream_requests() == before
    with contextlib.ExitStack() as cleanup:
        stack.start_authz(cleanup)
        wait_until(lambda: stack.send("frontend", ORDERS).status == 200, stack.envoy.child)


def test_a_server_with_another_name_denies_everything(envoy_binary: Path, tmp_path: Path) -> None:
    with running(tmp_path, StackOptions(envoy=envoy_binary, mtls=Mtls()), kind=PinnedOnAnother) as stack:
        time.sleep(0.5)
        assert stack.send("frontend", ORDERS).status == 503
        assert endpoints(stack) == set()
        assert os.path.getsize(stack.upstream_log) == 0
