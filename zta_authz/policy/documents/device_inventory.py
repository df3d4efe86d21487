"""Reading `zta.dev/v1` DeviceInventory: where devices come from, and how one is identified on a connection."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault
from zta_authz.model.device_documents import (
    CertificateKey,
    DeviceInventory,
    GraceAs,
    InventoryFormat,
    InventorySource,
    SerialFormat,
)
from zta_authz.policy.documents.authorization_policy import read_selector
from zta_authz.policy.yaml.nodes import Mapping, Scalar
from zta_authz.policy.yaml.values import duration, flag, optional_text, word

if TYPE_CHECKING:
    from zta_authz.model.device_documents import Path
    from zta_authz.policy.documents.spec import DocumentHeader, DocumentSet
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node

_SPEC_FIELDS: Final = ("selector", "source", "id", "identify", "fields", "times", "maxAge", "graceAs")
_IDENTIFY_FIELDS: Final = (
    "certificate", "certificateField", "certificateIssuer", "serialFormat", "tokenClaim", "acceptUnbound",
)  # fmt: skip
FIELD_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
FILE_NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,255}(?:/(?!\.)[A-Za-z0-9._-]{1,255}){0,7}")
RESERVED_FIELDS: Final = frozenset(("id", "lastSeen"))
MAX_FIELDS: Final = 32
LONGEST_AGE: Final = 3650 * 86400.0
_POSTURE_MAX_AGE: Final = 86400.0
_SEEN_MAX_AGE: Final = 7 * 86400.0

_FLEET: Final = {
    "id": "uuid",
    "posture": "detail_updated_at",
    "seen": "seen_time",
    "os": "platform",
    "osVersion": "os_version",
    "encrypted": "disk_encryption_enabled",
    "managed": "mdm.enrollment_status",
}
_OSQUERY: Final = {"id": "hostIdentifier", "posture": "unixTime", "seen": "unixTime"}
_TIMES: Final = ("id", "posture", "seen")
_KNOWN: Final = {InventoryFormat.FLEET: _FLEET, InventoryFormat.OSQUERY: _OSQUERY}
_FOR_SERIALS: Final = {
    "certificateField": "name the field of a record that has the serial number",
    "certificateIssuer": "write the issuer as `openssl x509 -noout -issuer -nameopt RFC2253` prints it: serial numbers "
    "are unique only for one issuer",
    "serialFormat": "write `hex` or `decimal`: the same digits are two numbers",
}
FORMATS_WITH_ID: Final = frozenset(str(kind) for kind in _KNOWN)
"""The formats whose records have a well-known field with the device's id."""


def read_device_inventory(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the inventory to `documents`."""
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "DeviceInventory.spec", _SPEC_FIELDS)
    source = _source(reader, spec)
    key, issuer, claim, unbound = _identify(reader, spec)
    ages = _section(reader, spec, "maxAge", ("posture", "seen"))
    posture, seen = _POSTURE_MAX_AGE, _SEEN_MAX_AGE
    if ages is not None:
        posture = duration(reader, ages, "posture", posture, LONGEST_AGE)
        seen = duration(reader, ages, "seen", seen, LONGEST_AGE)
    if source is None:
        return
    if source.fields and not source.posture_time:
        at = reader.position(header.document)
        message = "every device is stale: nothing says when its state was observed"
        warnings.append(Fault(at.source, at.line, at.column, message, "add `times: {posture: NAME}`"))
    documents.inventories.append(
        DeviceInventory(
            header.name,
            header.namespace,
            reader.position(header.document),
            read_selector(header),
            source,
            key,
            issuer,
            claim,
            unbound,
            posture,
            seen,
        )
    )


def _section(reader: Reader, spec: Mapping, name: str, fields: tuple[str, ...]) -> Mapping | None:
    node = spec.get(name)
    return None if node is None else reader.mapping(node, name, fields)


def _source(reader: Reader, spec: Mapping) -> InventorySource | None:
    node = reader.required(spec, "source", "DeviceInventory.spec")
    written = None if node is None else reader.mapping(node, "source", ("file", "format"))
    file_node = None if written is None else reader.required(written, "file", "`source`")
    file = None if file_node is None else reader.string(file_node, "file")
    if written is None or file_node is None or file is None:
        return None
    kind = InventoryFormat(word(reader, written, "format", InventoryFormat, InventoryFormat.JSONL))
    if not FILE_NAME.fullmatch(file):
        hint = "write a path below the setting `facts.directory`, without `..` and without a dot at the start of a name"
        reader.fault(file_node, f"`{file[:80]}` is not a file of the facts directory", hint)
    known = _KNOWN.get(kind, {})
    dotted = kind is not InventoryFormat.CSV
    fields = {name: path for name, path in known.items() if name not in _TIMES}
    fields |= _fields(reader, spec)
    times = _section(reader, spec, "times", ("posture", "seen"))
    identity = optional_text(reader, spec, "id") or known.get("id", "")
    if not identity:
        reader.required(spec, "id", "DeviceInventory.spec")
    identify = spec.get("identify")
    own = optional_text(reader, identify, "certificateField") if isinstance(identify, Mapping) else None
    return InventorySource(
        file,
        kind,
        _path(identity, dotted=dotted),
        _path(own or "", dotted=dotted),
        tuple(sorted((name, _path(path, dotted=dotted)) for name, path in fields.items())),
        _path((optional_text(reader, times, "posture") if times else None) or known.get("posture", ""), dotted=dotted),
        _path((optional_text(reader, times, "seen") if times else None) or known.get("seen", ""), dotted=dotted),
        GraceAs(word(reader, spec, "graceAs", GraceAs, GraceAs.UNKNOWN)),
        _serials(reader, identify),
    )


def _path(text: str, *, dotted: bool) -> Path:
    """`a.b` as ("a", "b"); the name of a column as it is."""
    return () if not text else tuple(text.split(".")) if dotted else (text,)


def _fields(reader: Reader, spec: Mapping) -> dict[str, str]:
    node = spec.get("fields")
    if node is None:
        return {}
    fields = reader.string_map(node, "fields")
    for name in fields:
        if not FIELD_NAME.fullmatch(name) or name in RESERVED_FIELDS:
            hint = "start with a letter; letters, digits and `_` may follow; `id` and `lastSeen` are reserved"
            reader.fault(node, f"`{name[:80]}` is not a name for a field", hint)
    if len(fields) > MAX_FIELDS:
        reader.fault(
            node, f"{len(fields)} fields, more than the limit of {MAX_FIELDS}", "leave out those no rule reads"
        )
    return {name: path for name, path in fields.items() if path}


def _identify(reader: Reader, spec: Mapping) -> tuple[CertificateKey | None, str, Path, bool]:
    """How a device is identified. An inventory that identifies none is a fault."""
    node = reader.required(spec, "identify", "DeviceInventory.spec")
    written = None if node is None else reader.mapping(node, "identify", _IDENTIFY_FIELDS)
    if written is None:
        return None, "", (), False
    key = word(reader, written, "certificate", CertificateKey, "")
    claim = optional_text(reader, written, "tokenClaim") or ""
    unbound = flag(reader, written, "acceptUnbound")
    if not key and not claim:
        hint = "add `certificate: spiffeId` or `tokenClaim: device_id`"
        reader.fault(written, "`identify` identifies no device", hint)
    if written.get("certificateField") is not None and not key:
        reader.fault(
            written, "`certificateField` without `certificate` has no effect", "add `certificate`, or remove it"
        )
    if unbound and not claim:
        reader.fault(written, "`acceptUnbound` without `tokenClaim` has no effect", "add `tokenClaim`, or remove it")
    issuer = _certificate_issuer(reader, written, key)
    return CertificateKey(key) if key else None, issuer, _path(claim, dotted=True), unbound


def _serials(reader: Reader, identify: Node | None) -> SerialFormat | None:
    """How the file writes serial numbers; None if it does not identify devices by them."""
    key = identify.get("certificate") if isinstance(identify, Mapping) else None
    serial = isinstance(key, Scalar) and key.value == CertificateKey.SERIAL
    written = identify.get("serialFormat") if isinstance(identify, Mapping) else None
    if written is not None and not serial:
        hint = "remove it, or write `certificate: serial`"
        reader.fault(written, "`serialFormat` is only for `certificate: serial`", hint)
    if not serial or not isinstance(identify, Mapping):
        return None
    return SerialFormat(word(reader, identify, "serialFormat", SerialFormat, SerialFormat.HEX))


def _certificate_issuer(reader: Reader, identify: Mapping, key: str) -> str:
    """The issuer of the certificates whose serial numbers the inventory has: each issuer counts on its own."""
    node, serial = identify.get("certificateIssuer"), key == CertificateKey.SERIAL
    if node is not None and not serial:
        hint = "remove it, or write `certificate: serial`"
        reader.fault(node, "`certificateIssuer` is only for `certificate: serial`", hint)
    for field, hint in _FOR_SERIALS.items() if serial else ():
        if identify.get(field) is None:
            reader.fault(identify, f"`certificate: serial` needs `{field}`", hint)
    return optional_text(reader, identify, "certificateIssuer") or ""
