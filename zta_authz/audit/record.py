"""One decision as one line of JSON. Pure.

A record never holds a token, a header's value or the query, where tokens travel; it is ASCII, so that no control
character or line separator of any alphabet can break a line or forge another.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from zta_authz.model.decision import NO_RESPONSE
from zta_authz.model.identity import NO_CHANGES
from zta_authz.model.request import Address, RequestAttributes

if TYPE_CHECKING:
    from zta_authz.errors import Reason
    from zta_authz.model.decision import Decision, Disagreement, Shadow, Verdict
    from zta_authz.ports import Metadata

SCHEMA = "zta.dev/decision/v1"
"""Changes when a field is renamed, removed or means something else; not when one is added."""

_NOTHING_READ = RequestAttributes()
MAX_TEXT_CHARACTERS = 2048
"""Longer texts are cut; the attacker chooses their length, and a full queue is kept in memory."""

_NOTE_BYTES = 1280  # itself, its numbers and the heads of its texts
_CHARACTER_BYTES = 4  # what Python takes for one at most
_SHADOW_BYTES = 96
_OBLIGATION_BYTES = 96
_TRACE_PARENT = re.compile(
    r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", re.ASCII
)  # W3C Trace Context
_NO_TRACE = "0" * 32
_MICROSECONDS = 1e6


class Obligations(msgspec.Struct, frozen=True):
    """What the proxy must change on the request before it passes it on: names only, as values may be claims."""

    set_headers: tuple[str, ...] = ()
    remove_headers: tuple[str, ...] = ()
    remove_query: tuple[str, ...] = ()


NO_OBLIGATIONS = Obligations()


class Note(msgspec.Struct, frozen=True, gc=False):
    """What a record is made of, taken while the caller waits: texts and constants, so that it keeps no claims alive.

    `path` still has its query; `trace_parent` is the call's or the request's header, not looked at; `ended` is seconds
    since the epoch.
    """

    decision_id: str
    now: float
    verdict: Verdict
    reason: Reason
    policy: str
    rule: int | None
    detail: str
    principal: str
    subject: str
    issuer: str
    method: str
    host: str
    path: str
    source: Address
    destination: Address
    request_id: str
    shadows: tuple[Shadow, ...]
    api_client: str
    binding: str
    trace_parent: str
    ended: float
    table_digest: str
    obligations: Obligations
    disagreement: Disagreement | None = None

    def characters(self) -> int:
        """The length of all texts that callers and tokens choose."""
        return (
            len(self.path)
            + len(self.host)
            + len(self.method)
            + len(self.request_id)
            + len(self.detail)
            + len(self.principal)
            + len(self.subject)
            + len(self.issuer)
            + len(self.source.ip)
            + len(self.destination.ip)
            + len(self.api_client)
            + len(self.trace_parent)
        )

    def size(self) -> int:
        """The memory it takes, in bytes, estimated high."""
        size = _NOTE_BYTES + _CHARACTER_BYTES * self.characters() + _SHADOW_BYTES * len(self.shadows)
        wanted = self.obligations
        if wanted is not NO_OBLIGATIONS:
            names = len(wanted.set_headers) + len(wanted.remove_headers) + len(wanted.remove_query)
            size += _OBLIGATION_BYTES * names
        return size


def take_note(
    request: RequestAttributes | None,
    decision: Decision,
    decision_id: str,
    now: float,
    ended: float = 0.0,
    table_digest: str = "",
    metadata: Metadata = (),
) -> Note:
    """What is to be recorded of a decision at `now`, seconds since the epoch; `request` is None where it was not read.

    `ended` is when it was decided; `table_digest` names the rules in force; `metadata` is the gRPC call's.
    This is all that is done for a record before the answer leaves: cheap, and bounded whatever the request holds.
    """
    if request is None:
        request = _NOTHING_READ
    identity = decision.identity
    token = identity.token
    note = Note(
        decision_id,
        now,
        decision.verdict,
        decision.reason,
        decision.policy,
        decision.rule,
        decision.detail,
        identity.principal,
        token.subject if token is not None else "",
        token.issuer if token is not None else "",
        request.method,
        request.host,
        request.path,
        request.source,
        request.destination,
        request.request_id,
        decision.shadows,
        identity.api_client.name if identity.api_client is not None else "",
        identity.binding or "",
        _trace_parent(request, metadata),
        ended,
        table_digest,
        _obligations(decision),
        decision.disagreement,
    )
    return note if note.characters() <= MAX_TEXT_CHARACTERS else _cut(note)


def _trace_parent(request: RequestAttributes, metadata: Metadata) -> str:
    """That of the proxy's own span where it says so, as our span's parent is; else the client's word."""
    for name, value in metadata:
        if name == "traceparent" and isinstance(value, str):
            return value
    return request.headers.joined("traceparent") or ""


def _obligations(decision: Decision) -> Obligations:
    """What the answer changes on the request; nothing for a denial, which passes no request on."""
    response, changes = decision.response, decision.identity.changes
    if not decision.allowed or (response is NO_RESPONSE and changes is NO_CHANGES):
        return NO_OBLIGATIONS
    return Obligations(
        tuple([name for name, _ in changes.set_headers + response.set_headers]),
        changes.remove_headers + response.remove_headers,
        changes.remove_query,
    )


def _cut(note: Note) -> Note:
    """`note` with each text at most `MAX_TEXT_CHARACTERS` long."""
    names = (
        "detail",
        "principal",
        "subject",
        "issuer",
        "method",
        "host",
        "path",
        "request_id",
        "api_client",
        "trace_parent",
    )
    texts = {name: getattr(note, name)[:MAX_TEXT_CHARACTERS] for name in names}
    ends = {
        "source": Address(note.source.ip[:MAX_TEXT_CHARACTERS], note.source.port),
        "destination": Address(note.destination.ip[:MAX_TEXT_CHARACTERS], note.destination.port),
    }
    return msgspec.structs.replace(note, **texts, **ends)


class ShadowRecord(msgspec.Struct, frozen=True):
    """A rule that matched without deciding: its policy's `action` (ALLOW, DENY, AUDIT), and whether in dry run."""

    action: str
    policy: str
    rule: int
    dry_run: bool


class DisagreementRecord(msgspec.Struct, frozen=True):
    """What the shadow policies say; `policy` is "" and `rule` null where none of them decides."""

    verdict: str
    reason: str
    policy: str
    rule: int | None


class DecisionRecord(msgspec.Struct, frozen=True):
    """What is kept of one decision. Texts are "" and `rule` is null where there is nothing to say.

    `time` is RFC 3339 in UTC; `source` and `destination` are `address:port`; `request_id` is Envoy's stream id.
    `trace_id` is of the call's `traceparent`, else of the request's; `latency_us` is from reading it to this record;
    `binding` says what ties the token to the caller; `table_digest` is SHA-256 (hex) of the rules in force.
    `shadow` is null where the shadow policies agree, or there are none.
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
    trace_id: str
    api_client: str
    binding: str
    latency_us: int
    table_digest: str
    obligations: Obligations
    shadow: DisagreementRecord | None


def make_record(note: Note) -> DecisionRecord:
    """The record of one decision."""
    return DecisionRecord(
        SCHEMA,
        _time(note.now),
        note.decision_id,
        note.verdict,
        note.reason,
        note.policy,
        note.rule,
        note.detail,
        note.principal,
        note.subject,
        note.issuer,
        note.method,
        note.host,
        note.path.partition("?")[0].partition("#")[0],
        _endpoint(note.source),
        _endpoint(note.destination),
        note.request_id,
        tuple(ShadowRecord(s.action, s.policy, s.rule, s.dry_run) for s in note.shadows) if note.shadows else (),
        _trace_id(note.trace_parent),
        note.api_client,
        note.binding,
        max(0, round((note.ended - note.now) * _MICROSECONDS)) if note.ended else 0,
        note.table_digest,
        note.obligations,
        _disagreement(note.disagreement),
    )


def _disagreement(found: Disagreement | None) -> DisagreementRecord | None:
    if found is None:
        return None
    return DisagreementRecord(found.verdict, found.reason, found.policy, found.rule)


def _trace_id(trace_parent: str) -> str:
    """The trace that the request is part of, "" where its header is none (W3C Trace Context, 3.2)."""
    found = _TRACE_PARENT.fullmatch(trace_parent)
    if found is None or found[1] == _NO_TRACE or trace_parent.startswith("ff"):
        return ""
    return found[1]


def _time(now: float) -> str:
    second, microseconds = divmod(round(now * 1e6), 1_000_000)
    return f"{_second(second)}.{microseconds:06}+00:00"


@lru_cache(maxsize=8)
def _second(since_epoch: int) -> str:
    """The same for thousands of records, and half the cost of making one."""
    return datetime.fromtimestamp(since_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def stub_line(note: Note) -> bytes:
    """What is kept of a decision whose record can't be made: enough to find it by."""
    known = {"schema": SCHEMA, "decision_id": note.decision_id, "verdict": note.verdict, "reason": note.reason}
    texts = {name: str(value) for name, value in known.items()}
    return json.dumps(texts | {"detail": "the record could not be made"}, separators=(",", ":")).encode() + b"\n"


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
    ip = address.ip
    if not ip:
        return ""
    return f"[{ip}]:{address.port}" if ":" in ip else f"{ip}:{address.port}"
