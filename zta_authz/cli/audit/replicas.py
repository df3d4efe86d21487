"""Compare the access logs of several replicas: each has every event of the store, so none may lack or change one.

A chain shows that nobody changed a log in one place, but not that nobody wrote all of it again. The log of another
replica does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from zta_authz.administrator.access_events import EventKind, read_log_line
from zta_authz.audit.log_verifier import FindingKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.audit.log_verifier import Report


class _Place(NamedTuple):
    """Where an event is, and a digest of what it says."""

    file: str
    line: int
    revision: int
    digest: bytes


@dataclass(slots=True)
class ReplicaLog:
    """The events of one replica's log, by epoch and ID."""

    events: dict[str, dict[str, _Place]] = field(default_factory=dict)
    skipped: list[tuple[str, int, int]] = field(default_factory=list)

    def read(self, file: str, line: int, data: bytes) -> None:
        """Take a line into account. Lines that are no events of the store are skipped."""
        event = read_log_line(data)
        if event is None or event.kind == EventKind.STORE_OPENED:
            return
        if event.kind == EventKind.STORE_SKIPPED:
            first, last = event.detail.get("from_revision"), event.detail.get("to_revision")
            if isinstance(first, int) and isinstance(last, int):
                self.skipped.append((event.epoch, first, last))
            return
        content = data.partition(b'","schema":')[2]  # without the place in the chain, which each log has for itself
        digest = hashlib.blake2b(content, digest_size=8).digest()
        self.events.setdefault(event.epoch, {})[event.event_id] = _Place(file, line, event.revision, digest)

    def lacks(self, epoch: str, revision: int) -> bool:
        """Whether the log says that the store forgot a revision before the log had it."""
        return any(epoch == name and first <= revision <= last for name, first, last in self.skipped)


def compare_replicas(logs: Sequence[ReplicaLog], report: Report) -> None:
    """Add a finding for each event that a log lacks or has otherwise than another one."""
    for number, one in enumerate(logs):
        for other in logs[number + 1 :]:
            for epoch in sorted(one.events.keys() & other.events.keys()):
                _find_missing(one, other, epoch, report)
                _find_missing(other, one, epoch, report)
                _find_changed(one, other, epoch, report)


def _find_changed(one: ReplicaLog, other: ReplicaLog, epoch: str, report: Report) -> None:
    others = other.events[epoch]
    for event_id, place in one.events[epoch].items():
        twin = others.get(event_id)
        if twin is not None and twin.digest != place.digest:
            message = f"event {event_id} is another one in {twin.file}:{twin.line}"
            report.add_finding(place.file, place.line, None, FindingKind.EVENT_DIFFERS, message)


def _find_missing(one: ReplicaLog, other: ReplicaLog, epoch: str, report: Report) -> None:
    """Find events of `one` that `other` lacks, between the first and the last revision that `other` has."""
    others = other.events[epoch]
    revisions = [place.revision for place in others.values()]
    first, last = min(revisions), max(revisions)
    for event_id, place in one.events[epoch].items():
        if event_id not in others and first < place.revision < last and not other.lacks(epoch, place.revision):
            name = next(iter(others.values())).file
            message = f"event {event_id} is missing in the log of another replica ({name})"
            report.add_finding(place.file, place.line, None, FindingKind.EVENT_MISSING, message)
