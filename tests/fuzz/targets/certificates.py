"""A spoilt certificate, in PEM, DER, URL-encoding or x-forwarded-client-cert, is refused or still the original identity.

Certificates that the authority did sign, whatever is in them, are refused or name one SPIFFE ID that stands in them;
and authorities that can't be read are faults, not exceptions.
"""

from __future__ import annotations

import base64
import contextlib
import functools
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from tests.fuzz import material
from tests.fuzz.target import Target, assert_telling, split_mode, text_of
from tests.support.pki import FRONTEND, pem, presented, xfcc
from tests.unit.authn.support import ISTIO, STRICT, bundle, verifier
from zta_authz.authn.bundle_formats import read_bundle, read_der_authorities
from zta_authz.authn.bundles import compile_bundles
from zta_authz.errors import Refused
from zta_authz.model.identity import PeerTrust
from zta_authz.model.options import ChainSource
from zta_authz.model.request import Evidence, Headers, RequestAttributes
from zta_authz.model.spiffe import TrustDomain

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.errors import Fault
    from zta_authz.model.identity import Peer

INVARIANT = "any certificate text is refused or gives the identity of a certificate that the authority signed"
NOW = 1_800_000_000.0
_MODES = 8
_DOMAIN = TrustDomain("cluster.local")
# SEQUENCE { OID 1.3.101.112 }: Ed25519, RFC 8410
_ED25519 = bytes.fromhex("300506032b6570")


@functools.cache
def verifiers() -> tuple[IdentityVerifier, IdentityVerifier]:
    """One of each reading, which take intermediates from everywhere."""
    bundles = (bundle(material.trust_bundle()),)
    everywhere = tuple(ChainSource)
    return (
        verifier(bundles=bundles, options=replace(STRICT, chain_from=everywhere)),
        verifier(bundles=bundles, options=replace(ISTIO, chain_from=everywhere)),
    )


@functools.cache
def originals() -> dict[bytes, str]:
    """The names that certificates were made for, by SHA-256 of the DER."""
    made = ((material.frontend(), FRONTEND), (material.orders(), material.ORDERS))
    return {certificate.fingerprint(hashes.SHA256()): uri for certificate, uri in made}


def check(data: bytes) -> None:
    """The first byte says how the rest is presented."""
    mode, rest = split_mode(data, _MODES)
    match mode:
        case 0:
            _spoilt(text_of(rest))
        case 1:
            _spoilt(quote(rest, safe=""))
        case 2:
            _spoilt(quote(_pem(rest), safe=""))
        case 3:
            _signed(rest)
        case 4:
            _spoilt(presented(material.orders()), header=text_of(rest))
        case 5:
            _spoilt(presented(material.frontend()), principal=text_of(rest))
        case 6:
            _authorities(rest)
        case _:
            _authorities(_pem(rest).encode())


def _pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"


def _peers(certificate: str, header: str, principal: str) -> list[tuple[bool, Peer]]:
    headers = Headers({"x-forwarded-client-cert": (header,)} if header else {}, exact=True)
    found = []
    for strict, subject in zip((True, False), verifiers(), strict=True):
        with contextlib.suppress(Refused):
            peer = subject.verify(RequestAttributes(headers=headers), Evidence(principal, certificate), NOW).peer
            if peer is not None:
                found.append((strict, peer))
    return found


def _spoilt(certificate: str, header: str = "", principal: str = "") -> None:
    for strict, peer in _peers(certificate, header, principal):
        if not certificate:
            assert not strict
            continue
        assert peer.trust is PeerTrust.CERTIFICATE
        assert peer.certificate_sha256 in originals()
        assert peer.names == (originals()[peer.certificate_sha256],)
        assert not principal or principal in peer.names


def _signed(tbs: bytes) -> None:
    """A certificate of these very contents, signed by the authority as one."""
    der = _sequence(tbs + _ED25519 + _der(0x03, b"\x00" + material.key("root").sign(tbs)))
    for strict, peer in _peers(quote(_pem(der), safe=""), "", ""):
        assert peer.trust is PeerTrust.CERTIFICATE
        if strict:
            assert peer.spiffe_id is not None
            assert peer.names == (str(peer.spiffe_id),)
        if peer.spiffe_id is not None:
            assert peer.spiffe_id.trust_domain == _DOMAIN
            assert str(peer.spiffe_id).encode() in tbs


def _sequence(content: bytes) -> bytes:
    return _der(0x30, content)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def _authorities(content: bytes) -> None:
    """The content as a bundle of every form."""
    faults: list[Fault] = []
    compile_bundles([bundle(text_of(content), x509_intermediates=text_of(content))], faults)
    if faults:
        assert_telling(tuple(faults))
    for found, wrong in (read_bundle(_DOMAIN, content), read_der_authorities(content, "the bundle")):
        for each in wrong:
            assert each.message
        assert found is not None


def _contents(certificate: Certificate) -> bytes:
    return certificate.tbs_certificate_bytes


def seeds() -> dict[str, bytes]:
    """Certificates in every form, sound and not."""
    frontend, orders, above = material.frontend(), material.orders(), material.intermediate()
    der = frontend.public_bytes(Encoding.DER)
    contents = _contents(frontend)
    return {
        "url": b"\x00" + presented(frontend).encode(),
        "url-chain": b"\x00" + presented(orders, above).encode(),
        "pem": b"\x01" + pem(frontend).encode(),
        "pem-stranger": b"\x01" + pem(material.stranger()).encode(),
        "der": b"\x02" + der,
        "contents": b"\x03" + contents,
        "contents-authority": b"\x03" + _contents(above),
        "contents-two-names": b"\x03" + contents.replace(b"/sa/frontend", b"/sa/f\x00ontend"),
        "contents-year": b"\x03" + contents.replace(b"20200101000000Z", b"99991231235959Z"),
        "xfcc": b"\x04" + xfcc(orders, above).encode(),
        "xfcc-two": b"\x04" + f"{xfcc(frontend)},{xfcc(orders, above)}".encode(),
        "principal": b"\x05" + FRONTEND.encode(),
        "bundle-pem": b"\x06" + material.trust_bundle().encode(),
        "bundle-json": b'\x06{"keys": [{"kty": "OKP", "use": "x509-svid", "x5c": ["AAAA"]}], "spiffe_sequence": 1}',
        "bundle-der": b"\x07" + material.authority().public_bytes(Encoding.DER),
    }


WORDS = (
    b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"-----BEGIN%20CERTIFICATE-----%0A", b"%0A", b"%0a", b"%",
    b"%00", b"Chain=", b'Chain="', b"chain=", b",", b";", b'"', b"\\", b"URI=", b"Hash=", b"spiffe://cluster.local/", b"=",
    b"spiffe://CLUSTER.local/x", b"\x30\x80", b"\x30\x82", b"\x06\x03\x55\x1d\x11", b"\x06\x03\x55\x1d\x13",
    b"\x06\x03\x55\x1d\x0f", b"\x06\x03\x55\x1d\x1e", b"\x01\x01\xff", b"\x17\x0d000101000000Z", b"\x86\x00", b"\xa0\x03",
)  # fmt: skip

TARGET = Target("certificates", INVARIANT, check, seeds, WORDS)
