"""Revoked tokens, keys, subjects, sessions, certificates, SPIFFE IDs and devices.

They come from RevocationList documents, and from the administrator while the service runs. They are checked on every
call, also for cached tokens and certificates, so that no cached result outlives a revocation. A credential without a
time of issue counts as issued before any time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from zta_authz.authn.fingerprints import fingerprints
from zta_authz.errors import Reason, Refused
from zta_authz.model.documents import Revoked
from zta_authz.model.spiffe import SCHEME

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from cryptography.x509 import Certificate

    from zta_authz.authn.token import VerifiedToken
    from zta_authz.model.documents import Revocation, RevocationList

_BY_CLAIM: Final = frozenset((Revoked.SESSION, Revoked.EMAIL, Revoked.ISSUER))
_OF_TOKENS: Final = _BY_CLAIM | {
    Revoked.TOKEN, Revoked.KEY, Revoked.SUBJECT, Revoked.SPIFFE_ID, Revoked.SPIFFE_PREFIX,
}  # fmt: skip
_OF_CERTIFICATES: Final = frozenset((Revoked.SERIAL, Revoked.SHA256))
_OF_PEERS: Final = _OF_CERTIFICATES | {Revoked.SPIFFE_ID, Revoked.SPIFFE_PREFIX}


_ASCII_LOWER: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_Key = tuple[Revoked, str, str]
_VERSIONS: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class _Entry:
    """When one revocation applies, and its `detail` for the decision log. `id` is that of the administrator, or ""."""

    before: float
    effective_from: float
    detail: str
    until: float = float("inf")
    id: str = ""


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


class DynamicRevocations:
    """The administrator's revocations by their ID. They outlive reloads of the policies.

    They are changed in place, in the thread that decides: a change is in force for the next decision.
    """

    __slots__ = ("_followers", "_keys", "entries", "kinds")

    def __init__(self) -> None:
        self.entries: dict[_Key, tuple[_Entry, ...]] = {}
        self.kinds: dict[Revoked, int] = {}
        """How many revocations of each kind there are."""
        self._keys: dict[str, _Key] = {}
        self._followers: WeakSet[Revocations] = WeakSet()

    def __len__(self) -> int:
        return len(self._keys)

    def follow(self, revocations: Revocations) -> None:
        """Keep `revocations` up to date from now on, as long as it exists."""
        self._followers.add(revocations)

    def put(self, revocation_id: str, revocation: Revocation, until: float = float("inf")) -> None:
        """Add a revocation, or replace the one of this ID. It ends at `until`, in seconds since the epoch."""
        self.remove(revocation_id)
        key = (revocation.what, revocation.issuer, revocation.value)
        comment = f": {revocation.comment}" if revocation.comment else ""
        detail = f"{revocation.what} revoked by the administrator ({revocation_id}){comment}"
        entry = _Entry(revocation.before, revocation.effective_from, detail, until, revocation_id)
        self.entries[key] = (*self.entries.get(key, ()), entry)
        self._keys[revocation_id] = key
        self._count(key[0], 1)

    def remove(self, revocation_id: str) -> None:
        """Remove a revocation, if it exists."""
        key = self._keys.pop(revocation_id, None)
        if key is None:
            return
        left = tuple(entry for entry in self.entries[key] if entry.id != revocation_id)
        if left:
            self.entries[key] = left
        else:
            del self.entries[key]
        self._count(key[0], -1)

    def clear(self, keep: Container[str] = ()) -> None:
        """Remove all revocations whose IDs are not in `keep`."""
        for revocation_id in [name for name in self._keys if name not in keep]:
            self.remove(revocation_id)

    def in_force(self, now: float) -> set[str]:
        """The IDs of the revocations that have not ended at `now`."""
        return {entry.id for entries in self.entries.values() for entry in entries if now < entry.until}

    def prefixes(self) -> list[_Key]:
        """The keys of all revoked SPIFFE ID prefixes."""
        if not self.kinds.get(Revoked.SPIFFE_PREFIX):
            return []
        return [key for key in self.entries if key[0] is Revoked.SPIFFE_PREFIX]

    def check_device(self, inventory: str, device_id: str, now: float) -> None:
        """Check that a device (`inventory` is `namespace/name`) is not revoked at `now`. Raises `Refused`."""
        for issuer in (inventory, ""):
            for entry in self.entries.get((Revoked.DEVICE, issuer, device_id), ()):
                if entry.effective_from <= now < entry.until:
                    raise Refused(Reason.DEVICE_REVOKED, entry.detail, entry.id)

    def _count(self, kind: Revoked, change: int) -> None:
        before = self.kinds.get(kind, 0)
        self.kinds[kind] = before + change
        is_first_or_last = not (before and before + change)
        for revocations in self._followers:
            if kind is Revoked.SPIFFE_PREFIX or is_first_or_last:
                revocations.update()
            else:
                revocations.begin_version()


class Revocations:
    """The entries of all lists, and those of the administrator, indexed by what they revoke.

    `revokes_tokens`, `revokes_peers`, `revokes_certificates` (by serial number or SHA-256) and `revokes_devices` are
    true if any entry applies to these. `version` is another number after each change, and of each instance: what no
    entry is about stays so while it is the same. To remember that, read it before `concerns_token` or `concerns_peer`.
    """

    __slots__ = (
        "__weakref__", "_entries", "_kinds", "_listed_prefixes", "_prefixes", "_revokes_by_claim", "dynamic",
        "revokes_certificates", "revokes_devices", "revokes_peers", "revokes_tokens", "version",
    )  # fmt: skip

    def __init__(self, lists: Iterable[RevocationList] = ()) -> None:
        self._entries: dict[_Key, tuple[_Entry, ...]] = {}
        self.dynamic: DynamicRevocations | None = None
        for document in lists:
            for entry in document.entries:
                key = (entry.what, entry.issuer, entry.value)
                comment = f": {entry.comment}" if entry.comment else ""
                detail = f"{entry.what} revoked by `{document.namespace}/{document.name}`{comment}"
                compiled = _Entry(entry.before, entry.effective_from, detail)
                self._entries[key] = (*self._entries.get(key, ()), compiled)
        self._kinds = {what for what, _, _ in self._entries}
        self._listed_prefixes = [key for key in self._entries if key[0] is Revoked.SPIFFE_PREFIX]
        self.update()

    def use(self, dynamic: DynamicRevocations) -> None:
        """Apply the administrator's revocations too, from now on."""
        self.dynamic = dynamic
        dynamic.follow(self)
        self.update()

    def update(self) -> None:
        """Update what depends on the kinds of revocations that there are."""
        dynamic = self.dynamic
        kinds = self._kinds | {kind for kind, count in (dynamic.kinds if dynamic else {}).items() if count}
        self.revokes_tokens = not kinds.isdisjoint(_OF_TOKENS)
        self.revokes_peers = not kinds.isdisjoint(_OF_PEERS)
        self.revokes_certificates = not kinds.isdisjoint(_OF_CERTIFICATES)
        self.revokes_devices = Revoked.DEVICE in kinds
        self._revokes_by_claim = not kinds.isdisjoint(_BY_CLAIM)
        self._prefixes = self._listed_prefixes + ([] if dynamic is None else dynamic.prefixes())
        self.begin_version()

    def begin_version(self) -> None:
        """Begin another version, because an entry was added or removed."""
        self.version: int = next(_VERSIONS)

    def check_token(self, authority: str, token: VerifiedToken, now: float) -> None:
        """Check that a token of issuer `authority`, its key and its subject are not revoked. Raises `Refused`."""
        self.check_claims(authority, token.subject, token.token_id, token.issued_at, now, _kids(token), token.claims)

    def check_claims(
        self,
        authority: str,
        subject: str,
        token_id: str,
        issued: float | None,
        now: float,
        kids: tuple[str, ...] = (),
        claims: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """As `check_token`, for a token of which only these claims, and its possible key IDs, are known."""
        for key in self._token_keys(authority, subject, token_id, kids, claims):
            self._refuse(key, issued, now, Reason.TOKEN_REVOKED)

    def concerns_token(self, authority: str, token: VerifiedToken) -> bool:
        """Whether any entry is about the token, whatever its times."""
        keys = self._token_keys(authority, token.subject, token.token_id, _kids(token), token.claims)
        return any(self._of(key) for key in keys)

    def _token_keys(
        self, authority: str, subject: str, token_id: str, kids: tuple[str, ...], claims: Mapping[str, Any]
    ) -> list[_Key]:
        keys: list[_Key] = [
            (Revoked.TOKEN, authority, token_id),
            (Revoked.TOKEN, "", token_id),
            (Revoked.SUBJECT, authority, subject),
        ]
        keys += [(Revoked.KEY, authority, kid) for kid in kids]
        if self._revokes_by_claim:
            keys += _claim_keys(authority, claims)
        if subject.startswith(SCHEME):
            keys += self._id_keys(subject)
        return keys

    def revokes_keys_of(self, authority: str) -> bool:
        """Whether any key of `authority` is revoked."""
        keys = (*self._entries, *(() if self.dynamic is None else self.dynamic.entries))
        return any(what is Revoked.KEY and issuer == authority for what, issuer, _ in keys)

    def revokes_earlier_credentials(self, spiffe_id: str) -> bool:
        """Whether credentials of `spiffe_id` are revoked by their time of issue."""
        return any(entry.before < float("inf") for key in self._id_keys(spiffe_id) for entry in self._of(key))

    def check_peer(
        self, names: Sequence[str], certificate_ids: Sequence[CertificateIds], issued: float | None, now: float
    ) -> None:
        """Check that none of the peer's `names` and of its chain's certificates is revoked at `now`. Raises `Refused`.

        `issued` is the leaf's notBefore in seconds since the epoch, None without a certificate.
        """
        for key in _certificate_keys(certificate_ids) if self.revokes_certificates else ():
            self._refuse(key, None, now, Reason.PEER_REVOKED)
        for name in names:
            if name.startswith(SCHEME):
                for key in self._id_keys(name):
                    self._refuse(key, issued, now, Reason.PEER_REVOKED)

    def concerns_peer(self, names: Sequence[str], certificate_ids: Sequence[CertificateIds]) -> bool:
        """Whether any entry is about these names or certificates, whatever its times."""
        keys = [key for name in names if name.startswith(SCHEME) for key in self._id_keys(name)]
        return any(self._of(key) for key in (*keys, *_certificate_keys(certificate_ids)))

    def _id_keys(self, spiffe_id: str) -> list[_Key]:
        prefixes = [key for key in self._prefixes if spiffe_id.startswith(key[2])]
        return [(Revoked.SPIFFE_ID, "", spiffe_id), *prefixes]

    def _of(self, key: _Key) -> tuple[_Entry, ...]:
        entries = self._entries.get(key, ())
        return entries if self.dynamic is None else (*entries, *self.dynamic.entries.get(key, ()))

    def _refuse(self, key: _Key, issued: float | None, now: float, reason: Reason) -> None:
        for entry in self._of(key):
            if entry.effective_from <= now < entry.until and (issued is None or issued < entry.before):
                raise Refused(reason, entry.detail, entry.id)


def _kids(token: VerifiedToken) -> tuple[str, ...]:
    """The IDs of the key that verified the token. Istio semantics try keys without `kid` for a token that names one."""
    return (token.key.kid,) if token.kid == token.key.kid else (token.key.kid, token.kid)


def _claim_keys(authority: str, claims: Mapping[str, Any]) -> list[_Key]:
    keys: list[_Key] = [(Revoked.ISSUER, "", authority)]
    session, email = claims.get("sid"), claims.get("email")
    if isinstance(session, str):
        keys += ((Revoked.SESSION, authority, session), (Revoked.SESSION, "", session))
    if isinstance(email, str):
        keys.append((Revoked.EMAIL, authority, email.translate(_ASCII_LOWER)))
    return keys


def _certificate_keys(certificate_ids: Sequence[CertificateIds]) -> list[_Key]:
    keys: list[_Key] = [(Revoked.SERIAL, "", ids.serial) for ids in certificate_ids]
    keys += [(Revoked.SHA256, "", fingerprint) for ids in certificate_ids for fingerprint in ids.fingerprints]
    return keys


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

    @property
    def version(self) -> int:
        """As `Revocations.version`, of the revocations in force now."""
        return self.current.version

    def concerns_peer(self, names: Sequence[str], certificate_ids: Sequence[CertificateIds]) -> bool:
        """As `Revocations.concerns_peer`, with the revocations in force now."""
        return self.current.concerns_peer(names, certificate_ids)

    def check_peer(
        self, names: Sequence[str], certificate_ids: Sequence[CertificateIds], issued: float | None, now: float
    ) -> None:
        """As `Revocations.check_peer`, with the revocations in force now."""
        self.current.check_peer(names, certificate_ids, issued, now)
