"""The items of the published view: JSON by key in the store, and protobuf for followers.

Keys in the store are `view/grant/ID`, `view/revocation/ID`, `view/signal/ID` and `view/source/NAMESPACE/NAME`.
Followers get them without `view/`. Fields have the names and the meaning of the messages in
`protos/administrator.proto`. Times are seconds since the epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from zta_authz._proto import administrator_pb2 as pb
from zta_authz.errors import ZtaError

if TYPE_CHECKING:
    from collections.abc import Mapping

VIEW: Final = "view/"
GRANT: Final = "view/grant/"
REVOCATION: Final = "view/revocation/"
SIGNAL: Final = "view/signal/"
SOURCE: Final = "view/source/"


class BadItem(ZtaError):
    """The store has an item that is not what its key says."""


class SubjectItem(msgspec.Struct, frozen=True):
    """The holder of a grant: the subject of an issuer's tokens, or a SPIFFE ID."""

    issuer: str = ""
    subject: str = ""
    spiffe_id: str = ""


class GrantItem(msgspec.Struct, frozen=True, tag="grant"):
    """A grant of `entitlement` (`namespace/name`) from `start` until before `until`."""

    id: str
    entitlement: str
    subject: SubjectItem
    start: float
    until: float
    request_id: str = ""
    break_glass: bool = False
    state: str = ""
    reason: str = ""
    review_due: float = 0.0

    @property
    def key(self) -> str:
        """The item's key in the store."""
        return GRANT + self.id


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
    """When a source of signals was last heard, 0 for never. Its signals are stale `max_silence` seconds later.

    It reports `kinds` about the tokens of `issuers`, the devices of `inventory`, and workloads if `spiffe_ids`.
    """

    name: str
    heard_at: float
    max_silence: float
    issuers: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    inventory: str = ""
    spiffe_ids: bool = False

    @property
    def key(self) -> str:
        """The item's key in the store."""
        return SOURCE + self.name


Item = GrantItem | RevocationItem | SignalItem | SourceItem
_TYPES: Final[Mapping[str, type[Any]]] = {
    GRANT: GrantItem, REVOCATION: RevocationItem, SIGNAL: SignalItem, SOURCE: SourceItem,
}  # fmt: skip


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


def wire_item(key: str, data: bytes) -> bytes:
    """Convert the item of `key` (in the store) to the bytes that followers get. Raises `BadItem`."""
    item = decode_item(key, data)
    fields = msgspec.to_builtins(item)
    fields.pop("type", None)
    message = pb.Item(key=key.removeprefix(VIEW))
    try:
        match item:
            case GrantItem():
                message.grant.CopyFrom(pb.Grant(**fields))
            case RevocationItem():
                message.revocation.CopyFrom(pb.Revocation(**fields))
            case SignalItem():
                message.signal.CopyFrom(pb.Signal(**fields))
            case SourceItem():
                message.source.CopyFrom(pb.SignalSourceState(**fields))
    except (TypeError, ValueError) as error:  # a lone surrogate in a text, for example
        raise BadItem(f"the item `{key[:80]}` can't be sent to followers") from error
    return message.SerializeToString()
