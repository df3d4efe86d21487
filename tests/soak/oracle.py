"""What may be answered at which moment, told from what was written when, without any code of the service.

A change takes hold between the moment that it is written and `SETTLED_SECONDS` after it. Until then both what was and
what will be are right answers; at every other moment there is one.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envoy.demo.client import Request
from envoy.demo.tokens import Issuer
from tests.soak.load import Question

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from tests.soak.load import Answered

SETTLED_SECONDS = 4.0
BROKEN_EVERY = 5
NEAR = 12
"""Generations around the newest one that are asked for."""


@dataclass(frozen=True, slots=True)
class Written:
    """A generation and when it was written."""

    number: int
    at: float
    good: bool


class Policies:
    """Sets of policies, one after the other: generation N denies the frontend the path `/generation/N`, no other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.history: list[Written] = []
        self.written = self.broken = 0
        self.next()

    def next(self) -> None:
        number = self.written
        good = number % BROKEN_EVERY != BROKEN_EVERY - 1
        text = _policy(number) if good else _policy(number).replace('"paths"', '"pathes"')
        fresh = self.directory / ".next"
        self.history.append(Written(number, time.monotonic(), good))
        fresh.write_text(text)
        fresh.rename(self.directory / "generation.yaml")
        self.written += 1
        self.broken += not good

    def in_force(self, sent: float, ended: float) -> set[int]:
        """The generations that may have decided on a request."""
        good = [each for each in list(self.history) if each.good and each.at <= ended]
        settled = [each.number for each in good if each.at <= sent - SETTLED_SECONDS]
        oldest = settled[-1] if settled else good[0].number
        return {each.number for each in good if each.number >= oldest}


def _policy(number: int) -> str:
    rule = {
        "from": [{"source": {"principals": ["cluster.local/ns/default/sa/frontend"]}}],
        "to": [{"operation": {"paths": [f"/generation/{number}"]}}],
    }
    metadata = {"name": "generation", "namespace": "default"}
    spec = {"selector": {"matchLabels": {"app": "hatshop"}}, "action": "DENY", "rules": [rule]}
    kind = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
    return json.dumps({**kind, "metadata": metadata, "spec": spec})


class Keys:
    """A login whose key is replaced: the new one is published beside the old one, which goes at the next change."""

    def __init__(self, publish: Callable[[str], None]) -> None:
        self._publish = publish
        self.rotations = -1
        self._tokens: dict[str, str] = {}
        self._times: dict[str, tuple[float, float]] = {}
        self._issuers: list[Issuer] = []
        self._lock = threading.Lock()
        self.next()

    def next(self) -> None:
        self.rotations += 1
        name = f"key-{self.rotations}"
        issuer = Issuer(name)
        with self._lock:
            now = time.monotonic()
            self._issuers.append(issuer)
            self._tokens[name] = issuer.token()
            self._times[name] = (now, float("inf"))
            if len(self._issuers) > 2:
                gone = f"key-{self.rotations - 2}"
                self._times[gone] = (self._times[gone][0], now)
                self._issuers.pop(0)
            self._publish(json.dumps({"keys": [key for each in self._issuers for key in each.jwks()["keys"]]}))

    def some(self, chance: random.Random) -> tuple[str, str]:
        """The name and token of one of the last four keys."""
        with self._lock:
            name = chance.choice(list(self._tokens)[-4:])
            return name, self._tokens[name]

    def may(self, name: str, sent: float, ended: float) -> set[int]:
        """The statuses that a token of this key may get."""
        since, until = self._times[name]
        right = {200} if ended >= since and sent <= until + SETTLED_SECONDS else set()
        return right | ({401} if sent <= since + SETTLED_SECONDS or ended >= until else set())


class Oracle:
    """Asks, and judges the answers."""

    def __init__(self, policies: Policies, keys: Keys, chance: random.Random) -> None:
        self._policies = policies
        self._keys = keys
        self._chance = chance
        self._forged = Issuer("key-0").token()
        self._lock = threading.Lock()
        self.exact = 0

    def question(self) -> Question:
        """The next request. Its name is `what:detail`."""
        with self._lock:
            chance = self._chance
            match chance.randrange(6):
                case 0:
                    return Question("always:200", "frontend", Request(path="/orders"))
                case 1:
                    return Question("always:403", "attacker", Request(path="/orders"))
                case 2:
                    return Question("always:401", "frontend", _bearer(self._forged))
                case 3:
                    name, token = self._keys.some(chance)
                    return Question(f"key:{name}", "frontend", _bearer(token))
                case _:
                    number = max(0, self._policies.written - chance.randrange(NEAR))
                    return Question(f"generation:{number}", "frontend", Request(path=f"/generation/{number}"))

    def statuses(self, each: Answered) -> set[int]:
        """The statuses that are right."""
        what, _, detail = each.name.partition(":")
        if what == "always":
            return {int(detail)}
        if what == "key":
            return self._keys.may(detail, each.sent, each.ended)
        in_force, asked = self._policies.in_force(each.sent, each.ended), int(detail)
        return ({403} if asked in in_force else set()) | ({200} if in_force != {asked} else set())

    def may(self, each: Answered) -> bool:
        """Whether the answer is right. None at all is not wrong: it is counted elsewhere."""
        if each.status == 503 and not each.decided:
            return True
        right = self.statuses(each)
        self.exact += len(right) == 1
        return each.status in right


def _bearer(token: str) -> Request:
    return Request(path="/orders", headers=(("authorization", f"Bearer {token}"),))
