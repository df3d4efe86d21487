"""`zta-authz audit verify FILE…`: detect changes of decision logs.

Files of several logs, for example of several workers, are grouped by the log id that they contain.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zta_authz.audit.checkpoints import checkpoint_log, load_public_key
from zta_authz.audit.log_verifier import FindingKind, LogVerifier, log_id, logs_of, segment_order
from zta_authz.audit.segments import is_lock_file
from zta_authz.cli.output import add_output_argument, one_line, print_json
from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from zta_authz.audit.log_verifier import Report

EXIT_TAMPERED: Final = 1
_MAX_LINE_BYTES = 4 * 1024 * 1024
_MAX_DIGITS = 18
_MAX_KEY_BYTES = 64 * 1024


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    status = "0 all logs are unchanged, 1 a log was changed, 2 files or keys can't be read"
    page, example = "decision-log.md#verifying", "zta-authz audit verify decisions.jsonl"
    command = subparsers.add_parser(
        "audit",
        help="verify a decision log",
        description="Verify decision logs.",
        epilog=epilog(status, page, example),
    )
    actions = command.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser(
        "verify",
        help="detect records that were changed, removed, reordered, truncated or rewritten",
        description="Verify the hash chain of decision logs, and their signed checkpoints if given.",
        epilog=epilog(
            status,
            page,
            example,
            f"{example} --checkpoints checkpoints.jsonl --public-key audit.pub.pem -o json",
        ),
    )
    verify.add_argument("files", nargs="+", metavar="FILE", help="files of one or several logs, in any order")
    verify.add_argument(
        "--checkpoints",
        metavar="FILE",
        action="append",
        default=[],
        help="signed checkpoints of a log; may be repeated",
    )
    verify.add_argument("--public-key", metavar="FILE", help="the Ed25519 public key (PEM) of the checkpoints")
    verify.add_argument(
        "--first-record",
        metavar="NUMBER",
        type=_number,
        help="the number of the first record, if older records are archived elsewhere (default: 1)",
    )
    add_output_argument(verify)
    verify.set_defaults(run=run)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= len(text) <= _MAX_DIGITS:
        raise argparse.ArgumentTypeError("not a record number")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Verify. Raises `FaultsError` if a file can't be read."""
    key = _public_key(arguments)
    firsts = [
        (name, _read(name, _MAX_LINE_BYTES).partition(b"\n")[0])
        for name in dict.fromkeys(arguments.files)
        if not is_lock_file(Path(name))
    ]
    logs = logs_of(firsts)
    if arguments.first_record is not None and len(logs) != 1:
        message = f"--first-record applies to one log, but these are files of {len(logs)} logs"
        raise FaultsError([Fault("command line", 0, 0, message, "verify the logs one by one")])
    first = 1 if arguments.first_record is None else arguments.first_record
    signed = _checkpoints_by_log(arguments.checkpoints, logs)
    verified = []
    for number, files in enumerate(logs):
        verifier = LogVerifier(first)
        if key is not None:
            for checkpoints in signed[number]:
                verifier.read_checkpoints(checkpoints, _lines(checkpoints), key)
            if not signed[number]:
                message = "there is no checkpoint of this log"
                verifier.report.add_finding(files[0][0], 0, None, FindingKind.CHECKPOINT, message)
        for name in segment_order(files):
            verifier.read_segment(name, _lines(name))
        verified.append(_Verified(verifier.finish(), len(files)))
    if not verified or any(log.report.ok and log.report.last_seq is None for log in verified):
        message = "there are no records"  # a log always starts with an event, so an empty one is suspicious
        raise FaultsError([Fault(" ".join(arguments.files), 0, 0, message, "check that this is the right file")])
    if arguments.output == "json":
        print_json("AuditVerification", _fields(verified))
    else:
        for log in verified:
            _print(log.report, log.files, several=len(verified) > 1)
    return 0 if all(log.report.ok for log in verified) else EXIT_TAMPERED


@dataclass(frozen=True, slots=True)
class _Verified:
    """The report on one log, and the number of its files."""

    report: Report
    files: int


def _public_key(arguments: argparse.Namespace) -> Ed25519PublicKey | None:
    if bool(arguments.checkpoints) != (arguments.public_key is not None):
        message = "--checkpoints and --public-key go together"
        raise FaultsError([Fault("command line", 0, 0, message, "give both options or neither")])
    if arguments.public_key is None:
        return None
    try:
        return load_public_key(_read(arguments.public_key, _MAX_KEY_BYTES))
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
        log = checkpoint_log(_lines(file))
        if not log or log not in ids:
            message = "these checkpoints belong to none of the logs" if log else "these checkpoints have no log id"
            raise FaultsError([Fault(file, 0, 0, message, "name all files of that log, or verify the logs one by one")])
        by_log[ids.index(log)].append(file)
    return by_log


def _fields(verified: list[_Verified]) -> dict[str, Any]:
    """Return the JSON fields: of a single log or sums over several logs, and those of each log in `logs`."""
    reports = [log.report for log in verified]
    only = reports[0] if len(reports) == 1 else None
    findings = [finding for report in reports for finding in report.findings]
    return {
        "ok": all(report.ok for report in reports),
        "files": sum(log.files for log in verified),
        "decisions": sum(report.decisions for report in reports),
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
                "firstSeq": log.report.first_seq,
                "lastSeq": log.report.last_seq,
                "head": log.report.head,
                "checkpoints": log.report.checkpoints,
                "findingCount": log.report.finding_count,
            }
            for log in verified
        ],
    }


def _print(report: Report, files: int, *, several: bool) -> None:
    for note in report.notes:
        print(one_line(f"{note.file}:{note.line}: note: {note.message}"))
    for finding in report.findings:
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        print(one_line(f"{place}: {finding.kind}: {finding.message}"))
    if report.finding_count > len(report.findings):
        print(f"and {report.finding_count - len(report.findings)} more")
    state = "ok" if report.ok else "CHANGED"
    numbers = "no records" if report.last_seq is None else f"records {report.first_seq} to {report.last_seq}"
    which = f"log {report.log or 'without an ID'}: " if several else ""
    counts = f"{report.decisions} decisions, files: {files}, checkpoints: {report.checkpoints}"
    print(one_line(f"{which}{state}: {numbers}, {counts}"))


def _lines(name: str) -> Iterator[bytes]:
    r"""Yield the lines of a file with their `\n`. Overlong lines are split, and the parts are not valid records."""
    with _open(name) as file:
        while line := file.readline(_MAX_LINE_BYTES):
            yield line


def _read(name: str, size: int) -> bytes:
    with _open(name) as file:
        try:
            return file.read(size)
        except OSError as error:
            raise _unreadable(name, error) from error


def _open(name: str) -> BinaryIO:
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: OSError) -> FaultsError:
    return FaultsError([Fault(name, 0, 0, f"cannot be read: {error.strerror}", "name a readable file")])
