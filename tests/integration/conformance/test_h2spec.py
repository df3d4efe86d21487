"""h2spec against the fast server, plain and under TLS: `make test-h2spec` installs it, and without it this is skipped."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conformance.servers import Conformance
from tests.integration.test_tls import Files, root
from zta_authz.servers.fast import server as fast_server
from zta_authz.servers.fast.server import FastServer
from zta_authz.servers.listeners import Endpoint, SocketAccess

if TYPE_CHECKING:
    from collections.abc import Sequence


def find_h2spec() -> str:
    """The program; without it the test is skipped and says how to get it."""
    beside_python = Path(sys.executable).with_name("h2spec")
    found = os.environ.get("H2SPEC") or (str(beside_python) if beside_python.exists() else shutil.which("h2spec"))
    if not found:
        pytest.skip("h2spec is not installed: `make test-h2spec` installs it where there is Go")
    return found


class Anybody:
    """A caller without a certificate."""

    name = ""
    expires = float("inf")

    def holds(self, _now: float) -> bool:
        return True


class OpenTls:
    """TLS that asks for no client certificate, because h2spec has none to show."""

    def __init__(self, files: Files) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.load_cert_chain(files.directory / "cert.pem", files.directory / "key.pem")
        self.context.set_alpn_protocols(["h2"])

    def caller_of(self, _connection: Any) -> Anybody:
        return Anybody()


async def run(program: str, port: int, *options: str) -> tuple[str, int, int]:
    """What it printed, and how many tests passed and failed."""
    process = await asyncio.create_subprocess_exec(
        program, "-h", "127.0.0.1", "-p", str(port), "-o", "3", "--strict", *options, stdout=asyncio.subprocess.PIPE
    )
    output = (await process.communicate())[0].decode()
    numbers = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", output)
    assert numbers, output
    return output, int(numbers[2]), int(numbers[3]) + int(numbers[4])


@pytest.mark.parametrize("options", [(), ("-t", "-k")], ids=["plain", "tls"])
async def test_all_of_h2spec_passes(options: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = find_h2spec()
    now = time.time()
    validity = {"not_before": now - 60, "not_after": now + 3600}
    files = Files(root("ca", **validity), tmp_path, validity)
    files.write(1)
    monkeypatch.setattr(fast_server, "listener_of", lambda _tls: OpenTls(files))
    tls = files.mutual_tls("spiffe://cluster.local/anybody") if options else None
    server = FastServer(Conformance().methods(), [Endpoint(host="127.0.0.1")], SocketAccess(), tls=tls)
    await server.start()
    try:
        output, passed, others = await run(program, server.addresses[0].port, *options)
    finally:
        await server.stop(0)
    assert others == 0, output
    assert passed > 140
