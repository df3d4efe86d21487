"""Verify the mTLS peer: a certificate, or the proxy's word, becomes a `Peer` or a reason for a refusal.

The result of reading and verifying a certificate is kept for as long as the bundles that it was verified with are in
force. Its validity at `now` and its revocation are checked on every call. Refusals are kept apart, so that they push
out no verified peer.
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
    Window,
    read_presented,
)
from zta_authz.authn.chain import find_path
from zta_authz.authn.names import envoy_names, subject_name, uri_names
from zta_authz.authn.revocation import NOTHING_REVOKED, Mark
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
    from zta_authz.authn.chain import Path
    from zta_authz.authn.revocation import Revocations, RevocationSlot
    from zta_authz.model.options import Options
    from zta_authz.model.request import Headers

MAX_CACHED_PEERS: Final = 4096
MAX_CACHED_BYTES: Final = 8 * 1024 * 1024
"""Text of the evidence behind verified peers, in all; a URL-encoded certificate has 1 to 2 KiB."""
MAX_CACHED_REFUSALS: Final = 1024
XFCC: Final = "x-forwarded-client-cert"

_XFCC_CHAIN = re.compile(r'(?:^|[;,])\s*chain="?([^";,]*)"?', re.IGNORECASE)
_ALWAYS: Final = Window(float("-inf"), float("inf"))
_TIMELY: Final = frozenset((Reason.PEER_CERTIFICATE_EXPIRED, Reason.PEER_CERTIFICATE_NOT_YET_VALID))


@dataclass(frozen=True, slots=True)
class _Verified:
    """The peer behind one piece of evidence. It counts only with the `bundles` that it was verified with.

    `peer` is None where nothing that may be believed names one. `leaf` and `path` are the validity of the leaf and of
    the whole path. `marks` identify the leaf and what is above it in revocation lists, None where they were not read;
    `issued` is when the leaf's validity began. `mismatch` says how the proxy's word differs from the certificate.
    """

    bundles: Bundles
    peer: Peer | None
    leaf: Window = _ALWAYS
    path: Window = _ALWAYS
    marks: tuple[Mark, ...] | None = None
    issued: float | None = None
    mismatch: str = ""

    def holds(self, bundles: Bundles, now: float) -> bool:
        """Whether it counts at `now` with these bundles."""
        return self.bundles is bundles and self.path.not_before <= now <= self.path.not_after


_Key = Evidence | tuple[Evidence, str]
"""Evidence and, where it may hold certificates of the path, `Chain` of x-forwarded-client-cert."""


class PeerVerifier:
    """Verifies peers against the bundles in `slot` as `options` say."""

    def __init__(
        self, slot: BundleSlot, options: Options, revocations: Revocations | RevocationSlot = NOTHING_REVOKED
    ) -> None:
        self._slot = slot
        self.revocations = revocations
        self._strict = options.strict
        self._check = options.verify_certificate
        self._believes_proxy = options.trust_proxy or not options.strict
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
    def look_ups(self) -> tuple[int, int]:
        """Certificates whose verification was cached, and those for which it was not."""
        return self._accepted.hits, self._accepted.misses

    def verify(self, evidence: Evidence, headers: Headers, now: float) -> Peer | None:
        """The peer, or None where nothing that may be believed names one. Raises `Refused`."""
        bundles = self._slot.current  # read once: a rotation during this call counts from the next one
        key = (evidence, _xfcc_chain(headers)) if self._reads_chain and evidence.certificate else evidence
        verified = self._accepted[key]
        if verified is not None and verified.holds(bundles, now):
            if evidence.certificate:
                self._accepted.hits += 1
        else:
            verified = self._examine(evidence, key, verified, bundles, now)
        if verified.mismatch:
            raise RefusedCaller(Refused(Reason.PEER_SAN_MISMATCH, verified.mismatch), peer=verified.peer)
        if self.revocations.of_peers:
            self._check_revoked(evidence, key, verified, now)
        return verified.peer

    def _check_revoked(self, evidence: Evidence, key: _Key, verified: _Verified, now: float) -> None:
        """Raise `Refused` where the peer, or a certificate that it presents, is revoked at `now`."""
        peer, marks = verified.peer, verified.marks
        if marks is None and evidence.certificate and self.revocations.of_certificates:
            marks = _marks(evidence.certificate)
            self._keep(key, replace(verified, marks=marks))
        if marks is not None and not self._reads_certificates:  # it proves nothing, and must not be revoked even so
            self.revocations.check_peer((), marks, None, now)
            marks = None
        if peer is None:
            return
        try:
            self.revocations.check_peer(peer.names, marks or (), verified.issued, now)
        except Refused as refused:
            raise RefusedCaller(refused, peer=peer) from None

    def _keep(self, key: _Key, verified: _Verified) -> None:
        evidence, chain = key if isinstance(key, tuple) else (key, "")
        self._accepted.put(key, verified, len(evidence.certificate) + len(evidence.principal) + len(chain))

    def _examine(
        self, evidence: Evidence, key: _Key, known: _Verified | None, bundles: Bundles, now: float
    ) -> _Verified:
        """Read and verify evidence that is not cached, or whose path does not hold at `now` with `bundles`."""
        if not evidence.certificate:
            if self._check is CertificateCheck.REQUIRED:
                raise Refused(Reason.PEER_CERTIFICATE_MISSING, "the proxy sent no certificate")
            verified = self._by_word(evidence.principal, bundles)
        elif self._reads_certificates:
            self._accepted.misses += 1
            verified = self._by_certificate(key, known, bundles, now)
        else:
            verified = self._by_word(evidence.principal, bundles)
        self._keep(key, verified)
        return verified

    def _by_word(self, principal: str, bundles: Bundles) -> _Verified:
        if not principal or not self._believes_proxy:
            return _Verified(bundles, None)
        spiffe_id = workload_id(principal) if self._strict else _first_id((principal,))
        return _Verified(bundles, Peer((principal,), spiffe_id, PeerTrust.PROXY))

    def _by_certificate(self, key: _Key, known: _Verified | None, bundles: Bundles, now: float) -> _Verified:
        if known is not None:
            known.leaf.check(now, "the leaf")  # the leaf is still valid: another path may hold
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
            if error.reason not in _TIMELY:
                self._refused.put(digest, (bundles, error.reason, error.detail))
            raise

    def _read(self, evidence: Evidence, chain: str, bundles: Bundles, now: float) -> _Verified:
        leaf, *rest = read_presented(evidence.certificate)
        if not self._verifies:
            peer = Peer(_sound(envoy_names(leaf)), _first_id(uri_names(leaf)), PeerTrust.PROXY)
            marks = tuple(map(Mark.of, (leaf, *rest)))
            return _Verified(bundles, peer, marks=marks, issued=Window.of(leaf).not_before)
        helpers = tuple(rest) if ChainSource.CERTIFICATE in self._chain_from else ()
        helpers += _xfcc_helpers(chain, leaf)
        fingerprint = leaf.fingerprint(hashes.SHA256())
        if self._strict:
            spiffe_id = svid_id(leaf)
            path = self._verify_chain(leaf, helpers, (spiffe_id,), bundles, now)
            peer = Peer((str(spiffe_id),), spiffe_id, PeerTrust.CERTIFICATE, fingerprint)
            return _verified(bundles, peer, path, frozenset(peer.names), evidence.principal)
        names = _sound(envoy_names(leaf))
        ids = claimed_ids(uri_names(leaf))
        path = self._verify_chain(leaf, helpers, ids, bundles, now)
        peer = Peer(names, ids[0] if ids else None, PeerTrust.CERTIFICATE, fingerprint)
        only_subject = names == (subject_name(leaf),)  # its spelling is the proxy's affair
        return _verified(bundles, peer, path, frozenset() if only_subject else frozenset(names), evidence.principal)

    def _verify_chain(
        self,
        leaf: Certificate,
        helpers: tuple[Certificate, ...],
        ids: tuple[SpiffeId, ...],
        bundles: Bundles,
        now: float,
    ) -> Path:
        """The path from `leaf` to the authorities of its own trust domain; of any, if it names none."""
        domains = {spiffe_id.trust_domain.name for spiffe_id in ids}
        if len(domains) > 1:
            raise Refused(Reason.PEER_SAN_COUNT, "SPIFFE IDs of several trust domains")
        trusted = [authorities for name in domains or bundles if (authorities := bundles.get(name)) is not None]
        if not any(authorities.anchors for authorities in trusted):
            have = [name for name, authorities in bundles.items() if authorities.anchors]
            detail = f"no authorities for {quoted(domains)}; there are some for {quoted(have)}"
            raise Refused(Reason.PEER_TRUST_DOMAIN_UNKNOWN, detail)
        check_leaf(leaf, needs_key_usage=self._strict)
        Window.of(leaf).check(now, "the leaf")
        if ChainSource.BUNDLE in self._chain_from:
            helpers += tuple(helper for authorities in trusted for helper in authorities.intermediates)
        return find_path(leaf, helpers, tuple(anchor for authorities in trusted for anchor in authorities.anchors), now)


def _verified(bundles: Bundles, peer: Peer, path: Path, names: frozenset[str], principal: str) -> _Verified:
    """`names` are what the proxy may call the peer, empty for any name; `principal` is what it does call it."""
    leaf = Window.of(path.certificates[0])
    marks = tuple(Mark.of(certificate) for certificate in path.certificates)
    mismatch = ""
    if principal and names and principal not in names:
        mismatch = f"the proxy says {quoted((principal,))}, the certificate has {quoted(names)}"
    return _Verified(bundles, peer, leaf, path.window, marks, leaf.not_before, mismatch)


def _marks(text: str) -> tuple[Mark, ...]:
    """The marks of the presented certificates. Raises `Refused`."""
    try:
        return tuple(Mark.of(certificate) for certificate in read_presented(text))
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
    """`Chain` of the last element of x-forwarded-client-cert, which our own proxy set; "" without one."""
    value = headers.joined(XFCC)
    if value is None:
        return ""
    if len(value) > 2 * MAX_CERTIFICATE_TEXT:
        raise Refused(Reason.PEER_CHAIN_TOO_LONG, f"{XFCC} has more than {2 * MAX_CERTIFICATE_TEXT // 1024} KiB")
    chains = _XFCC_CHAIN.findall(value)
    return str(chains[-1]) if chains else ""


def _xfcc_helpers(chain: str, leaf: Certificate) -> tuple[Certificate, ...]:
    if not chain:
        return ()
    presented, *helpers = read_presented(chain)
    if presented != leaf:
        raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, f"{XFCC} is about another certificate")
    return tuple(helpers)


def _sound(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if none has a control character in it (a NUL may end a name for one reader and not the other).

    A name longer than any SPIFFE ID is refused too: rules search names, and a caller chooses their length.
    """
    if not all(name.isprintable() and len(name) <= MAX_SPIFFE_ID_BYTES for name in names):
        raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, "a name has characters that no name has")
    return names


def _first_id(names: tuple[str, ...]) -> SpiffeId | None:
    for name in names:
        try:
            return SpiffeId.parse(name)
        except ValueError:
            continue
    return None
