"""Find and read recordings: decision logs and recorded CheckRequests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from zta_authz.audit.segments import is_lock_file
from zta_authz.errors import Fault, FaultsError, Refused
from zta_authz.ext_authz.request import parse_check_request

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MAX_RECORDING_BYTES: Final = 1024 * 1024 * 1024
MAX_LINE_BYTES: Final = 4 * 1024 * 1024
_HINT: Final = "name decision logs, files of recorded CheckRequests, or directories of them"
_VARINT_BYTES: Final = 5


def find_recordings(names: list[str]) -> list[Path]:
    """Return the named files, and the files below named directories sorted by path. Raises `FaultsError`.

    Hidden files and lock files of decision logs are skipped.
    """
    files: list[Path] = []
    faults: list[Fault] = []
    for name in names:
        path = Path(name)
        try:
            if not path.is_dir():
                path.stat()
                if not is_lock_file(path):
                    files.append(path)
                continue
            inside = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file, path))
            inside = [file for file in inside if not is_lock_file(file)]
        except (OSError, ValueError) as error:
            faults.append(Fault(name, 0, 0, f"cannot be read: {getattr(error, 'strerror', None) or error}", _HINT))
            continue
        if not inside:
            faults.append(Fault(name, 0, 0, "the directory has no files", _HINT))
        files += inside
    if faults:
        raise FaultsError(faults)
    return files


def _is_hidden(file: Path, below: Path) -> bool:
    return any(name.startswith(".") for name in file.relative_to(below).parts)


def is_log(path: Path) -> bool:
    """Return whether the file starts like a decision log. Raises `FaultsError` if it can't be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(2) == b'{"'  # a single `{` may also be a length
    except OSError as error:
        raise _unreadable(path, error) from None


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a log with their numbers, from 1. Lines of more than 4 MiB are split."""
    try:
        with path.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_LINE_BYTES):
                number += 1
                if line.strip():
                    yield number, line
    except OSError as error:
        raise _unreadable(path, error) from None


def check_requests_of(path: Path) -> list[bytes]:
    """Return the CheckRequests in one file: a single message, or several, each after its length (protobuf varint).

    Raises `FaultsError` if the file has neither.
    """
    try:
        if path.stat().st_size > MAX_RECORDING_BYTES:
            raise FaultsError([Fault(str(path), 0, 0, "is larger than 1 GiB", "split the file")])
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    if _is_check_request(content):
        return [content]
    messages = _delimited(content)
    if not messages or not all(_is_check_request(message) for message in messages):
        raise FaultsError([Fault(str(path), 0, 0, "is neither a decision log nor recorded CheckRequests", _HINT)])
    return messages


def _is_check_request(content: bytes) -> bool:
    try:
        parse_check_request(content)
    except Refused:
        return False
    return True


def _delimited(content: bytes) -> list[bytes]:
    """Split `content` into messages; [] if the lengths are not consistent."""
    messages: list[bytes] = []
    at = 0
    while at < len(content):
        length = shift = 0
        for byte in content[at : at + _VARINT_BYTES]:
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        else:
            return []
        if length > MAX_MESSAGE_BYTES or at + length > len(content):
            return []
        messages.append(content[at : at + length])
        at += length
    return messages


def _unreadable(path: Path, error: OSError) -> FaultsError:
    return FaultsError([Fault(str(path), 0, 0, f"cannot be read: {error.strerror}", _HINT)])
