"""`TlsListener` of `SvidTls`: the fast server with our own X.509-SVID, as it comes and rotates.

Python's `ssl` reads certificates and keys from named files only, so they are written to an anonymous one that is
memory (memfd_create(2)), read by its name below /proc, and closed: no file system ever holds the key.
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
from zta_authz.servers.fast.tls import NotAllowed, bare_context, presented, presented_chain

if TYPE_CHECKING:
    from zta_authz.authn.bundles import Bundles
    from zta_authz.authn.own_svid import OwnSvid
    from zta_authz.servers.svid_tls import SvidTls

_LOG = logging.getLogger(__name__)
_AGAIN_SECONDS: Final = 1.0
"""How long a verdict may stand for what only time changes: the validity of authorities between leaf and root.

As long passes between two tries to make a context.
"""


class SvidCaller:
    """A caller whose certificate verifies against its own trust domain's bundle, as that is in force."""

    __slots__ = ("_again", "_bundles", "_certificate", "_tls", "expires", "name")

    def __init__(self, tls: SvidTls, certificate: str, name: str, expires: float, now: float) -> None:
        """`certificate` is what it showed, in PEM: the leaf, and the intermediates that came with it."""
        self._tls = tls
        self._certificate = certificate
        self._bundles = tls.bundles
        self._again = now + _AGAIN_SECONDS
        self.name = name
        self.expires = expires

    def holds(self, now: float) -> bool:
        """Whether it may still ask: by the bundles of this moment, whichever it came in with."""
        if now >= self.expires:
            return False
        bundles = self._tls.bundles
        if bundles is self._bundles and now < self._again:
            return True
        self._bundles, self._again = bundles, now + _AGAIN_SECONDS
        if self._tls.judge(self._certificate, now) == self.name:
            return True
        self.expires = float("-inf")
        return False


class SvidListener:
    """Each handshake gets the SVID and the bundles of its moment, and none comes to its end without them."""

    def __init__(self, tls: SvidTls) -> None:
        """Raises `SettingsErrors` where there is no file in memory to be had."""
        self._tls = tls
        self._made_from: tuple[OwnSvid | None, Bundles | None] = (None, None)
        self._made: ssl.SSLContext | None = None
        self._again = 0.0  # after a failure: when it is tried again
        self.context = bare_context()  # it has no certificate: a handshake that is not handed on fails
        self.context.sni_callback = self._choose  # called for every ClientHello, with or without a server name
        _see_that_memory_has_files()

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        made = self._current()
        if made is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = made
        return None

    def _current(self) -> ssl.SSLContext | None:
        svid, bundles = now = (self._tls.svid, self._tls.bundles)
        if svid is self._made_from[0] and bundles is self._made_from[1]:
            return self._made
        if time.monotonic() < self._again:
            return None
        authorities = self._tls.authorities_of(bundles)
        self._made = None
        if svid is not None and authorities:
            try:
                self._made = _context_of(svid, authorities)
            except (OSError, ValueError) as error:  # SSLError is one; its message says nothing of the key
                _LOG.error("our SVID can't be served with: %s", error)
                self._again = time.monotonic() + _AGAIN_SECONDS
                self._made_from = (None, None)  # a lack of file descriptors, say, must not outlast itself
                return None
        self._made_from = now
        return self._made

    def caller_of(self, connection: Any) -> SvidCaller:
        """The caller. Raises `NotAllowed`.

        TLS took any authority for any name, so the certificate is verified again, for the name that is in it.
        """
        leaf = presented(connection)
        now = self._tls.now
        helpers = presented_chain(connection)[1:MAX_CHAIN]
        text = "".join(map(ssl.DER_cert_to_PEM_cert, [leaf.public_bytes(Encoding.DER), *helpers]))
        name = self._tls.judge(text, now)
        if name is None:
            raise NotAllowed("the certificate is not of a caller in the list, by its own trust domain's bundle")
        return SvidCaller(self._tls, text, name, leaf.not_valid_after_utc.timestamp(), now)


def _context_of(svid: OwnSvid, authorities: bytes) -> ssl.SSLContext:
    context = bare_context()
    context.load_verify_locations(cadata=authorities.decode("ascii"))
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(svid.chain_pem + svid.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def _see_that_memory_has_files() -> None:
    """Raise `SettingsErrors` where the system has no memfd_create(2), or no /proc to name its files."""
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
