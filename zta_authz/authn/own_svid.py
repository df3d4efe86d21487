"""The service's own X.509-SVID: read from the Workload API's answer, and validated before it is used.

The private key passes through this module in memory. It is in no `repr`, no message and no log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from zta_authz.authn.bundle_formats import split_der
from zta_authz.authn.certificates import (
    CERTIFICATE_ERRORS,
    MAX_CHAIN,
    ValidityPeriod,
    extension,
    is_authority,
    weakness,
)
from zta_authz.authn.svid import svid_id
from zta_authz.errors import Refused

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from zta_authz.model.spiffe import SpiffeId

_SERVER_USAGES = frozenset((ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))


@dataclass(frozen=True, slots=True, eq=False)
class OwnSvid:
    """An SVID to serve with: its chain (leaf first) and key in PEM. Compared by identity."""

    spiffe_id: SpiffeId
    validity: ValidityPeriod
    intermediates: tuple[Certificate, ...]
    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)


class SvidSlot:
    """Holds the service's SVID, None until there is one. A renewal replaces the reference `current`."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current: OwnSvid | None = None


def read_own_svid(spiffe_id: str, chain: bytes, key: bytes) -> OwnSvid:
    """Read the SVID of `spiffe_id` from DER certificates (leaf first) and a PKCS#8 key in DER.

    Raises ValueError with a message that contains nothing of the key. Validity times and the issuer are not checked:
    the agent is trusted, and our clients check them.
    """
    certificates = _certificates(chain)
    leaf = certificates[0]
    try:
        problem = _problem(leaf, spiffe_id)
    except Refused as error:
        problem = error.detail
    except CERTIFICATE_ERRORS:
        problem = "the certificate can't be read"
    if problem:
        raise ValueError(problem)
    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    return OwnSvid(svid_id(leaf), ValidityPeriod.of(leaf), certificates[1:], pem, _key_pem(key, leaf))


def _certificates(chain: bytes) -> tuple[Certificate, ...]:
    """Parse the certificates, at least one. Raises ValueError."""
    blocks = split_der(chain)
    if not 1 <= len(blocks) <= MAX_CHAIN:
        raise ValueError(f"{len(blocks)} certificates, not 1 to {MAX_CHAIN}")
    try:
        return tuple(x509.load_der_x509_certificate(block) for block in blocks)
    except CERTIFICATE_ERRORS:
        raise ValueError("a certificate can't be read") from None


def _problem(leaf: Certificate, spiffe_id: str) -> str:
    """Why `leaf` can't be used, "" if it can. Raises `Refused`, or one of `CERTIFICATE_ERRORS`."""
    if str(svid_id(leaf)) != spiffe_id:
        return "the certificate has another SPIFFE ID"
    if is_authority(leaf):
        return "the certificate is a CA"
    usages = extension(leaf, x509.ExtendedKeyUsage)
    if usages is not None and _SERVER_USAGES.isdisjoint(usages):
        return "the certificate is not for TLS servers"
    weak = weakness(leaf)
    return f"the certificate has {weak}" if weak else ""


def _key_pem(der: bytes, leaf: Certificate) -> bytes:
    try:
        key = load_der_private_key(der, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("the private key can't be read") from None
    own, certified = (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for public in (key.public_key(), leaf.public_key())
    )
    if own != certified:
        raise ValueError("the private key does not belong to the certificate")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
