"""What can be replayed: recorded CheckRequests and decision logs, from files and directories."""

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
_HINT: Final = "give decision logs, recorded CheckRequests, or directories of such"
_VARINT_BYTES: Final = 5


def find_recordings(names: list[str]) -> list[Path]:
    """The files that `names` stand for, those in and below directories sorted by path. Raises `FaultsError`.

    Locks of decision logs are passed over.
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
            faults.append(Fault(name, 0, 0, "the directory holds no files", _HINT))
        files += inside
    if faults:
        raise FaultsError(faults)
    return files


def _is_hidden(file: Path, below: Path) -> bool:
    return any(name.startswith(".") for name in file.relative_to(below).parts)


def is_log(path: Path) -> bool:
    """Whether the file holds lines of JSON. Raises `FaultsError` where it can't be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(2) == b'{"'  # a lone `{` may also be a length
    except OSError as error:
        raise _unreadable(path, error) from None


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line of a log with its number from 1; one that is longer than any record comes in pieces."""
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
    """The CheckRequests in one file: one, or several with the length of each before it (a protobuf varint).

    Raises `FaultsError` where it holds neither.
    """
    try:
        if path.stat().st_size > MAX_RECORDING_BYTES:
            raise FaultsError([Fault(str(path), 0, 0, "has more than 1 GiB", "split it")])
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
    """The messages, none where the lengths do not come out."""
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
