"""Trust bundles by trust domain: those of TrustBundle documents, and the slot where those from elsewhere are put."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zta_authz.authn.bundle_formats import (
    JWT_SVID_USES,
    Bundle,
    Wrong,
    read_pem_authorities,
    read_spiffe_bundle,
    read_spiffe_text,
)
from zta_authz.authn.certificates import Window
from zta_authz.authn.chain import Authorities
from zta_authz.authn.keys import KeySet, read_jwks
from zta_authz.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.x509 import Certificate

    from zta_authz.model.documents import Position, TrustBundle

Bundles = MappingProxyType[str, Authorities]
"""Immutable: the authorities of each trust domain, by its name. Compared by identity, as `KeySet` is."""
NO_BUNDLES: Final[Bundles] = MappingProxyType({})


class BundleSlot:
    """Where a verifier finds its bundles: `documents` gives those of the policies, `current` those in force.

    `current` is replaced as one reference, so that whoever reads it once sees the old bundles or the new ones. What was
    verified with one set of bundles does not count for another.
    """

    __slots__ = ("current", "documents")

    def __init__(self, documents: Bundles = NO_BUNDLES) -> None:
        self.documents = documents
        self.current = documents


def compile_bundles(bundles: Iterable[TrustBundle], faults: list[Fault]) -> Bundles:
    """The authorities of each trust domain, by its name. Several bundles of one domain are joined."""
    domains: dict[str, Authorities] = {}
    for bundle in bundles:
        read = _spiffe(bundle, faults).authorities
        anchors = _pem(bundle.x509_authorities, "x509Authorities", bundle.x509_authorities_position, bundle, faults)
        helpers = _pem(
            bundle.x509_intermediates, "x509Intermediates", bundle.x509_intermediates_position, bundle, faults
        )
        keys = _jwks(bundle, faults)
        before = domains.get(bundle.trust_domain.name) or Authorities(bundle.trust_domain, ())
        domains[bundle.trust_domain.name] = Authorities(
            bundle.trust_domain,
            (*before.anchors, *read.anchors, *anchors),
            (*before.intermediates, *helpers),
            KeySet((*before.jwt_keys.keys, *read.jwt_keys.keys, *keys.keys)),
        )
    return MappingProxyType(domains)


def expiry(authorities: Authorities) -> float | None:
    """When the first of the domain's authorities expires, in seconds since the epoch; None where it has none."""
    return min((Window.of(anchor).not_after for anchor in authorities.anchors), default=None)


def _spiffe(bundle: TrustBundle, faults: list[Fault]) -> Bundle:
    source = bundle.spiffe_bundle
    if source is None:
        return Bundle(Authorities(bundle.trust_domain, ()))
    if isinstance(source, str):
        read, wrong = read_spiffe_text(bundle.trust_domain, source.encode("utf-8", "surrogatepass"))
    else:
        read, wrong = read_spiffe_bundle(bundle.trust_domain, source)
    _note(wrong, bundle.spiffe_bundle_position or bundle.position, faults)
    return read


def _pem(
    text: str, name: str, position: Position | None, bundle: TrustBundle, faults: list[Fault]
) -> tuple[Certificate, ...]:
    certificates, wrong = read_pem_authorities(text.encode("utf-8", "surrogatepass"), f"`{name}`")
    _note(wrong, position or bundle.position, faults)
    return certificates


def _jwks(bundle: TrustBundle, faults: list[Fault]) -> KeySet:
    if bundle.jwt_authorities is None:
        return KeySet()
    keys, wrong = read_jwks(bundle.jwt_authorities, uses=JWT_SVID_USES)
    place = bundle.jwt_authorities_position or bundle.position
    _note((Wrong(message, "publish the trust domain's public keys only") for message in wrong), place, faults)
    return keys


def _note(wrong: Iterable[Wrong], at: Position, faults: list[Fault]) -> None:
    faults.extend(Fault(at.source, at.line, at.column, each.message, each.hint) for each in wrong)
