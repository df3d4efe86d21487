"""Mutual TLS of TCP listeners with our own X.509-SVID from the Workload API, which is never written to disk.

A handshake uses the SVID and bundles that are current at that moment. Existing connections keep theirs, so a rotation
breaks none of them. TLS alone accepts a certificate from any configured authority for any name, so each call is also
checked: the caller's certificate against the current bundle of its own trust domain and the current time.
"""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from zta_authz.authn.peers import PeerVerifier
from zta_authz.authn.revocation import RevocationSlot
from zta_authz.errors import Refused
from zta_authz.model.options import CertificateCheck, ChainSource, Options
from zta_authz.model.request import NO_HEADERS, Evidence
from zta_authz.servers.allowed_callers import AllowedCallers
from zta_authz.servers.listeners import MAX_CONNECTION_AGE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zta_authz.authn.bundles import Bundles, BundleSlot
    from zta_authz.authn.own_svid import OwnSvid, SvidSlot
    from zta_authz.ports import Clock

_TLS_1_3 = b"TLSv1.3"
_CALLER_OPTIONS = Options(
    verify_certificate=CertificateCheck.REQUIRED, chain_from=(ChainSource.CERTIFICATE, ChainSource.BUNDLE)
)


class SvidTls:
    """Server credentials from an SVID and trust bundles, with the list of allowed callers."""

    def __init__(
        self,
        svid: SvidSlot,
        bundles: BundleSlot,
        allowed: Iterable[str] | AllowedCallers,
        clock: Clock = time.time,
        *,
        max_connection_age: float = MAX_CONNECTION_AGE_SECONDS,
        revocations: RevocationSlot | None = None,
    ) -> None:
        """Neither `svid` nor `bundles` has to exist yet; until both do, every handshake fails."""
        self.max_connection_age = max_connection_age
        self.revocations = revocations or RevocationSlot()
        self._svid = svid
        self._bundles = bundles
        self._clock = clock
        self._allowed = AllowedCallers.of(allowed)
        self._domains = self._allowed.trust_domains
        self._callers = PeerVerifier(bundles, _CALLER_OPTIONS, self.revocations)

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    @property
    def bundles(self) -> Bundles:
        """The current bundles; a new object whenever any bundle changes."""
        return self._bundles.current

    @property
    def svid(self) -> OwnSvid | None:
        """Our SVID, or None while we have no unexpired one."""
        svid = self._svid.current
        return None if svid is None or svid.validity.not_after < self._clock() else svid

    def with_allowed(self, allowed: Iterable[str] | AllowedCallers) -> SvidTls:
        """Return the same SVID with another list of callers."""
        age, revocations = self.max_connection_age, self.revocations
        return SvidTls(self._svid, self._bundles, allowed, self._clock, max_connection_age=age, revocations=revocations)

    def credentials(self) -> Any:
        """Return gRPC credentials that require a client certificate and follow the SVID and the bundles."""
        placeholder = _unusable_configuration(self._clock())
        made_from: tuple[OwnSvid | None, Bundles | None] = (None, None)

        def refresh() -> Any:
            """Return the configuration for new handshakes, or None if unchanged.

            gRPC calls this for each handshake, in its own threads.
            """
            nonlocal made_from
            svid, bundles = now = (self.svid, self.bundles)
            if svid is made_from[0] and bundles is made_from[1]:
                return None
            authorities = self.authorities_of(bundles)
            usable = svid is not None and authorities
            configuration = (
                _configure(svid.key_pem, svid.chain_pem, authorities) if svid is not None and usable else placeholder
            )
            made_from = now
            return configuration

        return grpc.dynamic_ssl_server_credentials(placeholder, refresh, require_client_authentication=True)

    def authorities_of(self, bundles: Bundles) -> bytes:
        """Return the X.509 authorities of the allowed callers' trust domains, in PEM."""
        allowed = (bundles[name] for name in self._domains if name in bundles)
        return b"".join(anchor.public_bytes(Encoding.PEM) for bundle in allowed for anchor in bundle.anchors)

    def caller(self, connection: Mapping[str, Any]) -> str | None:
        """Return the SPIFFE ID of a gRPC connection's peer, or None unless it uses TLS 1.3 and may call now."""
        if tuple(connection.get("ssl_tls_version", ())) != (_TLS_1_3,):
            return None
        leaf, intermediates = (b"".join(connection.get(name, ())) for name in ("x509_pem_cert", "x509_pem_cert_chain"))
        try:
            return self.allowed_caller(
                (leaf + intermediates).decode("ascii"), self._clock()
            )  # gRPC's chain starts above the leaf
        except UnicodeDecodeError:
            return None

    def allowed_caller(self, certificate: str, now: float) -> str | None:
        """Return the SPIFFE ID of a certificate in PEM, or None unless the current bundles let it call at `now`.

        The leaf comes first, then the intermediates that the caller presented.
        """
        try:
            peer = self._callers.verify(Evidence(certificate=certificate), NO_HEADERS, now)
        except Refused:
            return None
        if peer is None or len(peer.names) != 1 or peer.names[0] not in self._allowed:
            return None
        return peer.names[0]


def _configure(key: bytes, chain: bytes, authorities: bytes) -> Any:
    return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)


def _unusable_configuration(now: float) -> Any:
    """Return a configuration with which no handshake succeeds.

    Its authority has signed nothing, and its key is discarded. gRPC needs a configuration to listen at all, and
    listening before the first SVID arrives makes the address known.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "no SVID yet")])
    start = datetime.datetime.fromtimestamp(now, datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(minutes=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _configure(private, certificate, certificate)
