"""A real Envoy for the differential test: its verdict on each request and the CheckRequest it sent for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from tests.differential.case import fill
from tests.differential.credentials import KEY_SETS, jwks, sign
from tests.differential.envoy_config import IDENTIFIER, PORTS, SEEN_PREFIX, bootstrap
from tests.differential.http1 import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from tests.differential.case import Connection, PolicySet, Request

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_CHECK = "/envoy.service.auth.v3.Authorization/Check"
_ALLOW = b"\n\x00"  # CheckResponse{status: {code: OK}}
_REPOSITORY = Path(__file__).resolve().parents[2]


def envoy_binary() -> Path | None:
    """The Envoy to ask: `ZTA_ENVOY`, else the one in `.venv-envoy`; None where there is none."""
    named = os.environ.get("ZTA_ENVOY")
    if named:
        return Path(named)
    found = sorted(_REPOSITORY.glob(".venv-envoy/lib/python*/site-packages/envoy/_bin/envoy"))
    return found[0] if found else None


@dataclass(frozen=True)
class Outcome:
    """What Envoy did: the HTTP status, and the bytes of its CheckRequest (None: it refused before asking).

    `seen` are the headers set from tokens that the upstream would have seen, where Envoy let the request through.
    """

    status: int
    check: bytes | None
    seen: Mapping[str, str] = field(default_factory=dict)

    @property
    def allowed(self) -> bool | None:
        """Envoy's verdict; None where neither RBAC nor jwt_authn decided."""
        if self.check is None or self.status not in (200, 401, 403):
            return None
        return self.status == 200


class _Recorder(grpc.GenericRpcHandler):
    """An ext_authz server that allows everything and keeps the bytes it was sent, by request identifier."""

    def __init__(self) -> None:
        self.checks: dict[bytes, bytes] = {}
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._check)

    async def _check(self, data: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        found = IDENTIFIER.search(data)
        if found is not None:
            self.checks[found[0]] = data
        return _ALLOW

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handler if call.method == _CHECK else None


class _Addresses:
    """Loopback addresses nobody else uses: a /16 of 127.0.0.0/8, reserved by listening on its first address."""

    def __init__(self) -> None:
        self._lock = socket.socket()
        for block in range(32, 127):
            with contextlib.suppress(OSError):
                self._lock.bind((f"127.{block}.0.1", PORTS[0]))
                self._lock.listen()
                self._free = (f"127.{block}.{high}.{low}" for high, low in itertools.product(range(1, 250), range(250)))
                return
        raise RuntimeError("no free block of loopback addresses")

    def take(self, count: int) -> list[str]:
        return list(itertools.islice(self._free, count))

    def close(self) -> None:
        self._lock.close()


class Envoy:
    """A running Envoy with one listener per policy set."""

    def __init__(self, sets: Sequence[PolicySet], addresses: Sequence[str], recorder: _Recorder) -> None:
        """Use `running`, which starts and stops the process."""
        self.sets = sets
        self._addresses = addresses
        self._recorder = recorder
        self._numbers = itertools.count()

    async def ask(self, number: int, requests: Sequence[Request]) -> list[Outcome]:
        """What Envoy did with each request put to the set `number`, one after the other."""
        clients: dict[Connection, Client] = {}
        outcomes = []
        try:
            for request in requests:
                client = clients.get(request.connection)
                if client is None:
                    client = clients[request.connection] = Client(self._addresses[number], request.connection)
                outcomes.append(await self._ask(client, request))
        finally:
            for client in clients.values():
                await client.close()
        return outcomes

    async def _ask(self, client: Client, request: Request) -> Outcome:
        identifier = f"differential-{next(self._numbers):012}"
        texts = {f"{{token:{name}}}": sign(token) for name, token in request.tokens.items()}
        headers = tuple((name, str(fill(value, texts))) for name, value in request.headers)
        filled = replace(request, path=str(fill(request.path, texts)), headers=headers)
        status, fields = await client.send(filled, (("x-request-id", identifier),))
        seen = {name.removeprefix(SEEN_PREFIX): fields[name] for name in fields if name.startswith(SEEN_PREFIX)}
        return Outcome(status, self._recorder.checks.pop(identifier.encode(), None), seen)


@contextlib.asynccontextmanager
async def running(binary: Path, sets: Sequence[PolicySet]) -> AsyncIterator[Envoy]:
    """An Envoy that enforces `sets`. Raises RuntimeError with Envoy's own words when it does not start."""
    addresses = _Addresses()
    recorder = _Recorder()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((recorder,))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recorder.sock")
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        taken = addresses.take(len(sets))
        filled = [fill_set(policies, address) for policies, address in zip(sets, taken, strict=True)]
        try:
            async with _process(binary, Path(folder), bootstrap(filled, taken, path)):
                yield Envoy(filled, taken, recorder)
        finally:
            await server.stop(0)
            addresses.close()


def fill_set(policies: PolicySet, address: str) -> PolicySet:
    """The set with its placeholders filled in, for a listener at `address`."""
    texts = {"{destination}": address, **{f"{{jwks:{name}}}": jwks(name) for name in KEY_SETS}}
    return replace(policies, documents=tuple(fill(document, texts) for document in policies.documents))


@contextlib.asynccontextmanager
async def _process(binary: Path, folder: Path, config: dict[str, Any]) -> AsyncIterator[None]:
    (folder / "envoy.json").write_text(json.dumps(config))
    listeners = config["static_resources"]["listeners"]
    ready = folder / "admin.txt"
    log = folder / "envoy.log"
    arguments: list[str | Path] = [
        "-c",
        folder / "envoy.json",
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "warning",
    ]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            binary, *arguments, "--admin-address-path", ready, stdout=output, stderr=output
        )
    try:
        if not await _listening(process, listeners[-1]["name"]):
            raise RuntimeError(f"Envoy did not start: {log.read_text()[-4000:]}")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _listening(process: asyncio.subprocess.Process, address: str) -> bool:
    """Wait for the last listener. False: Envoy ended before."""
    async with asyncio.timeout(_START_SECONDS):
        while process.returncode is None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(address, PORTS[-1])
                writer.close()
                await writer.wait_closed()
                return True
            await asyncio.sleep(0.05)
    return False
