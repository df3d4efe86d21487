"""PEM text to certificates, and the facts about one certificate that more than one check needs (RFC 5280)."""

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
"""Characters of URL-encoded PEM that are looked at."""
MAX_CHAIN: Final = 8
"""Certificates in what is presented, and on a path from leaf to authority."""
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
"""What `cryptography` raises for a certificate that it can't read, on loading or when a part of it is looked at."""

E = TypeVar("E", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time in seconds since the epoch, both ends included."""

    not_before: float
    not_after: float

    @classmethod
    def of(cls, certificate: Certificate) -> Window:
        """The certificate's validity."""
        return cls(certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())

    def within(self, other: Window) -> Window:
        """The part of the two that they share."""
        return Window(max(self.not_before, other.not_before), min(self.not_after, other.not_after))

    def check(self, now: float, whose: str) -> None:
        """Raises `Refused` unless `now` is in it."""
        if now > self.not_after:
            raise Refused(Reason.PEER_CERTIFICATE_EXPIRED, f"{whose} expired {now - self.not_after:.0f} s ago")
        if now < self.not_before:
            wait = self.not_before - now
            raise Refused(Reason.PEER_CERTIFICATE_NOT_YET_VALID, f"{whose} is not valid for another {wait:.0f} s")


def read_presented(text: str) -> list[Certificate]:
    """The certificates in URL-encoded PEM as Envoy sends it, leaf first. Raises `Refused`."""
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
    """The certificates in `pem`, which must hold nothing else. Raises one of `CERTIFICATE_ERRORS`."""
    if not _PEM.fullmatch(pem):
        raise ValueError("not PEM certificates only")
    certificates = x509.load_pem_x509_certificates(pem)
    if any(each.serial_number <= 0 for each in certificates):  # RFC 5280, 4.1.2.2
        raise ValueError("a serial number that is not positive")
    if not all(map(is_canonical, certificates)):  # else one certificate would have fingerprints without number
        raise ValueError("a signature that is not written as DER has it")
    return certificates


def extension(certificate: Certificate, kind: type[E]) -> E | None:
    """The extension of that kind, None where there is none. Raises one of `CERTIFICATE_ERRORS`."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def is_authority(certificate: Certificate) -> bool:
    """Whether basic constraints say that it is a CA."""
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def weakness(certificate: Certificate, *, check_signature: bool = True) -> str:
    """What is too weak about its key (or the hash in its signature), "" if nothing is."""
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
