"""`zta.dev/v1` DeviceInventory as written: checked for shape, its file not yet read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zta_authz.model.documents import Position, Selector

Path = tuple[str, ...]
"""Where a value is in a record: one name for each nested object."""


class InventoryFormat(StrEnum):
    """The format of an inventory's file."""

    JSONL = "jsonl"  # one JSON object on each line
    JSON = "json"  # an array of objects
    CSV = "csv"  # with a header row
    FLEET = "fleet"  # Fleet's list of hosts: an object with `hosts`
    OSQUERY = "osquery"  # osquery's results log: one JSON object on each line, the newest of each host counts


class CertificateKey(StrEnum):
    """What of the verified certificate identifies a device."""

    SPIFFE_ID = "spiffeId"
    SHA256 = "sha256"
    SERIAL = "serial"
    SAN_URI = "sanUri"


class SerialFormat(StrEnum):
    """How a file writes the serial numbers of certificates as text. The same digits are two numbers in the two."""

    HEX = "hex"
    DECIMAL = "decimal"


class GraceAs(StrEnum):
    """What a device in its grace period counts as."""

    COMPLIANT = "compliant"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class InventorySource:
    """How the records of a file are read: equal sources give equal tables.

    `certificate` is the path of the identifier that a certificate is compared with, () for the device's id. `serials`
    is set if that identifier is a serial number.
    """

    file: str
    format: InventoryFormat
    id: Path
    certificate: Path
    fields: tuple[tuple[str, Path], ...]
    posture_time: Path
    seen_time: Path
    grace_as: GraceAs
    serials: SerialFormat | None = None


@dataclass(frozen=True, slots=True)
class DeviceInventory:
    """One DeviceInventory. Ages are in seconds.

    `certificate_key` is None where certificates identify no device; `token_claim` is () where tokens do not.
    `certificate_issuer` is the issuer of the certificates that serial numbers belong to (RFC 4514), "" for other keys.
    The claim of a token that is not bound to its presenter counts only with `accept_unbound`.
    """

    name: str
    namespace: str
    position: Position
    selector: Selector
    source: InventorySource
    certificate_key: CertificateKey | None
    certificate_issuer: str
    token_claim: Path
    accept_unbound: bool
    posture_max_age: float
    seen_max_age: float

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"
