"""Signatures of webhooks, as the Standard Webhooks specification (version 1.0.0) defines them for shared secrets."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX: Final = "whsec_"
MIN_BYTES: Final = 24
MAX_BYTES: Final = 64
MAX_SECRETS: Final = 2
"""Two secrets sign at the same time while one replaces the other."""
_LINE: Final = re.compile(r"whsec_[A-Za-z0-9+/]+={0,2}")


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """Parse the content of a secret's file: one secret, or two, one a line. Raises ValueError, which quotes nothing."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(lines) <= MAX_SECRETS:
        raise ValueError("it has neither one secret nor two, each in its own line")
    return tuple(_parse(line) for line in lines)


def _parse(line: str) -> bytes:
    try:
        secret = base64.b64decode(line.removeprefix(PREFIX), validate=True) if _LINE.fullmatch(line) else b""
    except binascii.Error:
        secret = b""
    if not MIN_BYTES <= len(secret) <= MAX_BYTES:
        raise ValueError(f"a secret is `{PREFIX}` and the base64 of {MIN_BYTES} to {MAX_BYTES} random bytes")
    return secret


def signature_header(secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each secret. `timestamp` is in seconds since the epoch."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    return " ".join("v1," + base64.b64encode(digest).decode() for digest in digests)
