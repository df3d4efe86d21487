"""Mutual TLS of TCP listeners: who we are, who signs callers, and which callers may ask.

Certificates are read again when their files change, so that short-lived SVIDs rotate without a restart. gRPC can't be
told to refuse TLS 1.2, so each call is judged by its connection's version, before its bytes are looked at.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from zta_authz.errors import Fault, SettingsErrors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

_LOG = logging.getLogger(__name__)
_TLS_1_3 = b"TLSv1.3"


class MutualTls:
    """Server credentials from three PEM files, and who may ask: callers of the list."""

    def __init__(self, cert_file: str, key_file: str, client_ca_file: str, allowed: Iterable[str]) -> None:
        """Read the files. Raises `SettingsErrors` with everything that is wrong with them."""
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
        return MutualTls(*self._files, allowed)

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
        """The SPIFFE ID at the other end of a gRPC connection; None unless it is on the list, on TLS 1.3."""
        names = connection.get("peer_spiffe_id", ())
        versions = connection.get("ssl_tls_version", ())
        if len(names) != 1 or names[0] not in self._allowed or tuple(versions) != (_TLS_1_3,):
            return None
        name: str = names[0].decode()
        return name


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
