"""Trust bundles by trust domain: compilation of TrustBundle documents, and a slot for bundles from other sources."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zta_authz.authn.bundle_formats import (
    JWT_SVID_USES,
    Bundle,
    BundleFault,
    read_pem_authorities,
    read_spiffe_bundle,
    read_spiffe_text,
)
from zta_authz.authn.certificates import ValidityPeriod
from zta_authz.authn.chain import Authorities
from zta_authz.authn.keys import KeySet, read_jwks
from zta_authz.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.x509 import Certificate

    from zta_authz.model.documents import Position, TrustBundle

Bundles = MappingProxyType[str, Authorities]
"""The authorities of each trust domain by its name. Immutable, and compared by identity like `KeySet`."""
NO_BUNDLES: Final[Bundles] = MappingProxyType({})


class BundleSlot:
    """Holds a verifier's bundles: `documents` are those of the policies, `current` those in force.

    An update replaces the reference `current`, so that a reader sees either the old or the new bundles. Results that
    were verified with one set of bundles are not valid for another.
    """

    __slots__ = ("current", "documents")

    def __init__(self, documents: Bundles = NO_BUNDLES) -> None:
        self.documents = documents
        self.current = documents


def compile_bundles(bundles: Iterable[TrustBundle], faults: list[Fault]) -> Bundles:
    """Compile the authorities of each trust domain by its name. Several bundles of one domain are merged."""
    domains: dict[str, Authorities] = {}
    for bundle in bundles:
        spiffe = _spiffe(bundle, faults).authorities
        anchors = _pem(bundle.x509_authorities, "x509Authorities", bundle.x509_authorities_position, bundle, faults)
        intermediates = _pem(
            bundle.x509_intermediates, "x509Intermediates", bundle.x509_intermediates_position, bundle, faults
        )
        keys = _jwks(bundle, faults)
        before = domains.get(bundle.trust_domain.name) or Authorities(bundle.trust_domain, ())
        domains[bundle.trust_domain.name] = Authorities(
            bundle.trust_domain,
            (*before.anchors, *spiffe.anchors, *anchors),
            (*before.intermediates, *intermediates),
            KeySet((*before.jwt_keys.keys, *spiffe.jwt_keys.keys, *keys.keys)),
        )
    return MappingProxyType(domains)


def expiry(authorities: Authorities) -> float | None:
    """When the domain's first authority expires, in seconds since the epoch; None without authorities."""
    return min((ValidityPeriod.of(anchor).not_after for anchor in authorities.anchors), default=None)


def _spiffe(bundle: TrustBundle, faults: list[Fault]) -> Bundle:
    source = bundle.spiffe_bundle
    if source is None:
        return Bundle(Authorities(bundle.trust_domain, ()))
    if isinstance(source, str):
        read, errors = read_spiffe_text(bundle.trust_domain, source.encode("utf-8", "surrogatepass"))
    else:
        read, errors = read_spiffe_bundle(bundle.trust_domain, source)
    _add_faults(errors, bundle.spiffe_bundle_position or bundle.position, faults)
    return read


def _pem(
    text: str, name: str, position: Position | None, bundle: TrustBundle, faults: list[Fault]
) -> tuple[Certificate, ...]:
    certificates, errors = read_pem_authorities(text.encode("utf-8", "surrogatepass"), f"`{name}`")
    _add_faults(errors, position or bundle.position, faults)
    return certificates


def _jwks(bundle: TrustBundle, faults: list[Fault]) -> KeySet:
    if bundle.jwt_authorities is None:
        return KeySet()
    keys, errors = read_jwks(bundle.jwt_authorities, uses=JWT_SVID_USES)
    position = bundle.jwt_authorities_position or bundle.position
    _add_faults(
        (BundleFault(message, "publish the trust domain's public keys only") for message in errors), position, faults
    )
    return keys


def _add_faults(errors: Iterable[BundleFault], at: Position, faults: list[Fault]) -> None:
    faults.extend(Fault(at.source, at.line, at.column, fault.message, fault.hint) for fault in errors)
