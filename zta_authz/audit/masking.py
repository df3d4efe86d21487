"""Masks fields of decision records as configured. Pure.

`detail` may quote any other field, so it is dropped if any field is masked, unless it has its own rule.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

import msgspec

from zta_authz.model.addresses import address_forms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.audit.record import DecisionRecord

KEY_BYTES: Final = 32
"""The minimum length of the key for hashes."""
TRUNCATED_CHARACTERS: Final = 8
_HASH_DIGITS: Final = 32
_NETWORK_BITS: Final = {4: 24, 6: 48}


class Maskable(StrEnum):
    """The fields of a record that can be masked."""

    DETAIL = "detail"
    PRINCIPAL = "principal"
    TOKEN_SUBJECT = "token_subject"  # noqa: S105  a field's name
    TOKEN_ISSUER = "token_issuer"  # noqa: S105
    CLAIMED_SUBJECT = "claimed_subject"
    CLAIMED_ISSUER = "claimed_issuer"
    API_CLIENT = "api_client"
    HOST = "host"
    PATH = "path"
    SOURCE = "source"
    DESTINATION = "destination"
    DEVICE = "device"


class MaskAction(StrEnum):
    """How to mask a field: drop it, replace it by a keyed hash, or keep its beginning (of an address: its network)."""

    DROP = "drop"
    HASH = "hash"
    TRUNCATE = "truncate"


_CLAIMED: Final = {
    Maskable.TOKEN_SUBJECT.value: Maskable.CLAIMED_SUBJECT.value,
    Maskable.TOKEN_ISSUER.value: Maskable.CLAIMED_ISSUER.value,
}
"""Masking a verified field masks the claimed one too, because both name the same people."""


@dataclass(frozen=True, slots=True)
class MaskRule:
    """A field and how it is masked."""

    field: Maskable
    how: MaskAction


class Masker:
    """Masks records. `key` (at least `KEY_BYTES`) is the key of hashes and appears in no record."""

    def __init__(self, rules: Sequence[MaskRule], key: bytes = b"") -> None:
        """Create it for `rules`. Raises ValueError if a rule hashes and the key is too short."""
        if any(rule.how is MaskAction.HASH for rule in rules) and len(key) < KEY_BYTES:
            raise ValueError(f"a key for hashes needs at least {KEY_BYTES} bytes")
        self._key = key
        self._hides_source = any(
            rule.field is Maskable.SOURCE and rule.how is not MaskAction.TRUNCATE for rule in rules
        )
        self._masks: dict[str, Callable[[str], str]] = {str(rule.field): self._mask(rule) for rule in rules}
        for verified, claimed in _CLAIMED.items():
            if verified in self._masks:
                self._masks.setdefault(claimed, self._masks[verified])
        if self._masks:
            self._masks.setdefault(Maskable.DETAIL.value, _drop)

    @property
    def masks(self) -> bool:
        """Whether any field is masked."""
        return bool(self._masks)

    def mask(self, record: DecisionRecord) -> DecisionRecord:
        """Return the masked record. Empty fields stay empty, so "nobody" still differs from "somebody"."""
        if not self._masks:
            return record
        masked = msgspec.structs.replace(record, **{name: mask(text) for name, mask, text in self._present(record)})
        return self._mask_facts(masked)

    def _mask_facts(self, record: DecisionRecord) -> DecisionRecord:
        """Mask the device's name, and leave out what follows from a masked source address."""
        mask = self._masks.get(Maskable.DEVICE.value)
        if mask is not None and record.device is not None and record.device.id:
            device = msgspec.structs.replace(record.device, id=mask(record.device.id))
            record = msgspec.structs.replace(record, device=device)
        if self._hides_source and record.network is not None:
            record = msgspec.structs.replace(record, network=None)
        return record

    def _present(self, record: DecisionRecord) -> list[tuple[str, Callable[[str], str], str]]:
        texts = [(name, mask, getattr(record, name)) for name, mask in self._masks.items() if name != Maskable.DEVICE]
        return [(name, mask, text) for name, mask, text in texts if text]

    def _mask(self, rule: MaskRule) -> Callable[[str], str]:
        if rule.how is MaskAction.DROP:
            return _drop
        if rule.how is MaskAction.HASH:
            return self._hash
        return _network if rule.field in (Maskable.SOURCE, Maskable.DESTINATION) else _beginning

    def _hash(self, text: str) -> str:
        """Return a keyed hash: equal for equal texts, but guesses can't be tried without the key."""
        digest = hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
        return f"hmac-sha256:{digest[:_HASH_DIGITS]}"


def _drop(_: str) -> str:
    return ""


def _beginning(text: str) -> str:
    return text if len(text) <= TRUNCATED_CHARACTERS else text[:TRUNCATED_CHARACTERS] + "..."


def _network(endpoint: str) -> str:
    """Return `10.1.2.0/24` for `10.1.2.3:4567`, `2001:db8::/48` for an IPv6 address, "" if it is not an address.

    An IPv6 address that embeds an IPv4 address is masked as that one, because its first 48 bits may contain it.
    """
    text = endpoint.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = address_forms(ip_address(text))[-1]
        return str(ip_network(f"{address}/{_NETWORK_BITS[address.version]}", strict=False))
    except ValueError:
        return ""
