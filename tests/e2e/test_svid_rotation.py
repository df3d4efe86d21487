"""Every decision is correct while the SVID and the trust bundle rotate, through the real Envoy."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from envoy.demo.authz_connection import Mtls
from envoy.demo.certificates import CertificateAuthority, Names
from envoy.demo.client import Request
from envoy.demo.identities import AUTHZ_ID, POLICIES, TRUST_DOMAIN, spiffe_id, write_private
from envoy.demo.stack import StackOptions, running
from tests.fakes.workload_api import FakeWorkloadApi, bundles_response, der, svid_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from envoy.demo.stack import Stack

ORDERS = Request(path="/orders")
ROTATIONS = 12


def svid(ca: CertificateAuthority) -> bytes:
    issued = ca.issue(Names(uris=(AUTHZ_ID,), dns=("localhost",)))
    key = load_pem_private_key(issued.key, None)
    return svid_response(AUTHZ_ID, key, x509.load_pem_x509_certificate(issued.certificate))  # type: ignore[arg-type]


def bundle(*authorities: CertificateAuthority) -> bytes:
    certificates = [x509.load_pem_x509_certificate(ca.certificate) for ca in authorities]
    return bundles_response({f"spiffe://{TRUST_DOMAIN}": der(*certificates)})


@contextmanager
def agent_in_thread(socket: Path, answers: dict[str, bytes]) -> Iterator[Callable[[str, bytes], None]]:
    """An agent in a loop of its own; what is given says something from then on."""
    loop, stop, started = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    agents: list[FakeWorkloadApi] = []

    async def serve() -> None:
        async with FakeWorkloadApi(socket) as agent:
            agents.append(agent)
            for method, answer in answers.items():
                agent.say(method, answer)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    try:
        yield lambda method, answer: loop.call_soon_threadsafe(agents[0].say, method, answer) and None
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def settings(root: Path, socket: Path, server: str) -> dict[str, object]:
    """Everything from the agent: our SVID, and who signs anybody's; the documents keep to the rules."""
    return {
        "server": server,
        "tls": {"source": "workload_api", "allowed_spiffe_ids": [spiffe_id("hatshop")]},
        "workload_api": {"socket": f"unix:{socket}"},
        "policies": [
            str(root / "policies" / name) for name in ["hatshop-login.yaml", *(p.name for p in POLICIES.glob("*.yaml"))]
        ],
    }


def statuses(stack: Stack, name: str, count: int) -> set[int]:
    return {stack.send(name, ORDERS).status for _ in range(count)}


@contextmanager
def load(stack: Stack) -> Iterator[list[int]]:
    """The frontend's requests, one after the other without a pause, and their statuses."""
    seen: list[int] = []
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            seen.append(stack.send("frontend", ORDERS).status)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join(20)


@pytest.mark.parametrize("server", ["grpcio", "fast"])
def test_svid_and_bundle_rotate_under_load_without_one_wrong_answer(
    envoy_binary: Path, tmp_path: Path, server: str
) -> None:
    ca, next_ca = CertificateAuthority("HatShop demo CA", TRUST_DOMAIN), CertificateAuthority("Next CA", TRUST_DOMAIN)
    socket, root = tmp_path / "agent.sock", tmp_path / "stack"
    answers = {"FetchX509SVID": svid(ca), "FetchX509Bundles": bundle(ca)}
    options = StackOptions(mtls=Mtls(), envoy=envoy_binary, settings=settings(root, socket, server))
    with agent_in_thread(socket, answers) as say, running(root, options, ca) as stack:
        issued = next_ca.issue(Names(uris=(spiffe_id("frontend"),)))
        write_private(stack.layout.certificate("frontend-next"), issued.certificate)
        write_private(stack.layout.key("frontend-next"), issued.key)
        assert statuses(stack, "frontend-next", 3) == {403}
        with load(stack) as seen:  # over the connection that stands
            for turn in range(ROTATIONS):
                say("FetchX509SVID", svid(ca))
                say("FetchX509Bundles", bundle(ca, next_ca) if turn % 2 else bundle(next_ca, ca))
                assert stack.connection.serving()  # over a new one
            wait_for(stack, "frontend-next", 200)
            say("FetchX509Bundles", bundle(ca))
            wait_for(stack, "frontend-next", 403)
        assert set(seen) == {200}
        assert len(seen) > ROTATIONS


def wait_for(stack: Stack, name: str, status: int) -> None:
    """Until `name` gets `status`, and then always."""
    deadline = time.monotonic() + 10
    while stack.send(name, ORDERS).status != status:
        assert time.monotonic() < deadline
    assert statuses(stack, name, 10) == {status}
