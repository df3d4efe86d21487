"""Readers for the formats of a trust domain's authorities: PEM, DER, and the SPIFFE bundle.

    PEM             concatenated certificates
    DER             the same, as the Workload API sends them (SPIFFE Workload API, section 5.1)
    SPIFFE bundle   a JSON Web Key Set (SPIFFE Trust Domain and Bundle, section 4): `use: x509-svid` keys contain one CA
                    certificate in `x5c`, `use: jwt-svid` keys sign JWT-SVIDs, other uses are ignored

Each reader returns what it could read, and all errors. Don't use a part of a bundle that has errors: the sender's
mistake would then decide which authorities are trusted.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from zta_authz.authn.certificates import CERTIFICATE_ERRORS, is_authority, read_pem, weakness
from zta_authz.authn.chain import Authorities
from zta_authz.authn.encoding import json_object
from zta_authz.authn.keys import read_jwks

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from zta_authz.model.spiffe import TrustDomain

MAX_BUNDLE_BYTES: Final = 4 * 1024 * 1024
MAX_AUTHORITIES: Final = 1000
"""The maximum number of certificates in one bundle."""
JWT_SVID_USES: Final = frozenset(("jwt-svid", "sig"))
"""The `use` of keys that sign JWT-SVIDs (section 4.2.2); other issuers of JWKS write `sig`."""

_X509_USE: Final = "x509-svid"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----[^-]*-----END \1-----")  # stops at the next BEGIN
_MAX_HINT: Final = 2**53
_SEQUENCE_TAG: Final = 0x30


@dataclass(frozen=True, slots=True)
class BundleFault:
    """One error in a bundle, and how to fix it."""

    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """The authorities of one trust domain. `sequence` grows with each change; `refresh_hint` is in seconds.

    Both are optional.
    """

    authorities: Authorities
    sequence: int | None = None
    refresh_hint: int | None = None


def read_bundle(domain: TrustDomain, content: bytes) -> tuple[Bundle, tuple[BundleFault, ...]]:
    """Read a bundle file: a SPIFFE bundle if it starts like JSON, else PEM."""
    if content.lstrip()[:1] == b"{":
        return read_spiffe_text(domain, content)
    anchors, errors = read_pem_authorities(content, "the bundle")
    if not anchors and not errors:
        errors = (BundleFault("the bundle contains no certificate", "write PEM blocks or a SPIFFE bundle"),)
    return Bundle(Authorities(domain, anchors)), errors


def read_spiffe_text(domain: TrustDomain, text: bytes) -> tuple[Bundle, tuple[BundleFault, ...]]:
    """Read a SPIFFE bundle from JSON."""
    if len(text) > MAX_BUNDLE_BYTES:
        return Bundle(Authorities(domain, ())), (_too_large("the SPIFFE bundle"),)
    try:
        return read_spiffe_bundle(domain, json_object(text))
    except ValueError as error:
        errors = BundleFault(
            f"the SPIFFE bundle is not JSON: {error}", "use the answer of the trust domain's bundle endpoint"
        )
        return Bundle(Authorities(domain, ())), (errors,)


def read_spiffe_bundle(domain: TrustDomain, document: Mapping[str, Any]) -> tuple[Bundle, tuple[BundleFault, ...]]:
    """Read a parsed SPIFFE bundle. An empty one is valid: the trust domain has withdrawn all keys."""
    entries = document.get("keys")
    if not isinstance(entries, (list, tuple)):
        return Bundle(Authorities(domain, ())), (
            BundleFault("the SPIFFE bundle has no list `keys`", "add it (RFC 7517)"),
        )
    if len(entries) > MAX_AUTHORITIES:
        too_many = BundleFault(f"the SPIFFE bundle has {len(entries)} keys, more than {MAX_AUTHORITIES}", "remove some")
        return Bundle(Authorities(domain, ())), (too_many,)
    errors: list[BundleFault] = []
    anchors: list[Certificate] = []
    tokens: list[Any] = []
    for number, entry in enumerate(entries, 1):
        use = entry.get("use") if isinstance(entry, Mapping) else None
        if not isinstance(use, str):
            errors.append(
                BundleFault(f"key {number} of the SPIFFE bundle has no `use`", "write `x509-svid` or `jwt-svid`")
            )
        elif use == _X509_USE:
            anchors += _x5c(entry, f"key {number} of the SPIFFE bundle", errors)
        elif use == "jwt-svid":
            tokens.append(entry)
    keys, faults = read_jwks({"keys": tokens}, uses=JWT_SVID_USES)
    errors += [BundleFault(f"among its `jwt-svid` keys, {fault}", "publish valid public keys only") for fault in faults]
    sequence = _whole_number(document, "spiffe_sequence", errors)
    hint = _whole_number(document, "spiffe_refresh_hint", errors)
    return Bundle(Authorities(domain, tuple(anchors), (), keys), sequence, hint), tuple(errors)


def _whole_number(document: Mapping[str, Any], name: str, errors: list[BundleFault]) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_HINT:
        errors.append(BundleFault(f"`{name}` is not a whole number from 0 to 2^53", "write digits, or leave it out"))
        return None
    return value


def _x5c(entry: Mapping[str, Any], what: str, errors: list[BundleFault]) -> tuple[Certificate, ...]:
    """Read the only certificate of an `x509-svid` key (SPIFFE X509-SVID, section 6.2)."""
    chain = entry.get("x5c")
    if not isinstance(chain, (list, tuple)) or len(chain) != 1 or not isinstance(chain[0], str):
        errors.append(
            BundleFault(f"{what} has no `x5c` with exactly one certificate", "write one CA certificate for each key")
        )
        return ()
    try:
        der = base64.b64decode(chain[0], validate=True)
    except (binascii.Error, ValueError):
        errors.append(BundleFault(f"{what} has an `x5c` that is not base64", "write the certificate's DER in base64"))
        return ()
    certificate = _authority(der, what, errors)
    return () if certificate is None else (certificate,)


def read_der_authorities(der: bytes, what: str) -> tuple[tuple[Certificate, ...], tuple[BundleFault, ...]]:
    """Read concatenated CA certificates in DER. No bytes are an empty list, without error."""
    if len(der) > MAX_BUNDLE_BYTES:
        return (), (_too_large(what),)
    try:
        blocks = split_der(der)
    except ValueError as error:
        return (), (
            BundleFault(f"{what} does not consist of certificates in DER: {error}", "send each certificate completely"),
        )
    return _authorities([(block, f"certificate {number} of {what}") for number, block in enumerate(blocks, 1)])


def read_pem_authorities(pem: bytes, what: str) -> tuple[tuple[Certificate, ...], tuple[BundleFault, ...]]:
    """Read CA certificates in PEM. Only white space is an empty list, without error."""
    if not pem.strip():
        return (), ()
    if len(pem) > MAX_BUNDLE_BYTES:
        return (), (_too_large(what),)
    if b"PRIVATE KEY-----" in pem:
        hint = "remove it, and replace the key: it has been published"
        return (), (BundleFault(f"{what} contains a private key", hint),)
    blocks = [match[0] for match in _BLOCK.finditer(pem) if match[1] == b"CERTIFICATE"]
    certificates, errors = _authorities(
        [(block, f"certificate {number} of {what}") for number, block in enumerate(blocks, 1)]
    )
    if not blocks:
        errors = (
            BundleFault(f"{what} contains no certificate", "write PEM blocks `-----BEGIN CERTIFICATE-----`"),
            *errors,
        )
    elif _BLOCK.sub(b"", pem).count(b"-----"):
        hint = "check that each BEGIN line has its END line"
        errors = (BundleFault(f"{what} contains a broken PEM block", hint), *errors)
    return certificates, errors


def split_der(der: bytes) -> list[bytes]:
    """Split concatenated DER sequences (X.690, 8.1.3). Raises ValueError."""
    blocks: list[bytes] = []
    start = 0
    while start < len(der):
        end = _end_of_der(der, start)
        blocks.append(der[start:end])
        start = end
        if len(blocks) > MAX_AUTHORITIES:
            raise ValueError(f"more than {MAX_AUTHORITIES}")
    return blocks


def _end_of_der(der: bytes, start: int) -> int:
    if der[start] != _SEQUENCE_TAG or start + 2 > len(der):
        raise ValueError("not a sequence")
    length, body = der[start + 1], start + 2
    if length >= 0x80:
        size = length - 0x80
        if not 1 <= size <= 4:
            raise ValueError("a length that no certificate has")
        length, body = int.from_bytes(der[body : body + size], "big"), body + size
    if body + length > len(der):
        raise ValueError("cut short")
    return body + length


def _authorities(blocks: list[tuple[bytes, str]]) -> tuple[tuple[Certificate, ...], tuple[BundleFault, ...]]:
    errors: list[BundleFault] = []
    read = [certificate for block, what in blocks if (certificate := _authority(block, what, errors)) is not None]
    return tuple(read), tuple(errors)


def _authority(block: bytes, what: str, errors: list[BundleFault]) -> Certificate | None:
    try:
        certificate = read_pem(block)[0] if block.startswith(b"-----BEGIN") else x509.load_der_x509_certificate(block)
        if not is_authority(certificate):
            errors.append(BundleFault(f"{what} is not a CA", "list the certificates that sign SVIDs, not the SVIDs"))
            return None
        weak = weakness(certificate, check_signature=False)
    except CERTIFICATE_ERRORS:
        errors.append(BundleFault(f"{what} can't be read", "check that it is complete"))
        return None
    if weak:
        errors.append(
            BundleFault(f"{what} has {weak}", "use RSA of 2048 to 8192 bits, ECDSA P-256 or larger, or Ed25519")
        )
        return None
    return certificate


def _too_large(what: str) -> BundleFault:
    return BundleFault(f"{what} has more than {MAX_BUNDLE_BYTES // 1_048_576} MiB", "split the bundle")
