"""Parse certificates from PEM, and read properties of certificates that several checks need (RFC 5280)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from zta_authz.authn.encoding import percent_decode_strict
from zta_authz.authn.fingerprints import is_canonical
from zta_authz.authn.rsa_bounds import rsa_weakness
from zta_authz.errors import Reason, Refused

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_CERTIFICATE_TEXT: Final = 64 * 1024
"""The maximum length of URL-encoded PEM, in characters."""
MAX_CHAIN: Final = 8
"""The maximum number of certificates that a peer presents, and of those on a path from leaf to authority."""
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_WEAK_HASHES = (hashes.MD5, hashes.SHA1, hashes.SHA224)

_BEGIN = b"-----BEGIN"
_PEM = re.compile(
    rb"\s*(?:-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+",
)
CERTIFICATE_ERRORS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
)
"""The errors that `cryptography` raises for an unreadable certificate, on loading or on later access."""

E = TypeVar("E", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class ValidityPeriod:
    """A validity period in seconds since the epoch, both ends included."""

    not_before: float
    not_after: float

    @classmethod
    def of(cls, certificate: Certificate) -> ValidityPeriod:
        """The validity period of `certificate`."""
        return cls(certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())

    def within(self, other: ValidityPeriod) -> ValidityPeriod:
        """The intersection of both periods."""
        return ValidityPeriod(max(self.not_before, other.not_before), min(self.not_after, other.not_after))

    def check(self, now: float, whose: str) -> None:
        """Check that `now` is in the period. Raises `Refused`."""
        if now > self.not_after:
            raise Refused(Reason.PEER_CERTIFICATE_EXPIRED, f"{whose} expired {now - self.not_after:.0f} s ago")
        if now < self.not_before:
            wait = self.not_before - now
            raise Refused(Reason.PEER_CERTIFICATE_NOT_YET_VALID, f"{whose} is not valid for another {wait:.0f} s")


def read_presented(text: str) -> list[Certificate]:
    """Parse URL-encoded PEM as Envoy sends it, leaf first. Raises `Refused`."""
    if len(text) > MAX_CERTIFICATE_TEXT:
        raise Refused(Reason.PEER_CHAIN_TOO_LONG, f"more than {MAX_CERTIFICATE_TEXT // 1024} KiB")
    try:
        pem = percent_decode_strict(text.encode("ascii"))
    except ValueError:
        raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, "not URL-encoded PEM") from None
    if pem.count(_BEGIN) > MAX_CHAIN:
        raise Refused(Reason.PEER_CHAIN_TOO_LONG, f"more than {MAX_CHAIN} certificates")
    try:
        return read_pem(pem)
    except CERTIFICATE_ERRORS:
        raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, "not certificates in PEM") from None


def read_pem(pem: bytes) -> list[Certificate]:
    """Parse `pem`, which must contain only certificates. Raises one of `CERTIFICATE_ERRORS`."""
    if not _PEM.fullmatch(pem):
        raise ValueError("not PEM certificates only")
    certificates = x509.load_pem_x509_certificates(pem)
    if any(certificate.serial_number <= 0 for certificate in certificates):  # RFC 5280, 4.1.2.2
        raise ValueError("a serial number that is not positive")
    if not all(map(is_canonical, certificates)):  # else one certificate would have unlimited fingerprints
        raise ValueError("a signature that is not encoded in DER")
    return certificates


def extension(certificate: Certificate, kind: type[E]) -> E | None:
    """The extension of type `kind`, None if absent. Raises one of `CERTIFICATE_ERRORS`."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def is_authority(certificate: Certificate) -> bool:
    """Whether the basic constraints mark a CA."""
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def weakness(certificate: Certificate, *, check_signature: bool = True) -> str:
    """What is too weak about the key (or the hash in the signature), "" if nothing is."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        weak = rsa_weakness(key.key_size, key.public_numbers().e)
        if weak:
            return weak
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            return f"a key on the curve {key.curve.name}"
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        return "a key that is not RSA, ECDSA or Ed25519"
    if check_signature and isinstance(certificate.signature_hash_algorithm, _WEAK_HASHES):
        return f"a signature with {certificate.signature_hash_algorithm.name}"
    return ""
