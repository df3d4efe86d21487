"""Fingerprints of all encodings of a certificate that its holder can make without the issuer's key.

An issuer signs only the to-be-signed part of a certificate (RFC 5280, section 4.1). The bytes around it can be encoded
in several ways: an ECDSA signature (r, s) also verifies as (r, n - s) (SEC 1, section 4.1.4), and a lenient parser
accepts unused bits at the end of the signature. A fingerprint covers these bytes too, so one certificate has several.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

# The orders n of P-224, P-256, P-384 and P-521 (SEC 2). A certificate does not say which curve its issuer's key is on.
_ORDERS: Final = (
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFF16A2E0B8F03E13DD29455C5C2A3D,
    0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,
)
_SEQUENCE, _BIT_STRING = 0x30, 0x03


def fingerprints(certificate: Certificate) -> tuple[str, ...]:
    """The SHA-256, in lower-case hex, of the certificate as presented and of each equivalent encoding."""
    presented = certificate.public_bytes(Encoding.DER)
    encodings = (_with_signature(certificate, presented, signature) for signature in _equivalents(certificate))
    return tuple(dict.fromkeys(hashlib.sha256(der).hexdigest() for der in (presented, *encodings)))


def is_canonical(certificate: Certificate) -> bool:
    """Whether the bytes around the signed part are DER, so that ECDSA's second signature is the only equivalent."""
    presented = certificate.public_bytes(Encoding.DER)
    return _with_signature(certificate, presented, certificate.signature) == presented


def _equivalents(certificate: Certificate) -> tuple[bytes, ...]:
    """The certificate's signature, and the valid ones that anybody can derive from it."""
    signature = certificate.signature
    try:
        r, s = decode_dss_signature(signature)
    except ValueError:  # not the two numbers of an ECDSA signature
        return (signature,)
    return (signature, *(encode_dss_signature(r, order - s) for order in _ORDERS if r < order and 0 < s < order))


def _with_signature(certificate: Certificate, presented: bytes, signature: bytes) -> bytes:
    """Encode the certificate in DER with `signature`, and with the algorithm bytes of `presented`."""
    signed = certificate.tbs_certificate_bytes
    start = presented.index(signed) + len(signed)
    algorithm = presented[start : start + 2 + presented[start + 1]]  # a few object identifiers: shorter than 128 bytes
    return _element(_SEQUENCE, signed + algorithm + _element(_BIT_STRING, b"\x00" + signature))


def _element(tag: int, content: bytes) -> bytes:
    """Encode `content` as a DER element (X.690, sections 8.1.2 and 10.1)."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content
