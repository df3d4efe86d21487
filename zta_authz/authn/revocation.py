"""Revoked tokens, keys, subjects, certificates and SPIFFE IDs, from RevocationList documents.

Revocations are checked on every call, also for cached tokens and certificates, so that no cached result outlives a
revocation. A credential without a time of issue counts as issued before any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.authn.fingerprints import fingerprints
from zta_authz.errors import Reason, Refused
from zta_authz.model.documents import Revoked
from zta_authz.model.spiffe import SCHEME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography.x509 import Certificate

    from zta_authz.authn.token import VerifiedToken
    from zta_authz.model.documents import RevocationList

_OF_TOKENS: Final = frozenset((Revoked.TOKEN, Revoked.KEY, Revoked.SUBJECT, Revoked.SPIFFE_ID, Revoked.SPIFFE_PREFIX))
_OF_CERTIFICATES: Final = frozenset((Revoked.SERIAL, Revoked.SHA256))
_OF_PEERS: Final = _OF_CERTIFICATES | {Revoked.SPIFFE_ID, Revoked.SPIFFE_PREFIX}


@dataclass(frozen=True, slots=True)
class _Entry:
    """When one revocation applies, and its `detail` for the decision log."""

    before: float
    effective_from: float
    detail: str


@dataclass(frozen=True, slots=True)
class CertificateIds:
    """The identifiers that revoke a certificate: its serial number in decimal, and SHA-256 fingerprints in hex.

    `fingerprints` covers every encoding of the certificate, because its holder can turn one into another.
    """

    serial: str
    fingerprints: tuple[str, ...]

    @classmethod
    def of(cls, certificate: Certificate) -> CertificateIds:
        """The identifiers of `certificate`."""
        return cls(str(certificate.serial_number), fingerprints(certificate))


class Revocations:
    """The entries of all lists, indexed by what they revoke.

    `revokes_tokens`, `revokes_peers` and `revokes_certificates` (by serial number or SHA-256) are true if any entry
    applies to these.
    """

    __slots__ = ("_entries", "_prefixes", "revokes_certificates", "revokes_peers", "revokes_tokens")

    def __init__(self, lists: Iterable[RevocationList] = ()) -> None:
        self._entries: dict[tuple[Revoked, str, str], tuple[_Entry, ...]] = {}
        for document in lists:
            for entry in document.entries:
                key = (entry.what, entry.issuer, entry.value)
                comment = f": {entry.comment}" if entry.comment else ""
                detail = f"{entry.what} revoked by `{document.namespace}/{document.name}`{comment}"
                compiled = _Entry(entry.before, entry.effective_from, detail)
                self._entries[key] = (*self._entries.get(key, ()), compiled)
        kinds = {what for what, _, _ in self._entries}
        self.revokes_tokens = not kinds.isdisjoint(_OF_TOKENS)
        self.revokes_peers = not kinds.isdisjoint(_OF_PEERS)
        self.revokes_certificates = not kinds.isdisjoint(_OF_CERTIFICATES)
        self._prefixes = [key for key in self._entries if key[0] is Revoked.SPIFFE_PREFIX]

    def check_token(self, authority: str, token: VerifiedToken, now: float) -> None:
        """Check that a token of issuer `authority`, its key and its subject are not revoked. Raises `Refused`."""
        kids: tuple[str, ...] = (token.key.kid,)
        if token.kid != token.key.kid:  # Istio semantics try keys without `kid` for a token that names one
            kids = (token.key.kid, token.kid)
        self.check_claims(authority, token.subject, token.token_id, token.issued_at, now, kids)

    def check_claims(
        self, authority: str, subject: str, token_id: str, issued: float | None, now: float, kids: tuple[str, ...] = ()
    ) -> None:
        """As `check_token`, for a token of which only these claims, and its possible key IDs, are known."""
        named = (
            (Revoked.TOKEN, authority, token_id),
            (Revoked.TOKEN, "", token_id),
            (Revoked.SUBJECT, authority, subject),
            *((Revoked.KEY, authority, kid) for kid in kids),
        )
        for key in named:
            self._refuse(key, issued, now, Reason.TOKEN_REVOKED)
        if subject.startswith(SCHEME):
            self._check_id(subject, issued, now, Reason.TOKEN_REVOKED)

    def revokes_keys_of(self, authority: str) -> bool:
        """Whether any key of `authority` is revoked."""
        return any(what is Revoked.KEY and issuer == authority for what, issuer, _ in self._entries)

    def revokes_earlier_credentials(self, spiffe_id: str) -> bool:
        """Whether credentials of `spiffe_id` are revoked by their time of issue."""
        keys = [(Revoked.SPIFFE_ID, "", spiffe_id), *(key for key in self._prefixes if spiffe_id.startswith(key[2]))]
        return any(entry.before < float("inf") for key in keys for entry in self._entries.get(key, ()))

    def check_peer(
        self, names: Sequence[str], certificate_ids: Sequence[CertificateIds], issued: float | None, now: float
    ) -> None:
        """Check that none of the peer's `names` and of its chain's certificates is revoked at `now`. Raises `Refused`.

        `issued` is the leaf's notBefore in seconds since the epoch, None without a certificate.
        """
        for ids in certificate_ids if self.revokes_certificates else ():
            self._refuse((Revoked.SERIAL, "", ids.serial), None, now, Reason.PEER_REVOKED)
            for fingerprint in ids.fingerprints:
                self._refuse((Revoked.SHA256, "", fingerprint), None, now, Reason.PEER_REVOKED)
        for name in names:
            if name.startswith(SCHEME):
                self._check_id(name, issued, now, Reason.PEER_REVOKED)

    def _check_id(self, spiffe_id: str, issued: float | None, now: float, reason: Reason) -> None:
        self._refuse((Revoked.SPIFFE_ID, "", spiffe_id), issued, now, reason)
        for key in self._prefixes:
            if spiffe_id.startswith(key[2]):
                self._refuse(key, issued, now, reason)

    def _refuse(self, key: tuple[Revoked, str, str], issued: float | None, now: float, reason: Reason) -> None:
        for entry in self._entries.get(key, ()):
            if now >= entry.effective_from and (issued is None or issued < entry.before):
                raise Refused(reason, entry.detail)


NOTHING_REVOKED: Final = Revocations()


class RevocationSlot:
    """Holds the revocations in force, for users that outlive a reload. A reload replaces the reference `current`."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current: Revocations | RevocationSlot = NOTHING_REVOKED

    @property
    def revokes_peers(self) -> bool:
        """Whether any revocation applies to peers."""
        return self.current.revokes_peers

    @property
    def revokes_certificates(self) -> bool:
        """Whether any revocation applies to certificates."""
        return self.current.revokes_certificates

    def check_peer(
        self, names: Sequence[str], certificate_ids: Sequence[CertificateIds], issued: float | None, now: float
    ) -> None:
        """As `Revocations.check_peer`, with the revocations in force now."""
        self.current.check_peer(names, certificate_ids, issued, now)
