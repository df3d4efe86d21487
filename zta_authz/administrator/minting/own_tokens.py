"""Minted tokens as subject tokens: an application exchanges the token that it received for one for another application.

Only the application that a token is for may do so: its audience must be the caller's SPIFFE ID. The subject is then the
user whom the token names, with the issuer of the user's own token. The new token ends with the old one, so that no
chain of exchanges lasts longer than its first token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from zta_authz.authn.jwt import STRICT, parse_token, verify_signature
from zta_authz.authn.keys import read_jwks
from zta_authz.errors import Reason, Refused
from zta_authz.model.identity import Token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.authn.revocation import Revocations
    from zta_authz.authn.token import VerifiedToken
    from zta_authz.minting.minter import Minter

AHEAD_SECONDS: Final = 30.0
"""How far the clock of the decision point that minted the token may be ahead."""
_NOT_A_USER: Final = "the minted token names no user"


def names_issuer(text: str, issuer: str) -> bool:
    """Whether an unverified token says that `issuer` issued it. Nothing else of it counts yet."""
    try:
        return parse_token(text, STRICT).issuer == issuer
    except Refused:
        return False


def verify_minted(text: str, minter: Minter, principal: str, revocations: Revocations, now: float) -> Token:
    """The user whom a minted token names, for the application `principal` that it is for. Raises `Refused`."""
    keys, _ = read_jwks(msgspec.json.decode(minter.ring.published(now)))
    verified = verify_signature(parse_token(text, STRICT), keys, STRICT)
    _check_use(verified, principal, now)
    issuer, subject = _user(verified.claims.get("sub_id"), verified.subject)
    session = {"sid": verified.claims["sid"]} if "sid" in verified.claims else {}
    revocations.check_claims(issuer, subject, verified.token_id, verified.issued_at, now, claims=session)
    claims = {**verified.claims, "iss": issuer}
    return Token(issuer, subject, claims, issued_at=verified.issued_at)


def _check_use(token: VerifiedToken, principal: str, now: float) -> None:
    if token.claims.get("aud") != principal:
        raise Refused(Reason.TOKEN_AUDIENCE, "the minted token is for another application than the caller")
    if token.expires is None or now >= token.expires:
        raise Refused(Reason.TOKEN_EXPIRED, "the minted token has expired")
    if token.issued_at is None or token.issued_at > now + AHEAD_SECONDS:
        raise Refused(Reason.TOKEN_NOT_YET_VALID, "the minted token is from the future")


def _user(subject_id: Any, subject: str) -> tuple[str, str]:
    """The issuer and the subject of the user's own token, as `sub_id` has them."""
    fields: Mapping[str, Any] = subject_id if isinstance(subject_id, dict) else {}
    issuer = fields.get("iss")
    if fields.get("format") != "iss_sub" or not isinstance(issuer, str) or not issuer or fields.get("sub") != subject:
        raise Refused(Reason.TOKEN_CLAIM_INVALID, _NOT_A_USER)
    return issuer, subject
