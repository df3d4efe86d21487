"""One decision as one line of JSON. Pure.

A record never contains a token, a header's value or the query, which may contain tokens. It is ASCII, so that no
control character or Unicode line separator can break a line or forge another.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from zta_authz.audit.fact_records import DeviceRecord, NetworkRecord, TrustRecord, facts_of
from zta_authz.model.changed_headers import removable, removed_upstream, set_upstream
from zta_authz.model.decision import NO_RESPONSE, Verdict
from zta_authz.model.identity import NO_CHANGES
from zta_authz.model.request import Address
from zta_authz.model.trace_context import TraceParent, parse_trace_parent

if TYPE_CHECKING:
    from zta_authz.model.decision import AccessBasis, Decision, Disagreement, Response
    from zta_authz.model.identity import Changes, NamedToken, Token
    from zta_authz.model.minting import MintedToken

SCHEMA = "zta.dev/decision/v1"
"""Changes when a field is renamed, removed or means something else; not when one is added."""

MAX_TEXT_CHARACTERS = 2048
"""Longer texts are cut, because clients choose their length and a full queue is kept in memory."""

_MICROSECONDS = 1e6


class Obligations(msgspec.Struct, frozen=True):
    """The changes that the proxy must make to an allowed request. Names only, because values may be claims."""

    set_headers: tuple[str, ...] = ()
    remove_headers: tuple[str, ...] = ()
    remove_query: tuple[str, ...] = ()


NO_OBLIGATIONS = Obligations()


class PendingRecord(msgspec.Struct, frozen=True, gc=False):
    """What a record is made of, captured while the caller waits.

    `path` still has its query. `trace_parent` is that of the call or, not parsed, that of the request's header. `now`
    and `ended` are seconds since the epoch. It keeps the decision in memory, claims included, so it is encoded soon.
    """

    decision_id: str
    now: float
    decision: Decision
    method: str
    host: str
    path: str
    source: Address
    destination: Address
    request_id: str
    trace_parent: TraceParent | str
    ended: float
    table_digest: str


def obligations_of(decision: Decision) -> Obligations:
    """The changes to the request that the answer makes. A denial makes none, because no request passes."""
    response, changes = decision.response, decision.identity.changes
    if decision.verdict is not Verdict.ALLOW:
        return NO_OBLIGATIONS
    minted = "" if decision.minted is None else decision.minted.header
    if response is NO_RESPONSE and changes is NO_CHANGES:
        return NO_OBLIGATIONS
    last: tuple[Response, str, Obligations] | None = changes.derived[0] if changes.derived else None
    if last is None or last[0] is not response or last[1] != minted:
        last = (response, minted, _obligations(changes, response, minted))
        changes.derived[:] = [last]  # most requests of a token have the same response
    return last[2]


def _obligations(changes: Changes, response: Response, minted: str) -> Obligations:
    to_set = dict.fromkeys(set_upstream(changes, response))
    if minted:
        to_set[minted] = None
    removed = [name for name in removable(removed_upstream(changes, response)) if name not in to_set]
    return Obligations(tuple(to_set), tuple(removed), tuple(dict.fromkeys(changes.remove_query)))


class ShadowRecord(msgspec.Struct, frozen=True):
    """A rule that matched without deciding: its policy's `action` (ALLOW, DENY, AUDIT), and whether in dry run."""

    action: str
    policy: str
    rule: int
    dry_run: bool
    rule_name: str


class GrantRecord(msgspec.Struct, frozen=True):
    """The grant that an allow needs. `until` is RFC 3339, null for a document's grant without an end."""

    id: str
    entitlement: str
    until: str | None


class MintedRecord(msgspec.Struct, frozen=True):
    """The token that the allowed request carries to the application, but not the token. `expires` is RFC 3339."""

    token_id: str
    key_id: str
    audience: str
    expires: str


class DisagreementRecord(msgspec.Struct, frozen=True):
    """The decision of the shadow policies. `policy` is "" and `rule` is null if no policy decides."""

    verdict: str
    reason: str
    policy: str
    rule: int | None
    rule_name: str


class DecisionRecord(msgspec.Struct, frozen=True):
    """The record of one decision. Unknown texts are "", and `rule` is null if no rule decided.

    `time` is RFC 3339 in UTC; `source` and `destination` are `address:port`; `request_id` is Envoy's stream id.
    `trace_id` is that of the call's `traceparent`, else of the request's. `latency_us` is the time from reading the
    request to this record. `binding` is what the token is bound to. `table_digest` is the SHA-256 (hex) of the rules in
    force. `shadow` is null if the shadow policies agree or are not set. `claimed_subject` and `claimed_issuer` are from
    a token that was refused before its signature was verified, so anybody may have written them.
    """

    schema: str
    time: str
    decision_id: str
    verdict: str
    reason: str
    policy: str
    rule: int | None
    rule_name: str
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
    claimed_subject: str
    claimed_issuer: str
    trust: TrustRecord | None = None
    device: DeviceRecord | None = None
    network: NetworkRecord | None = None
    resource_class: str = ""
    grant: GrantRecord | None = None
    revocation: str | None = None
    signal: str | None = None
    minted: MintedRecord | None = None


def make_record(pending: PendingRecord) -> DecisionRecord:
    """The record of one decision, each text at most `MAX_TEXT_CHARACTERS` long."""
    decision = pending.decision
    identity = decision.identity
    client, shadows = identity.api_client, decision.shadows
    token: Token | NamedToken | None = identity.token
    claimed = decision.refused_token
    if claimed is not None and claimed.verified:
        token, claimed = claimed, None
    return DecisionRecord(
        SCHEMA,
        time_text(pending.now),
        pending.decision_id,
        decision.verdict,
        decision.reason,
        decision.policy,
        decision.rule,
        decision.rule_name,
        _cut(decision.detail),
        _cut(identity.principal),
        _cut(token.subject) if token is not None else "",
        _cut(token.issuer) if token is not None else "",
        _cut(pending.method),
        _cut(pending.host),
        _cut(pending.path).partition("?")[0].partition("#")[0],
        _endpoint(pending.source),
        _endpoint(pending.destination),
        _cut(pending.request_id),
        tuple(ShadowRecord(s.action, s.policy, s.rule, s.dry_run, s.rule_name) for s in shadows) if shadows else (),
        trace_id(pending.trace_parent),
        _cut(client.name) if client is not None else "",
        identity.binding or "",
        max(0, round((pending.ended - pending.now) * _MICROSECONDS)) if pending.ended else 0,
        pending.table_digest,
        obligations_of(decision),
        _disagreement(decision.disagreement),
        _cut(claimed.subject) if claimed is not None else "",
        _cut(claimed.issuer) if claimed is not None else "",
        *facts_of(decision.facts),
        *access_of(decision.access),
        minted_of(decision.minted),
    )


_NO_ACCESS: Final = (None, None, None)
_LAST_TIME: Final = 253_402_300_800.0  # the year 10000, and infinity for a grant without an end


def access_of(access: AccessBasis | None) -> tuple[GrantRecord | None, str | None, str | None]:
    """The fields of a record for what the access log explains; null where the decision rests on nothing of it."""
    if access is None:
        return _NO_ACCESS
    grant = access.grant
    record = None if grant is None else GrantRecord(_cut(grant.id), _cut(grant.entitlement), _time_or_null(grant.until))
    return record, _cut(access.revocation) or None, _cut(access.signal) or None


def _time_or_null(time: float) -> str | None:
    return time_text(time) if time < _LAST_TIME else None


def minted_of(token: MintedToken | None) -> MintedRecord | None:
    """The record of a minted token; null without one."""
    if token is None:
        return None
    record = token.derived.get("record")
    if not isinstance(record, MintedRecord):
        record = MintedRecord(token.token_id, token.key_id, token.audience, time_text(token.expires))
        token.derived["record"] = record
    return record


def _cut(text: str) -> str:
    return text[:MAX_TEXT_CHARACTERS]


def _endpoint(address: Address) -> str:
    """`ip:port`. A long address, which no proxy should send, is cut."""
    return Address(_cut(address.ip), address.port).text if len(address.ip) > MAX_TEXT_CHARACTERS else address.text


def _disagreement(shadow: Disagreement | None) -> DisagreementRecord | None:
    if shadow is None:
        return None
    return DisagreementRecord(shadow.verdict, shadow.reason, shadow.policy, shadow.rule, shadow.rule_name)


def trace_id(trace_parent: TraceParent | str) -> str:
    """The ID of the trace that the request is part of, "" if its header is not valid."""
    parent = parse_trace_parent(trace_parent) if isinstance(trace_parent, str) else trace_parent
    return "" if parent is None else parent.trace_id


def time_text(now: float) -> str:
    """RFC 3339 in UTC, with microseconds."""
    second, microseconds = divmod(round(now * _MICROSECONDS), 1_000_000)
    return f"{second_text(second)}.{microseconds:06}+00:00"


def second_text(since_epoch: int) -> str:
    """RFC 3339 up to the seconds."""
    return datetime.fromtimestamp(since_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def stub_line(pending: PendingRecord) -> bytes:
    """Return a minimal JSON line for a decision whose record can't be made: enough to find it by."""
    decision = pending.decision
    known = {
        "schema": SCHEMA,
        "decision_id": pending.decision_id,
        "verdict": decision.verdict,
        "reason": decision.reason,
    }
    texts = {name: str(value) for name, value in known.items()}
    return json.dumps(texts | {"detail": "the record could not be made"}, separators=(",", ":")).encode() + b"\n"


_encoder = msgspec.json.Encoder()


def encode_line(record: DecisionRecord) -> bytes:
    r"""The record as one line of ASCII JSON with its `\n`; text that is not valid Unicode becomes `\udc80`."""
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
    if isinstance(value, dict):
        return {_escaped(name): _escaped(item) for name, item in value.items()}
    if isinstance(value, msgspec.Struct):
        return {name: _escaped(item) for name, item in msgspec.structs.asdict(value).items()}
    return value
