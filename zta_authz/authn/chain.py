"""Certification paths (RFC 5280 section 6): from a leaf through untrusted intermediates to a trusted authority.

Written out rather than left to `cryptography.x509.verification`, because each way to fail needs its own reason, and
because that verifier takes a single point in time, while a cached result must say how long it holds.
Name constraints are not evaluated: a path with any of them is refused, which is safe and said in the documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtensionOID

from zta_authz.authn.certificates import CERTIFICATE_ERRORS, MAX_CHAIN, Window, extension, weakness
from zta_authz.authn.keys import NO_KEYS, KeySet
from zta_authz.errors import Reason, Refused

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from zta_authz.model.spiffe import TrustDomain

MAX_SIGNATURES: Final = 64
"""Signatures checked for one leaf, so that certificates made to look alike can't keep us busy."""

_UNDERSTOOD: Final = frozenset(
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
    """What a trust domain's certificates are verified against: trusted `anchors`, and `intermediates` that help.

    `jwt_keys` are those that sign the domain's JWT-SVIDs.
    """

    trust_domain: TrustDomain
    anchors: tuple[Certificate, ...]
    intermediates: tuple[Certificate, ...] = ()
    jwt_keys: KeySet = NO_KEYS


@dataclass(frozen=True, slots=True)
class Path:
    """A path that was found: when all of it is valid, and its certificates from the lowest upwards."""

    window: Window
    certificates: tuple[Certificate, ...]

    def below(self, certificate: Certificate) -> Path:
        """The path that starts one lower, at `certificate`."""
        return Path(self.window.within(Window.of(certificate)), (certificate, *self.certificates))


def find_path(
    leaf: Certificate, helpers: tuple[Certificate, ...], anchors: tuple[Certificate, ...], now: float
) -> Path:
    """A path from `leaf` to one of `anchors`, all of it valid at `now`. Raises `Refused` if there is none.

    `helpers` are intermediates from anywhere. The leaf's own window, names, key and usage are the caller's to check,
    but for its signature and its critical extensions.
    """
    search = _Search(helpers, anchors, now)
    try:
        _check_critical(leaf)
        path = search.above(leaf, 0)
    except CERTIFICATE_ERRORS:
        raise Refused(Reason.PEER_CERTIFICATE_MALFORMED, "the leaf can't be read") from None
    if path is not None:
        return path.below(leaf)
    raise search.failure(leaf)


class _Search:
    """One depth-first search; remembers the most telling way in which a path failed."""

    def __init__(self, helpers: tuple[Certificate, ...], anchors: tuple[Certificate, ...], now: float) -> None:
        self._anchors = anchors
        self._helpers = helpers
        self._now = now
        self._signatures = 0
        self._failures: list[Refused] = []

    def above(self, certificate: Certificate, depth: int) -> Path | None:
        """The path above `certificate`, which has `depth` certificates below it."""
        for anchor in self._anchors:
            if self._issued(anchor, certificate) and self._may_issue(anchor, depth, "an authority", trusted=True):
                return Path(Window.of(anchor), (anchor,))
        if depth + 2 >= MAX_CHAIN:
            return None
        for helper in self._helpers:
            if not self._issued(helper, certificate):
                continue
            if not self._may_issue(helper, depth, "an intermediate", trusted=False):
                continue
            path = self.above(helper, depth + 1)
            if path is not None:
                return path.below(helper)
        return None

    def failure(self, leaf: Certificate) -> Refused:
        """Why there is no path. A failure of time comes first, because it must not be remembered for good."""
        for error in self._failures:
            if error.reason in _TIME_REASONS:
                return error
        if self._failures:
            return self._failures[0]
        known = {each.subject for each in (*self._anchors, *self._helpers)}
        why = "" if leaf.issuer in known else ": its issuer is neither one nor a known intermediate"
        return Refused(Reason.PEER_CERTIFICATE_UNTRUSTED, f"no path to an authority of the trust domain{why}")

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
            Window.of(issuer).check(self._now, whose)
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
        if entry.critical and entry.oid not in _UNDERSTOOD:
            raise Refused(
                Reason.PEER_CERTIFICATE_UNTRUSTED, f"critical extension {entry.oid.dotted_string} is not understood"
            )
