"""`TlsListener` of `SvidTls`: mutual TLS of the fast server with our own X.509-SVID from the Workload API.

The key is never stored in a file system: see `memory_keys`.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from zta_authz.authn.certificates import MAX_CHAIN
from zta_authz.errors import Fault, SettingsErrors
from zta_authz.memory_keys import use_key
from zta_authz.servers.fast.tls import FOR_GRPC, TlsUse, UnauthorizedPeer, new_context, peer_certificate, peer_chain

if TYPE_CHECKING:
    from zta_authz.authn.bundles import Bundles
    from zta_authz.authn.own_svid import OwnSvid
    from zta_authz.servers.svid_tls import SvidTls

_LOG = logging.getLogger(__name__)
_RECHECK_SECONDS: Final = 1.0
"""How long a caller's verdict may be reused: the authorities above its leaf may expire meanwhile.

Also the pause between two attempts to make a context.
"""


class SvidCaller:
    """A caller whose certificate verifies against the current bundle of its own trust domain."""

    __slots__ = ("_bundles", "_certificate", "_check_at", "_tls", "expires", "name")

    def __init__(self, tls: SvidTls, certificate: str, name: str, expires: float, now: float) -> None:
        """`certificate` is what it presented, in PEM: the leaf, then the intermediates."""
        self._tls = tls
        self._certificate = certificate
        self._bundles = tls.bundles
        self._check_at = now + _RECHECK_SECONDS
        self.name = name
        self.expires = expires

    def may_call(self, now: float) -> bool:
        """Return whether the current bundles, which may be newer than at connection time, still authorize it."""
        if now >= self.expires:
            return False
        bundles = self._tls.bundles
        if bundles is self._bundles and now < self._check_at:
            return True
        self._bundles, self._check_at = bundles, now + _RECHECK_SECONDS
        if self._tls.allowed_caller(self._certificate, now) == self.name:
            return True
        self.expires = float("-inf")
        return False


class SvidListener:
    """Gives each handshake the current SVID and bundles; without them, handshakes fail."""

    def __init__(self, tls: SvidTls, use: TlsUse = FOR_GRPC) -> None:
        """Raises `SettingsErrors` if the system has no anonymous files in memory."""
        self._tls = tls
        self._use = use
        self._made_from: tuple[OwnSvid | None, Bundles | None] = (None, None)
        self._context: ssl.SSLContext | None = None
        self._check_at = 0.0  # after a failure: when to try again
        self.context = new_context(use)  # it has no certificate, so a handshake that keeps it fails
        self.context.sni_callback = self._choose  # called for every ClientHello, with or without SNI
        _require_memory_files()

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        context = self._current()
        if context is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = context
        return None

    def _current(self) -> ssl.SSLContext | None:
        svid, bundles = now = (self._tls.svid, self._tls.bundles)
        if svid is self._made_from[0] and bundles is self._made_from[1]:
            return self._context
        if time.monotonic() < self._check_at:
            return None
        authorities = self._tls.authorities_of(bundles)
        self._context = None
        if svid is not None and authorities:
            try:
                self._context = _context_of(svid, authorities, self._use)
            except (OSError, ValueError) as error:  # includes SSLError; its message contains nothing of the key
                _LOG.error("our SVID can't be used: %s", error)
                self._check_at = time.monotonic() + _RECHECK_SECONDS
                self._made_from = (None, None)  # e.g. file descriptors ran out: try again
                return None
        self._made_from = now
        return self._context

    def caller_of(self, connection: Any) -> SvidCaller:
        """Return the caller. Raises `UnauthorizedPeer`.

        TLS accepted any of the authorities for any name, so the certificate is verified again for its own trust
        domain.
        """
        leaf = peer_certificate(connection, self._use)
        now = self._tls.now
        intermediates = peer_chain(connection)[1:MAX_CHAIN]
        pem = "".join(map(ssl.DER_cert_to_PEM_cert, [leaf.public_bytes(Encoding.DER), *intermediates]))
        name = self._tls.allowed_caller(pem, now)
        if name is None:
            raise UnauthorizedPeer(
                "its own trust domain's bundle does not verify the certificate as that of an allowed caller"
            )
        return SvidCaller(self._tls, pem, name, leaf.not_valid_after_utc.timestamp(), now)


def _context_of(svid: OwnSvid, authorities: bytes, use: TlsUse) -> ssl.SSLContext:
    context = new_context(use)
    context.load_verify_locations(cadata=authorities.decode("ascii"))
    use_key(context, svid.chain_pem, svid.key_pem)
    return context


def _require_memory_files() -> None:
    """Raise `SettingsErrors` if the system lacks memfd_create(2), or /proc to name its files."""
    try:
        descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
        try:
            os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            os.close(descriptor)
    except (AttributeError, OSError) as error:
        message = f"server `fast` can't keep our SVID's key in memory here ({type(error).__name__})"
        hint = "mount /proc and allow memfd_create, or write `server: grpcio`"
        raise SettingsErrors([Fault("tls.source", 0, 0, message, hint)]) from error
