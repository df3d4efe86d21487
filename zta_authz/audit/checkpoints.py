"""Signed, numbered statements of how far the decision log has come, kept outside of it.

Who can write the log can cut its end off or compute a new chain, but without the key no checkpoints that agree.
One JSON line each: what is signed (Ed25519, RFC 8032) is the line up to its signature, closed with `}`.
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

from zta_authz.audit.chain import Position

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
    """The line `seq` of the log `log` has the hash `head`, and stands in `segment`. `number` counts checkpoints from 1.

    `first_segment` is the oldest that is kept: the service itself removes those before it. In checkpoints of earlier
    versions `log` is "" and `first_segment` 0.
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
    """A line is no checkpoint that this key signed; the message says why."""


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    r"""The line of a checkpoint, with its `\n`."""
    said = msgspec.json.encode(checkpoint)
    signature = base64.b64encode(key.sign(said))
    return said[:-1] + _SIGNED_BEFORE + signature + b'"}\n'


def read_checkpoint(line: bytes, key: Ed25519PublicKey) -> Checkpoint:
    r"""The checkpoint in a line without its `\n`, verified. Raises `BadCheckpoint`."""
    said, separator, rest = line.rpartition(_SIGNED_BEFORE)
    if not separator or not rest.endswith(b'"}'):
        raise BadCheckpoint("it is no signed checkpoint")
    try:
        key.verify(base64.b64decode(rest[:-2], validate=True), said + b"}")
        checkpoint = msgspec.json.decode(said + b"}", type=Checkpoint)
    except (InvalidSignature, binascii.Error):
        raise BadCheckpoint("its signature is not of this key") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BadCheckpoint("it is no checkpoint") from None
    if checkpoint.schema != CHECKPOINT_SCHEMA:
        raise BadCheckpoint("it is signed for something else")
    return checkpoint


def checkpoint_log(lines: Iterable[bytes]) -> str:
    """The log that the newest of these lines says it is of, whoever signed it; "" where none says."""
    log = ""
    for line in lines:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            log = msgspec.json.decode(line, type=Checkpoint).log or log
    return log


def load_signing_key(pem: bytes) -> Ed25519PrivateKey:
    """The Ed25519 private key in PEM (PKCS #8, not encrypted). Raises ValueError."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is no private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is no Ed25519 key")
    return key


def load_public_key(pem: bytes) -> Ed25519PublicKey:
    """The Ed25519 public key in PEM. Raises ValueError."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("is no Ed25519 key")
    return key


class CheckpointWriter:
    """Appends checkpoints to a file. Where it can't, that is said and tried again; the log goes on.

    `last` is the newest checkpoint, None without any; `failure` says why the last attempt failed, "" where it did not.
    """

    def __init__(self, path: str, key: Ed25519PrivateKey, interval_seconds: float = INTERVAL_SECONDS) -> None:
        """Go on with the file, or begin it. Raises OSError, and ValueError where it holds none of this key."""
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
        """When to sign, on the monotonic clock; None where nothing has been written since the last time."""
        return None if position == self._signed else self._next_at

    def postpone(self) -> None:
        """The log is not on the disk: the next checkpoint is due in an interval from now."""
        self._next_at = time.monotonic() + self._interval

    def write(self, position: Position, segment: int, log: str = "", first_segment: int = 0) -> None:
        """Sign `position`, unless that was done already."""
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
        """The newest checkpoint, None without any; a line that a crash has torn was never signed whole."""
        size = os.fstat(self._descriptor).st_size
        data = os.pread(self._descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        whole, newline, torn = data.rpartition(b"\n")
        if not newline:
            if not torn.startswith(_BEGINNING[: len(torn)]):
                raise ValueError("holds something else than checkpoints")
            os.ftruncate(self._descriptor, 0)
            return None
        try:
            last = read_checkpoint(whole.rpartition(b"\n")[2], self._key.public_key())
        except BadCheckpoint as error:
            raise ValueError(f"ends in a line that is no checkpoint of this key: {error}") from None
        if torn:
            os.ftruncate(self._descriptor, size - len(torn))
        return last
