"""`zta-authz audit verify FILE…`: whether a decision log is as it was written.

Exit status: 0 it is, 1 it is not, 2 files or keys can't be read.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zta_authz.audit.checkpoints import load_public_key
from zta_authz.audit.verify import LogVerifier, segment_order
from zta_authz.cli.output import add_output_argument, one_line, print_json
from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import BinaryIO

    from zta_authz.audit.verify import Report

EXIT_TAMPERED: Final = 1
_MAX_LINE_BYTES = 4 * 1024 * 1024
_MAX_KEY_BYTES = 64 * 1024


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    command = subparsers.add_parser("audit", help="verify a decision log", description="Work on decision logs.")
    actions = command.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser(
        "verify",
        help="find lines that were changed, removed, moved, cut off or computed anew",
        description="Exit with 0 if the files are one log as it was written, 1 if not, 2 if they can't be read.",
    )
    verify.add_argument("files", nargs="+", metavar="FILE", help="segments of one log, in any order")
    verify.add_argument("--checkpoints", metavar="FILE", help="the log's signed checkpoints")
    verify.add_argument("--public-key", metavar="FILE", help="the Ed25519 key (PEM) that they are verified with")
    add_output_argument(verify)
    verify.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Verify. Raises `FaultsError` where a file can't be read."""
    verifier = LogVerifier()
    if (arguments.checkpoints is None) != (arguments.public_key is None):
        told = "--checkpoints and --public-key go together"
        raise FaultsError([Fault("command line", 0, 0, told, "give both or none")])
    if arguments.checkpoints is not None:
        try:
            key = load_public_key(_read(arguments.public_key, _MAX_KEY_BYTES))
        except ValueError as error:
            hint = "`openssl pkey -in KEY -pubout -out FILE` makes it"
            raise FaultsError([Fault(arguments.public_key, 0, 0, str(error), hint)]) from error
        verifier.read_checkpoints(arguments.checkpoints, _lines(arguments.checkpoints), key)
    firsts = [(name, _read(name, _MAX_LINE_BYTES).partition(b"\n")[0]) for name in dict.fromkeys(arguments.files)]
    for name in segment_order(firsts):
        verifier.read_segment(name, _lines(name))
    report = verifier.finish()
    if report.ok and report.last_seq is None:  # a log begins with a record of its own: to verify nothing proves nothing
        told = "there are no records"
        raise FaultsError([Fault(" ".join(arguments.files), 0, 0, told, "is it the right file?")])
    if arguments.output == "json":
        print_json("AuditVerification", _fields(report, len(firsts)))
    else:
        _print(report, len(firsts))
    return 0 if report.ok else EXIT_TAMPERED


def _fields(report: Report, files: int) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "files": files,
        "decisions": report.decisions,
        "firstSeq": report.first_seq,
        "lastSeq": report.last_seq,
        "head": report.head,
        "checkpoints": report.checkpoints,
        "findingCount": report.finding_count,
        "findings": [asdict(finding) | {"line": finding.line or None} for finding in report.findings],
        "notes": [asdict(note) for note in report.notes],
    }


def _print(report: Report, files: int) -> None:
    for note in report.notes:
        print(one_line(f"{note.file}:{note.line}: note: {note.message}"))
    for finding in report.findings:
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        print(one_line(f"{place}: {finding.kind}: {finding.message}"))
    if report.finding_count > len(report.findings):
        print(f"and {report.finding_count - len(report.findings)} more")
    state = "ok" if report.ok else "NOT AS IT WAS WRITTEN"
    numbers = "no records" if report.last_seq is None else f"records {report.first_seq} to {report.last_seq}"
    print(f"{state}: {numbers}, {report.decisions} decisions, files: {files}, checkpoints: {report.checkpoints}")


def _lines(name: str) -> Iterator[bytes]:
    r"""The lines of a file with their `\n`; an endless one comes in pieces, which are no records."""
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
    return FaultsError([Fault(name, 0, 0, f"cannot be read: {error.strerror}", "name a file that can")])
