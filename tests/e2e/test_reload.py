"""Policies are swapped under load through the real Envoy, some of them broken: no request gets a wrong verdict.

Each version allows one path of its own and two that all share; what was certain at the time of a request is what it
must be answered: by the version of before until a version is written, by either while it is being taken, and by the new
one from a second after it is in force.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envoy.demo.client import Request
from envoy.demo.stack import StackOptions, running
from tests.support.configmap import ConfigMapMount

if TYPE_CHECKING:
    from pathlib import Path

    from envoy.demo.stack import Stack

ALWAYS, NEVER = "/always", "/never"
VERSIONS = 12
BROKEN = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {rulez: []}\n"


def version(number: int) -> str:
    """Allows `/always` and the version's own path, beside a few hundred rules of others."""
    others = "".join(f"  - {{to: [{{operation: {{paths: ['/team-{attempt}/*']}}}}]}}\n" for attempt in range(300))
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        "metadata: {name: shop, namespace: default}\n"
        "spec:\n  rules:\n"
        f"  - {{to: [{{operation: {{methods: [GET], paths: [{ALWAYS}, /v{number}]}}}}]}}\n{others}"
    )


@dataclass(frozen=True)
class Seen:
    """One answer: what was asked for, between when and when, and the status."""

    path: str
    sent: float
    got: float
    status: int


class Load:
    """Asks for each path in turn, again and again, from a thread of its own."""

    def __init__(self, stack: Stack, paths: list[str]) -> None:
        self.stack, self.paths = stack, paths
        self.seen: list[Seen] = []
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        while not self.done.is_set():
            for path in self.paths:
                sent = time.monotonic()
                status = self.stack.send("frontend", Request(path=path)).status
                self.seen.append(Seen(path, sent, time.monotonic(), status))

    def wait_for(self, path: str, status: int) -> float:
        """When an answer to a request for `path`, sent from now on, had this `status`."""
        since, deadline = time.monotonic(), time.monotonic() + 20
        while time.monotonic() < deadline:
            for seen in list(self.seen):
                if seen.path == path and seen.sent >= since and seen.status == status:
                    return seen.got
            time.sleep(0.01)
        raise AssertionError(f"{path} was never answered with {status}: {self.seen[-6:]}")


def test_reloads_under_load_give_no_wrong_verdict(envoy_binary: Path, tmp_path: Path) -> None:
    mount = ConfigMapMount(tmp_path / "mount", {"shop.yaml": version(0)})
    root = tmp_path / "stack"
    settings = {
        "policies": [str(mount.path), str(root / "policies" / "trust-bundle.yaml")],
        "reload": {"poll_seconds": 0.05, "debounce_seconds": 0.05},
    }
    changes: list[tuple[int, float, float]] = [(0, 0.0, 0.0)]  # a version, when it was written, when it was seen
    with running(root, StackOptions(envoy=envoy_binary, settings=settings)) as stack:
        load = Load(stack, [ALWAYS, NEVER, *(f"/v{number}" for number in range(VERSIONS))])
        load.thread.start()
        try:
            load.wait_for("/v0", 200)
            for number in range(1, VERSIONS):
                if number % 4 == 0:
                    mount.update({"shop.yaml": BROKEN})
                    time.sleep(0.3)
                written = time.monotonic()
                mount.update({"shop.yaml": version(number)})
                changes.append((number, written, load.wait_for(f"/v{number}", 200)))
        finally:
            load.done.set()
            load.thread.join(20)
    wrong = [seen for seen in load.seen if seen.status not in expected(seen, changes)]
    assert wrong == []
    assert len(load.seen) > 200


def expected(seen: Seen, changes: list[tuple[int, float, float]]) -> set[int]:
    """The statuses that may answer what was asked for in that time."""
    if seen.path in (ALWAYS, NEVER):
        return {200 if seen.path == ALWAYS else 403}
    own = int(seen.path.removeprefix("/v"))
    ends = [written for _, written, _ in changes[1:]] + [float("inf")]
    followed = [taken for _, _, taken in changes[1:]] + [float("inf")]
    allowed: set[int] = set()
    for (number, written, taken), end, gone in zip(changes, ends, followed, strict=True):
        if seen.got < written or seen.sent > gone:
            continue  # not yet there, or replaced before this was asked for
        allowed.add(200 if number == own else 403)
        if seen.sent >= taken and seen.got <= end:
            return {200 if number == own else 403}
    return allowed
