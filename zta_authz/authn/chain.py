"""Certification paths (RFC 5280 section 6): from a leaf through untrusted intermediates to a trusted authority.

`cryptography.x509.verification` does not suffice: each failure needs its own reason, and a cached result needs its
validity period, while that verifier checks a single point in time.
Name constraints are not evaluated. A path with any of them is refused, which is safe and documented.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtensionOID

from zta_authz.authn.certificates import CERTIFICATE_ERRORS, MAX_CHAIN, ValidityPeriod, extension, weakness
from zta_authz.authn.keys import NO_KEYS, KeySet
from zta_authz.errors import Reason, Refused

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from zta_authz.model.spiffe import TrustDomain

MAX_SIGNATURES: Final = 64
"""Limit of signatures checked for one leaf, so that look-alike certificates can't cost much CPU."""

_KNOWN_EXTENSIONS: Final = frozenset(
    (
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
    )
)
_TIME_REASONS: Final = frozenset((Reason.PEER_CERTIFICATE_EXPIRED, Reason.PEER_CERTIFICATE_NOT_YET_VALID))


@dataclass(frozen=True, slots=True, eq=False)
class Authorities:
    """A trust domain's trusted `anchors`, and untrusted `intermediates` that help to build paths.

    `jwt_keys` sign the domain's JWT-SVIDs.
    """

    trust_domain: TrustDomain
    anchors: tuple[Certificate, ...]
    intermediates: tuple[Certificate, ...] = ()
    jwt_keys: KeySet = NO_KEYS


@dataclass(frozen=True, slots=True)
class CertificationPath:
    """A valid path: the period when all of it is valid, and its certificates, the lowest first."""

    validity: ValidityPeriod
    certificates: tuple[Certificate, ...]

    def below(self, certificate: Certificate) -> CertificationPath:
        """Extend the path downwards by `certificate`."""
        return CertificationPath(
            self.validity.within(ValidityPeriod.of(certificate)), (certificate, *self.certificates)
        )


def find_path(
    leaf: Certificate, intermediates: tuple[Certificate, ...], anchors: tuple[Certificate, ...], now: float
) -> CertificationPath:
    """Find a path from `leaf` to one of `anchors` that is valid at `now`. Raises `Refused` if none exists.

    `intermediates` may come from any source. Of the leaf, only the signature and critical extensions are checked;
    the caller checks its validity period, names, key and usage.
    """
    search = _Search(intermediates, anchors, now)
    try:
        _check_critical(leaf)
        path = search.path_above(leaf, 0)
    except CERTIFICATE_ERRORS:
        raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, "the leaf can't be read") from None
    if path is not None:
        return path.below(leaf)
    raise search.failure(leaf)


class _Search:
    """One depth-first search, with the reasons why paths failed."""

    def __init__(self, intermediates: tuple[Certificate, ...], anchors: tuple[Certificate, ...], now: float) -> None:
        self._anchors = anchors
        self._intermediates = intermediates
        self._now = now
        self._signatures = 0
        self._failures: list[Refused] = []

    def path_above(self, certificate: Certificate, depth: int) -> CertificationPath | None:
        """Find the path above `certificate`, which has `depth` certificates below it."""
        for anchor in self._anchors:
            if self._issued(anchor, certificate) and self._may_issue(anchor, depth, "an authority", trusted=True):
                return CertificationPath(ValidityPeriod.of(anchor), (anchor,))
        if depth + 2 >= MAX_CHAIN:
            return None
        for intermediate in self._intermediates:
            if not self._issued(intermediate, certificate):
                continue
            if not self._may_issue(intermediate, depth, "an intermediate", trusted=False):
                continue
            path = self.path_above(intermediate, depth + 1)
            if path is not None:
                return path.below(intermediate)
        return None

    def failure(self, leaf: Certificate) -> Refused:
        """Why no path was found. A time failure comes first, because it must not be cached for ever."""
        for error in self._failures:
            if error.reason in _TIME_REASONS:
                return error
        if self._failures:
            return self._failures[0]
        known = {certificate.subject for certificate in (*self._anchors, *self._intermediates)}
        hint = "" if leaf.issuer in known else ": its issuer is neither one nor a known intermediate"
        return Refused(Reason.PEER_CERTIFICATE_UNTRUSTED, f"no path to an authority of the trust domain{hint}")

    def _issued(self, issuer: Certificate, certificate: Certificate) -> bool:
        if issuer is certificate or issuer.subject != certificate.issuer:
            return False
        self._signatures += 1
        if self._signatures > MAX_SIGNATURES:
            raise Refused(Reason.PEER_CHAIN_TOO_LONG, f"more than {MAX_SIGNATURES} signatures to check")
        try:
            if weakness(issuer, check_signature=False) and issuer not in self._anchors:
                self._failures.append(Refused(Reason.PEER_CERTIFICATE_WEAK, "an intermediate has a weak key"))
                return False
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, *CERTIFICATE_ERRORS):
            return False
        return True

    def _may_issue(self, issuer: Certificate, depth: int, whose: str, *, trusted: bool) -> bool:
        try:
            _check_issuer(issuer, depth, whose, trusted=trusted)
            ValidityPeriod.of(issuer).check(self._now, whose)
        except Refused as error:
            self._failures.append(error)
            return False
        except CERTIFICATE_ERRORS:
            self._failures.append(Refused(Reason.PEER_CERTIFICATE_MALFORMED, f"{whose} can't be read"))
            return False
        return True


def _check_issuer(issuer: Certificate, depth: int, whose: str, *, trusted: bool) -> None:
    constraints = extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise Refused(Reason.PEER_CERTIFICATE_UNTRUSTED, f"{whose} is not a CA")
    if constraints.path_length is not None and depth > constraints.path_length:
        raise Refused(Reason.PEER_CERTIFICATE_UNTRUSTED, f"{whose} allows fewer intermediates")
    usage = extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise Refused(Reason.PEER_CERTIFICATE_KEY_USAGE, f"{whose} may not sign certificates")
    if extension(issuer, x509.NameConstraints) is not None:
        raise Refused(Reason.PEER_CERTIFICATE_NAME_CONSTRAINT, f"{whose} has name constraints, which we don't evaluate")
    weak = weakness(issuer, check_signature=not trusted)
    if weak:
        raise Refused(Reason.PEER_CERTIFICATE_WEAK, f"{whose} has {weak}")
    _check_critical(issuer)


def _check_critical(certificate: Certificate) -> None:
    for entry in certificate.extensions:
        if entry.critical and entry.oid not in _KNOWN_EXTENSIONS:
            raise Refused(
                Reason.PEER_CERTIFICATE_UNTRUSTED, f"critical extension {entry.oid.dotted_string} is not understood"
            )
