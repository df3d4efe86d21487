"""Read `zta.dev/v1` RevocationList: revoked credentials, since when, and up to which time of issue."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zta_authz.model.documents import Revocation, RevocationList, Revoked
from zta_authz.model.spiffe import SpiffeId, TrustDomain
from zta_authz.policy.yaml.values import moment, optional_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.errors import Fault
    from zta_authz.policy.documents.spec import DocumentHeader, DocumentSet
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Mapping, Node

_EVERYWHERE: Final = ("effectiveFrom", "comment")
HEX: Final = re.compile(r"[0-9A-Fa-f]{1,2}(?::?[0-9A-Fa-f]{2})*")
_MAX_SERIAL_DIGITS: Final = 40  # RFC 5280 section 4.1.2.2: at most 20 octets


def read_revocation_list(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the list to `documents`."""
    del warnings
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "RevocationList.spec", (*SECTIONS, "comment"))
    comment = optional_text(reader, spec, "comment") or ""
    entries: list[Revocation] = []
    for section, read in SECTIONS.items():
        node = spec.get(section)
        for item in [] if node is None else reader.items(node, section, "entries"):
            entry = read(reader, item, comment)
            if entry is not None:
                entries.append(entry)
    if not any(spec.get(section) is not None for section in SECTIONS):
        reader.fault(spec, "the list revokes nothing", f"add one of {', '.join(SECTIONS)}")
    at = reader.position(header.document)
    documents.revocations.append(RevocationList(header.name, header.namespace, at, tuple(entries)))


def _token(reader: Reader, node: Node, comment: str) -> Revocation | None:
    entry = reader.mapping(node, "an entry of `tokens`", ("id", "issuer", *_EVERYWHERE))
    return None if entry is None else _named(reader, entry, Revoked.TOKEN, "id", comment)


def _key(reader: Reader, node: Node, comment: str) -> Revocation | None:
    entry = reader.mapping(node, "an entry of `keys`", ("id", "issuer", "before", *_EVERYWHERE))
    if entry is not None:
        reader.required(entry, "issuer", "an entry of `keys`")
    return None if entry is None else _named(reader, entry, Revoked.KEY, "id", comment)


def _subject(reader: Reader, node: Node, comment: str) -> Revocation | None:
    entry = reader.mapping(node, "an entry of `subjects`", ("subject", "issuer", "before", *_EVERYWHERE))
    if entry is not None:
        reader.required(entry, "issuer", "an entry of `subjects`")
    return None if entry is None else _named(reader, entry, Revoked.SUBJECT, "subject", comment)


def _certificate(reader: Reader, node: Node, comment: str) -> Revocation | None:
    entry = reader.mapping(node, "an entry of `certificates`", ("serial", "sha256", *_EVERYWHERE))
    if entry is None:
        return None
    name = _one_of(reader, entry, "serial", "sha256")
    value = None if name is None else entry.get(name)
    text = None if name is None or value is None else reader.string(value, name)
    if name is None or value is None or text is None:
        return None
    digits = text.replace(":", "")
    if not HEX.fullmatch(text) or (len(digits) != 64 if name == "sha256" else len(digits) > _MAX_SERIAL_DIGITS):
        expected = "64 hex digits" if name == "sha256" else f"1 to {_MAX_SERIAL_DIGITS} hex digits"
        reader.fault(value, f"`{name}` is not {expected}", "write it as `openssl x509` prints it, in quotes")
        return None
    if name == "sha256":
        return _entry(reader, entry, Revoked.SHA256, digits.lower(), comment)
    return _entry(reader, entry, Revoked.SERIAL, str(int(digits, 16)), comment)


def _spiffe_id(reader: Reader, node: Node, comment: str) -> Revocation | None:
    entry = reader.mapping(node, "an entry of `spiffeIds`", ("id", "prefix", "before", *_EVERYWHERE))
    if entry is None:
        return None
    name = _one_of(reader, entry, "id", "prefix")
    value = None if name is None else entry.get(name)
    text = None if name is None or value is None else reader.string(value, name)
    if name is None or value is None or text is None:
        return None
    try:
        if name == "id":
            SpiffeId.parse(text)
        elif not text.endswith("/"):
            raise ValueError("a prefix ends with `/`, so that it ends where a segment ends")
        else:
            _check_prefix(text)
    except ValueError as error:
        reader.fault(value, f"`{text}`: {error}", "write it like `spiffe://cluster.local/ns/shop/`")
        return None
    return _entry(reader, entry, Revoked.SPIFFE_ID if name == "id" else Revoked.SPIFFE_PREFIX, text, comment)


def _check_prefix(text: str) -> None:
    domain = text.removeprefix("spiffe://").removesuffix("/")
    if text.startswith("spiffe://") and "/" not in domain:
        TrustDomain.parse(domain)
    else:
        SpiffeId.parse(text.removesuffix("/"))


def _one_of(reader: Reader, entry: Mapping, first: str, second: str) -> str | None:
    given = [name for name in (first, second) if entry.get(name) is not None]
    if len(given) != 1:
        names = f"both `{first}` and `{second}`" if given else f"neither `{first}` nor `{second}`"
        reader.fault(entry, f"an entry has {names}", "write one of the two")
        return None
    return given[0]


def _named(reader: Reader, entry: Mapping, kind: Revoked, field: str, comment: str) -> Revocation | None:
    value = reader.required(entry, field, "an entry")
    text = None if value is None else reader.string(value, field)
    return None if text is None else _entry(reader, entry, kind, text, comment)


def _entry(reader: Reader, entry: Mapping, what: Revoked, value: str, comment: str) -> Revocation:
    return Revocation(
        what=what,
        value=value,
        issuer=optional_text(reader, entry, "issuer") or "",
        before=moment(reader, entry, "before", float("inf")),
        effective_from=moment(reader, entry, "effectiveFrom", float("-inf")),
        comment=optional_text(reader, entry, "comment") or comment,
    )


SECTIONS: Final[dict[str, Callable[[Reader, Node, str], Revocation | None]]] = {
    "tokens": _token,
    "keys": _key,
    "subjects": _subject,
    "certificates": _certificate,
    "spiffeIds": _spiffe_id,
}
