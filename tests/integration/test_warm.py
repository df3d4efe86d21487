"""Nothing is imported by the first checks of a service that is ready: each import would take the proxy's patience."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc
import pytest
import yaml

from envoy.demo import identities
from tests.support.check_requests import check_request
from tests.support.service import environment
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.service.warmup import warm_up

if TYPE_CHECKING:
    from pathlib import Path

CHECK = "/envoy.service.auth.v3.Authorization/Check"
SERVE = """
import asyncio, sys
from zta_authz.service.app import Service
from zta_authz.settings import load_settings

async def main():
    service = Service(load_settings(sys.argv[1], {}))
    await service.start()
    before = set(sys.modules)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(sorted(set(sys.modules) - before), flush=True)
    await service.stop()

import uvloop
uvloop.run(main())
"""


def test_the_first_checks_come_out_as_they_should() -> None:
    """Else they would not have reached what later ones reach."""
    answers = [CheckResponse.FromString(answer).status.code for answer in warm_up()]
    assert answers == [0, 7, 3]


@pytest.mark.parametrize("server", ["fast", "grpcio"])
def test_the_first_checks_of_a_ready_service_import_nothing(tmp_path: Path, server: str) -> None:
    layout = identities.mint(tmp_path / "layout")
    socket = tmp_path / "s"
    settings = {
        "listen": [f"unix:{socket}"],
        "policies": [str(layout.policies)],
        "facts": {"directory": str(layout.facts)},
        "workload": {"labels": {"app": "hatshop"}, "trust_domain": identities.TRUST_DOMAIN},
        "audit": {"sink": "file", "path": str(tmp_path / "decisions.jsonl")},
        "peer": {"verify_certificate": "required"},
        "health": {"listen": None},
        "server": server,
    }
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-c", SERVE, str(config)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment()) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            assert 0 in ask(socket, layout)
            imported, _ = child.communicate("\n", timeout=30)
        finally:
            child.kill()
    assert imported.strip() == "[]"


def ask(socket: Path, layout: identities.Layout) -> set[int]:
    """Ask as the frontend does, with each token and without; the statuses."""
    asked = [check_request()]
    for token in [None, *sorted((layout.root / "tokens").iterdir())]:
        request = check_request()
        request.attributes.source.certificate = quote(layout.certificate("frontend").read_text())
        if token is not None:
            request.attributes.request.http.headers["authorization"] = f"Bearer {token.read_text().strip()}"
        asked.append(request)
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        call = channel.unary_unary(CHECK)
        answers = [call(each, timeout=20) for each in [*[each.SerializeToString() for each in asked], b"\xff"]]
    return {CheckResponse.FromString(answer).status.code for answer in answers}
