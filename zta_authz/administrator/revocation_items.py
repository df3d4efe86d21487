"""Revocations in the store, made by operators and by signals alike: how they are merged, recorded and ended."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from msgspec import structs

from zta_authz.administrator.access_events import ADMINISTRATOR, AccessEvent, EventKind, EventObject
from zta_authz.administrator.access_items import due_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.administrator.access_events import Actor, Value
    from zta_authz.administrator.view_items import RevocationItem

DUE_KIND: Final = "revocation"
_NO_DETAIL: Final[Mapping[str, Value]] = {}


def digest(*parts: str) -> str:
    """A name for `parts`: 128 bits in hex, which no choice of parts makes ambiguous."""
    result = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        result.update(len(encoded).to_bytes(4, "big") + encoded)
    return result.hexdigest()[:32]


def merge_revocations(item: RevocationItem, existing: RevocationItem) -> RevocationItem | None:
    """`item` with the later times of both (0 is the latest), None if `existing` has these times already."""
    before = 0.0 if 0.0 in (existing.before, item.before) else max(existing.before, item.before)
    until = 0.0 if 0.0 in (existing.until, item.until) else max(existing.until, item.until)
    if (before, until) == (existing.before, existing.until):
        return None
    return structs.replace(item, before=before, until=until)


def revocation_event(
    kind: EventKind,
    item: RevocationItem,
    actor: Actor = ADMINISTRATOR,
    reason: str = "",
    policy_digest: str = "",
    detail: Mapping[str, Value] = _NO_DETAIL,
) -> AccessEvent:
    """The record of what happened to a revocation."""
    fields: dict[str, Value] = {
        "what": item.what, "value": item.value, "issuer": item.issuer, "before": item.before, "until": item.until,
    }  # fmt: skip
    return AccessEvent(kind, EventObject("revocation", item.id), actor, reason, policy_digest, fields | dict(detail))


def end_key(item: RevocationItem) -> str:
    """The key of the step that removes `item` from the store when it ends."""
    return due_key(item.until, DUE_KIND, item.id)
