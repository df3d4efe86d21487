"""The claims of a minted token: who called, through whom, for which application, and until when.

The caller's own token is never part of it. The subject is named twice: `sub` as its issuer names it, and `sub_id`
(RFC 9493) with that issuer, because two issuers may give the same `sub` to different people.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

from zta_authz.model.claims import claim_at
from zta_authz.model.minting import TokenKind

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision
    from zta_authz.model.identity import Identity, Token
    from zta_authz.model.minting import MintTerms

TOKEN_TYPES: Final = {TokenKind.SESSION: "JWT", TokenKind.TRANSACTION: "txntoken+jwt"}
MAX_SESSION_ID: Final = 256
_LEAST_LIFE: Final = 1.0


def claims_of(
    terms: MintTerms, identity: Identity, issuer: str, token_id: str, now: float, until: float = inf
) -> dict[str, Any] | None:
    """The claims of the token for `identity`; None for a caller without a name.

    `token_id` is the ID of the decision at which the token is minted. The token ends before `until`, but lives for at
    least a second: a caller's token may have expired within the leeway.
    """
    subject = _subject(identity)
    if subject is None:
        return None
    issued = int(now)
    claims: dict[str, Any] = {
        "iss": issuer,
        **subject,
        "aud": terms.audience,
        "iat": issued,
        "exp": int(max(min(now + terms.lifetime, until), issued + _LEAST_LIFE)),
        "jti": token_id,
    }
    if terms.scope:
        claims["scope"] = terms.scope
    if terms.kind is TokenKind.TRANSACTION:
        claims["txn"] = token_id
        if identity.principal:
            claims["req_wl"] = identity.principal
    token = identity.token
    for source in terms.claims:
        value = source.literal if source.literal is not None else _claim(token, source.claim)
        if value is not None:
            claims[source.name] = value
    return claims


def terms_in_force(decision: Decision) -> MintTerms | None:
    """The terms of the token that a decision orders; None if it orders none, or for a caller without a name."""
    terms = decision.response.mint if decision.allowed else None
    return None if terms is None or _subject(decision.identity) is None else terms


def _claim(token: Token | None, path: tuple[str, ...]) -> Any:
    return None if token is None else claim_at(token.claims, path)


def _subject(identity: Identity) -> dict[str, Any] | None:
    """The claims that name the caller: the end user and the workload that acts for it, or the workload itself.

    Who acted before is part of `act` (RFC 8693 section 4.1).
    """
    token, principal, client = identity.token, identity.principal, identity.api_client
    claims: dict[str, Any]
    if token is not None:
        if not token.subject:
            return None
        claims = {"sub": token.subject, "sub_id": _subject_id(token)}
        before = token.claims.get("act")
        chain = {"act": before} if isinstance(before, dict) else {}
        if principal and principal != token.subject:
            claims["act"] = {"sub": principal} | chain
        else:
            claims |= chain
        session = token.claims.get("sid")
        if isinstance(session, str) and 0 < len(session) <= MAX_SESSION_ID:
            claims["sid"] = session
    elif principal:
        claims = {"sub": principal, "sub_id": _workload_id(identity, principal)}
    elif client is not None:
        return {"sub": client.name, "sub_id": {"format": "opaque", "id": client.name}}
    else:
        return None
    if client is not None:
        claims["client_id"] = client.name
    return claims


def _subject_id(token: Token) -> dict[str, str]:
    """RFC 9493 section 3.2.4; without an issuer section 3.2.5."""
    if not token.issuer:
        return {"format": "opaque", "id": token.subject}
    return {"format": "iss_sub", "iss": token.issuer, "sub": token.subject}


def _workload_id(identity: Identity, principal: str) -> dict[str, str]:
    """RFC 9493 section 3.2.7; other names than SPIFFE IDs, which only Istio semantics accept, are not URIs."""
    is_uri = identity.peer is not None and identity.peer.spiffe_id is not None
    return {"format": "uri", "uri": principal} if is_uri else {"format": "opaque", "id": principal}


def ends_at(decision: Decision) -> float:
    """When the first of what an allow rests on ends (seconds since the epoch): token, grant, or trusted session."""
    access = decision.access
    until = inf if access is None or access.grant is None else access.grant.until
    token = decision.identity.token
    if token is not None:
        expires = token.claims.get("exp")
        if isinstance(expires, (int, float)):
            until = min(until, float(expires))
    facts = decision.facts
    if facts is not None and facts.session_expires:
        until = min(until, float(facts.session_expires))
    return until
