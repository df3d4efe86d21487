"""Checks of an X.509-SVID's leaf (SPIFFE X509-SVID specification, sections 2 to 5).

`chain.find_path` verifies that a trusted authority issued it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from zta_authz.authn.certificates import extension, is_authority, weakness
from zta_authz.authn.names import uri_names
from zta_authz.errors import Reason, Refused
from zta_authz.model.spiffe import SCHEME, SpiffeId

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_CLIENT_USAGES = frozenset((ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))


def workload_id(text: str) -> SpiffeId:
    """Parse a workload's SPIFFE ID, which must have a path. Raises `Refused`."""
    try:
        spiffe_id = SpiffeId.parse(text)
    except ValueError as error:
        raise Refused(Reason.PEER_SPIFFE_ID_INVALID, str(error)) from None
    if not spiffe_id.path:
        raise Refused(Reason.PEER_SPIFFE_ID_INVALID, "the SPIFFE ID of a trust domain is not a workload's")
    return spiffe_id


def svid_id(leaf: Certificate) -> SpiffeId:
    """The leaf's only SPIFFE ID. Raises `Refused`, or one of `CERTIFICATE_ERRORS` if the names can't be read."""
    names = uri_names(leaf)
    if len(names) != 1:
        raise Refused(Reason.PEER_SAN_COUNT, f"{len(names)} URI SANs instead of 1")
    return workload_id(names[0])


def claimed_ids(uris: tuple[str, ...]) -> tuple[SpiffeId, ...]:
    """All URI SANs with the scheme `spiffe`, for certificates that may have several. Raises `Refused`."""
    return tuple(workload_id(uri) for uri in uris if uri[: len(SCHEME)].lower() == SCHEME)


def check_leaf(leaf: Certificate, *, needs_key_usage: bool) -> None:
    """Check that `leaf` is a client's end-entity certificate of sufficient strength. Raises `Refused`.

    `needs_key_usage` refuses a leaf without the key usage extension, as the SPIFFE specification demands.
    """
    if is_authority(leaf):
        raise Refused(Reason.PEER_CERTIFICATE_IS_CA, "the leaf is a CA")
    _check_usage(leaf, needs_key_usage)
    if extension(leaf, x509.NameConstraints) is not None:
        raise Refused(Reason.PEER_CERTIFICATE_NAME_CONSTRAINT, "the leaf has name constraints")
    weak = weakness(leaf)
    if weak:
        raise Refused(Reason.PEER_CERTIFICATE_WEAK, f"the leaf has {weak}")


def _check_usage(leaf: Certificate, needed: bool) -> None:
    usage = extension(leaf, x509.KeyUsage)
    if usage is None:
        if needed:
            raise Refused(Reason.PEER_CERTIFICATE_KEY_USAGE, "the leaf has no key usage")
    elif not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise Refused(Reason.PEER_CERTIFICATE_KEY_USAGE, "the leaf's key is not for digital signatures only")
    purposes = extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and _CLIENT_USAGES.isdisjoint(purposes):
        raise Refused(Reason.PEER_CERTIFICATE_KEY_USAGE, "the leaf's key is not for TLS clients")
