"""Background fetching of trust bundles from SPIFFE bundle endpoints (SPIFFE Federation, section 5).

https_web     the server presents a Web PKI certificate for its host name
https_spiffe  the server presents an X.509-SVID with a configured SPIFFE ID. It is verified with the current bundle of
              that ID's trust domain. This is usually the bundle that is fetched, so a first bundle must be configured.
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
from zta_authz.keys.http_client import HttpClient
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome
from zta_authz.keys.refresh_schedule import Schedule, Timing

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.authn.bundles import Bundles
    from zta_authz.authn.chain import Authorities
    from zta_authz.keys.bundle_store import BundleStore
    from zta_authz.model.spiffe import SpiffeId, TrustDomain

    FetchObserver = Callable[[str, FetchOutcome], None]  # host, outcome

_LOG = logging.getLogger(__name__)
FETCH_SECONDS: Final = 10.0
ENDPOINT_TIMING: Final = Timing(refresh=300.0, min_refresh=10.0, max_refresh=24 * 3600.0)
"""Without `spiffe_refresh_hint`, a bundle is fetched every five minutes (SPIFFE Trust Domain and Bundle, 6.2)."""
_random = random.SystemRandom()
_REASON: Final = Reason.PEER_CERTIFICATE_UNTRUSTED


@dataclass(frozen=True, slots=True)
class BundleEndpoint:
    """The URL where a trust domain publishes its bundle. The profile is https_spiffe with `spiffe_id`, else https_web.

    `authorities` verify the server for https_web (None: the system's authorities).
    """

    trust_domain: TrustDomain
    url: str
    spiffe_id: SpiffeId | None = None
    authorities: ssl.SSLContext | None = None


class Fetch(Protocol):
    """Fetches one bundle document."""

    async def __call__(self, endpoint: BundleEndpoint, bundles: Bundles) -> bytes:
        """Fetch the document and authenticate its server with `bundles`. Raises `FetchFailed`."""
        ...


async def fetch_bundle(endpoint: BundleEndpoint, bundles: Bundles) -> bytes:
    """Fetch the document at `endpoint`, authenticating an https_spiffe server with `bundles`.

    The operator configured the address, so private addresses are permitted. Link-local ones are not.

    Raises: `FetchFailed`.
    """
    refusals: list[str] = []
    tls = endpoint.authorities
    if endpoint.spiffe_id is not None:
        tls = _spiffe_context(endpoint.spiffe_id, bundles.get(endpoint.spiffe_id.trust_domain.name), refusals)
    client = HttpClient(AddressRules(allow_private=True), tls=tls)
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            return (await client.get(endpoint.url)).body
    except TimeoutError:
        raise FetchFailed(FetchOutcome.TIMEOUT, f"no complete response within {FETCH_SECONDS:g} s") from None
    except FetchFailed as error:
        if not refusals:
            raise
        raise FetchFailed(FetchOutcome.TLS, refusals[-1]) from error
    finally:
        await client.close()


def _spiffe_context(expected: SpiffeId, authorities: Authorities | None, refusals: list[str]) -> ssl.SSLContext:
    """Create a TLS context that accepts only the server `expected`.

    The handshake appends to `refusals` why it refused a certificate. Raises `FetchFailed` without a bundle.
    """
    if authorities is None or not authorities.anchors:
        domain = expected.trust_domain.name
        raise FetchFailed(FetchOutcome.TLS, f"there is no bundle of `{domain}` yet to authenticate the server with")

    class CheckedConnection(ssl.SSLObject):
        """Fails the handshake unless the verified certificate names the expected server."""

        def do_handshake(self) -> None:
            super().do_handshake()
            try:
                _check_server(self.getpeercert(binary_form=True), expected)
            except Refused as error:
                refusals.append(f"the server's certificate: {error.detail}")
                raise ssl.SSLError("not the expected server") from None

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # SPIFFE Federation 5.2.2: the SPIFFE ID replaces the host name
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the bundle's authorities need not be self-signed
    context.load_verify_locations(cadata=b"".join(ca.public_bytes(Encoding.DER) for ca in authorities.anchors))
    context.sslobject_class = CheckedConnection
    return context


def _check_server(presented: bytes | None, expected: SpiffeId) -> None:
    """Check that the certificate `presented` (DER) is the X.509-SVID of `expected`. Raises `Refused`."""
    try:
        leaf = x509.load_der_x509_certificate(presented or b"")
        presented_id = svid_id(leaf)
        authority = is_authority(leaf)
    except CERTIFICATE_ERRORS:
        raise Refused(_REASON, "can't be read") from None
    if presented_id != expected or authority:
        raise Refused(_REASON, "another SPIFFE ID than the endpoint's")


class BundleEndpointRefresher:
    """Keeps one endpoint's bundle in the store current. The last good bundle stays until a newer one arrives.

    `on_fetch` is called with the host and the outcome of each fetch.
    """

    def __init__(
        self,
        endpoint: BundleEndpoint,
        store: BundleStore,
        *,
        timing: Timing = ENDPOINT_TIMING,
        fetch: Fetch = fetch_bundle,
        on_fetch: FetchObserver = lambda _host, _outcome: None,
    ) -> None:
        self._endpoint = endpoint
        self._store = store
        self._timing = timing
        self._fetch = fetch
        self._on_fetch = on_fetch
        self._digest = b""
        self._sequence: int | None = None
        self.tried = asyncio.Event()
        """Set after the first attempt."""

    def seed(self, bundle: Bundle) -> None:
        """Use a bundle that the operator configured until the endpoint provides one."""
        self._sequence = bundle.sequence
        self._store.put(BundleSource.ENDPOINT, bundle.authorities)

    async def run(self) -> None:
        """Fetch on schedule until cancelled."""
        loop = asyncio.get_running_loop()
        schedule = Schedule(self._timing, loop.time(), _random.uniform)
        while True:
            await asyncio.sleep(max(0.0, schedule.next_at - loop.time()))
            try:
                bundle, digest = await self._load()
                self._put_in_force(bundle, digest)
            except FetchFailed as error:
                schedule.failed(loop.time())
                self._report_failure(error, schedule.next_at - loop.time())
            else:
                schedule.succeeded(loop.time(), bundle.refresh_hint)
                self._on_fetch(self._host, FetchOutcome.TAKEN)
            self.tried.set()

    @property
    def _host(self) -> str:
        return self._endpoint.url.partition("://")[2].partition("/")[0]

    async def _load(self) -> tuple[Bundle, bytes]:
        try:
            content = await self._fetch(self._endpoint, self._store.slot.current)
            bundle, faults = await asyncio.to_thread(read_spiffe_text, self._endpoint.trust_domain, content)
        except FetchFailed:
            raise
        except Exception as error:
            _LOG.exception("fetching a trust bundle failed")
            raise FetchFailed(FetchOutcome.FAILED, "internal error") from error
        if faults:
            raise FetchFailed(FetchOutcome.WRONG_CONTENT, "; ".join(fault.message for fault in faults[:3]))
        return bundle, hashlib.sha256(content).digest()

    def _put_in_force(self, bundle: Bundle, digest: bytes) -> None:
        """Store the bundle unless it is already in force. Raises `FetchFailed` if it is older than the current one."""
        if digest == self._digest:
            return
        if bundle.sequence is not None and self._sequence is not None and bundle.sequence < self._sequence:
            raise FetchFailed(FetchOutcome.WRONG_CONTENT, "`spiffe_sequence` is lower than that of the bundle in force")
        self._digest, self._sequence = digest, bundle.sequence
        self._store.put(BundleSource.ENDPOINT, bundle.authorities)
        count = len(bundle.authorities.anchors)
        details = {"trust_domain": self._endpoint.trust_domain.name, "authorities": count}
        if count:
            _LOG.info("trust bundle taken", extra=details)
        else:
            _LOG.warning("the trust domain has withdrawn its X.509 authorities", extra=details)

    def _report_failure(self, error: FetchFailed, wait: float) -> None:
        self._on_fetch(self._host, error.outcome)
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
