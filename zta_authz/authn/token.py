"""A token with a verified signature, and its confirmation (RFC 7800)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.authn.keys import Key, KeySet


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The supported members of the `cnf` claim (RFC 7800); both are empty if it has only others."""

    certificate_sha256: bytes = b""
    key_thumbprint: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class VerifiedToken:
    """A token whose signature was verified with `key` of `keys`. Times and audience are checked on each use.

    `kid` and `type` come from the header. `audiences` are normalised by `normal_audience`. `payload` is the token's
    middle segment as received, in base64url. Times are seconds since the epoch; `issued_at` and `expires` are None if
    absent.
    """

    keys: KeySet
    key: Key
    algorithm: str
    kid: str
    type: str
    issuer: str
    subject: str
    audiences: frozenset[str]
    not_before: float
    expires: float | None
    issued_at: float | None
    token_id: str
    confirmation: Confirmation | None
    claims: Mapping[str, Any] = field(repr=False)
    payload: str = field(repr=False)
