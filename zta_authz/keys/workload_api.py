"""A client of the SPIFFE Workload API (a SPIRE agent's socket) that streams the service's SVID and trust bundles.

Each kind has its own stream and its own connection, which is reopened when it ends. The agent may restart at any time:
its last answers stay in force meanwhile. Only the agent's statement that the service has no identity removes the SVID.
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

from zta_authz.authn.certificates import ValidityPeriod
from zta_authz.authn.chain import Authorities
from zta_authz.authn.keys import NO_KEYS
from zta_authz.keys.bundle_store import BundleSource
from zta_authz.keys.workload_messages import (
    DomainMap,
    JwtAuthorities,
    MalformedMessage,
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
"""SPIFFE Workload Endpoint, section 5: proves that the call was not caused by SSRF."""
MAX_INTERMEDIATES: Final = 16
"""Intermediates kept for the service's trust domain, newest first. Each can cost a signature check per new peer."""
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
RETRY_SECONDS: Final = 0.5
DENIED_SECONDS: Final = 15.0
"""How long a newly connected agent may deny the service an identity before the current SVID is dropped."""
MAX_RETRY_SECONDS: Final = 5.0
"""Short, because the agent runs on the same machine and an SVID may live for only a minute."""
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # else a new connection inherits the broken one's backoff
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 120_000),  # detects an agent that hangs
    ("grpc.keepalive_timeout_ms", 20_000),
)
_random = random.SystemRandom()
T = TypeVar("T")


class WorkloadBundles:
    """Joins the trust bundles from the agent's X.509 and JWT streams and puts them into the store."""

    def __init__(self, store: BundleStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._x509: dict[str, tuple[Certificate, ...]] = {}
        self._jwt: dict[str, JwtAuthorities] = {}
        self._intermediates: dict[str, tuple[Certificate, ...]] = {}
        self._joined: dict[str, Authorities] = {}

    def set_x509(self, bundles: DomainMap[tuple[Certificate, ...]]) -> None:
        """Replace the X.509 authorities. A trust domain with a malformed bundle keeps its last good one."""
        self._x509 = _merged(self._x509, bundles)
        self._publish()

    def set_jwt(self, bundles: DomainMap[JwtAuthorities]) -> None:
        """Replace the JWT authorities likewise. An unchanged text keeps the same key set."""
        before, self._jwt = self._jwt, _merged(self._jwt, bundles)
        for name, authorities in before.items():
            if name in self._jwt and self._jwt[name].digest == authorities.digest:
                self._jwt[name] = authorities
        self._publish()

    def add_intermediates(self, svid: OwnSvid) -> None:
        """Use the SVID's intermediates to complete the chains of peers whose proxies send only the leaf.

        Former intermediates stay until they expire, because peers signed by them may be renewed later.
        """
        name, now = svid.spiffe_id.trust_domain.name, self._clock()
        former = (
            certificate
            for certificate in self._intermediates.get(name, ())
            if certificate not in svid.intermediates and ValidityPeriod.of(certificate).not_after > now
        )
        self._intermediates = {name: (*svid.intermediates, *former)[:MAX_INTERMEDIATES]}
        self._publish()

    def _publish(self) -> None:
        """Publish the joined bundles. Unchanged bundles stay the same objects, so cached verifications stay valid."""
        joined = {}
        for name, anchors in self._x509.items():
            keys = self._jwt[name].keys if name in self._jwt else NO_KEYS
            intermediates = self._intermediates.get(name, ())
            before = self._joined.get(name)
            if before is None or (before.anchors, before.intermediates, before.jwt_keys) != (
                anchors,
                intermediates,
                keys,
            ):
                before = Authorities(TrustDomain(name), anchors, intermediates, keys)
            joined[name] = before
        self._joined = joined
        self._store.put_all(BundleSource.WORKLOAD_API, joined)


def _merged(before: dict[str, T], message: DomainMap[T]) -> dict[str, T]:
    return {name: before[name] for name in message.malformed if name in before} | message.accepted


class WorkloadApi:
    """A client of the agent at `address` (`unix:/path`).

    Trust bundles go to `bundles` and the service's SVID to `svid`; None skips that kind. `changed` is called when the
    SVID arrives, changes or is dropped.
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
        """Set after a stream's first message or first failure, and at once if the stream is not used."""
        for method, target in (("FetchX509Bundles", bundles), ("FetchX509SVID", svid)):
            if target is None:
                self.tried[method].set()

    async def run(self) -> None:
        """Stream until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._svid is not None:
                group.create_task(self._follow("FetchX509SVID", self._apply_svid))
            if self._bundles is not None:
                group.create_task(self._follow("FetchX509Bundles", self._apply_x509))
                group.create_task(self._follow("FetchJWTBundles", self._apply_jwt))

    async def _follow(self, method: str, apply: Callable[[bytes], Awaitable[None]]) -> None:
        while True:
            try:
                await self._stream(method, apply)
                why = "the agent ended the stream"
            except grpc.aio.AioRpcError as error:
                why = error.code().name
            except Exception:  # noqa: BLE001 - a bug that one message triggers must not stop key rotation
                _LOG.exception("a Workload API stream failed", extra={"method": method})
                why = "internal error"
            failures = self._failures.get(method, 0)
            wait = min(self._retry * 2.0 ** min(failures, 16), MAX_RETRY_SECONDS) * _random.uniform(0.5, 1.0)
            self._failures[method] = failures = failures + 1
            level = (
                logging.INFO if method == "FetchJWTBundles" else logging.WARNING
            )  # optional: some agents don't serve it
            _LOG.log(
                level,
                "no Workload API stream",
                extra={"method": method, "why": why, "failures": failures, "retry_in_seconds": round(wait, 1)},
            )
            self._mark_tried(method)
            await self._wait_for_retry(wait)

    async def _wait_for_retry(self, seconds: float) -> None:
        """Wait for `seconds`, or until another stream works again, which shows that the agent is back."""
        answered = self._answered
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await answered.wait()

    def _stream_answered(self, method: str) -> None:
        """Note a message on a stream. If the stream had failed before, the others retry now and reset their backoff."""
        if self._failures.pop(method, 0):
            self._failures.clear()
            answered, self._answered = self._answered, asyncio.Event()
            answered.set()

    async def _stream(self, method: str, apply: Callable[[bytes], Awaitable[None]]) -> None:
        """Apply messages until the stream ends. Raises `AioRpcError`."""
        received = False
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            stub: Any = channel.unary_stream(SERVICE + method)  # bytes in, bytes out
            call = stub(b"", metadata=METADATA)
            try:
                async for payload in call:
                    received = True
                    self._stream_answered(method)
                    await self._apply(method, payload, apply)
            except grpc.aio.AioRpcError as error:
                denied = error.code() is grpc.StatusCode.PERMISSION_DENIED
                if denied and method == "FetchX509SVID":
                    self._identity_denied(at_once=received)
                if denied or not received:
                    raise

    async def _apply(self, method: str, payload: bytes, apply: Callable[[bytes], Awaitable[None]]) -> None:
        """Apply a message unless it repeats the last one, so that cached verifications stay valid."""
        digest = hashlib.sha256(payload).digest()
        if self._last.get(method) != digest:
            try:
                await apply(payload)
            except MalformedMessage as error:
                _LOG.warning("a Workload API message is refused", extra={"method": method, "detail": str(error)})
            else:
                self._last[method] = digest
        self._mark_tried(method)

    def _mark_tried(self, method: str) -> None:
        if method in self.tried:
            self.tried[method].set()

    async def _apply_x509(self, payload: bytes) -> None:
        bundles = await asyncio.to_thread(read_x509_bundles, payload)
        self._log_faults(bundles.faults)
        if self._bundles is not None:
            self._bundles.set_x509(bundles)
        _LOG.info("trust bundles taken", extra={"trust_domains": sorted(bundles.accepted)[:20]})

    async def _apply_jwt(self, payload: bytes) -> None:
        bundles = await asyncio.to_thread(read_jwt_bundles, payload)
        self._log_faults(bundles.faults)
        if self._bundles is not None:
            self._bundles.set_jwt(bundles)

    async def _apply_svid(self, payload: bytes) -> None:
        svid = await asyncio.to_thread(read_svid_response, payload)
        if self._svid is None:
            return
        if svid.validity.not_after <= self._clock():
            raise MalformedMessage("the SVID has expired")
        self._svid.current = svid
        self._denied_since = None
        if self._bundles is not None:
            self._bundles.add_intermediates(svid)
        if svid.intermediates:
            _LOG.info("our SVID is signed by an intermediate: peers under others need `xfcc` in `peer.chain_from`")
        details = {"spiffe_id": str(svid.spiffe_id), "seconds_left": round(svid.validity.not_after - self._clock())}
        _LOG.info("our SVID taken", extra=details)
        self._changed()

    def _identity_denied(self, *, at_once: bool) -> None:
        """Drop the SVID because the agent says that the service has no identity.

        `at_once` if this stream gave one before. Otherwise wait `DENIED_SECONDS`: an agent that has just started also
        says so until its server answers.
        """
        now = time.monotonic()
        self._denied_since = now if self._denied_since is None else self._denied_since
        if at_once or now - self._denied_since >= DENIED_SECONDS:
            self._drop_svid()

    def _drop_svid(self) -> None:
        """Stop using the current SVID (section 5.2.1)."""
        self._last.pop("FetchX509SVID", None)
        if self._svid is not None and self._svid.current is not None:
            self._svid.current = None
            _LOG.error("our SVID is gone: the agent has no identity for us")
            self._changed()

    def _log_faults(self, faults: list[str]) -> None:
        if faults:
            _LOG.warning("trust bundles passed over", extra={"faults": faults[:10]})
