"""Mutual TLS to the administrator: TLS 1.3, our X.509-SVID, and the SPIFFE IDs that the administrator may have.

A SPIFFE certificate names no host, so the SPIFFE ID replaces the host name (SPIFFE X509-SVID, 5.2). Certificates, key
and authorities are read for each connection, so a rotation needs no restart.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from zta_authz.authn.certificates import CERTIFICATE_ERRORS, is_authority, read_pem
from zta_authz.authn.svid import svid_id
from zta_authz.errors import Refused, ZtaError
from zta_authz.memory_keys import use_key
from zta_authz.model.spiffe import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zta_authz.authn.bundles import BundleSlot
    from zta_authz.authn.own_svid import SvidSlot

_MAX_FILE_BYTES: Final = 1024 * 1024
_ALPN: Final = "h2"


class TlsProblem(ZtaError):
    """No connection to the administrator can be made or used. `source` is the file at fault, "" for none."""

    def __init__(self, message: str, source: str = "") -> None:
        super().__init__(f"{source}: {message}" if source else message)
        self.message = message
        self.source = source


@dataclass(frozen=True, slots=True)
class Identity:
    """What a handshake needs, in PEM: our chain (leaf first) with its key, and the administrator's authorities."""

    chain: bytes
    key: bytes = field(repr=False)
    authorities: bytes


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """An identity in three PEM files."""

    cert_file: str
    key_file: str
    ca_file: str

    def __call__(self) -> Identity:
        """Read the files. Raises `TlsProblem`; no message has any part of the key."""
        return Identity(_content(self.cert_file), _content(self.key_file), _content(self.ca_file))


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """The identity from the Workload API, with the bundle of `trust_domain`."""

    svid: SvidSlot
    bundles: BundleSlot
    trust_domain: str

    def __call__(self) -> Identity:
        """The SVID and the bundle in force. Raises `TlsProblem` until there are both."""
        svid, bundle = self.svid.current, self.bundles.current.get(self.trust_domain)
        if svid is None:
            raise TlsProblem("the Workload API has given no SVID yet")
        if bundle is None or not bundle.anchors:
            raise TlsProblem(f"there is no bundle of the trust domain `{self.trust_domain}` yet")
        authorities = b"".join(anchor.public_bytes(Encoding.PEM) for anchor in bundle.anchors)
        return Identity(svid.chain_pem, svid.key_pem, authorities)


class AdministratorTls:
    """Makes the context of each connection to the administrator, and checks who answered."""

    def __init__(self, identity: Callable[[], Identity], spiffe_ids: Iterable[str]) -> None:
        """The administrator must have one of `spiffe_ids`, which are of one trust domain."""
        self._identity = identity
        self._allowed = frozenset(SpiffeId.parse(text) for text in spiffe_ids)

    def context(self) -> tuple[ssl.SSLContext, float]:
        """The context for one connection, and when our certificate expires. Raises `TlsProblem`."""
        identity = self._identity()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority need not be self-signed
        context.set_alpn_protocols([_ALPN])
        try:
            own = read_pem(identity.chain)[0]
        except CERTIFICATE_ERRORS:
            raise TlsProblem("our certificate can't be read", self._file("cert_file")) from None
        try:
            context.load_verify_locations(cadata=identity.authorities.decode("ascii"))
        except (ValueError, OSError):
            raise TlsProblem("holds no readable PEM certificates", self._file("ca_file")) from None
        try:
            use_key(context, identity.chain, identity.key)
        except OSError:
            raise TlsProblem(
                "is not the key of our certificate, in PEM without a passphrase", self._file("key_file")
            ) from None
        return context, own.not_valid_after_utc.timestamp()

    def check(self, connection: Any) -> float:
        """Check the administrator at the other end of an `ssl.SSLObject`, and return when its certificate expires.

        The handshake has verified the chain, the validity period and possession of the key. Raises `TlsProblem`.
        """
        if connection is None or connection.selected_alpn_protocol() != _ALPN:
            raise TlsProblem("the administrator does not speak HTTP/2 over TLS")
        try:
            leaf = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
            name, authority = svid_id(leaf), is_authority(leaf)
        except (*CERTIFICATE_ERRORS, Refused):
            raise TlsProblem("the administrator's certificate is no X.509-SVID") from None
        if name not in self._allowed or authority:
            raise TlsProblem(f"the administrator's SPIFFE ID is not in `administrator.tls.spiffe_ids`: {name}")
        return leaf.not_valid_after_utc.timestamp()

    def _file(self, name: str) -> str:
        return str(getattr(self._identity, name, ""))


def _content(file: str) -> bytes:
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TlsProblem(f"cannot be read: {error.strerror}", file) from None
    if len(content) > _MAX_FILE_BYTES:
        raise TlsProblem(f"has more than {_MAX_FILE_BYTES} bytes", file)
    return content
