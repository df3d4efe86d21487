"""Issues SVIDs as SPIRE does, without SPIRE: trust domains with authorities that change, and an agent for one of them."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.fakes.workload_api import FakeWorkloadApi, bundles_response, der, svid_response
from tests.support.pki import Authority, pem, root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AUTHORITY_SECONDS = 3600.0
IGNORANT_SECONDS = 1.5


@dataclass(frozen=True)
class Issued:
    """What a workload shows and what it trusts, in PEM; `until` is when it must have something newer."""

    chain: str
    key: bytes
    bundle: str
    until: float


@dataclass
class Domain:
    """A trust domain: the authorities in its bundle, the last of which signs, or the intermediate under it."""

    name: str
    ttl: float
    authorities: list[Authority] = field(default_factory=list)
    middle: Authority | None = None
    made: int = 0

    def __post_init__(self) -> None:
        self.announce()

    def announce(self) -> None:
        """A new authority is in the bundle; it signs at once where there is no other."""
        self.made += 1
        now = time.time()
        made = root(f"{self.name} {self.made}", not_before=now - 60, not_after=now + AUTHORITY_SECONDS)
        self.authorities.insert(max(0, len(self.authorities) - 1), made)

    def activate(self) -> None:
        """What was announced signs from now on."""
        self.authorities.append(self.authorities.pop(0))
        self.middle = None if self.middle is None else self._intermediate()

    def withdraw(self) -> None:
        """Only what signs now is in the bundle."""
        del self.authorities[:-1]

    def rotate_intermediate(self) -> None:
        """From now on another intermediate signs."""
        self.middle = self._intermediate()

    def _intermediate(self) -> Authority:
        self.made += 1
        now = time.time()
        until = now + AUTHORITY_SECONDS
        return self.authorities[-1].intermediate(f"middle {self.made}", not_before=now - 60, not_after=until)

    def issue(self, path: str) -> tuple[Any, Any, tuple[Any, ...]]:
        """The key, the leaf and the intermediates of a new SVID."""
        key = ec.generate_private_key(ec.SECP256R1())
        signs, now = self.middle or self.authorities[-1], time.time()
        names = {"uris": (f"spiffe://{self.name}/{path}",), "dns": ("localhost",)}
        leaf = signs.issue(key=key, not_before=now - 10, not_after=now + self.ttl, **names)
        return key, leaf, signs.above


class Mint:
    """Domains, the first of them ours, and the agent that zta-authz asks, which may be killed and started again."""

    def __init__(self, socket: Path, ttl: float, ours: str, *others: str) -> None:
        self.domains = {name: Domain(name, ttl) for name in (ours, *others)}
        self.ours = self.domains[ours]
        self._issues = True
        self._agent = FakeWorkloadApi(socket)
        self.address = self._agent.address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.start_agent()

    def rotate_authority(self, pause: Callable[[float], None]) -> None:
        """The partner's signing authority becomes another, announced first and withdrawn last, as SPIRE does it."""
        partner = next(domain for name, domain in self.domains.items() if name != self.ours.name)
        for step in (partner.announce, partner.activate, partner.withdraw):
            step()
            self.tell()
            pause(self.ours.ttl)  # until everybody has renewed

    def rotate_intermediate(self, pause: Callable[[float], None]) -> None:
        """Another intermediate signs our SVIDs."""
        self.ours.rotate_intermediate()
        self.tell()
        pause(self.ours.ttl)

    def kill_server(self) -> None:
        """Nothing is issued any more."""
        self._issues = False

    def start_server(self) -> None:
        """Everything is issued again."""
        self._issues = True

    def forget_partner(self) -> None:
        """The partner's bundle goes."""
        self.domains = {self.ours.name: self.ours}
        self.tell()

    def close(self) -> None:
        self.kill_agent()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def start_agent(self) -> None:
        """As a SPIRE agent does, it knows nobody until it has heard from its server."""
        for method in ("FetchX509SVID", "FetchX509Bundles"):
            self._say(method, grpc.StatusCode.PERMISSION_DENIED)
        self._run(self._agent.start())
        time.sleep(IGNORANT_SECONDS)
        self.tell()

    def kill_agent(self) -> None:
        self._run(self._agent.stop())

    def tend(self) -> None:
        """Renew zta-authz's SVID when half its life is over."""
        if time.time() >= self._due:
            self.tell()

    def tell(self) -> None:
        """Give zta-authz a new SVID, and the bundles as they are."""
        self._due = time.time() + self.ours.ttl / 2
        key, leaf, above = self.ours.issue("authz")
        named = {
            f"spiffe://{name}": der(*(each.certificate for each in domain.authorities))
            for name, domain in self.domains.items()
        }
        self._say("FetchX509Bundles", bundles_response(named))
        self._say("FetchX509SVID", svid_response(f"spiffe://{self.ours.name}/authz", key, leaf, *above))

    def issue(self, workload: str) -> Issued:
        """What `workload` (`path` of our trust domain, or `domain/path`) gets when it asks now."""
        if not self._issues:
            raise ConnectionRefusedError
        domain = self.domains.get(workload.partition("/")[0])
        path = workload if domain is None else workload.partition("/")[2]
        key, leaf, above = (domain or self.ours).issue(path)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        trusted = "".join(each.pem for known in self.domains.values() for each in known.authorities)
        return Issued(pem(leaf, *above), secret, trusted, time.time() + self.ours.ttl / 2)

    def _say(self, method: str, answer: bytes | grpc.StatusCode) -> None:
        def say() -> None:
            self._agent.say(method, answer)

        self._call(say)

    def _call(self, what: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(what)

    def _run(self, what: Any) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)
