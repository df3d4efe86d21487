"""Notes to lines, many of which are alike: what most have in common is encoded once and joined around the rest. Pure.

A joined line has the very bytes that its record would be encoded to. Where a note has more to say than most, or texts
that are long or not ASCII, or something is to be masked, the record is made and encoded: twice the work, for few lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from zta_authz.audit.record import (
    MAX_TEXT_CHARACTERS,
    SCHEMA,
    encode_line,
    endpoint,
    make_record,
    obligations_of,
    second_text,
    trace_id,
)
from zta_authz.model.decision import NO_RESPONSE

if TYPE_CHECKING:
    from zta_authz.audit.masking import Masker
    from zta_authz.audit.record import PendingRecord
    from zta_authz.model.decision import Decision
    from zta_authz.model.identity import Identity
    from zta_authz.model.request import Address

MAX_KNOWN: Final = 1024
"""Pieces of each kind that are known; past it all are forgotten, so that whoever varies them fills no memory."""

_MICROSECONDS: Final = 1e6
_STAMP_DIGITS: Final = 16  # of microseconds since the epoch: from 2001 to 2286
_VERDICT: Final = (
    *("verdict", "reason", "policy", "rule", "rule_name", "detail", "principal", "token_subject"),
    *("token_issuer", "method", "host"),
)
_NOTHING_CLAIMED: Final = {"claimed_subject": "", "claimed_issuer": ""}
_encode: Final = msgspec.json.Encoder().encode


class LineMaker:
    """Makes lines of notes. Not to be used by two threads at a time."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._masks = masker.masks
        # what is known by its id is kept beside the piece, so that the id stays its own
        self._verdicts: dict[tuple[object, ...], tuple[bytes, *tuple[object, ...]]] = {}
        self._ends: dict[tuple[int, int], tuple[bytes, *tuple[object, ...]]] = {}
        self._tails: dict[tuple[object, ...], tuple[bytes, *tuple[object, ...]]] = {}
        self._second = ""
        self._beginning = b""

    def line(self, note: PendingRecord) -> bytes:
        r"""The note's record as one line of ASCII JSON with its `\n`."""
        decision = note.decision
        identity = decision.identity
        if (
            decision.detail
            or decision.shadows
            or decision.response is not NO_RESPONSE
            or decision.disagreement is not None
            or decision.refused_token is not None
            or identity.api_client is not None
            or identity.binding is not None
            or self._masks
        ):
            return self._encoded(note)
        stamp = str(round(note.now * _MICROSECONDS))
        if len(stamp) != _STAMP_DIGITS:
            return self._encoded(note)
        try:
            line = self._joined(note, decision, identity, stamp)
        except UnicodeEncodeError:  # a lone surrogate
            return self._encoded(note)
        return line if len(line) <= MAX_TEXT_CHARACTERS and line.isascii() else self._encoded(note)

    def _encoded(self, note: PendingRecord) -> bytes:
        return encode_line(self._masker.mask(make_record(note)))

    def _joined(self, note: PendingRecord, decision: Decision, identity: Identity, stamp: str) -> bytes:
        source, destination, path = note.source, note.destination, note.path
        peer, token, method, host = identity.peer, identity.token, note.method, note.host
        rule = (decision.policy, decision.rule, decision.rule_name)
        key = (decision.reason, *rule, decision.verdict, id(peer), id(token), method, host)
        said = self._verdicts.get(key) or self._verdict(note, key, peer, token)
        ends = self._ends.get((id(source), id(destination))) or self._both_ends(source, destination)
        last = (decision.verdict, note.table_digest, id(identity.changes))
        tail = self._tails.get(last) or self._tail(note, last)
        if "?" in path or "#" in path:
            path = path.partition("?")[0].partition("#")[0]
        latency = round((note.ended - note.now) * _MICROSECONDS) if note.ended > note.now else 0
        return b"".join(
            (
                self._beginning if stamp[:-6] == self._second else self._begin(stamp[:-6]),
                stamp[-6:].encode(),
                b'+00:00","decision_id":',
                _encode(note.decision_id),
                said[0],
                _encode(path),
                ends[0],
                _encode(note.request_id),
                b',"shadows":[],"trace_id":"',
                trace_id(note.trace_parent).encode() if note.trace_parent else b"",
                b'","api_client":"","binding":"","latency_us":',
                str(latency).encode(),
                tail[0],
            )
        )

    def _begin(self, second: str) -> bytes:
        """Up to the fraction of the second."""
        self._beginning = b'{"schema":%b,"time":"%b.' % (_encode(SCHEMA), second_text(int(second)).encode())
        self._second = second
        return self._beginning

    def _verdict(
        self, note: PendingRecord, key: tuple[object, ...], *kept: object
    ) -> tuple[bytes, *tuple[object, ...]]:
        """From the verdict to the host, and what leads to the path. Who is `kept` is known by its id."""
        said = make_record(note)
        piece = b",%b," % _members({name: getattr(said, name) for name in _VERDICT}) + b'"path":'
        if len(piece) <= MAX_TEXT_CHARACTERS:  # else the key may be long without end
            _learn(self._verdicts, key, (piece, *kept))
        return piece, *kept

    def _both_ends(self, source: Address, destination: Address) -> tuple[bytes, *tuple[object, ...]]:
        """Both ends of the connection: the same objects for all of its requests."""
        members = _members({"source": endpoint(source), "destination": endpoint(destination)})
        found = b",%b," % members + b'"request_id":', source, destination
        if len(members) <= MAX_TEXT_CHARACTERS:
            _learn(self._ends, (id(source), id(destination)), found)
        return found

    def _tail(self, note: PendingRecord, key: tuple[object, ...]) -> tuple[bytes, *tuple[object, ...]]:
        """What follows the latency. What is to be changed on requests is one object for many of them."""
        wanted = obligations_of(note.decision)
        members = _members(
            {"table_digest": note.table_digest, "obligations": wanted, "shadow": None} | _NOTHING_CLAIMED
        )
        found = b",%b}\n" % members, note.decision.identity.changes
        if len(members) <= MAX_TEXT_CHARACTERS:
            _learn(self._tails, key, found)
        return found


def _members(said: dict[str, object]) -> bytes:
    """A JSON object without its braces."""
    return _encode(said)[1:-1]


def _learn(known: dict[Any, Any], key: object, piece: object) -> None:
    if len(known) >= MAX_KNOWN:
        known.clear()
    known[key] = piece
