"""Access events: the record of everything that changes access. Each is committed together with the change itself.

An event is JSON in ASCII, so that no text of a request can break a line of the log or forge another. It holds no
secrets: pass no tokens, keys or header values. The store's stream has what the committer knows; the log's line also
has what only the store knows (`docs/access-event.schema.json`).
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping  # noqa: TC003 - msgspec reads the annotations
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from zta_authz.audit.hash_chain import ACCESS_SCHEMA
from zta_authz.audit.record import time_text
from zta_authz.errors import ZtaError

if TYPE_CHECKING:
    from zta_authz.administrator.store.port import Commit

SCHEMA: Final = ACCESS_SCHEMA
"""Changes when a field is renamed, removed or means something else; not when one is added."""
MAX_NAME_CHARACTERS: Final = 512
"""Longer names of persons and objects, and longer values, are cut."""
MAX_REASON_CHARACTERS: Final = 1024
"""Longer reasons are cut. Refuse them before."""
MAX_FIELDS: Final = 16
"""The fields of an object besides its type and ID, and the fields of `detail`. More are left out."""
MAX_LIST: Final = 16
"""The texts of a list. More are left out, and together they have at most `MAX_NAME_CHARACTERS`."""

_FIELD = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


class EventKind(StrEnum):
    """What happened. The list is closed; values are stable."""

    ACCESS_REQUESTED = "access.requested"
    ACCESS_APPROVED = "access.approved"
    ACCESS_DENIED = "access.denied"
    ACCESS_WITHDRAWN = "access.withdrawn"
    ACCESS_LAPSED = "access.lapsed"
    ACCESS_ACTIVATED = "access.activated"
    ACCESS_EXPIRED = "access.expired"
    ACCESS_REVOKED = "access.revoked"
    ACCESS_ENDED = "access.ended"
    ACCESS_BREAK_GLASS = "access.break_glass"
    ACCESS_REVIEWED = "access.reviewed"
    REVOCATION_ADDED = "revocation.added"
    REVOCATION_LIFTED = "revocation.lifted"
    REVOCATION_EXPIRED = "revocation.expired"
    SIGNAL_ACCEPTED = "signal.accepted"
    SIGNAL_DISCARDED = "signal.discarded"
    SIGNAL_HELD = "signal.held"
    SIGNAL_RELEASED = "signal.released"
    SESSION_REVOKED = "session.revoked"
    KEY_CREATED = "key.created"
    KEY_PUBLISHED = "key.published"
    KEY_RETIRED = "key.retired"
    TOKEN_ISSUED = "token.issued"  # noqa: S105 - the name of an event
    POLICIES_ACCEPTED = "policies.accepted"
    POLICIES_REFUSED = "policies.refused"
    STORE_OPENED = "store.opened"
    STORE_SKIPPED = "store.skipped"


Value = str | int | float | bool | tuple[str, ...] | None
"""A value of a field."""


class Actor(msgspec.Struct, frozen=True):
    """Who did it. `decision_id` is the decision that allowed it; "" where nobody asked (a time that came)."""

    principal: str = ""
    issuer: str = ""
    subject: str = ""
    decision_id: str = ""


ADMINISTRATOR: Final = Actor("administrator")
"""The administrator itself, for what happens by time."""


class EventObject(msgspec.Struct, frozen=True):
    """What it was done to. `type` is a word such as `request`, `grant`, `revocation`, `signal` or `key`.

    `fields` are written beside `type` and `id`. Events that begin or end a grant have the type `grant` and the
    grant's ID, so that `zta-authz audit verify` finds the grant that a decision names.
    """

    type: str
    id: str
    fields: Mapping[str, Value] = {}


class AccessEvent(msgspec.Struct, frozen=True):
    """An event. `policy_digest` identifies the policies in force (""), `reason` is what the actor wrote.

    Texts may come from anybody. `event_id` is 32 hexadecimal digits.
    """

    kind: EventKind
    object: EventObject
    actor: Actor = ADMINISTRATOR
    reason: str = ""
    policy_digest: str = ""
    detail: Mapping[str, Value] = {}
    event_id: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)


class BadEvent(ZtaError):
    """The bytes are not an access event."""


def encode_event(event: AccessEvent) -> bytes:
    """Encode an event for the store's stream: JSON in ASCII, less than 256 KiB, texts cut to their limits.

    Raises ValueError for a field's name or number that JSON or the schema does not have: a mistake of the caller.
    """
    actor, thing = event.actor, event.object
    content: dict[str, Any] = {
        "event_id": event.event_id,
        "kind": str(event.kind),
        "actor": {
            "principal": _text(actor.principal),
            "issuer": _text(actor.issuer),
            "subject": _text(actor.subject),
            "decision_id": _text(actor.decision_id),
        },
        "object": {"type": _text(thing.type), "id": _text(thing.id)} | _fields(thing.fields),
        "reason": _text(event.reason, MAX_REASON_CHARACTERS),
        "policy_digest": _text(event.policy_digest),
        "detail": _fields(event.detail),
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


def log_line(data: bytes, commit: Commit, epoch: str) -> bytes:
    r"""Return the line of the log, with its `\n`, of an event that was committed to the store's stream.

    Raises `BadEvent` if `data` is not what `encode_event` returns.
    """
    read_event(data)
    head = {"schema": SCHEMA, "time": time_text(commit.time), "epoch": epoch, "revision": commit.revision}
    return json.dumps(head, separators=(",", ":")).encode("ascii")[:-1] + b"," + data[1:] + b"\n"


def read_event(data: bytes) -> AccessEvent:
    """Read an event from the store's stream. Raises `BadEvent`."""
    try:
        raw = _decode(data)
        if not data.isascii() or b"\n" in data or not data.startswith(_BEGINNING):
            raise BadEvent("it is not one line of ASCII")
        kind = EventKind(raw.kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadEvent("it is not an access event") from error
    fields = {name: value for name, value in raw.object.items() if name not in {"type", "id"}}
    thing = EventObject(str(raw.object.get("type", "")), str(raw.object.get("id", "")), fields)
    return AccessEvent(kind, thing, raw.actor, raw.reason, raw.policy_digest, raw.detail, raw.event_id)


class LoggedEvent(msgspec.Struct, frozen=True):
    """A line of an access log. `object` is what the event was done to, with its type and its ID."""

    schema: str
    time: str = ""
    epoch: str = ""
    revision: int = 0
    event_id: str = ""
    kind: str = ""
    actor: Actor = Actor()
    object: dict[str, Any] = {}
    reason: str = ""
    detail: dict[str, Any] = {}

    @property
    def type(self) -> str:
        """The type of the object, "" if it has none."""
        return self.text("type")

    @property
    def id(self) -> str:
        """The ID of the object, "" if it has none."""
        return self.text("id")

    def text(self, name: str) -> str:
        """A text of the object, "" if it has none of this name."""
        value = self.object.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> float | None:
        """A number of the object, None if it has none of this name."""
        value = self.object.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def read_log_line(line: bytes) -> LoggedEvent | None:
    """Read a line of the access log; None for any other line, and for what the log wrote about itself."""
    try:
        event = _decode_line(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return event if event.schema == SCHEMA else None


_decode_line: Final = msgspec.json.Decoder(LoggedEvent).decode


class _RawEvent(msgspec.Struct, frozen=True):
    event_id: str
    kind: str
    actor: Actor
    object: dict[str, Value]
    reason: str
    policy_digest: str
    detail: dict[str, Value]


_BEGINNING: Final = b'{"event_id":'
_decode: Final = msgspec.json.Decoder(_RawEvent).decode


def _text(text: str, limit: int = MAX_NAME_CHARACTERS) -> str:
    r"""Cut a text; a lone surrogate becomes visible as `\udc80`, which is longer."""
    text = text[:limit]
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()[:limit]
    return text


def _fields(fields: Mapping[str, Value]) -> dict[str, Any]:
    result = {}
    for name, value in list(fields.items())[:MAX_FIELDS]:
        if _FIELD.fullmatch(name) is None or name in {"type", "id"}:
            raise ValueError(f"`{name}` can't be the name of a field")
        result[name] = _value(value)
    return result


def _value(value: Value) -> str | int | float | bool | list[str] | None:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple):
        return _texts(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number of an event is finite")
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise ValueError("an integer of an event has at most 53 bits")
    return value


_MAX_INTEGER: Final = 2**53 - 1


def _texts(values: tuple[str, ...]) -> list[str]:
    result, left = [], MAX_NAME_CHARACTERS
    for value in values[:MAX_LIST]:
        result.append(_text(value, left))
        left -= len(result[-1])
    return result
