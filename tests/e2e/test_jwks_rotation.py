"""Every decision is correct while keys rotate and the key server fails, through the real Envoy."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envoy.demo.client import Request
from envoy.demo.stack import StackOptions, running
from envoy.demo.tokens import AUDIENCE, Issuer
from tests.support.issuer import KEYS, issuer_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from envoy.demo.stack import Stack
    from tests.support.issuer import IssuerServer

MAX_STALE_SECONDS = 2.0


@dataclass(frozen=True)
class Seen:
    """One answer to the token called `name`; `sent` is when it was asked for."""

    name: str
    sent: float
    status: int


class Load:
    """Sends each of `tokens` in turn, again and again, from a thread of its own."""

    def __init__(self, stack: Stack, tokens: dict[str, str]) -> None:
        self.stack = stack
        self.tokens = tokens
        self.seen: list[Seen] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            for name, token in self.tokens.items():
                headers = (("authorization", f"Bearer {token}"),) if token else ()
                sent = time.monotonic()
                answer = self.stack.send("frontend", Request(path="/orders", headers=headers))
                self.seen.append(Seen(name, sent, answer.status))

    def statuses(self, name: str, since: float = 0.0) -> list[int]:
        return [seen.status for seen in list(self.seen) if seen.name == name and seen.sent >= since]

    def wait_for(self, reached: Callable[[], bool], seconds: float = 20.0) -> float:
        """When `reached` became true."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, self.seen[-8:]
            time.sleep(0.02)
        return time.monotonic()

    def wait_for_status(self, name: str, status: int) -> float:
        since = time.monotonic()
        return self.wait_for(lambda: status in self.statuses(name, since))

    def wait_for_rounds(self, rounds: int = 3) -> None:
        last = list(self.tokens)[-1]
        since = time.monotonic()
        self.wait_for(lambda: len(self.statuses(last, since)) >= rounds)


@contextmanager
def loaded(stack: Stack, tokens: dict[str, str]) -> Iterator[Load]:
    load = Load(stack, tokens)
    thread = threading.Thread(target=load.run, daemon=True)
    thread.start()
    try:
        yield load
    finally:
        load.done.set()
        thread.join(20)


@contextmanager
def shop(envoy_binary: Path, directory: Path, server: IssuerServer) -> Iterator[Stack]:
    """The demo's stack with a login whose keys are fetched from `server`."""
    login = directory / "login.yaml"
    rule = {"issuer": "https://login.hatshop.example", "audiences": [AUDIENCE], "jwksUri": server.url(KEYS)}
    document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "hatshop-login", "namespace": "default"},
        "spec": {"jwtRules": [rule]},
    }
    login.write_text(json.dumps(document))
    root = directory / "stack"
    settings = {
        "policies": [str(login), *(str(root / "policies" / name) for name in ("trust-bundle.yaml", "hatshop.yaml"))],
        "jwks": {
            "allow_http": True,
            "allow_private_addresses": True,
            "refresh_seconds": 1.0,
            "min_refresh_seconds": 1.0,
            "max_stale_seconds": MAX_STALE_SECONDS,
            "unknown_kid_seconds": 1.0,
        },
    }
    with running(root, StackOptions(envoy=envoy_binary, settings=settings)) as stack:
        yield stack


def publish(server: IssuerServer, *issuers: Issuer) -> None:
    server.say(KEYS, json.dumps({"keys": [key for issuer in issuers for key in issuer.jwks()["keys"]]}))


def changes(statuses: list[int]) -> list[int]:
    """Without repeats: what a client saw change."""
    return [status for number, status in enumerate(statuses) if number == 0 or statuses[number - 1] != status]


def test_rotation_and_outage_of_the_key_server_give_no_wrong_answer(envoy_binary: Path, tmp_path: Path) -> None:
    old, new = Issuer("old"), Issuer("new")
    tokens = {"old": old.token(), "new": new.token(), "forged": Issuer("old").token(), "none": ""}
    with issuer_in_thread() as server:
        publish(server, old)
        with shop(envoy_binary, tmp_path, server) as stack, loaded(stack, tokens) as load:
            load.wait_for_rounds()
            publish(server, old, new)
            load.wait_for_status("new", 200)

            publish(server, new)
            load.wait_for_status("old", 401)
            load.wait_for_rounds()
            assert changes(load.statuses("old")) == [200, 401]
            assert changes(load.statuses("new")) == [401, 200]

            server.say(KEYS, "out of order", 503)
            fetches = len(server.asked)
            load.wait_for(lambda: len(server.asked) > fetches)
            load.wait_for_rounds()
            assert changes(load.statuses("new")) == [401, 200]  # the last good keys hold
            load.wait_for_status("new", 401)  # until they are too old
            load.wait_for_rounds()

            publish(server, new)
            load.wait_for_status("new", 200)
            load.wait_for_rounds()
    assert changes(load.statuses("old")) == [200, 401]
    assert changes(load.statuses("new")) == [401, 200, 401, 200]
    assert changes(load.statuses("forged")) == [401]
    assert changes(load.statuses("none")) == [200]
    assert len(load.seen) > 40
