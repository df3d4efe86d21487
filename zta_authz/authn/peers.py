"""Verification of the mTLS peer, by its certificate or, if configured, by the proxy's name for it.

The result of a certificate's verification is cached while the bundles that verified it are in force. Validity times and
revocation are checked on every call. Refusals are cached separately, so that they never evict a verified peer.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes

from zta_authz.authn.certificates import (
    CERTIFICATE_ERRORS,
    MAX_CERTIFICATE_TEXT,
    ValidityPeriod,
    read_presented,
)
from zta_authz.authn.chain import find_path
from zta_authz.authn.names import certificate_names, envoy_names, subject_name, uri_names
from zta_authz.authn.revocation import NOTHING_REVOKED, CertificateIds
from zta_authz.authn.svid import check_leaf, claimed_ids, svid_id, workload_id
from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import Reason, Refused, quoted
from zta_authz.model.identity import Peer, PeerTrust, RefusedCaller
from zta_authz.model.options import CertificateCheck, ChainSource
from zta_authz.model.request import Evidence
from zta_authz.model.spiffe import MAX_SPIFFE_ID_BYTES, SpiffeId

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from zta_authz.authn.bundles import Bundles, BundleSlot
    from zta_authz.authn.chain import CertificationPath
    from zta_authz.authn.revocation import Revocations, RevocationSlot
    from zta_authz.model.options import Options
    from zta_authz.model.request import Headers

MAX_CACHED_PEERS: Final = 4096
MAX_CACHED_BYTES: Final = 8 * 1024 * 1024
"""The total length of the cached evidence; a URL-encoded certificate has 1 to 2 KiB."""
MAX_CACHED_REFUSALS: Final = 1024
XFCC: Final = "x-forwarded-client-cert"

_XFCC_CHAIN = re.compile(r'(?:^|[;,])\s*chain="?([^";,]*)"?', re.IGNORECASE)
_UNLIMITED: Final = ValidityPeriod(float("-inf"), float("inf"))
_TIME_REASONS: Final = frozenset((Reason.PEER_CERTIFICATE_EXPIRED, Reason.PEER_CERTIFICATE_NOT_YET_VALID))


@dataclass(frozen=True, slots=True)
class _Verified:
    """The result for one piece of evidence, only valid with the `bundles` that verified it.

    `peer` is None if no trusted source names one. `leaf` and `path` are the validity periods of the leaf and of the
    whole path. `certificate_ids` are for revocation, of the leaf and the certificates above it; None if not read.
    `issued` is the leaf's notBefore. `mismatch` describes how the proxy's name differs from the certificate.
    `unconcerned` is the version of the revocations in which none is about the peer and its certificates.
    """

    bundles: Bundles
    peer: Peer | None
    leaf: ValidityPeriod = _UNLIMITED
    path: ValidityPeriod = _UNLIMITED
    certificate_ids: tuple[CertificateIds, ...] | None = None
    issued: float | None = None
    mismatch: str = ""
    unconcerned: int = 0

    def is_valid(self, bundles: Bundles, now: float) -> bool:
        """Whether the result is valid at `now` with these bundles."""
        return self.bundles is bundles and self.path.not_before <= now <= self.path.not_after


_Key = Evidence | tuple[Evidence, str]
"""Evidence and, if it may contain certificates of the path, `Chain` of x-forwarded-client-cert."""


class PeerVerifier:
    """Verifies peers with the bundles in `slot`, as configured by `options`."""

    def __init__(
        self, slot: BundleSlot, options: Options, revocations: Revocations | RevocationSlot = NOTHING_REVOKED
    ) -> None:
        self._slot = slot
        self.revocations = revocations
        self._strict = options.strict
        self._check = options.verify_certificate
        self._trusts_proxy = options.trust_proxy or not options.strict
        self._chain_from = frozenset(options.chain_from)
        self._verifies = self._check is CertificateCheck.REQUIRED or (
            self._check is CertificateCheck.WHEN_PRESENT
            and (options.strict or options.bundles_from_elsewhere or bool(slot.documents))
        )
        self._reads_certificates = self._verifies or not options.strict
        self._reads_chain = self._verifies and ChainSource.XFCC in self._chain_from
        self._accepted: BoundedCache[_Key, _Verified] = BoundedCache(MAX_CACHED_PEERS, MAX_CACHED_BYTES)
        self._refused: BoundedCache[bytes, tuple[Bundles, Reason, str]] = BoundedCache(MAX_CACHED_REFUSALS)

    @property
    def cache_lookups(self) -> tuple[int, int]:
        """Hits and misses of the certificate cache."""
        return self._accepted.hits, self._accepted.misses

    def verify(self, evidence: Evidence, headers: Headers, now: float) -> Peer | None:
        """Verify the peer; None if no trusted source names one. Raises `Refused`."""
        bundles = self._slot.current  # read once: a rotation during this call applies from the next one on
        key = (evidence, _xfcc_chain(headers)) if self._reads_chain and evidence.certificate else evidence
        verified = self._accepted[key]
        if verified is not None and verified.is_valid(bundles, now):
            if evidence.certificate:
                self._accepted.hits += 1
        else:
            verified = self._verify_anew(evidence, key, verified, bundles, now)
        if verified.mismatch:
            raise RefusedCaller(Refused(Reason.PEER_SAN_MISMATCH, verified.mismatch), peer=verified.peer)
        if self.revocations.revokes_peers and verified.unconcerned != self.revocations.version:
            self._check_revoked(evidence, key, verified, now)
        return verified.peer

    def _check_revoked(self, evidence: Evidence, key: _Key, verified: _Verified, now: float) -> None:
        """Check that the peer and the certificates that it presents are not revoked at `now`. Raises `Refused`."""
        revocations = self.revocations
        version = revocations.version  # first: a revocation that comes meanwhile begins another version
        peer, certificate_ids = verified.peer, verified.certificate_ids
        if certificate_ids is None and evidence.certificate and revocations.revokes_certificates:
            certificate_ids = _certificate_ids(evidence.certificate)
        names, presented = () if peer is None else peer.names, certificate_ids or ()
        if not revocations.concerns_peer(names, presented):
            self._cache(key, replace(verified, certificate_ids=certificate_ids, unconcerned=version))
            return
        if certificate_ids is not verified.certificate_ids:
            self._cache(key, replace(verified, certificate_ids=certificate_ids))
        if not self._reads_certificates:  # not verified, but they must not be revoked either
            revocations.check_peer((), presented, None, now)
            presented = ()
        if peer is None:
            return
        try:
            revocations.check_peer(names, presented, verified.issued, now)
        except Refused as refused:
            raise RefusedCaller(refused, peer=peer) from None

    def _cache(self, key: _Key, verified: _Verified) -> None:
        evidence, chain = key if isinstance(key, tuple) else (key, "")
        self._accepted.put(key, verified, len(evidence.certificate) + len(evidence.principal) + len(chain))

    def _verify_anew(
        self, evidence: Evidence, key: _Key, cached: _Verified | None, bundles: Bundles, now: float
    ) -> _Verified:
        """Verify evidence that is not cached, or whose path is not valid at `now` with `bundles`."""
        if not evidence.certificate:
            if self._check is CertificateCheck.REQUIRED:
                raise Refused(Reason.PEER_CERTIFICATE_MISSING, "the proxy sent no certificate")
            verified = self._from_proxy_name(evidence.principal, bundles)
        elif self._reads_certificates:
            self._accepted.misses += 1
            verified = self._from_certificate(key, cached, bundles, now)
        else:
            verified = self._from_proxy_name(evidence.principal, bundles)
        self._cache(key, verified)
        return verified

    def _from_proxy_name(self, principal: str, bundles: Bundles) -> _Verified:
        if not principal or not self._trusts_proxy:
            return _Verified(bundles, None)
        spiffe_id = workload_id(principal) if self._strict else _first_id((principal,))
        return _Verified(bundles, Peer((principal,), spiffe_id, PeerTrust.PROXY))

    def _from_certificate(self, key: _Key, cached: _Verified | None, bundles: Bundles, now: float) -> _Verified:
        if cached is not None:
            cached.leaf.check(now, "the leaf")  # the leaf is still valid: another path may be valid too
            self._accepted.discard(key)
        evidence, chain = key if isinstance(key, tuple) else (key, "")
        digest = _digest(evidence.certificate, chain)
        refused = self._refused[digest]
        if refused is not None and refused[0] is bundles:
            raise Refused(*refused[1:])
        try:
            return self._read(evidence, chain, bundles, now)
        except CERTIFICATE_ERRORS:
            error = Refused(Reason.PEER_CERTIFICATE_MALFORMED, "the leaf can't be read")
            self._refused.put(digest, (bundles, error.reason, error.detail))
            raise error from None
        except Refused as error:
            if error.reason not in _TIME_REASONS:
                self._refused.put(digest, (bundles, error.reason, error.detail))
            raise

    def _read(self, evidence: Evidence, chain: str, bundles: Bundles, now: float) -> _Verified:
        leaf, *rest = read_presented(evidence.certificate)
        if not self._verifies:
            peer = Peer(_checked_names(envoy_names(leaf)), _first_id(uri_names(leaf)), PeerTrust.PROXY)
            certificate_ids = tuple(map(CertificateIds.of, (leaf, *rest)))
            return _Verified(bundles, peer, certificate_ids=certificate_ids, issued=ValidityPeriod.of(leaf).not_before)
        intermediates = tuple(rest) if ChainSource.CERTIFICATE in self._chain_from else ()
        intermediates += _xfcc_intermediates(chain, leaf)
        fingerprint = leaf.fingerprint(hashes.SHA256())
        if self._strict:
            spiffe_id = svid_id(leaf)
            path = self._verify_chain(leaf, intermediates, (spiffe_id,), bundles, now)
            peer = Peer((str(spiffe_id),), spiffe_id, PeerTrust.CERTIFICATE, fingerprint, certificate_names(leaf))
            return _verified(bundles, peer, path, frozenset(peer.names), evidence.principal)
        names = _checked_names(envoy_names(leaf))
        ids = claimed_ids(uri_names(leaf))
        path = self._verify_chain(leaf, intermediates, ids, bundles, now)
        peer = Peer(names, ids[0] if ids else None, PeerTrust.CERTIFICATE, fingerprint, certificate_names(leaf))
        only_subject = names == (subject_name(leaf),)  # the proxy may format a subject differently
        return _verified(bundles, peer, path, frozenset() if only_subject else frozenset(names), evidence.principal)

    def _verify_chain(
        self,
        leaf: Certificate,
        intermediates: tuple[Certificate, ...],
        ids: tuple[SpiffeId, ...],
        bundles: Bundles,
        now: float,
    ) -> CertificationPath:
        """Find the path from `leaf` to the authorities of its trust domain, or of any domain if it names none."""
        domains = {spiffe_id.trust_domain.name for spiffe_id in ids}
        if len(domains) > 1:
            raise Refused(Reason.PEER_SAN_COUNT, "SPIFFE IDs of several trust domains")
        trusted = [authorities for name in domains or bundles if (authorities := bundles.get(name)) is not None]
        if not any(authorities.anchors for authorities in trusted):
            known_domains = [name for name, authorities in bundles.items() if authorities.anchors]
            detail = f"no authorities for {quoted(domains)}; there are some for {quoted(known_domains)}"
            raise Refused(Reason.PEER_TRUST_DOMAIN_UNKNOWN, detail)
        check_leaf(leaf, needs_key_usage=self._strict)
        ValidityPeriod.of(leaf).check(now, "the leaf")
        if ChainSource.BUNDLE in self._chain_from:
            intermediates += tuple(
                intermediate for authorities in trusted for intermediate in authorities.intermediates
            )
        return find_path(
            leaf, intermediates, tuple(anchor for authorities in trusted for anchor in authorities.anchors), now
        )


def _verified(
    bundles: Bundles, peer: Peer, path: CertificationPath, names: frozenset[str], principal: str
) -> _Verified:
    """Build the result. `names` are the allowed names for the peer, empty for any; `principal` is the proxy's name."""
    leaf = ValidityPeriod.of(path.certificates[0])
    certificate_ids = tuple(CertificateIds.of(certificate) for certificate in path.certificates)
    mismatch = ""
    if principal and names and principal not in names:
        mismatch = f"the proxy names {quoted((principal,))}, the certificate has {quoted(names)}"
    return _Verified(bundles, peer, leaf, path.validity, certificate_ids, leaf.not_before, mismatch)


def _certificate_ids(text: str) -> tuple[CertificateIds, ...]:
    """Return the IDs of the presented certificates. Raises `Refused`."""
    try:
        return tuple(CertificateIds.of(certificate) for certificate in read_presented(text))
    except CERTIFICATE_ERRORS:
        raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, "the certificate can't be read") from None


def _digest(text: str, chain: str) -> bytes:
    if len(text) > MAX_CERTIFICATE_TEXT or len(chain) > MAX_CERTIFICATE_TEXT:
        raise Refused(Reason.PEER_CHAIN_TOO_LONG, f"more than {MAX_CERTIFICATE_TEXT // 1024} KiB")
    try:
        return hashlib.sha256((f"{text}\n{chain}" if chain else text).encode("ascii")).digest()
    except UnicodeEncodeError:
        raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, "not URL-encoded PEM") from None


def _xfcc_chain(headers: Headers) -> str:
    """`Chain` of the last element of x-forwarded-client-cert, which our proxy set; "" if absent."""
    value = headers.joined(XFCC)
    if value is None:
        return ""
    if len(value) > 2 * MAX_CERTIFICATE_TEXT:
        raise Refused(Reason.PEER_CHAIN_TOO_LONG, f"{XFCC} has more than {2 * MAX_CERTIFICATE_TEXT // 1024} KiB")
    chains = _XFCC_CHAIN.findall(value)
    return str(chains[-1]) if chains else ""


def _xfcc_intermediates(chain: str, leaf: Certificate) -> tuple[Certificate, ...]:
    if not chain:
        return ()
    presented, *intermediates = read_presented(chain)
    if presented != leaf:
        raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, f"{XFCC} has the chain of another certificate")
    return tuple(intermediates)


def _checked_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names. Raises `Refused` for one with a control character, because a NUL may end a name for one parser.

    A name longer than any SPIFFE ID is refused too, because rules search names and a caller chooses their length.
    """
    if not all(name.isprintable() and len(name) <= MAX_SPIFFE_ID_BYTES for name in names):
        raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, "a name has a control character or is too long")
    return names


def _first_id(names: tuple[str, ...]) -> SpiffeId | None:
    for name in names:
        try:
            return SpiffeId.parse(name)
        except ValueError:
            continue
    return None
