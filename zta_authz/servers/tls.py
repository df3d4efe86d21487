"""Mutual TLS of TCP listeners: who we are, who signs callers, and which callers may ask.

Certificates are read again when their files change, so that short-lived SVIDs rotate without a restart. gRPC can't be
told to refuse TLS 1.2, so each call is judged by its connection's version, before its bytes are looked at.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from zta_authz.authn.cache import BoundedCache
from zta_authz.authn.certificates import Window
from zta_authz.authn.revocation import Mark, RevocationSlot
from zta_authz.errors import Fault, Refused, SettingsErrors
from zta_authz.servers.listeners import MAX_CONNECTION_AGE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from zta_authz.ports import Clock

_LOG = logging.getLogger(__name__)
_TLS_1_3 = b"TLSv1.3"
_MAX_SHOWN: Final = 1024


class Shown:
    """What a caller's certificate says that TLS has verified: when it ends, and by what it is revoked."""

    __slots__ = ("_issued", "_marks", "expires", "name")

    def __init__(self, name: str, certificates: Sequence[x509.Certificate]) -> None:
        """`certificates` are what it showed, its own first."""
        window = Window.of(certificates[0])
        self.name = name
        self.expires = window.not_after
        self._issued = window.not_before
        self._marks = tuple(Mark.of(certificate) for certificate in certificates)

    def holds(self, revocations: RevocationSlot, now: float) -> bool:
        """Whether it still counts at `now`."""
        if now >= self.expires:
            return False
        try:
            if revocations.of_peers:
                revocations.check_peer((self.name,), self._marks, self._issued, now)
        except Refused:
            return False
        return True


class MutualTls:
    """Server credentials from three PEM files, and who may ask: callers of the list."""

    def __init__(
        self,
        cert_file: str,
        key_file: str,
        client_ca_file: str,
        allowed: Iterable[str],
        clock: Clock = time.time,
        *,
        max_connection_age: float = MAX_CONNECTION_AGE_SECONDS,
        revocations: RevocationSlot | None = None,
    ) -> None:
        """Read the files. Raises `SettingsErrors` with everything that is wrong with them."""
        self.max_connection_age = max_connection_age
        self.revocations = revocations or RevocationSlot()
        self._clock = clock
        self._shown: BoundedCache[bytes, Shown] = BoundedCache(_MAX_SHOWN)
        self._files = (cert_file, key_file, client_ca_file)
        self._allowed = frozenset(spiffe_id.encode() for spiffe_id in allowed)
        self._stamp = self._stamp_now()
        self._configuration = _read(*self._files)

    @property
    def files(self) -> tuple[str, str, str]:
        """Our certificates, our key, the callers' authorities."""
        return self._files

    @property
    def allowed_spiffe_ids(self) -> frozenset[str]:
        """Who may ask."""
        return frozenset(spiffe_id.decode() for spiffe_id in self._allowed)

    def allowing(self, allowed: Iterable[str]) -> MutualTls:
        """The same certificates for another list of callers."""
        age, revocations = self.max_connection_age, self.revocations
        return MutualTls(*self._files, allowed, self._clock, max_connection_age=age, revocations=revocations)

    def credentials(self) -> Any:
        """Credentials that ask each client for a certificate and follow changes of the files."""
        given = self._configuration

        def refresh() -> Any:
            """What is new since these credentials were last asked, None for nothing; every listener has its own.

            gRPC calls it in a thread of its own, each handshake.
            """
            nonlocal given
            self._refresh()
            if given is self._configuration:
                return None
            given = self._configuration
            return given

        return grpc.dynamic_ssl_server_credentials(given, refresh, require_client_authentication=True)

    def _refresh(self) -> None:
        """Read the files again where they changed."""
        try:
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return
            self._configuration, self._stamp = _read(*self._files), stamp
        except (SettingsErrors, OSError) as error:
            _LOG.warning("the changed TLS files are not taken: %s", error)
        else:
            _LOG.info("TLS certificates changed")

    def _stamp_now(self) -> tuple[tuple[int, int], ...]:
        def of(file: str) -> tuple[int, int]:
            try:
                found = os.stat(file)
            except OSError:
                return (0, 0)
            return (found.st_ino, found.st_mtime_ns)

        return tuple(of(file) for file in self._files)

    def caller(self, connection: Mapping[str, Any]) -> str | None:
        """The SPIFFE ID at the other end of a gRPC connection; None unless it may ask now, on TLS 1.3.

        The handshake verified its certificate, which may have expired or been revoked since.
        """
        names = connection.get("peer_spiffe_id", ())
        versions = connection.get("ssl_tls_version", ())
        if len(names) != 1 or names[0] not in self._allowed or tuple(versions) != (_TLS_1_3,):
            return None
        shown = self._shown_by(connection, names[0].decode())
        return shown.name if shown is not None and shown.holds(self.revocations, self._clock()) else None

    def _shown_by(self, connection: Mapping[str, Any], name: str) -> Shown | None:
        pem = b"".join(part for kind in ("x509_pem_cert", "x509_pem_cert_chain") for part in connection.get(kind, ()))
        shown = self._shown.get(pem)
        if shown is None:
            try:
                shown = Shown(name, x509.load_pem_x509_certificates(pem))
            except ValueError:
                return None
            self._shown.put(pem, shown)
        return shown


def _read(cert_file: str, key_file: str, client_ca_file: str) -> Any:
    """GRPC's server certificate configuration. Raises `SettingsErrors`; no message holds anything of a key."""
    faults: list[Fault] = []
    chain, leaf = _certificates(cert_file, faults)
    authorities, _ = _certificates(client_ca_file, faults)
    key, public = _key(key_file, faults)
    if leaf is not None and public is not None and _spki(leaf.public_key()) != _spki(public):
        faults.append(
            Fault(key_file, 0, 0, f"is not the key of the first certificate in {cert_file}", "give its own key")
        )
    if faults:
        raise SettingsErrors(faults)
    return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)


def _bytes_of(file: str, faults: list[Fault]) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        faults.append(Fault(file, 0, 0, f"cannot be read: {error.strerror}", "check `tls` and the file's permissions"))
        return b""


def _certificates(file: str, faults: list[Fault]) -> tuple[bytes, x509.Certificate | None]:
    known = len(faults)
    content = _bytes_of(file, faults)
    if len(faults) > known:
        return b"", None
    try:
        return content, x509.load_pem_x509_certificates(content)[0]
    except ValueError:
        faults.append(Fault(file, 0, 0, "holds no readable PEM certificates", "write one or more CERTIFICATE blocks"))
        return b"", None


def _key(file: str, faults: list[Fault]) -> tuple[bytes, PublicKeyTypes | None]:
    known = len(faults)
    content = _bytes_of(file, faults)
    if len(faults) > known:
        return b"", None
    try:
        return content, load_pem_private_key(content, None).public_key()
    except (ValueError, TypeError):  # TypeError: it is encrypted
        faults.append(
            Fault(file, 0, 0, "holds no readable PEM private key", "write it as PKCS#8 PEM, without a passphrase")
        )
        return b"", None


def _spki(key: Any) -> bytes:
    spki: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return spki
