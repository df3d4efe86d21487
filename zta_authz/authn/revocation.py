"""What is revoked before its time: tokens, keys, subjects, certificates and SPIFFE IDs, from RevocationList documents.

Asked on every call, after whatever a cache knows of a token or certificate: nothing that is kept can outlive its
revocation. What carries no time of issue counts as issued before any time, because nobody can tell.
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
    """When one revocation counts, and what the decision log is told."""

    before: float
    effective_from: float
    says: str


@dataclass(frozen=True, slots=True)
class Mark:
    """What a certificate is revoked by: its serial number in decimal and its SHA-256 in hex.

    `fingerprints` has the SHA-256 of every spelling of the certificate: its holder can turn one into another.
    """

    serial: str
    fingerprints: tuple[str, ...]

    @classmethod
    def of(cls, certificate: Certificate) -> Mark:
        """The certificate's."""
        return cls(str(certificate.serial_number), fingerprints(certificate))


class Revocations:
    """Every entry of every list, found by what it names.

    `of_tokens`, `of_peers` and `of_certificates` (by serial number or SHA-256) say whether there are any such.
    """

    __slots__ = ("_entries", "_prefixes", "of_certificates", "of_peers", "of_tokens")

    def __init__(self, lists: Iterable[RevocationList] = ()) -> None:
        self._entries: dict[tuple[Revoked, str, str], tuple[_Entry, ...]] = {}
        for each in lists:
            for entry in each.entries:
                key = (entry.what, entry.issuer, entry.value)
                comment = f": {entry.comment}" if entry.comment else ""
                says = f"{entry.what} revoked by `{each.namespace}/{each.name}`{comment}"
                found = _Entry(entry.before, entry.effective_from, says)
                self._entries[key] = (*self._entries.get(key, ()), found)
        kinds = {what for what, _, _ in self._entries}
        self.of_tokens = not kinds.isdisjoint(_OF_TOKENS)
        self.of_peers = not kinds.isdisjoint(_OF_PEERS)
        self.of_certificates = not kinds.isdisjoint(_OF_CERTIFICATES)
        self._prefixes = [key for key in self._entries if key[0] is Revoked.SPIFFE_PREFIX]

    def check_token(self, authority: str, token: VerifiedToken, now: float) -> None:
        """Raises `Refused` where `token`, its key or its subject is revoked at `now`; `authority` vouches for it."""
        kids: tuple[str, ...] = (token.key.kid,)
        if token.kid != token.key.kid:  # Istio's reading tries keys without `kid` for a token that names one
            kids = (token.key.kid, token.kid)
        self.check_claims(authority, token.subject, token.token_id, token.issued_at, now, kids)

    def check_claims(
        self, authority: str, subject: str, token_id: str, issued: float | None, now: float, kids: tuple[str, ...] = ()
    ) -> None:
        """As `check_token`, for a token of which only these claims are known, and the names of its key."""
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

    def says_of_keys(self, authority: str) -> bool:
        """Whether keys of `authority` are revoked."""
        return any(what is Revoked.KEY and issuer == authority for what, issuer, _ in self._entries)

    def says_of_earlier(self, spiffe_id: str) -> bool:
        """Whether some of what was issued to `spiffe_id` is revoked, by the time when it was issued."""
        keys = [(Revoked.SPIFFE_ID, "", spiffe_id), *(key for key in self._prefixes if spiffe_id.startswith(key[2]))]
        return any(entry.before < float("inf") for key in keys for entry in self._entries.get(key, ()))

    def check_peer(self, names: Sequence[str], marks: Sequence[Mark], issued: float | None, now: float) -> None:
        """Raises `Refused` where one of the peer's `names`, or a certificate of its chain, is revoked at `now`.

        `issued` is when the leaf's validity began, None without a certificate.
        """
        for mark in marks if self.of_certificates else ():
            self._refuse((Revoked.SERIAL, "", mark.serial), None, now, Reason.PEER_REVOKED)
            for fingerprint in mark.fingerprints:
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
                raise Refused(reason, entry.says)


NOTHING_REVOKED: Final = Revocations()


class RevocationSlot:
    """Where the revocations in force stand, for what outlives a reload of them. Its one reference is replaced."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current: Revocations | RevocationSlot = NOTHING_REVOKED

    @property
    def of_peers(self) -> bool:
        """Whether any revocation names peers."""
        return self.current.of_peers

    @property
    def of_certificates(self) -> bool:
        """Whether any revocation names certificates."""
        return self.current.of_certificates

    def check_peer(self, names: Sequence[str], marks: Sequence[Mark], issued: float | None, now: float) -> None:
        """As `Revocations.check_peer`, by those in force now."""
        self.current.check_peer(names, marks, issued, now)
