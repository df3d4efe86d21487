"""`zta-authz audit verify FILE…`: detect changes of logs, and decisions that the access log does not explain.

Files of several logs, for example of several workers, are grouped by the log id that they contain.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zta_authz.audit.checkpoints import checkpoint_log, load_public_key
from zta_authz.audit.log_verifier import FindingKind, LogVerifier, log_id, logs_of, segment_order
from zta_authz.audit.segments import is_lock_file
from zta_authz.cli.audit.access_history import AccessHistory
from zta_authz.cli.audit.log_files import all_segments, read_beginning, read_lines
from zta_authz.cli.audit.references import References
from zta_authz.cli.audit.replicas import ReplicaLog, compare_replicas
from zta_authz.cli.output import one_line, print_json
from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from zta_authz.audit.log_verifier import Report

EXIT_TAMPERED: Final = 1
_MAX_KEY_BYTES = 64 * 1024
_Files = list[tuple[str, bytes]]
"""The files of a log with their first lines."""


@dataclass(frozen=True, slots=True)
class _Verified:
    """The report on one log, and the number of its files."""

    report: Report
    files: int


def run(arguments: argparse.Namespace) -> int:
    """Verify. Raises `FaultsError` if a file can't be read."""
    access_files = all_segments(arguments.access_log)
    names = dict.fromkeys([*arguments.files, *access_files])
    if not names:
        arguments.usage_error("name the files of a log, or an --access-log")
    key = _public_key(arguments)
    logs = logs_of([(name, _first_line(name)) for name in names if not is_lock_file(Path(name))])
    if arguments.first_record is not None and len(logs) != 1:
        message = f"--first-record applies to one log, but these are files of {len(logs)} logs"
        raise FaultsError([Fault("command line", 0, 0, message, "verify the logs one by one")])
    verification = _Verification(1 if arguments.first_record is None else arguments.first_record, key)
    signed = _checkpoints_by_log(arguments.checkpoints, logs)
    of_access = [not set(access_files).isdisjoint(name for name, _ in files) for files in logs]
    plan = list(zip(logs, signed, of_access, strict=True))
    references = None
    if arguments.access_log:
        access = [(files, checkpoints) for files, checkpoints, is_access in plan if is_access]
        references = References(_read_access_logs(verification, access), arguments.clock_tolerance)
        compare_replicas(verification.replicas, references.report)
    for files, checkpoints, is_access in plan:
        if not is_access:
            verification.verify(files, checkpoints, None if references is None else references.read)
    verified = verification.verified
    if not verified or any(log.report.ok and log.report.last_seq is None for log in verified):
        message = "there are no records"  # a log always starts with an event, so an empty one is suspicious
        raise FaultsError([Fault(" ".join(names), 0, 0, message, "check that this is the right file")])
    if references is not None:
        references.finish()
    if arguments.output == "json":
        print_json("AuditVerification", _fields(verified, references))
    else:
        _print_all(verified, references)
    reports = _reports(verified, references)
    return 0 if all(report.ok for report in reports) else EXIT_TAMPERED


class _Verification:
    """Verifies one log after the other."""

    def __init__(self, first_record: int, key: Ed25519PublicKey | None) -> None:
        """Verify with the same key and first record for all logs."""
        self._first_record = first_record
        self._key = key
        self.verified: list[_Verified] = []
        self.replicas: list[ReplicaLog] = []

    def verify(self, files: _Files, checkpoints: list[str], read: Callable[[str, int, bytes], None] | None) -> Report:
        """Verify a log, and pass each line with its file and number to `read`."""
        verifier = LogVerifier(self._first_record)
        if self._key is not None:
            for name in checkpoints:
                verifier.read_checkpoints(name, read_lines(name), self._key)
            if not checkpoints:
                message = "there is no checkpoint of this log"
                verifier.report.add_finding(files[0][0], 0, None, FindingKind.CHECKPOINT, message)
        for name in segment_order(files):
            lines = read_lines(name)
            verifier.read_segment(name, lines if read is None else _passed_on(name, lines, read))
        report = verifier.finish()
        self.verified.append(_Verified(report, len(files)))
        return report


def _read_access_logs(verification: _Verification, logs: list[tuple[_Files, list[str]]]) -> AccessHistory:
    """Verify the access logs of all replicas, and return what they say together."""
    history = AccessHistory()
    for files, checkpoints in logs:
        replica = ReplicaLog()

        def read(file: str, line: int, data: bytes, replica: ReplicaLog = replica) -> None:
            history.read(data)
            if len(logs) > 1:
                replica.read(file, line, data)

        report = verification.verify(files, checkpoints, read)
        verification.replicas.append(replica)
        history.complete = history.complete or report.first_seq == 1
    return history


def _passed_on(name: str, lines: Iterator[bytes], read: Callable[[str, int, bytes], None]) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        if line.endswith(b"\n"):
            read(name, number, line)
        yield line


def _first_line(name: str) -> bytes:
    return read_beginning(name).partition(b"\n")[0]


def _reports(verified: list[_Verified], references: References | None) -> list[Report]:
    return [*(log.report for log in verified), *([] if references is None else [references.report])]


def _public_key(arguments: argparse.Namespace) -> Ed25519PublicKey | None:
    if bool(arguments.checkpoints) != (arguments.public_key is not None):
        message = "--checkpoints and --public-key go together"
        raise FaultsError([Fault("command line", 0, 0, message, "give both options or neither")])
    if arguments.public_key is None:
        return None
    try:
        return load_public_key(read_beginning(arguments.public_key, _MAX_KEY_BYTES))
    except ValueError as error:
        hint = "create the file with `openssl pkey -in KEY -pubout -out FILE`"
        raise FaultsError([Fault(arguments.public_key, 0, 0, str(error), hint)]) from error


def _checkpoints_by_log(files: list[str], logs: list[list[tuple[str, bytes]]]) -> list[list[str]]:
    """Return the checkpoint files of each log. A single log gets all files; foreign checkpoints become findings."""
    if len(logs) <= 1:
        return [list(files) for _ in logs]
    by_log: list[list[str]] = [[] for _ in logs]
    ids = [log_id(segments) for segments in logs]
    for file in files:
        log = checkpoint_log(read_lines(file))
        if not log or log not in ids:
            message = "these checkpoints belong to none of the logs" if log else "these checkpoints have no log id"
            raise FaultsError([Fault(file, 0, 0, message, "name all files of that log, or verify the logs one by one")])
        by_log[ids.index(log)].append(file)
    return by_log


def _fields(verified: list[_Verified], references: References | None) -> dict[str, Any]:
    """Return the JSON fields: of a single log or sums over several logs, and those of each log in `logs`."""
    reports = _reports(verified, references)
    only = verified[0].report if len(verified) == 1 else None
    findings = [finding for report in reports for finding in report.findings]
    return {
        "ok": all(report.ok for report in reports),
        "files": sum(log.files for log in verified),
        "decisions": sum(report.decisions for report in reports),
        "accessEvents": sum(report.access_events for report in reports),
        "firstSeq": only and only.first_seq,
        "lastSeq": only and only.last_seq,
        "head": only and only.head,
        "checkpoints": sum(report.checkpoints for report in reports),
        "findingCount": sum(report.finding_count for report in reports),
        "findings": [asdict(finding) | {"line": finding.line or None} for finding in findings],
        "notes": [asdict(note) for report in reports for note in report.notes],
        "logs": [
            {
                "log": log.report.log,
                "ok": log.report.ok,
                "files": log.files,
                "decisions": log.report.decisions,
                "accessEvents": log.report.access_events,
                "firstSeq": log.report.first_seq,
                "lastSeq": log.report.last_seq,
                "head": log.report.head,
                "checkpoints": log.report.checkpoints,
                "findingCount": log.report.finding_count,
            }
            for log in verified
        ],
        "references": None if references is None else _reference_fields(references),
    }


def _reference_fields(references: References) -> dict[str, Any]:
    return {
        "ok": references.report.ok,
        "grants": references.grants,
        "documentGrants": references.document_grants,
        "revocations": references.revocations,
        "signals": references.signals,
        "olderThanLog": references.older,
        "findingCount": references.report.finding_count,
    }


def _print_all(verified: list[_Verified], references: References | None) -> None:
    for log in verified:
        _print(log.report, log.files, several=len(verified) > 1)
    if references is None:
        return
    _print_findings(references.report)
    state = "ok" if references.report.ok else "NOT EXPLAINED"
    print(
        f"references: {state}: decisions that rest on grants: {references.grants} "
        f"({references.document_grants} of documents), on revocations: {references.revocations}, "
        f"on signals: {references.signals}"
    )


def _print(report: Report, files: int, *, several: bool) -> None:
    _print_findings(report)
    state = "ok" if report.ok else "CHANGED"
    numbers = "no records" if report.last_seq is None else f"records {report.first_seq} to {report.last_seq}"
    which = f"log {report.log or 'without an ID'}: " if several else ""
    events = f"{report.access_events} access events" if report.access_events else ""
    decisions = f"{report.decisions} decisions" if report.decisions or not events else ""
    counts = ", ".join(filter(None, (decisions, events, f"files: {files}, checkpoints: {report.checkpoints}")))
    print(one_line(f"{which}{state}: {numbers}, {counts}"))


def _print_findings(report: Report) -> None:
    for note in report.notes:
        place = f"{note.file}:{note.line}" if note.line else note.file
        print(one_line(f"{place}: note: {note.message}"))
    for finding in report.findings:
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        print(one_line(f"{place}: {finding.kind}: {finding.message}"))
    if report.finding_count > len(report.findings):
        print(f"and {report.finding_count - len(report.findings)} more")
