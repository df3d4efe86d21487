"""One decision as one line of JSON. Pure.

A record never holds a token, a header's value or the query, where tokens travel; it is ASCII, so that no control
character or line separator of any alphabet can break a line or forge another.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from zta_authz.model.request import RequestAttributes

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision
    from zta_authz.model.request import Address

SCHEMA = "zta.dev/decision/v1"
"""Changes when a field is renamed, removed or means something else; not when one is added."""

_NOTHING_READ = RequestAttributes()
MAX_TEXT_CHARACTERS = 2048
"""Longer texts are cut; the attacker chooses their length, and a full queue is kept in memory."""


class ShadowRecord(msgspec.Struct, frozen=True):
    """A rule that matched without deciding: its policy's `action` (ALLOW, DENY, AUDIT), and whether in dry run."""

    action: str
    policy: str
    rule: int
    dry_run: bool


class DecisionRecord(msgspec.Struct, frozen=True):
    """What is kept of one decision. Texts are "" and `rule` is null where there is nothing to say.

    `time` is RFC 3339 in UTC; `source` and `destination` are `address:port`; `request_id` is Envoy's stream id.
    """

    schema: str
    time: str
    decision_id: str
    verdict: str
    reason: str
    policy: str
    rule: int | None
    detail: str
    principal: str
    token_subject: str
    token_issuer: str
    method: str
    host: str
    path: str
    source: str
    destination: str
    request_id: str
    shadows: tuple[ShadowRecord, ...]


def make_record(request: RequestAttributes | None, decision: Decision, decision_id: str, now: float) -> DecisionRecord:
    """The record of one decision at `now`, seconds since the epoch. `request` is None where it was not read."""
    if request is None:
        request = _NOTHING_READ
    token = decision.identity.token
    return DecisionRecord(
        SCHEMA,
        datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds"),
        decision_id,
        decision.verdict.value,
        decision.reason.value,
        decision.policy,
        decision.rule,
        decision.detail[:MAX_TEXT_CHARACTERS],
        decision.identity.principal[:MAX_TEXT_CHARACTERS],
        token.subject[:MAX_TEXT_CHARACTERS] if token is not None else "",
        token.issuer[:MAX_TEXT_CHARACTERS] if token is not None else "",
        request.method[:MAX_TEXT_CHARACTERS],
        request.host[:MAX_TEXT_CHARACTERS],
        request.path.partition("?")[0].partition("#")[0][:MAX_TEXT_CHARACTERS],
        _endpoint(request.source),
        _endpoint(request.destination),
        request.request_id[:MAX_TEXT_CHARACTERS],
        tuple(ShadowRecord(s.action, s.policy, s.rule, s.dry_run) for s in decision.shadows),
    )


_encoder = msgspec.json.Encoder()


def encode_line(record: DecisionRecord) -> bytes:
    r"""The record as one line of ASCII JSON with its `\n`; text that is no Unicode is shown as `\udc80`."""
    try:
        line = _encoder.encode(record)
    except UnicodeEncodeError:
        line = b"\xff"  # a lone surrogate: take the careful way
    if not line.isascii():
        line = json.dumps(_escaped(record), separators=(",", ":")).encode()
    return line + b"\n"


def _escaped(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, tuple):
        return [_escaped(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return {name: _escaped(item) for name, item in msgspec.structs.asdict(value).items()}
    return value


def _endpoint(address: Address) -> str:
    ip = address.ip[:MAX_TEXT_CHARACTERS]
    if not ip:
        return ""
    return f"[{ip}]:{address.port}" if ":" in ip else f"{ip}:{address.port}"
