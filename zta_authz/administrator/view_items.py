"""The items of the published view as the store keeps them: JSON by key.

Keys are `revocation/ID`, `signal/ID` and `source/NAMESPACE/NAME`. Fields have the names and the meaning of the messages
in `protos/administrator.proto`; times are seconds since the epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from zta_authz.errors import ZtaError

if TYPE_CHECKING:
    from collections.abc import Mapping

REVOCATION: Final = "revocation/"
SIGNAL: Final = "signal/"
SOURCE: Final = "source/"


class BadItem(ZtaError):
    """The store has an item that is not what its key says."""


class RevocationItem(msgspec.Struct, frozen=True, tag="revocation"):
    """A revocation. `what` is a value of `Revoked`. `before` 0 ignores the time of issue; `until` 0 never ends."""

    id: str
    what: str
    value: str
    issuer: str = ""
    before: float = 0.0
    until: float = 0.0
    reason: str = ""
    source: str = ""
    created_at: float = 0.0

    @property
    def key(self) -> str:
        """The item's key in the store."""
        return REVOCATION + self.id


class SignalItem(msgspec.Struct, frozen=True, tag="signal"):
    """A signal: what a source says about one subject. `what`, `issuer` and `subject` name it as a revocation does.

    `kind` and `value` are those of `SetSignal`. `source` is `namespace/name` of the SignalSource.
    """

    id: str
    what: str
    issuer: str
    subject: str
    kind: str
    value: str
    observed_at: float
    source: str
    jti: str

    @property
    def key(self) -> str:
        """The item's key in the store."""
        return SIGNAL + self.id


class SourceItem(msgspec.Struct, frozen=True):
    """When a source of signals was last heard. Its signals are stale `max_silence` seconds later."""

    name: str
    heard_at: float
    max_silence: float

    @property
    def key(self) -> str:
        """The item's key in the store."""
        return SOURCE + self.name


Item = RevocationItem | SignalItem | SourceItem
_TYPES: Final[Mapping[str, type[Any]]] = {REVOCATION: RevocationItem, SIGNAL: SignalItem, SOURCE: SourceItem}


def encode_item(item: Item) -> bytes:
    """Encode an item for the store."""
    return msgspec.json.encode(item)


def decode_item(key: str, data: bytes) -> Item:
    """Decode the item of `key`. Raises `BadItem`."""
    kind = next((prefix for prefix in _TYPES if key.startswith(prefix)), None)
    if kind is None:
        raise BadItem(f"`{key[:80]}` is not the key of an item of the view")
    try:
        item: Item = msgspec.json.decode(data, type=_TYPES[kind])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadItem(f"the item `{key[:80]}` can't be read") from error
    return item
