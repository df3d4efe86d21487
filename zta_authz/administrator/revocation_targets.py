"""What can be revoked, written as decision points compare it. A revocation that none of them could apply is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NoReturn

from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.model.documents import Revoked
from zta_authz.model.spiffe import SCHEME, SpiffeId, TrustDomain
from zta_authz.security_events.subjects import SubjectKey, normal_email

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

MAX_BYTES: Final = 2048
"""The limit of a value and of an issuer. A SPIFFE ID has at most so many (SPIFFE-ID specification, section 2.4)."""
WITH_TIME_OF_ISSUE: Final = frozenset(
    (
        Revoked.KEY, Revoked.SUBJECT, Revoked.SESSION, Revoked.EMAIL, Revoked.ISSUER, Revoked.SPIFFE_ID,
        Revoked.SPIFFE_PREFIX,
    )
)  # fmt: skip
"""The kinds of which earlier credentials alone can be revoked."""
_CERTIFICATE: Final = "certificate"
_WITH_ISSUER: Final = frozenset((Revoked.KEY, Revoked.SUBJECT, Revoked.SESSION, Revoked.EMAIL))
_WITHOUT_ISSUER: Final = frozenset(
    (Revoked.SERIAL, Revoked.SHA256, Revoked.SPIFFE_ID, Revoked.SPIFFE_PREFIX, Revoked.ISSUER)
)
_NAMES: Final[Mapping[str, Revoked]] = {str(kind): kind for kind in Revoked} | {
    "spiffe-id": Revoked.SPIFFE_ID,
    "spiffe-prefix": Revoked.SPIFFE_PREFIX,
}
_SHOWN: Final = (
    "token, session, subject, email, issuer, key, certificate, spiffe-id, spiffe-prefix or device"  # the usual names
)
_HEX: Final = re.compile(r"[0-9A-Fa-f]{1,2}(?::?[0-9A-Fa-f]{2})*")
_SHA256_DIGITS: Final = 64
_MAX_SERIAL_DIGITS: Final = 40  # RFC 5280, section 4.1.2.2: at most 20 octets
_HOW_CERTIFICATES: Final = (
    f"a certificate is revoked by its serial number (1 to {_MAX_SERIAL_DIGITS} hex digits) or by its SHA-256 "
    f"({_SHA256_DIGITS} hex digits): write it as `openssl x509` prints it"
)
_INVENTORY: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?/[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
_SCHEME: Final = re.compile(SCHEME, re.IGNORECASE)


def read_target(what: str, value: str, issuer: str) -> SubjectKey:
    """What an operator wants to revoke, in its canonical form.

    `what` is a value of `Revoked`, also with hyphens, or `certificate` (by serial number in hex, or by SHA-256).
    `issuer` is that of tokens, or the inventory (`namespace/name`) of a device. Raises `OperationRefused`.
    """
    _check_text("value", value)
    if issuer:
        _check_text("issuer", issuer)
    kind = _kind(what, value)
    if kind is Revoked.DEVICE:
        return _device(value, issuer)
    if issuer and kind in _WITHOUT_ISSUER:
        _refuse(f"a revocation of `{what}` has no issuer: leave it out")
    if not issuer and kind in _WITH_ISSUER:
        _refuse(f"a revocation of `{what}` needs the issuer of the tokens, as in their `iss`")
    issuer = _issuer(issuer)
    if kind is Revoked.SUBJECT and issuer.startswith(SCHEME):
        return _svid_subject(value, issuer)
    read = _VALUES.get(kind)
    return SubjectKey(kind, issuer, value if read is None else read(value))


def check_issuer(target: SubjectKey, known: Collection[str]) -> None:
    """Refuse an issuer that is not one of `known` but looks like one: tokens name theirs exactly.

    Others may be known to decision points only. Raises `OperationRefused`.
    """
    issuer = target.value if target.what is Revoked.ISSUER else target.issuer
    if not issuer or target.what is Revoked.DEVICE or issuer in known:
        return
    for other in known:
        if _alike(other) == _alike(issuer):
            _refuse(f"tokens are accepted of the issuer `{other}`, which is written otherwise: write it so")


def _alike(issuer: str) -> str:
    return issuer.casefold().rstrip("/")


def _kind(what: str, value: str) -> Revoked:
    if what == _CERTIFICATE:
        return Revoked.SHA256 if len(_digits(value)) == _SHA256_DIGITS else Revoked.SERIAL
    kind = _NAMES.get(what)
    return _refuse(f"`{what[:40]}` can't be revoked: write {_SHOWN}") if kind is None else kind


def _check_text(name: str, text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        _refuse(f"the {name} is not a Unicode text: write it without lone surrogates")
    if not 0 < size <= MAX_BYTES:
        _refuse(f"the {name} has {size} bytes: write 1 to {MAX_BYTES}")
    if text != text.strip():
        _refuse(f"the {name} begins or ends with white space: write it without")


def _device(value: str, inventory: str) -> SubjectKey:
    if inventory and not _INVENTORY.fullmatch(inventory):
        _refuse("the issuer of a device is its DeviceInventory: write `namespace/name`, or nothing for every inventory")
    return SubjectKey(Revoked.DEVICE, inventory, value)


def _serial(value: str) -> str:
    digits = _digits(value)
    return str(int(digits, 16)) if len(digits) <= _MAX_SERIAL_DIGITS else _refuse(_HOW_CERTIFICATES)


def _sha256(value: str) -> str:
    digits = _digits(value)
    return digits.lower() if len(digits) == _SHA256_DIGITS else _refuse(_HOW_CERTIFICATES)


def _digits(value: str) -> str:
    """The hex digits without colons. Longer than any identifier of a certificate if the text has other characters."""
    return value.replace(":", "") if _HEX.fullmatch(value) else "x" * (_SHA256_DIGITS + 1)


def _issuer(issuer: str) -> str:
    """The issuer of JWT-SVIDs is `spiffe://TRUST-DOMAIN`. Others are compared as they are."""
    if not _SCHEME.match(issuer):
        return issuer
    domain = issuer[len(SCHEME) :].lower()
    try:
        return SCHEME + TrustDomain.parse(domain).name
    except ValueError:
        _refuse("the issuer of JWT-SVIDs is their trust domain: write it like `spiffe://cluster.local`")


def _svid_subject(value: str, issuer: str) -> SubjectKey:
    subject = _spiffe_id(value)
    if not subject.startswith(issuer + "/"):
        _refuse(f"the subjects of `{issuer}` are its SPIFFE IDs: write one like `{issuer}/ns/shop/sa/orders`")
    return SubjectKey(Revoked.SUBJECT, issuer, subject)


def _spiffe_id(value: str) -> str:
    """A SPIFFE ID with its scheme and its trust domain in lower case."""
    text = _with_small_domain(value)
    try:
        if not SpiffeId.parse(text).path:
            raise ValueError("the SPIFFE ID of a workload has a path")
    except ValueError as error:
        _refuse(f"{error}: write it like `spiffe://cluster.local/ns/shop/sa/orders`")
    return text


def _spiffe_prefix(value: str) -> str:
    text = _with_small_domain(value)
    try:
        if not text.endswith("/"):
            raise ValueError("a prefix ends with `/`, so that it ends where a segment ends")
        SpiffeId.parse(text[:-1])
    except ValueError as error:
        _refuse(f"{error}: write it like `spiffe://cluster.local/ns/shop/`")
    return text


def _with_small_domain(value: str) -> str:
    if not _SCHEME.match(value):
        return value
    domain, slash, path = value[len(SCHEME) :].partition("/")
    return SCHEME + domain.lower() + slash + path


def _refuse(message: str) -> NoReturn:
    raise OperationRefused(Refusal.INVALID, message)


_VALUES: Final[Mapping[Revoked, Callable[[str], str]]] = {
    Revoked.SERIAL: _serial,
    Revoked.SHA256: _sha256,
    Revoked.SPIFFE_ID: _spiffe_id,
    Revoked.SPIFFE_PREFIX: _spiffe_prefix,
    Revoked.EMAIL: normal_email,
    Revoked.ISSUER: _issuer,
}
"""How values become canonical. The others are compared as they are."""
