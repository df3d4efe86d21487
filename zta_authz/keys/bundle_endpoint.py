"""A trust domain's bundle from its SPIFFE bundle endpoint (SPIFFE Federation, section 5), fetched in the background.

https_web     the server shows a certificate of the web's authorities for its host name
https_spiffe  the server shows an X.509-SVID with a given SPIFFE ID, which verifies against the bundle in force for
              that ID's trust domain; usually the very bundle that is fetched, so that one is needed to begin with
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from zta_authz.authn.bundle_formats import Bundle, read_spiffe_text
from zta_authz.authn.certificates import CERTIFICATE_ERRORS, is_authority
from zta_authz.authn.svid import svid_id
from zta_authz.errors import Reason, Refused
from zta_authz.keys.addresses import AddressRules
from zta_authz.keys.bundle_store import BundleSource
from zta_authz.keys.http import HttpClient
from zta_authz.keys.outcomes import FetchFailed, Outcome
from zta_authz.keys.schedule import Schedule, Timing

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.authn.bundles import Bundles
    from zta_authz.authn.chain import Authorities
    from zta_authz.keys.bundle_store import BundleStore
    from zta_authz.model.spiffe import SpiffeId, TrustDomain

    Heard = Callable[[str, Outcome], None]

_LOG = logging.getLogger(__name__)
FETCH_SECONDS: Final = 10.0
ENDPOINT_TIMING: Final = Timing(refresh=300.0, min_refresh=10.0, max_refresh=24 * 3600.0)
"""Where a bundle has no `spiffe_refresh_hint` it is fetched every five minutes (section 6.2 of the bundle's text)."""
_random = random.SystemRandom()
_REASON: Final = Reason.PEER_CERTIFICATE_UNTRUSTED


@dataclass(frozen=True, slots=True)
class BundleEndpoint:
    """Where a trust domain publishes its bundle. With `spiffe_id` the profile is https_spiffe, else https_web.

    `authorities` are those of https_web's servers (None: the system's).
    """

    trust_domain: TrustDomain
    url: str
    spiffe_id: SpiffeId | None = None
    authorities: ssl.SSLContext | None = None


class Fetch(Protocol):
    """What fetches one document."""

    async def __call__(self, endpoint: BundleEndpoint, bundles: Bundles) -> bytes:
        """The document at the endpoint, its server authenticated with `bundles`. Raises `FetchFailed`."""
        ...


async def fetch_bundle(endpoint: BundleEndpoint, bundles: Bundles) -> bytes:
    """The document at the endpoint. Raises `FetchFailed`.

    The operator named the address, so it may be a private one; link-local ones may not be asked even then.
    """
    seen: list[str] = []
    tls = endpoint.authorities
    if endpoint.spiffe_id is not None:
        tls = _spiffe_context(endpoint.spiffe_id, bundles.get(endpoint.spiffe_id.trust_domain.name), seen)
    client = HttpClient(AddressRules(allow_private=True), tls=tls)
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            return (await client.get(endpoint.url)).body
    except TimeoutError:
        raise FetchFailed(Outcome.TIMEOUT, f"not there within {FETCH_SECONDS:g} s") from None
    except FetchFailed as error:
        if not seen:
            raise
        raise FetchFailed(Outcome.TLS, seen[-1]) from error
    finally:
        await client.close()


def _spiffe_context(expected: SpiffeId, authorities: Authorities | None, seen: list[str]) -> ssl.SSLContext:
    """TLS to the server `expected`. Why its certificate was refused goes to `seen`. Raises `FetchFailed`."""
    if authorities is None or not authorities.anchors:
        domain = expected.trust_domain.name
        raise FetchFailed(Outcome.TLS, f"no bundle of `{domain}` yet to authenticate the server with")

    class CheckedConnection(ssl.SSLObject):
        """Is up only when the certificate, whose chain was verified, names the server that is expected."""

        def do_handshake(self) -> None:
            super().do_handshake()
            try:
                _check_server(self.getpeercert(binary_form=True), expected)
            except Refused as error:
                seen.append(f"the server's certificate: {error.detail}")
                raise ssl.SSLError("not the server that is expected") from None

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # SPIFFE Federation 5.2.2: the SPIFFE ID is the name, whatever the host is called
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority of the bundle counts, self-signed or not
    context.load_verify_locations(cadata=b"".join(each.public_bytes(Encoding.DER) for each in authorities.anchors))
    context.sslobject_class = CheckedConnection
    return context


def _check_server(presented: bytes | None, expected: SpiffeId) -> None:
    """Raises `Refused` unless the certificate is `expected`'s X.509-SVID."""
    try:
        leaf = x509.load_der_x509_certificate(presented or b"")
        found = svid_id(leaf)
        authority = is_authority(leaf)
    except CERTIFICATE_ERRORS:
        raise Refused(_REASON, "it can't be read") from None
    if found != expected or authority:
        raise Refused(_REASON, "another SPIFFE ID than the endpoint's")


class EndpointKeeper:
    """Keeps one endpoint's bundle in the store. The last good one stays for as long as no newer one can be had.

    `heard` is told the host and outcome of each fetch.
    """

    def __init__(
        self,
        endpoint: BundleEndpoint,
        store: BundleStore,
        *,
        timing: Timing = ENDPOINT_TIMING,
        fetch: Fetch = fetch_bundle,
        heard: Heard = lambda _host, _outcome: None,
    ) -> None:
        self._endpoint = endpoint
        self._store = store
        self._timing = timing
        self._fetch = fetch
        self._heard = heard
        self._digest = b""
        self._sequence: int | None = None
        self.tried = asyncio.Event()
        """Set when the first attempt is over."""

    def begin_with(self, bundle: Bundle) -> None:
        """Take a bundle that the operator gave, until the endpoint gives another."""
        self._sequence = bundle.sequence
        self._store.put(BundleSource.ENDPOINT, bundle.authorities)

    async def run(self) -> None:
        """Fetch whenever it is time, until cancelled."""
        loop = asyncio.get_running_loop()
        schedule = Schedule(self._timing, loop.time(), _random.uniform)
        while True:
            await asyncio.sleep(max(0.0, schedule.next_at - loop.time()))
            try:
                bundle, digest = await self._load()
                self._take(bundle, digest)
            except FetchFailed as error:
                schedule.failed(loop.time())
                self._tell(error, schedule.next_at - loop.time())
            else:
                schedule.succeeded(loop.time(), bundle.refresh_hint)
                self._heard(self._host, Outcome.TAKEN)
            self.tried.set()

    @property
    def _host(self) -> str:
        return self._endpoint.url.partition("://")[2].partition("/")[0]

    async def _load(self) -> tuple[Bundle, bytes]:
        try:
            content = await self._fetch(self._endpoint, self._store.slot.current)
            bundle, wrong = await asyncio.to_thread(read_spiffe_text, self._endpoint.trust_domain, content)
        except FetchFailed:
            raise
        except Exception as error:
            _LOG.exception("fetching a trust bundle failed")
            raise FetchFailed(Outcome.FAILED, "a fault of ours") from error
        if wrong:
            raise FetchFailed(Outcome.WRONG_CONTENT, "; ".join(each.message for each in wrong[:3]))
        return bundle, hashlib.sha256(content).digest()

    def _take(self, bundle: Bundle, digest: bytes) -> None:
        """Put the bundle in force, unless it is the one in force or older. Raises `FetchFailed` for an older one."""
        if digest == self._digest:
            return
        if bundle.sequence is not None and self._sequence is not None and bundle.sequence < self._sequence:
            raise FetchFailed(Outcome.WRONG_CONTENT, "`spiffe_sequence` is lower than that of the bundle in force")
        self._digest, self._sequence = digest, bundle.sequence
        self._store.put(BundleSource.ENDPOINT, bundle.authorities)
        count = len(bundle.authorities.anchors)
        details = {"trust_domain": self._endpoint.trust_domain.name, "authorities": count}
        if count:
            _LOG.info("trust bundle taken", extra=details)
        else:
            _LOG.warning("the trust domain has withdrawn its X.509 authorities", extra=details)

    def _tell(self, error: FetchFailed, wait: float) -> None:
        self._heard(self._host, error.outcome)
        _LOG.warning(
            "a trust bundle can't be fetched",
            extra={
                "trust_domain": self._endpoint.trust_domain.name,
                "host": self._host,
                "outcome": error.outcome.value,
                "detail": error.detail,
                "retry_in_seconds": round(wait, 1),
            },
        )
