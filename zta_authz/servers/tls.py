"""Mutual TLS of TCP listeners with certificate files: our certificate, the callers' authorities, and allowed callers.

Files are read again when they change, so that short-lived SVIDs rotate without a restart. gRPC can't be configured to
refuse TLS 1.2, so each call's TLS version is checked before the call is parsed.
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

from zta_authz.authn.certificates import ValidityPeriod
from zta_authz.authn.revocation import CertificateIds, RevocationSlot
from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import Fault, Refused, SettingsErrors
from zta_authz.servers.allowed_callers import AllowedCallers
from zta_authz.servers.listeners import MAX_CONNECTION_AGE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from zta_authz.ports import Clock

_LOG = logging.getLogger(__name__)
_TLS_1_3 = b"TLSv1.3"
_MAX_PRESENTED: Final = 1024


class PresentedCertificate:
    """A caller's certificate that TLS has verified: its expiry, and what it can be revoked by."""

    __slots__ = ("_issued", "_marks", "expires", "spiffe_id")

    def __init__(self, spiffe_id: str, certificates: Sequence[x509.Certificate]) -> None:
        """`certificates` are those that the caller presented, its own first."""
        window = ValidityPeriod.of(certificates[0])
        self.spiffe_id = spiffe_id
        self.expires = window.not_after
        self._issued = window.not_before
        self._marks = tuple(CertificateIds.of(certificate) for certificate in certificates)

    def is_valid(self, revocations: RevocationSlot, now: float) -> bool:
        """Return whether the certificate is neither expired nor revoked at `now`."""
        if now >= self.expires:
            return False
        try:
            if revocations.revokes_peers:
                revocations.check_peer((self.spiffe_id,), self._marks, self._issued, now)
        except Refused:
            return False
        return True


class MutualTls:
    """Server credentials from three PEM files, with the list of allowed callers."""

    def __init__(
        self,
        cert_file: str,
        key_file: str,
        client_ca_file: str,
        allowed: Iterable[str] | AllowedCallers,
        clock: Clock = time.time,
        *,
        max_connection_age: float = MAX_CONNECTION_AGE_SECONDS,
        revocations: RevocationSlot | None = None,
    ) -> None:
        """Read the files. Raises `SettingsErrors` with all their faults."""
        self.max_connection_age = max_connection_age
        self.revocations = revocations or RevocationSlot()
        self._clock = clock
        self._presented: BoundedCache[bytes, PresentedCertificate] = BoundedCache(_MAX_PRESENTED)
        self._files = (cert_file, key_file, client_ca_file)
        self.allowed = AllowedCallers.of(allowed)
        self._stamp = self._stamp_now()
        self._configuration = _read(*self._files)

    @property
    def files(self) -> tuple[str, str, str]:
        """Our certificates, our key, the callers' authorities."""
        return self._files

    @property
    def allowed_spiffe_ids(self) -> frozenset[str]:
        """The SPIFFE IDs that may call."""
        return self.allowed.spiffe_ids

    def with_allowed(self, allowed: Iterable[str] | AllowedCallers) -> MutualTls:
        """Return the same certificates with another list of callers."""
        age, revocations = self.max_connection_age, self.revocations
        return MutualTls(*self._files, allowed, self._clock, max_connection_age=age, revocations=revocations)

    def credentials(self) -> Any:
        """Return gRPC credentials that require a client certificate and follow changes of the files."""
        last = self._configuration

        def refresh() -> Any:
            """Return the configuration if it changed since the last call for these credentials, else None.

            Each listener has its own credentials. gRPC calls this for each handshake, in its own threads.
            """
            nonlocal last
            self._refresh()
            if last is self._configuration:
                return None
            last = self._configuration
            return last

        return grpc.dynamic_ssl_server_credentials(last, refresh, require_client_authentication=True)

    def _refresh(self) -> None:
        """Read the files again if they changed."""
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
                status = os.stat(file)
            except OSError:
                return (0, 0)
            return (status.st_ino, status.st_mtime_ns)

        return tuple(of(file) for file in self._files)

    def caller(self, connection: Mapping[str, Any]) -> str | None:
        """Return the SPIFFE ID of a gRPC connection's peer, or None unless it uses TLS 1.3 and may call now.

        The handshake verified its certificate, which may have expired or been revoked since.
        """
        names = connection.get("peer_spiffe_id", ())
        versions = connection.get("ssl_tls_version", ())
        name = names[0].decode("utf-8", "replace") if len(names) == 1 else ""
        if name not in self.allowed or tuple(versions) != (_TLS_1_3,):
            return None
        presented = self._presented_on(connection, name)
        return (
            presented.spiffe_id
            if presented is not None and presented.is_valid(self.revocations, self._clock())
            else None
        )

    def _presented_on(self, connection: Mapping[str, Any], spiffe_id: str) -> PresentedCertificate | None:
        pem = b"".join(part for kind in ("x509_pem_cert", "x509_pem_cert_chain") for part in connection.get(kind, ()))
        presented = self._presented[pem]
        if presented is None:
            try:
                presented = PresentedCertificate(spiffe_id, x509.load_pem_x509_certificates(pem))
            except ValueError:
                return None
            self._presented.put(pem, presented)
        return presented


def _read(cert_file: str, key_file: str, client_ca_file: str) -> Any:
    """Build gRPC's server certificate configuration. Raises `SettingsErrors`; no message contains any part of a key."""
    faults: list[Fault] = []
    chain, leaf = _certificates(cert_file, faults)
    authorities, _ = _certificates(client_ca_file, faults)
    key, public = _key(key_file, faults)
    if leaf is not None and public is not None and _spki(leaf.public_key()) != _spki(public):
        faults.append(
            Fault(
                key_file,
                0,
                0,
                f"is not the key of the first certificate in {cert_file}",
                "use the key of that certificate",
            )
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
