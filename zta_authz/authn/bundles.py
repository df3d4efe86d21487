"""TrustBundle documents to authorities by trust domain; everything wrong with them becomes a fault."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zta_authz.authn.certificates import CERTIFICATE_ERRORS, Window, is_authority, read_pem, weakness
from zta_authz.authn.chain import Authorities
from zta_authz.authn.keys import read_jwks
from zta_authz.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.x509 import Certificate

    from zta_authz.model.documents import Position, TrustBundle

MAX_PEM_BYTES: Final = 4 * 1024 * 1024
JWT_SVID_USES: Final = frozenset(("sig", "jwt-svid"))
"""SPIFFE Trust Domain and Bundle specification, section 4.2.2: what `use` says of keys that sign JWT-SVIDs."""

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


def compile_bundles(bundles: Iterable[TrustBundle], faults: list[Fault]) -> Mapping[str, Authorities]:
    """The authorities of each trust domain, by its name. Several bundles of one domain are joined."""
    domains: dict[str, Authorities] = {}
    for bundle in bundles:
        anchors = _read(bundle.x509_authorities, "x509Authorities", bundle.x509_authorities_position, bundle, faults)
        helpers = _read(
            bundle.x509_intermediates, "x509Intermediates", bundle.x509_intermediates_position, bundle, faults
        )
        if bundle.jwt_authorities is not None:
            place = bundle.jwt_authorities_position or bundle.position
            for message in read_jwks(bundle.jwt_authorities, uses=JWT_SVID_USES)[1]:
                _fault(place, message, "publish the trust domain's public keys only", faults)
        name = bundle.trust_domain.name
        before = domains.get(name) or Authorities(bundle.trust_domain, ())
        domains[name] = Authorities(bundle.trust_domain, (*before.anchors, *anchors), (*before.intermediates, *helpers))
    return MappingProxyType(domains)


def expiry(authorities: Authorities) -> float | None:
    """When the first of the domain's authorities expires, in seconds since the epoch; None where it has none."""
    return min((Window.of(anchor).not_after for anchor in authorities.anchors), default=None)


def _read(
    text: str, name: str, position: Position | None, bundle: TrustBundle, faults: list[Fault]
) -> tuple[Certificate, ...]:
    place = position or bundle.position
    if not text.strip():
        return ()
    pem = text.encode("utf-8", "surrogatepass")
    if len(pem) > MAX_PEM_BYTES:
        _fault(place, f"`{name}` has more than {MAX_PEM_BYTES // 1_048_576} MiB", "split the bundle", faults)
        return ()
    if b"PRIVATE KEY-----" in pem:
        _fault(place, f"`{name}` holds a private key", "remove it, and replace the key: it has been published", faults)
        return ()
    blocks = [match[0] for match in _BLOCK.finditer(pem) if match[1] == b"CERTIFICATE"]
    if not blocks:
        _fault(place, f"`{name}` holds no certificate", "write PEM blocks `-----BEGIN CERTIFICATE-----`", faults)
    elif _BLOCK.sub(b"", pem).count(b"-----"):
        _fault(place, f"`{name}` holds a broken PEM block", "check that each BEGIN line has its END line", faults)
    read = []
    for number, block in enumerate(blocks, 1):
        certificate = _read_one(block, f"certificate {number} of `{name}`", place, faults)
        if certificate is not None:
            read.append(certificate)
    return tuple(read)


def _read_one(block: bytes, what: str, place: Position, faults: list[Fault]) -> Certificate | None:
    try:
        certificate = read_pem(block)[0]
        if not is_authority(certificate):
            _fault(place, f"{what} is not a CA", "list the certificates that sign SVIDs, not the SVIDs", faults)
            return None
        weak = weakness(certificate, check_signature=False)
    except CERTIFICATE_ERRORS:
        _fault(place, f"{what} can't be read", "check that the PEM block is complete", faults)
        return None
    if weak:
        _fault(place, f"{what} has {weak}", "use RSA of 2048 to 8192 bits, ECDSA P-256 or larger, or Ed25519", faults)
        return None
    return certificate


def _fault(position: Position, message: str, hint: str, faults: list[Fault]) -> None:
    faults.append(Fault(position.source, position.line, position.column, message, hint))
