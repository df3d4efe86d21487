"""Decision logs written by the real code, keys for their checkpoints, and hands that tamper with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support.check_requests import attributes, deny
from zta_authz.audit.checkpoints import CheckpointWriter
from zta_authz.audit.hash_chain import Position, append
from zta_authz.audit.log_verifier import LogVerifier, segment_order
from zta_authz.audit.record import encode_line, make_record
from zta_authz.audit.segments import SegmentedLog
from zta_authz.audit.sinks import capture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zta_authz.audit.log_verifier import Report

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY_PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC_PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def record_line(number: int) -> bytes:
    """A decision's line, as it is before it is chained."""
    return encode_line(make_record(capture(attributes(), deny(), f"{number:032x}", 1_700_000_000.0)))


def open_log(directory: Path, *, max_bytes: int = 1 << 20, max_files: int = 100, signed: bool = False) -> SegmentedLog:
    """The log `decisions.jsonl` of a directory, with checkpoints in `checkpoints.jsonl` where it is `signed`."""
    checkpoints = CheckpointWriter(str(directory / "checkpoints.jsonl"), KEY) if signed else None
    path = str(directory / "decisions.jsonl")
    return SegmentedLog(path, max_bytes=max_bytes, max_files=max_files, checkpoints=checkpoints)


def write_log(directory: Path, count: int, *, max_bytes: int = 1 << 20, signed: bool = False) -> None:
    """Write `count` decisions, one at a time, and close the log."""
    log = open_log(directory, max_bytes=max_bytes, signed=signed)
    for number in range(count):
        log.write([record_line(number)])
    log.close()


def segments(directory: Path) -> list[Path]:
    """The log's files, oldest first."""
    return [*sorted(directory.glob("decisions.jsonl.0*")), directory / "decisions.jsonl"]


def verify(directory: Path, *, files: Sequence[Path] | None = None, signed: bool = False) -> Report:
    """What verification says of a directory's log."""
    verifier = LogVerifier()
    if signed:
        lines = (directory / "checkpoints.jsonl").read_bytes().splitlines(keepends=True)
        verifier.read_checkpoints("checkpoints.jsonl", lines, KEY.public_key())
    named = {file.name: file.read_bytes().splitlines(keepends=True) for file in files or segments(directory)}
    for name in segment_order([(name, lines[0] if lines else b"") for name, lines in named.items()]):
        verifier.read_segment(name, named[name])
    return verifier.finish()


def read_lines(file: Path) -> list[bytes]:
    r"""The file's lines with their `\n`."""
    return file.read_bytes().splitlines(keepends=True)


def recompute(lines: Sequence[bytes]) -> bytes:
    """The lines, already chained once, as a new chain that holds together: what an attacker would do."""
    position, made = Position(), []
    for line in lines:
        position, linked = append(position, b"{" + line.partition(b'",')[2])
        made.append(linked)
    return b"".join(made)
