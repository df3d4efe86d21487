"""An access event is one bounded line of ASCII, whatever texts it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, strategies as st

from zta_authz.administrator.access_events import (
    ADMINISTRATOR,
    MAX_FIELDS,
    AccessEvent,
    Actor,
    BadEvent,
    EventKind,
    EventObject,
    Value,
    encode_event,
    log_line,
    read_event,
)
from zta_authz.administrator.store.port import MAX_VALUE_BYTES, Commit

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = json.loads((ROOT / "docs" / "access-event.schema.json").read_text(encoding="utf-8"))
EPOCH = "e" * 32
COMMIT = Commit(7, 1_700_000_000.25)
GRANT = EventObject("grant", "g1", {"entitlement": "shop/refunds", "until": 1_700_003_600.0, "approvers": ("a", "b")})
APPROVED = AccessEvent(
    EventKind.ACCESS_APPROVED, GRANT, Actor("spiffe://td/ann", "https://idp", "ann", "d" * 32), "INC-1", "p" * 64, {"count": 1}
)  # fmt: skip

TEXTS = st.text(
    st.characters(categories=None) | st.sampled_from('\x00\n\r\u2028\x1b"\\\ud800\U0001f600'), max_size=2000
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.floats(allow_nan=False, allow_infinity=False), TEXTS,
    st.lists(TEXTS, max_size=20).map(tuple),
)  # fmt: skip
FIELDS = st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,20}x", fullmatch=True), VALUES, max_size=20)
EVENTS = st.builds(
    AccessEvent,
    kind=st.sampled_from(EventKind),
    object=st.builds(EventObject, TEXTS, TEXTS, FIELDS),
    actor=st.builds(Actor, TEXTS, TEXTS, TEXTS, TEXTS),
    reason=TEXTS,
    policy_digest=TEXTS,
    detail=FIELDS,
)


def written(event: AccessEvent) -> dict[str, Any]:
    line = log_line(encode_event(event), COMMIT, EPOCH)
    read: dict[str, Any] = json.loads(line)
    return read


def test_a_line_has_what_the_committer_and_the_store_know() -> None:
    assert written(APPROVED) == {
        "schema": "zta.dev/access-event/v1",
        "time": "2023-11-14T22:13:20.250000+00:00",
        "epoch": EPOCH,
        "revision": 7,
        "event_id": APPROVED.event_id,
        "kind": "access.approved",
        "actor": {"principal": "spiffe://td/ann", "issuer": "https://idp", "subject": "ann", "decision_id": "d" * 32},
        "object": {
            "type": "grant", "id": "g1", "entitlement": "shop/refunds", "until": 1_700_003_600.0, "approvers": ["a", "b"],
        },
        "reason": "INC-1",
        "policy_digest": "p" * 64,
        "detail": {"count": 1},
    }  # fmt: skip


def test_an_event_is_read_as_it_was_written() -> None:
    read = read_event(encode_event(APPROVED))
    assert (read.kind, read.actor, read.reason, read.event_id) == (
        APPROVED.kind, APPROVED.actor, "INC-1", APPROVED.event_id,
    )  # fmt: skip
    assert dict(read.object.fields) == {
        "entitlement": "shop/refunds",
        "until": 1_700_003_600.0,
        "approvers": ("a", "b"),
    }
    assert (read.object.type, read.object.id) == ("grant", "g1")


def test_the_administrator_acts_where_nobody_asked() -> None:
    assert AccessEvent(EventKind.ACCESS_EXPIRED, GRANT).actor is ADMINISTRATOR


def test_two_events_have_two_ids() -> None:
    one, other = (AccessEvent(EventKind.KEY_CREATED, EventObject("key", "k")) for _ in range(2))
    assert one.event_id != other.event_id


@pytest.mark.parametrize("kind", EventKind)
def test_every_kind_matches_the_schema(kind: EventKind) -> None:
    jsonschema.validate(written(AccessEvent(kind, GRANT)), SCHEMA)


def test_the_schema_has_every_kind_and_no_other() -> None:
    assert SCHEMA["properties"]["kind"]["enum"] == [str(kind) for kind in EventKind]


@given(EVENTS)
def test_every_event_is_one_bounded_line_of_ascii_that_matches_the_schema(event: AccessEvent) -> None:
    data = encode_event(event)
    assert len(data) <= MAX_VALUE_BYTES
    line = log_line(data, COMMIT, EPOCH)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert not any(character < 0x20 for character in line[:-1])
    jsonschema.validate(json.loads(line), SCHEMA)
    assert read_event(data).event_id == event.event_id


def test_the_longest_event_fits_into_the_store() -> None:
    wide = "\U0001f600" * 2000
    fields: dict[str, Value] = {f"field_{number}": wide for number in range(MAX_FIELDS)}
    longest = AccessEvent(
        EventKind.ACCESS_REQUESTED, EventObject(wide, wide, fields), Actor(wide, wide, wide, wide), wide, wide, fields
    )
    assert 200_000 < len(encode_event(longest)) <= MAX_VALUE_BYTES


def test_a_list_is_cut_in_length_and_in_number() -> None:
    event = AccessEvent(
        EventKind.KEY_CREATED, EventObject("key", "k", {"many": ("x",) * 100, "long": ("y" * 500,) * 3})
    )
    fields = written(event)["object"]
    assert fields["many"] == ["x"] * 16
    assert fields["long"] == ["y" * 500, "y" * 12, ""]


@pytest.mark.parametrize("name", ["type", "id", "", "A", "a-b", 'a":1,"b', "a" * 33])
def test_a_field_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="can't be the name"):
        encode_event(AccessEvent(EventKind.KEY_CREATED, EventObject("key", "k", {name: 1})))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53])
def test_a_number_is_one_that_json_has(value: float) -> None:
    with pytest.raises(ValueError, match="of an event"):
        encode_event(AccessEvent(EventKind.KEY_CREATED, EventObject("key", "k"), detail={"n": value}))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"\xff", b"{" * 100_000, encode_event(APPROVED) + b"\n", encode_event(APPROVED) + b"{}",
        encode_event(APPROVED).replace(b"access.approved", b"access.forged"), b" " + encode_event(APPROVED),
        encode_event(APPROVED).replace(b"INC-1", "\u2028".encode()), encode_event(APPROVED).replace(b'"kind"', b'"kint"'),
    ],
)  # fmt: skip
def test_other_bytes_are_no_event(data: bytes) -> None:
    with pytest.raises(BadEvent):
        read_event(data)
    with pytest.raises(BadEvent):
        log_line(data, COMMIT, EPOCH)
