"""Checkpoints: signed, numbered statements of the decision log's position, kept in a separate file.

Someone who can write the log can truncate it or compute a new chain, but can't sign matching checkpoints without the
key. A checkpoint is one JSON line. The signature (Ed25519, RFC 8032) covers the line up to it, closed with `}`.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from zta_authz.audit.hash_chain import Position

if TYPE_CHECKING:
    from collections.abc import Iterable

CHECKPOINT_SCHEMA: Final = "zta.dev/audit-checkpoint/v1"
INTERVAL_SECONDS: Final = 60.0
_MODE = 0o640
_TAIL_BYTES = 64 * 1024
_SIGNED_BEFORE = b',"signature":"'
_BEGINNING = b'{"schema":"%s"' % CHECKPOINT_SCHEMA.encode()
_LOG = logging.getLogger(__name__)


class Checkpoint(msgspec.Struct, frozen=True):
    """States that line `seq` of the log `log` is in `segment` and has the hash `head`. `number` counts from 1.

    `first_segment` is the oldest kept segment: the service itself removes older ones. In checkpoints of earlier
    versions `log` is "" and `first_segment` is 0.
    """

    schema: str
    number: int
    time: str
    segment: int
    seq: int
    head: str
    log: str = ""
    first_segment: int = 0


class BadCheckpoint(ValueError):
    """A line is not a checkpoint signed with this key. The message says why."""


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    r"""Create the signed line of a checkpoint, with its `\n`."""
    content = msgspec.json.encode(checkpoint)
    signature = base64.b64encode(key.sign(content))
    return content[:-1] + _SIGNED_BEFORE + signature + b'"}\n'


def read_checkpoint(line: bytes, key: Ed25519PublicKey) -> Checkpoint:
    r"""Verify and read the checkpoint in a line without its `\n`. Raises `BadCheckpoint`."""
    content, separator, rest = line.rpartition(_SIGNED_BEFORE)
    if not separator or not rest.endswith(b'"}'):
        raise BadCheckpoint("it is not a signed checkpoint")
    try:
        key.verify(base64.b64decode(rest[:-2], validate=True), content + b"}")
        checkpoint = msgspec.json.decode(content + b"}", type=Checkpoint)
    except (InvalidSignature, binascii.Error):
        raise BadCheckpoint("its signature does not match this key") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BadCheckpoint("it is not a checkpoint") from None
    if checkpoint.schema != CHECKPOINT_SCHEMA:
        raise BadCheckpoint("its signed content has another schema")
    return checkpoint


def checkpoint_log(lines: Iterable[bytes]) -> str:
    """Return the log ID in the newest of these lines without verifying signatures; "" if none has one."""
    log = ""
    for line in lines:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            log = msgspec.json.decode(line, type=Checkpoint).log or log
    return log


def load_signing_key(pem: bytes) -> Ed25519PrivateKey:
    """Read an Ed25519 private key in PEM (PKCS #8, not encrypted). Raises ValueError."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is not a private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is not an Ed25519 key")
    return key


def load_public_key(pem: bytes) -> Ed25519PublicKey:
    """Read an Ed25519 public key in PEM. Raises ValueError."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("is not an Ed25519 key")
    return key


class CheckpointWriter:
    """Appends checkpoints to a file. A failure is reported and retried, and does not stop the log.

    `last` is the newest checkpoint, None without any; `failure` says why the last attempt failed, or "".
    """

    def __init__(self, path: str, key: Ed25519PrivateKey, interval_seconds: float = INTERVAL_SECONDS) -> None:
        """Continue or create the file. Raises OSError, and ValueError unless it ends in a checkpoint of this key."""
        self._key = key
        self._interval = interval_seconds
        self._signed = Position()
        self.failure = ""
        self._next_at = time.monotonic() + interval_seconds
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            self.last = self._read_last()
        except BaseException:
            os.close(self._descriptor)
            raise

    def due(self, position: Position) -> float | None:
        """Return when to sign, in monotonic time; None if nothing was written since the last checkpoint."""
        return None if position == self._signed else self._next_at

    def postpone(self) -> None:
        """Make the next checkpoint due one interval from now."""
        self._next_at = time.monotonic() + self._interval

    def write(self, position: Position, segment: int, log: str = "", first_segment: int = 0) -> None:
        """Sign `position` unless it is already signed."""
        self.postpone()
        if position == self._signed:
            return
        time_ = datetime.now(UTC).isoformat(timespec="microseconds")
        number = 1 if self.last is None else self.last.number + 1
        checkpoint = Checkpoint(
            CHECKPOINT_SCHEMA, number, time_, segment, position.seq, position.head, log, first_segment
        )
        line = sign_checkpoint(checkpoint, self._key)
        before = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(0, "the disk is full")
            os.fsync(self._descriptor)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, before)
            self.failure = error.strerror or type(error).__name__
            _LOG.error("a checkpoint of the decision log can't be written: %s", self.failure)
            return
        self.last, self._signed, self.failure = checkpoint, position, ""

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _read_last(self) -> Checkpoint | None:
        """Read the newest checkpoint, None without any. Removes an incomplete last line, which a crash left behind."""
        size = os.fstat(self._descriptor).st_size
        data = os.pread(self._descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        whole, newline, torn = data.rpartition(b"\n")
        if not newline:
            if not torn.startswith(_BEGINNING[: len(torn)]):
                raise ValueError("contains something other than checkpoints")
            os.ftruncate(self._descriptor, 0)
            return None
        try:
            last = read_checkpoint(whole.rpartition(b"\n")[2], self._key.public_key())
        except BadCheckpoint as error:
            raise ValueError(f"ends in a line that is not a checkpoint of this key: {error}") from None
        if torn:
            os.ftruncate(self._descriptor, size - len(torn))
        return last
