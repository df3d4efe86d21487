"""The names in a certificate, in the order and spelling that Envoy passes to its RBAC filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from zta_authz.authn.certificates import extension
from zta_authz.model.identity import CertificateNames

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SHORT_NAMES = {
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "SN",
    NameOID.GIVEN_NAME: "GN",
    NameOID.TITLE: "title",
    NameOID.USER_ID: "UID",
}
"""OpenSSL's short names that `cryptography` does not use by default."""


def uri_names(certificate: Certificate) -> tuple[str, ...]:
    """The URI SANs. Raises one of `CERTIFICATE_ERRORS`."""
    names = extension(certificate, x509.SubjectAlternativeName)
    return () if names is None else tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def dns_names(certificate: Certificate) -> tuple[str, ...]:
    """The DNS SANs. Raises one of `CERTIFICATE_ERRORS`."""
    names = extension(certificate, x509.SubjectAlternativeName)
    return () if names is None else tuple(names.get_values_for_type(x509.DNSName))


def subject_name(certificate: Certificate) -> str:
    r"""The subject as OpenSSL's `XN_FLAG_RFC2253` prints it: last part first, non-printable and non-ASCII as `\XX`."""
    return _name_text(certificate.subject)


def certificate_names(certificate: Certificate) -> CertificateNames:
    """The identifiers of a certificate besides its fingerprint. Raises one of `CERTIFICATE_ERRORS`."""
    return CertificateNames(uri_names(certificate), _name_text(certificate.issuer), certificate.serial_number)


def _name_text(name: x509.Name) -> str:
    text = name.rfc4514_string(_SHORT_NAMES)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if " " <= character <= "~" else "".join(f"\\{byte:02X}" for byte in character.encode("utf-8"))
        for character in text
    )


def envoy_names(certificate: Certificate) -> tuple[str, ...]:
    """All URI SANs, then all DNS SANs, then the subject unless it is empty."""
    subject = subject_name(certificate)
    return (*uri_names(certificate), *dns_names(certificate), *((subject,) if subject else ()))
