"""A token whose signature was verified, and the confirmation (RFC 7800) that it carries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.authn.keys import Key, KeySet


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The `cnf` claim (RFC 7800), as far as it is understood; both empty where it names only what is not."""

    certificate_sha256: bytes = b""
    key_thumbprint: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class VerifiedToken:
    """A token whose signature was verified with a key of `keys`; its times and audience are judged on each use.

    `key` is that key, `kid` and `type` are what its header says. `audiences` are normalised as `normal_audience` does;
    `payload` is the token's middle segment as it came, base64url. `issued_at` and `expires` are None where the token
    does not say.
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
