"""The SPIFFE Workload API (a SPIRE agent's socket): our own SVID and the trust bundles, streamed as they change.

One stream for each kind, each on a connection of its own that is made anew when it ends: the agent may restart at any
time, and what it gave last stays in force meanwhile. Only its word that we have no identity (any more) takes ours away.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc

from zta_authz.authn.certificates import Window
from zta_authz.authn.chain import Authorities
from zta_authz.authn.keys import NO_KEYS
from zta_authz.keys.bundle_store import BundleSource
from zta_authz.keys.workload_messages import (
    DomainMap,
    JwtAuthorities,
    Malformed,
    read_jwt_bundles,
    read_svid_response,
    read_x509_bundles,
)
from zta_authz.model.spiffe import TrustDomain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cryptography.x509 import Certificate

    from zta_authz.authn.own_svid import OwnSvid, SvidSlot
    from zta_authz.keys.bundle_store import BundleStore
    from zta_authz.ports import Clock

_LOG = logging.getLogger(__name__)
SERVICE: Final = "/SpiffeWorkloadAPI/"
METADATA: Final = (("workload.spiffe.io", "true"),)
"""SPIFFE Workload Endpoint, section 5: shows that the caller was not tricked into the call (SSRF)."""
MAX_HELPERS: Final = 16
"""Intermediates that are kept for our trust domain, the newest first; each may cost a signature for each new peer."""
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
RETRY_SECONDS: Final = 0.5
DENIED_SECONDS: Final = 15.0
"""How long an agent that we have just found may say that we have no identity, before the one we had goes."""
MAX_RETRY_SECONDS: Final = 5.0
"""An agent is on this machine: to ask it costs little, and an SVID may live for a minute only."""
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # else a new connection would inherit the waiting time of the one that broke
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 120_000),  # an agent that hangs is left
    ("grpc.keepalive_timeout_ms", 20_000),
)
_random = random.SystemRandom()
T = TypeVar("T")


class WorkloadBundles:
    """What the agent says of trust domains, joined from its X.509 and JWT streams into the store."""

    def __init__(self, store: BundleStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._x509: dict[str, tuple[Certificate, ...]] = {}
        self._jwt: dict[str, JwtAuthorities] = {}
        self._helpers: dict[str, tuple[Certificate, ...]] = {}
        self._joined: dict[str, Authorities] = {}

    def take_x509(self, found: DomainMap[tuple[Certificate, ...]]) -> None:
        """Take the X.509 authorities; a garbled bundle leaves its trust domain's last good one."""
        self._x509 = _kept(self._x509, found)
        self._publish()

    def take_jwt(self, found: DomainMap[JwtAuthorities]) -> None:
        """Take the JWT authorities likewise. The same text keeps the same key set."""
        before, self._jwt = self._jwt, _kept(self._jwt, found)
        for name, authorities in before.items():
            if name in self._jwt and self._jwt[name].digest == authorities.digest:
                self._jwt[name] = authorities
        self._publish()

    def take_helpers(self, svid: OwnSvid) -> None:
        """Take our SVID's intermediates to complete our trust domain's chains, of which proxies send only the leaf.

        Former ones stay until they expire: whoever was signed by one of them is renewed later than we are.
        """
        name, now = svid.spiffe_id.trust_domain.name, self._clock()
        former = (
            each
            for each in self._helpers.get(name, ())
            if each not in svid.intermediates and Window.of(each).not_after > now
        )
        self._helpers = {name: (*svid.intermediates, *former)[:MAX_HELPERS]}
        self._publish()

    def _publish(self) -> None:
        """Only bundles that changed become new objects, so that what was verified with the others stays."""
        joined = {}
        for name, anchors in self._x509.items():
            keys = self._jwt[name].keys if name in self._jwt else NO_KEYS
            helpers = self._helpers.get(name, ())
            before = self._joined.get(name)
            if before is None or (before.anchors, before.intermediates, before.jwt_keys) != (anchors, helpers, keys):
                before = Authorities(TrustDomain(name), anchors, helpers, keys)
            joined[name] = before
        self._joined = joined
        self._store.put_all(BundleSource.WORKLOAD_API, joined)


def _kept(before: dict[str, T], found: DomainMap[T]) -> dict[str, T]:
    return {name: before[name] for name in found.garbled if name in before} | found.taken


class WorkloadApi:
    """A client of the agent at `address` (`unix:/path`). Bundles go to `bundles`, our SVID to `svid`; None: not asked.

    `changed` is called when our SVID changed, came or went.
    """

    def __init__(
        self,
        address: str,
        *,
        bundles: BundleStore | None,
        svid: SvidSlot | None,
        changed: Callable[[], None] = lambda: None,
        clock: Clock = time.time,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._address = address
        self._bundles = None if bundles is None else WorkloadBundles(bundles, clock)
        self._svid = svid
        self._changed = changed
        self._clock = clock
        self._retry = retry_seconds
        self._last: dict[str, bytes] = {}
        self._failures: dict[str, int] = {}
        self._denied_since: float | None = None
        self._answered = asyncio.Event()
        self.tried = {"FetchX509Bundles": asyncio.Event(), "FetchX509SVID": asyncio.Event()}
        """Set when the stream has given something or failed for the first time; at once if it is not asked for."""
        for method, wanted in (("FetchX509Bundles", bundles), ("FetchX509SVID", svid)):
            if wanted is None:
                self.tried[method].set()

    async def run(self) -> None:
        """Stream until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._svid is not None:
                group.create_task(self._follow("FetchX509SVID", self._take_svid))
            if self._bundles is not None:
                group.create_task(self._follow("FetchX509Bundles", self._take_x509))
                group.create_task(self._follow("FetchJWTBundles", self._take_jwt))

    async def _follow(self, method: str, take: Callable[[bytes], Awaitable[None]]) -> None:
        while True:
            try:
                await self._stream(method, take)
                why = "the agent ended the stream"
            except grpc.aio.AioRpcError as error:
                why = error.code().name
            except Exception:  # noqa: BLE001 - a bug in one message must not end the rotation of keys
                _LOG.exception("a Workload API stream failed", extra={"method": method})
                why = "a fault of ours"
            failures = self._failures.get(method, 0)
            wait = min(self._retry * 2.0 ** min(failures, 16), MAX_RETRY_SECONDS) * _random.uniform(0.5, 1.0)
            self._failures[method] = failures = failures + 1
            level = logging.INFO if method == "FetchJWTBundles" else logging.WARNING  # agents may not serve that one
            _LOG.log(
                level,
                "no Workload API stream",
                extra={"method": method, "why": why, "failures": failures, "retry_in_seconds": round(wait, 1)},
            )
            self._was_tried(method)
            await self._rest(wait)

    async def _rest(self, seconds: float) -> None:
        """Wait, but no longer than until another stream is answered again: then the agent is there, and knows us."""
        answered = self._answered
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await answered.wait()

    def _hear(self, method: str) -> None:
        """A stream gives something. After failures of its own, the others try again now and begin their waits anew."""
        if self._failures.pop(method, 0):
            self._failures.clear()
            answered, self._answered = self._answered, asyncio.Event()
            answered.set()

    async def _stream(self, method: str, take: Callable[[bytes], Awaitable[None]]) -> None:
        """Take messages until the stream ends. Raises `AioRpcError`."""
        came = False
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            ask: Any = channel.unary_stream(SERVICE + method)  # bytes in, bytes out
            call = ask(b"", metadata=METADATA)
            try:
                async for payload in call:
                    came = True
                    self._hear(method)
                    await self._take(method, payload, take)
            except grpc.aio.AioRpcError as error:
                denied = error.code() is grpc.StatusCode.PERMISSION_DENIED
                if denied and method == "FetchX509SVID":
                    self._deny_svid(at_once=came)
                if denied or not came:
                    raise

    async def _take(self, method: str, payload: bytes, take: Callable[[bytes], Awaitable[None]]) -> None:
        """Take a message. The same bytes again change nothing, and what was verified stays."""
        digest = hashlib.sha256(payload).digest()
        if self._last.get(method) != digest:
            try:
                await take(payload)
            except Malformed as error:
                _LOG.warning("a Workload API message is not taken", extra={"method": method, "detail": str(error)})
            else:
                self._last[method] = digest
        self._was_tried(method)

    def _was_tried(self, method: str) -> None:
        if method in self.tried:
            self.tried[method].set()

    async def _take_x509(self, payload: bytes) -> None:
        found = await asyncio.to_thread(read_x509_bundles, payload)
        self._tell_wrong(found.wrong)
        if self._bundles is not None:
            self._bundles.take_x509(found)
        _LOG.info("trust bundles taken", extra={"trust_domains": sorted(found.taken)[:20]})

    async def _take_jwt(self, payload: bytes) -> None:
        found = await asyncio.to_thread(read_jwt_bundles, payload)
        self._tell_wrong(found.wrong)
        if self._bundles is not None:
            self._bundles.take_jwt(found)

    async def _take_svid(self, payload: bytes) -> None:
        found = await asyncio.to_thread(read_svid_response, payload)
        if self._svid is None:
            return
        if found.window.not_after <= self._clock():
            raise Malformed("an SVID that has expired")
        self._svid.current = found
        self._denied_since = None
        if self._bundles is not None:
            self._bundles.take_helpers(found)
        if found.intermediates:
            _LOG.info("our SVID is signed by an intermediate: peers under others need `xfcc` in `peer.chain_from`")
        details = {"spiffe_id": str(found.spiffe_id), "seconds_left": round(found.window.not_after - self._clock())}
        _LOG.info("our SVID taken", extra=details)
        self._changed()

    def _deny_svid(self, *, at_once: bool) -> None:
        """The agent says that we have no identity: `at_once` where it had just given us one on this stream.

        An agent that has just been started says so too, until it has heard from its server.
        """
        now = time.monotonic()
        self._denied_since = now if self._denied_since is None else self._denied_since
        if at_once or now - self._denied_since >= DENIED_SECONDS:
            self._drop_svid()

    def _drop_svid(self) -> None:
        """Stop using the identity we had (section 5.2.1)."""
        self._last.pop("FetchX509SVID", None)
        if self._svid is not None and self._svid.current is not None:
            self._svid.current = None
            _LOG.error("our SVID is gone: the agent has no identity for us")
            self._changed()

    def _tell_wrong(self, wrong: list[str]) -> None:
        if wrong:
            _LOG.warning("trust bundles passed over", extra={"faults": wrong[:10]})
