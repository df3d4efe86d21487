"""Mutual TLS for the fast server: TLS 1.3 and HTTP/2 only. Each caller's SPIFFE ID is checked before its input is read.

The administrator's HTTP API uses it too, for HTTP/1.1.

A handshake uses the certificate and authorities that are current at that moment; existing connections keep theirs.
Sessions are never resumed, because a resumed session would not present its certificate again.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography import x509

from zta_authz.authn.certificates import MAX_CHAIN
from zta_authz.servers.tls import MutualTls, PresentedCertificate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.authn.revocation import RevocationSlot

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsUse:
    """What connections are for: their protocol by its ALPN name, and whether the client needs a certificate."""

    alpn: str
    client_certificate: ssl.VerifyMode


FOR_GRPC: Final = TlsUse("h2", ssl.CERT_REQUIRED)
FOR_HTTP: Final = TlsUse("http/1.1", ssl.CERT_OPTIONAL)


class UnauthorizedPeer(Exception):
    """The peer is authenticated but not authorized. The message goes to our log."""


class NotHttp2(UnauthorizedPeer):
    """The peer does not speak HTTP/2, so it gets no error for its calls."""


class Caller(Protocol):
    """The authorized caller of a connection."""

    @property
    def name(self) -> str:
        """Its SPIFFE ID."""
        ...

    @property
    def expires(self) -> float:
        """When its certificate expires, in epoch seconds."""
        ...

    def may_call(self, now: float) -> bool:
        """Return whether it is still authorized at `now`. Once False, always False. Called for all input."""
        ...


class TlsListener(Protocol):
    """What a TCP listener needs: a TLS context, and the identification of callers."""

    @property
    def context(self) -> ssl.SSLContext:
        """The context of all handshakes."""
        ...

    def caller_of(self, connection: Any) -> Caller:
        """Return the caller of an `ssl.SSLObject`. Raises `UnauthorizedPeer`."""
        ...


class FilesCaller:
    """A caller that is authorized until its certificate expires or is revoked."""

    __slots__ = ("_presented", "_revocations", "expires", "name")

    def __init__(self, presented: PresentedCertificate, revocations: RevocationSlot) -> None:
        self._presented = presented
        self._revocations = revocations
        self.name = presented.spiffe_id
        self.expires = presented.expires

    def may_call(self, now: float) -> bool:
        """Return whether the certificate is still valid."""
        return self._presented.is_valid(self._revocations, now)


class FilesListener:
    """`TlsListener` of `MutualTls`: certificates and authorities are read again when their files change."""

    def __init__(self, tls: MutualTls, use: TlsUse = FOR_GRPC) -> None:
        """Raises `SettingsErrors` if the files can't be used."""
        self._files = tls.files
        self._revocations = tls.revocations
        self._allowed = tls.allowed
        self._use = use
        self._stamp = _stamp(self._files)
        self._context = _context_of_files(self._files, use)
        self.context = _context_of_files(self._files, use)
        """Passes each handshake to the context with the current certificates."""
        self.context.sni_callback = self._choose  # called for every ClientHello, with or without SNI

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        self._refresh()
        connection.context = self._context

    def _refresh(self) -> None:
        stamp = _stamp(self._files)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            MutualTls(*self._files, ())  # checks the files, and that the key matches the certificate
            self._context = _context_of_files(self._files, self._use)
        except Exception as error:  # noqa: BLE001  a half-written file can cause anything
            _LOG.warning("the changed TLS files are not taken: %s", error)
        else:
            _LOG.info("TLS certificates changed")

    def caller_of(self, connection: Any) -> FilesCaller:
        """Return the caller. Raises `UnauthorizedPeer`.

        The handshake has verified the chain against our authorities, the validity period, and possession of the
        key.
        """
        certificate = peer_certificate(connection, self._use)
        try:
            names = _uri_names(certificate)
        except ValueError:
            raise UnauthorizedPeer("the certificate can't be read") from None
        if len(names) != 1 or names[0] not in self._allowed:
            raise UnauthorizedPeer("the certificate's SPIFFE ID is not in `allowed_spiffe_ids`")
        intermediates = [x509.load_der_x509_certificate(der) for der in peer_chain(connection)[1:MAX_CHAIN]]
        caller = FilesCaller(PresentedCertificate(names[0], [certificate, *intermediates]), self._revocations)
        if not caller.may_call(time.time()):
            raise UnauthorizedPeer("the certificate is revoked")
        return caller


def peer_certificate(connection: Any, use: TlsUse) -> x509.Certificate:
    """Return the leaf certificate of an `ssl.SSLObject`'s peer. Raises `UnauthorizedPeer`."""
    if connection is None or (use is FOR_GRPC and connection.selected_alpn_protocol() != use.alpn):
        raise NotHttp2("no HTTP/2 was negotiated")
    if connection.version() != "TLSv1.3":
        raise UnauthorizedPeer("TLS is older than 1.3")
    der = connection.getpeercert(binary_form=True)
    if not der:
        raise UnauthorizedPeer("no certificate was presented")
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        raise UnauthorizedPeer("the certificate can't be read") from None


def peer_chain(connection: Any) -> list[bytes]:
    """Return the certificates that the peer of an `ssl.SSLObject` presented, in DER, leaf first; unverified.

    Python 3.13 made this public; earlier versions have it in the underlying object.
    """
    if hasattr(connection, "get_unverified_chain"):
        return list(connection.get_unverified_chain())
    chain = connection._sslobj.get_unverified_chain() or ()  # noqa: SLF001  Python 3.11 and 3.12 have no other way
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain]


def _uri_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def new_context(use: TlsUse) -> ssl.SSLContext:
    """Return a server context without certificates, for TLS 1.3."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = use.client_certificate
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # any configured authority is trusted, self-signed or not
    context.set_alpn_protocols([use.alpn])
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


def _context_of_files(files: tuple[str, str, str], use: TlsUse) -> ssl.SSLContext:
    certificate, key, authorities = files
    context = new_context(use)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cafile=authorities)
    return context


def _stamp(files: Iterable[str]) -> tuple[tuple[int, int], ...]:
    def of(file: str) -> tuple[int, int]:
        try:
            status = os.stat(file)
        except OSError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)

    return tuple(of(file) for file in files)
