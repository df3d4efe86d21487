"""Compare what decisions rest on with the access log: each grant has begun and not ended, each revocation is known.

The times of events are those of the administrator's store, the times of decisions those of decision points. A
difference within the tolerance is no finding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from zta_authz.audit.log_verifier import FindingKind, Note, Report
from zta_authz.audit.record import SCHEMA
from zta_authz.cli.audit.access_history import holder_text, seconds_of

if TYPE_CHECKING:
    from zta_authz.cli.audit.access_history import AccessHistory, GrantHistory

DOCUMENT: Final = "document/"
"""The beginning of the IDs of grants that are documents. The access log has no events of them."""
OLDEST_GRANT_SECONDS: Final = 120 * 86400.0
"""A grant is approved at most so long before its last use: up to 30 days before its start, for up to 90 days."""
_MAX_TEXT: Final = 512
"""The access log cuts names at so many characters, the decision log at more."""
_ROUNDING: Final = 0.001
_HASHED: Final = "hmac-sha256:"
_CUT: Final = "..."


class RecordedGrant(msgspec.Struct, frozen=True):
    """The grant that a decision rests on."""

    id: str
    entitlement: str = ""
    until: str | None = None


class DecisionLine(msgspec.Struct, frozen=True):
    """The fields of a decision that concern access."""

    schema: str = ""
    seq: int = 0
    time: str = ""
    decision_id: str = ""
    verdict: str = ""
    reason: str = ""
    method: str = ""
    host: str = ""
    path: str = ""
    principal: str = ""
    token_issuer: str = ""
    token_subject: str = ""
    grant: RecordedGrant | None = None
    revocation: str | None = None
    signal: str | None = None


_decode: Final = msgspec.json.Decoder(DecisionLine).decode


def read_decision_line(line: bytes) -> DecisionLine | None:
    """Read a decision; None for any other line."""
    try:
        decision = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return decision if decision.schema == SCHEMA else None


@dataclass(slots=True)
class References:
    """Compares decisions with an access log. `older` counts what the log may have had before its first record."""

    history: AccessHistory
    tolerance: float
    report: Report = field(default_factory=Report)
    grants: int = 0
    document_grants: int = 0
    revocations: int = 0
    signals: int = 0
    older: int = 0
    _place: tuple[str, int] = ("", 0)

    def read(self, file: str, line: int, data: bytes) -> None:
        """Compare a line of a decision log."""
        decision = read_decision_line(data)
        if decision is None:
            return
        self._place = (file, line)
        if decision.verdict == "deny" and decision.decision_id in self.history.decisions:
            kind = self.history.decisions[decision.decision_id]
            self._find(decision, FindingKind.OPERATION_DENIED, f"denies, but the access log has its {kind}")
        if decision.grant is None and not decision.revocation and not decision.signal:
            return
        time = seconds_of(decision.time)
        if time is None:
            self._find(decision, FindingKind.UNREADABLE, "has no time, so the access log can't explain it")
            return
        if decision.grant is not None:
            self._compare_grant(decision, decision.grant, time)
        if decision.revocation:
            self.revocations += 1
            self._compare_known(decision, "revocation", decision.revocation, self.history.revocations, time)
        if decision.signal:
            self.signals += 1
            self._compare_known(decision, "signal", decision.signal, self.history.signals, time)

    def finish(self) -> Report:
        """Return the report, with a note on what could not be compared."""
        if self.older:
            message = (
                f"{self.older} decisions name grants, revocations or signals that may be older than the access log's "
                "first record"
            )
            self.report.notes.append(Note("access log", 0, message))
        return self.report

    def _compare_grant(self, decision: DecisionLine, named: RecordedGrant, time: float) -> None:
        self.grants += 1
        if named.id.startswith(DOCUMENT):
            self.document_grants += 1
            return
        grant = self.history.grants.get(named.id)
        if grant is None:
            if not self.history.complete and time < self.history.first_time + OLDEST_GRANT_SECONDS:
                self.older += 1
                return
            message = f"rests on grant {named.id}, which no event of the access log begins"
            self._find(decision, FindingKind.GRANT_UNKNOWN, message)
            return
        begun = max(grant.begun, grant.start)
        if time + self.tolerance < begun:
            message = f"rests on grant {named.id} {begun - time:.1f} s before the grant begins"
            self._find(decision, FindingKind.GRANT_NOT_BEGUN, message)
        if time - self.tolerance >= grant.end:
            how = {"access.revoked": "was revoked", "access.ended": "was given back"}.get(grant.ended_by, "ended")
            how = how if grant.ended <= grant.until else "ended"
            message = f"rests on grant {named.id} {time - grant.end:.1f} s after it {how}"
            self._find(decision, FindingKind.GRANT_ENDED, message)
        difference = _difference(decision, named, grant)
        if difference:
            message = f"rests on grant {named.id}, but in the access log {difference}"
            self._find(decision, FindingKind.GRANT_DIFFERS, message)

    def _compare_known(
        self, decision: DecisionLine, what: str, name: str, known: dict[str, float], time: float
    ) -> None:
        since = known.get(name)
        if since is None and not self.history.complete:
            self.older += 1
        elif since is None or time + self.tolerance < since:
            kind = FindingKind.REVOCATION_UNKNOWN if what == "revocation" else FindingKind.SIGNAL_UNKNOWN
            when = "" if since is None else " before the decision"
            self._find(decision, kind, f"rests on {what} {name[:_MAX_TEXT]}, which the access log does not have{when}")

    def _find(self, decision: DecisionLine, kind: FindingKind, message: str) -> None:
        file, line = self._place
        self.report.add_finding(file, line, decision.seq or None, kind, f"decision {decision.decision_id} {message}")


def _difference(decision: DecisionLine, named: RecordedGrant, grant: GrantHistory) -> str:
    """What a decision and the access log say differently about a grant, "" if nothing."""
    if named.entitlement[:_MAX_TEXT] != grant.entitlement:
        return f"it is a grant of {grant.entitlement}"
    until = None if named.until is None else seconds_of(named.until)
    if until is None or until > grant.until + _ROUNDING:
        return f"it ends earlier than {named.until or 'never'}"
    if not _is_holder(decision, grant.holder):
        return f"it is a grant to {holder_text(grant.holder)}"
    return ""


def _is_holder(decision: DecisionLine, holder: tuple[str, str, str]) -> bool:
    """Whether the caller is the grant's holder, as far as the record is not masked."""
    issuer, subject, spiffe_id = holder
    pairs = [(spiffe_id, decision.principal)] if spiffe_id else []
    pairs = pairs or [(issuer, decision.token_issuer), (subject, decision.token_subject)]
    return all(_is_masked(recorded) or recorded[:_MAX_TEXT] == known for known, recorded in pairs)


def _is_masked(text: str) -> bool:
    return not text or text.startswith(_HASHED) or text.endswith(_CUT)
