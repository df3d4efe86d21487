"""Who calls the administrator, as its listeners know: by a client certificate, or as a user of this machine.

No header names a caller, except the token in `authorization`, which is verified with each call. A header such as
`x-forwarded-client-cert` would be written by whoever connects.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from zta_authz.servers.allowed_callers import AllowedCallers
from zta_authz.servers.fast.server import tls_listener
from zta_authz.servers.fast.tls import FOR_HTTP, UnauthorizedPeer
from zta_authz.sockets import peer_uid

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable, Iterable

    from zta_authz.servers.svid_tls import SvidTls
    from zta_authz.servers.tls import MutualTls

_USERS: Final = "/zta-admin/uid/"


def user_namer(trust_domain: str) -> Callable[[int], str]:
    """How local users are called: `spiffe://TRUST_DOMAIN/zta-admin/uid/UID`."""
    return lambda uid: f"spiffe://{trust_domain}{_USERS}{uid}"


def operators(trust_domains: Iterable[str]) -> AllowedCallers:
    """The callers over TLS: everybody in these trust domains. Policies decide what they may do.

    No certificate can have the name of a local user.
    """
    return AllowedCallers(trust_domains=trust_domains, reserved=_USERS)


class HttpCallers:
    """Names the callers of an HTTP listener."""

    def __init__(self, trust_domain: str, tls: MutualTls | SvidTls | None) -> None:
        """`tls` admits `operators`. Raises `SettingsErrors` if its files can't be used."""
        self._name_user = user_namer(trust_domain)
        self._tls = None if tls is None else tls_listener(tls, FOR_HTTP)

    @property
    def context(self) -> ssl.SSLContext | None:
        """The context of TLS; None without it."""
        return None if self._tls is None else self._tls.context

    def principal(self, transport: asyncio.BaseTransport | None) -> str:
        """The SPIFFE ID of a connection's peer; "" over plain TCP, and over TLS without a client certificate.

        Raises:
            UnauthorizedPeer: Its certificate is not one of `operators`, or is expired or revoked by now.
        """
        if transport is None:
            raise UnauthorizedPeer("the connection is closed")
        connection: Any = transport.get_extra_info("ssl_object")
        if connection is not None:
            return self._name_in(connection)
        peer: Any = transport.get_extra_info("socket")
        return self._name_user(peer_uid(peer)) if peer.family == socket.AF_UNIX else ""

    def _name_in(self, connection: Any) -> str:
        if self._tls is None:
            raise UnauthorizedPeer("there is no TLS here")
        if not connection.getpeercert(binary_form=True):
            return ""
        try:
            return self._tls.caller_of(connection).name
        except UnauthorizedPeer:
            raise
        except Exception as error:  # noqa: BLE001  a certificate that can't be judged names nobody
            raise UnauthorizedPeer(f"it can't be judged ({type(error).__qualname__})") from None
