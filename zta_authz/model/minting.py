"""Tokens that zta-authz mints for applications: what a rule orders, and what was minted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

SESSION_HEADER: Final = "x-zta-token"
TRANSACTION_HEADER: Final = "txn-token"
"""The header field of Transaction Tokens (draft-ietf-oauth-transaction-tokens)."""
MAX_LIFETIME: Final = 300.0
"""The longest life of a minted token in seconds."""

RESERVED_CLAIMS: Final = frozenset(
    (
        "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "act", "may_act", "cnf", "client_id", "scope", "sub_id", "sid",
        "txn", "req_wl", "tctx", "rctx",
    )
)  # fmt: skip
"""Claims that a policy can't add."""


class TokenKind(StrEnum):
    """What a minted token stands for."""

    SESSION = "session"  # the caller at one application: reused for a part of its life
    TRANSACTION = "transaction"  # one request (draft-ietf-oauth-transaction-tokens): never reused


class ClaimSource(msgspec.Struct, frozen=True):
    """An additional claim: `literal`, or, if that is None, the claim of the caller's token at path `claim`."""

    name: str
    literal: str | None
    claim: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class MintTerms:
    """`response.mint` of a rule. Compared by identity: each rule has its own.

    The token is for `audience`, goes into `header` (lower case), and lives for at most `lifetime` seconds. `scope` is
    "" for none.
    """

    audience: str
    header: str
    kind: TokenKind = TokenKind.SESSION
    lifetime: float = 60.0
    scope: str = ""
    claims: tuple[ClaimSource, ...] = ()


class MintedToken(msgspec.Struct, frozen=True):
    """A minted token for the header `header`, and what identifies it: its `jti`, key, audience and `exp`."""

    token_id: str
    key_id: str
    audience: str
    expires: int
    header: str
    token: str
    derived: dict[str, object] = msgspec.field(default_factory=dict)
    """What is made from it once, as a token is reused: its part of an answer and of a record."""

    def __repr__(self) -> str:
        """Whoever reads it could use the token."""
        return f"MintedToken({self.token_id!r}, {self.key_id!r}, {self.audience!r}, {self.expires!r})"
