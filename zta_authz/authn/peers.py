"""The mTLS peer: a presented certificate, or the proxy's word, to a verified `Peer` or a reason why not.

The outcome of reading and verifying a certificate is kept by the digest of its text, for as long as the bundles that it
was verified with are in force; its validity at `now` and its agreement with what the proxy says are judged on every
call. Refusals are kept apart, so that they crowd out nobody.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes

from zta_authz.authn.cache import BoundedCache
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
from zta_authz.errors import Reason, Refused, quoted
from zta_authz.model.identity import Peer, PeerTrust, RefusedCaller
from zta_authz.model.options import CertificateCheck, ChainSource
from zta_authz.model.spiffe import MAX_SPIFFE_ID_BYTES, SpiffeId

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from zta_authz.authn.bundles import Bundles, BundleSlot
    from zta_authz.authn.chain import Path
    from zta_authz.authn.revocation import Revocations, RevocationSlot
    from zta_authz.model.options import Options
    from zta_authz.model.request import Evidence, Headers

MAX_CACHED_PEERS: Final = 4096
MAX_CACHED_REFUSALS: Final = 1024
MAX_WARM: Final = 1024
MAX_WARM_BYTES: Final = 2 * 1024 * 1024
"""Peers that are known by all that the proxy says of them, digests aside: those of connections in use."""
XFCC: Final = "x-forwarded-client-cert"

_XFCC_CHAIN = re.compile(r'(?:^|[;,])\s*chain="?([^";,]*)"?', re.IGNORECASE)
_ALWAYS: Final = Window(float("-inf"), float("inf"))
_TIMELY: Final = frozenset((Reason.PEER_CERTIFICATE_EXPIRED, Reason.PEER_CERTIFICATE_NOT_YET_VALID))


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one presented certificate. `leaf` and `path` are windows; `principals` what a proxy may say.

    `bundles` are those that it was verified with: it counts for no others.
    `marks` are of the leaf and what is above it; `issued` is when the leaf's validity began.
    """

    bundles: Bundles
    peer: Peer
    leaf: Window
    path: Window
    principals: frozenset[str]
    marks: tuple[Mark, ...]
    issued: float

    def holds(self, bundles: Bundles, now: float) -> bool:
        """Whether it counts at `now` with these bundles."""
        return self.bundles is bundles and self.path.not_before <= now <= self.path.not_after


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
        self._looks_at_certificate = self._verifies or not options.strict
        self._known: BoundedCache[bytes, _Known] = BoundedCache(MAX_CACHED_PEERS)
        self._warm: BoundedCache[Evidence, _Known] = BoundedCache(MAX_WARM, MAX_WARM_BYTES)
        self._marks: BoundedCache[str, tuple[Mark, ...]] = BoundedCache(MAX_WARM, MAX_WARM_BYTES)
        self._told: BoundedCache[str, Peer] = BoundedCache(MAX_WARM, MAX_WARM_BYTES)
        self._chains = self._verifies and ChainSource.XFCC in self._chain_from
        self._refused: BoundedCache[bytes, tuple[Bundles, Reason, str]] = BoundedCache(MAX_CACHED_REFUSALS)

    @property
    def look_ups(self) -> tuple[int, int]:
        """Certificates that were known, and those that were not."""
        return self._known.hits, self._known.misses

    def verify(self, evidence: Evidence, headers: Headers, now: float) -> Peer | None:
        """The peer, or None where nothing that may be believed says who it is. Raises `Refused`."""
        if not evidence.certificate:
            if self._check is CertificateCheck.REQUIRED:
                raise Refused(Reason.PEER_CERTIFICATE_MISSING, "the proxy sent no certificate")
            return self._by_word(evidence.principal, now)
        if not self._looks_at_certificate:
            if self.revocations.of_certificates:
                self._check_unread(evidence.certificate, now)
            return self._by_word(evidence.principal, now)
        return self._by_certificate(evidence, headers, now)

    def _by_word(self, principal: str, now: float) -> Peer | None:
        if not principal or not self._believes_proxy:
            return None
        peer = self._told.get(principal)
        if peer is None:
            spiffe_id = workload_id(principal) if self._strict else _first_id((principal,))
            peer = Peer((principal,), spiffe_id, PeerTrust.PROXY)
            self._told.put(principal, peer, len(principal))
        if self.revocations.of_peers:
            self._check_revoked(peer, (), None, now)
        return peer

    def _check_unread(self, text: str, now: float) -> None:
        """Raises `Refused` where a certificate that is shown is revoked, though it is believed in nothing else."""
        marks = self._marks.get(text)
        if marks is None:
            try:
                marks = tuple(Mark.of(certificate) for certificate in read_presented(text))
            except CERTIFICATE_ERRORS:
                raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, "the certificate can't be read") from None
            self._marks.put(text, marks, len(text))
        self.revocations.check_peer((), marks, None, now)

    def _by_certificate(self, evidence: Evidence, headers: Headers, now: float) -> Peer:
        bundles = self._slot.current  # read once: what follows is about these, whatever is put in force meanwhile
        known = self._warm.get(evidence) if not self._chains else None
        if known is not None and known.holds(bundles, now):
            self._known.hits += 1
        else:
            known = self._look_up(evidence, headers, bundles, now)
        if self.revocations.of_peers:
            self._check_revoked(known.peer, known.marks, known.issued, now)
        return known.peer

    def _check_revoked(self, peer: Peer, marks: tuple[Mark, ...], issued: float | None, now: float) -> None:
        try:
            self.revocations.check_peer(peer.names, marks, issued, now)
        except Refused as refused:
            raise RefusedCaller(refused, peer=peer) from None

    def _look_up(self, evidence: Evidence, headers: Headers, bundles: Bundles, now: float) -> _Known:
        """What is known of the certificate, and agrees with what the proxy says. Raises `Refused`."""
        text = evidence.certificate
        chain = _xfcc_chain(headers) if self._chains else ""
        digest = _digest(text, chain)
        known = self._known.get(digest)
        if known is None or not known.holds(bundles, now):
            known = self._examine(digest, text, chain, known, bundles, now)
        principal = evidence.principal
        if principal and known.principals and principal not in known.principals:
            detail = f"the proxy says {quoted((principal,))}, the certificate has {quoted(known.principals)}"
            raise RefusedCaller(Refused(Reason.PEER_SAN_MISMATCH, detail), peer=known.peer)
        if not self._chains:
            self._warm.put(evidence, known, len(text) + len(principal))
        return known

    def _examine(
        self, digest: bytes, text: str, chain: str, known: _Known | None, bundles: Bundles, now: float
    ) -> _Known:
        """Read and verify what is not known yet, or known by a path that does not hold at `now` or with `bundles`."""
        if known is not None:
            known.leaf.check(now, "the leaf")  # else another path may hold: look again
            self._known.discard(digest)
        refused = self._refused.get(digest)
        if refused is not None and refused[0] is bundles:
            raise Refused(*refused[1:])
        try:
            known = self._read(text, chain, bundles, now)
        except CERTIFICATE_ERRORS:
            error = Refused(Reason.PEER_CERTIFICATE_MALFORMED, "the leaf can't be read")
            self._refused.put(digest, (bundles, error.reason, error.detail))
            raise error from None
        except Refused as error:
            if error.reason not in _TIMELY:
                self._refused.put(digest, (bundles, error.reason, error.detail))
            raise
        self._known.put(digest, known)
        return known

    def _read(self, text: str, chain: str, bundles: Bundles, now: float) -> _Known:
        leaf, *rest = read_presented(text)
        if not self._verifies:
            told = Peer(_sound(envoy_names(leaf)), _first_id(uri_names(leaf)), PeerTrust.PROXY)
            marks = tuple(map(Mark.of, (leaf, *rest)))
            return _Known(bundles, told, _ALWAYS, _ALWAYS, frozenset(), marks, Window.of(leaf).not_before)
        helpers = tuple(rest) if ChainSource.CERTIFICATE in self._chain_from else ()
        helpers += _xfcc_helpers(chain, leaf)
        fingerprint = leaf.fingerprint(hashes.SHA256())
        if self._strict:
            spiffe_id = svid_id(leaf)
            path = self._verify_chain(leaf, helpers, (spiffe_id,), bundles, now)
            peer = Peer((str(spiffe_id),), spiffe_id, PeerTrust.CERTIFICATE, fingerprint)
            return _known(bundles, peer, path, frozenset(peer.names))
        names = _sound(envoy_names(leaf))
        ids = claimed_ids(uri_names(leaf))
        path = self._verify_chain(leaf, helpers, ids, bundles, now)
        peer = Peer(names, ids[0] if ids else None, PeerTrust.CERTIFICATE, fingerprint)
        only_subject = names == (subject_name(leaf),)  # its spelling is the proxy's affair
        return _known(bundles, peer, path, frozenset() if only_subject else frozenset(names))

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
        trusted = [found for name in domains or bundles if (found := bundles.get(name)) is not None]
        if not any(authorities.anchors for authorities in trusted):
            have = [name for name, found in bundles.items() if found.anchors]
            detail = f"no authorities for {quoted(domains)}; there are some for {quoted(have)}"
            raise Refused(Reason.PEER_TRUST_DOMAIN_UNKNOWN, detail)
        check_leaf(leaf, needs_key_usage=self._strict)
        Window.of(leaf).check(now, "the leaf")
        if ChainSource.BUNDLE in self._chain_from:
            helpers += tuple(helper for authorities in trusted for helper in authorities.intermediates)
        return find_path(leaf, helpers, tuple(anchor for each in trusted for anchor in each.anchors), now)


def _known(bundles: Bundles, peer: Peer, path: Path, principals: frozenset[str]) -> _Known:
    leaf = Window.of(path.certificates[0])
    marks = tuple(Mark.of(certificate) for certificate in path.certificates)
    return _Known(bundles, peer, leaf, path.window, principals, marks, leaf.not_before)


def _digest(text: str, chain: str) -> bytes:
    if len(text) > MAX_CERTIFICATE_TEXT or len(chain) > MAX_CERTIFICATE_TEXT:
        raise Refused(Reason.PEER_CHAIN_TOO_LONG, f"more than {MAX_CERTIFICATE_TEXT // 1024} KiB")
    try:
        return hashlib.sha256((f"{text}\n{chain}" if chain else text).encode("ascii")).digest()
    except UnicodeEncodeError:
        raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, "not URL-encoded PEM") from None


def _xfcc_chain(headers: Headers) -> str:
    """`Chain` of the last element of x-forwarded-client-cert, the one that our own proxy set; "" without one."""
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
