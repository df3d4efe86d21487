"""Mutual TLS for the fast server: TLS 1.3 only, HTTP/2 only, and each caller's SPIFFE ID judged before it is read.

Handshakes use the certificate and the authorities of their moment; connections that stand go on with theirs. Sessions
are never resumed, because a resumed one would not show its certificate again.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography import x509

from zta_authz.authn.certificates import MAX_CHAIN
from zta_authz.servers.tls import MutualTls, Shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.authn.revocation import RevocationSlot

_LOG = logging.getLogger(__name__)
ALPN: Final = "h2"


class NotAllowed(Exception):
    """The caller is authenticated, but may not ask; the message is for our log."""


class NotHttp2(NotAllowed):
    """There is nothing to tell the caller: it speaks something else."""


class Caller(Protocol):
    """Who is at the other end of a connection, and may ask."""

    @property
    def name(self) -> str:
        """Its SPIFFE ID."""
        ...

    @property
    def expires(self) -> float:
        """When its certificate does, in seconds since the epoch."""
        ...

    def holds(self, now: float) -> bool:
        """Whether it may still ask at `now`; False for ever once it was False. Looked at for all that comes."""
        ...


class TlsListener(Protocol):
    """What a TCP listener needs: a context for handshakes, and who is at the other end."""

    @property
    def context(self) -> ssl.SSLContext:
        """For all handshakes."""
        ...

    def caller_of(self, connection: Any) -> Caller:
        """The caller at the other end of an `ssl.SSLObject`. Raises `NotAllowed`."""
        ...


class Known:
    """A caller who may ask until its certificate expires or is revoked."""

    __slots__ = ("_revocations", "_shown", "expires", "name")

    def __init__(self, shown: Shown, revocations: RevocationSlot) -> None:
        self._shown = shown
        self._revocations = revocations
        self.name = shown.name
        self.expires = shown.expires

    def holds(self, now: float) -> bool:
        """Whether the certificate still counts."""
        return self._shown.holds(self._revocations, now)


class FilesListener:
    """`TlsListener` of `MutualTls`: certificates and authorities are read again when their files change."""

    def __init__(self, tls: MutualTls) -> None:
        """Raises `SettingsErrors` where the files can't be used."""
        self._files = tls.files
        self._revocations = tls.revocations
        self._allowed = tls.allowed_spiffe_ids
        self._stamp = _stamp(self._files)
        self._context = _of_files(self._files)
        self.context = _of_files(self._files)
        """It hands each handshake to the certificates of that moment."""
        self.context.sni_callback = self._choose  # called for every ClientHello, with or without a server name

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        self._refresh()
        connection.context = self._context

    def _refresh(self) -> None:
        stamp = _stamp(self._files)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            MutualTls(*self._files, ())  # says what is wrong with them, and that the key is the certificate's
            self._context = _of_files(self._files)
        except Exception as error:  # noqa: BLE001  whatever a half-written file causes
            _LOG.warning("the changed TLS files are not taken: %s", error)
        else:
            _LOG.info("TLS certificates changed")

    def caller_of(self, connection: Any) -> Known:
        """The caller. Raises `NotAllowed`.

        The handshake has verified the chain against our authorities, the times and the possession of the key.
        """
        certificate = presented(connection)
        try:
            names = _uri_names(certificate)
        except ValueError:
            raise NotAllowed("the certificate can't be read") from None
        if len(names) != 1 or names[0] not in self._allowed:
            raise NotAllowed("the certificate's SPIFFE ID is not in the list")
        helpers = [x509.load_der_x509_certificate(der) for der in presented_chain(connection)[1:MAX_CHAIN]]
        known = Known(Shown(names[0], [certificate, *helpers]), self._revocations)
        if not known.holds(time.time()):
            raise NotAllowed("the certificate is revoked")
        return known


def presented(connection: Any) -> x509.Certificate:
    """The leaf that the peer of an `ssl.SSLObject` showed. Raises `NotAllowed`."""
    if connection is None or connection.selected_alpn_protocol() != ALPN:
        raise NotHttp2("no HTTP/2 was negotiated")
    if connection.version() != "TLSv1.3":
        raise NotAllowed("TLS is older than 1.3")
    shown = connection.getpeercert(binary_form=True)
    if not shown:
        raise NotAllowed("no certificate was presented")
    try:
        return x509.load_der_x509_certificate(shown)
    except ValueError:
        raise NotAllowed("the certificate can't be read") from None


def presented_chain(connection: Any) -> list[bytes]:
    """What the peer of a server's `ssl.SSLObject` showed, in DER, the leaf first; nothing of it is verified by that.

    Public since Python 3.13, there all along in what `ssl` is made from.
    """
    if hasattr(connection, "get_unverified_chain"):
        return list(connection.get_unverified_chain())
    chain = connection._sslobj.get_unverified_chain() or ()  # noqa: SLF001  Python 3.11 and 3.12 have no other way
    return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in chain]


def _uri_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def bare_context() -> ssl.SSLContext:
    """A server's context without certificates: TLS 1.3, HTTP/2, and each client asked for its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority of ours counts, self-signed or not
    context.set_alpn_protocols([ALPN])
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


def _of_files(files: tuple[str, str, str]) -> ssl.SSLContext:
    certificate, key, authorities = files
    context = bare_context()
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cafile=authorities)
    return context


def _stamp(files: Iterable[str]) -> tuple[tuple[int, int], ...]:
    def of(file: str) -> tuple[int, int]:
        try:
            found = os.stat(file)
        except OSError:
            return (0, 0)
        return (found.st_ino, found.st_mtime_ns)

    return tuple(of(file) for file in files)
