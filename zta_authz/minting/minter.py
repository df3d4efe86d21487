"""Mint the token that an allowed request carries to the application.

A signature costs about as much as half a decision, so a token of kind `session` is reused for the same caller and rule,
for half of its life and at most `REUSE_SECONDS`. Each call is decided before, so a revoked caller gets
no token that was minted earlier. A caller without a name gets no token, and the client's header is removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import structs

from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import Reason
from zta_authz.minting.claims import TOKEN_TYPES, claims_of, ends_at
from zta_authz.minting.key_states import KeyRing
from zta_authz.model.decision import NO_RESPONSE, Decision, Verdict
from zta_authz.model.minting import MintedToken, TokenKind

if TYPE_CHECKING:
    from zta_authz.minting.signer import SigningKey
    from zta_authz.model.identity import Identity, Peer, Token
    from zta_authz.model.minting import MintTerms

REUSE_SECONDS: Final = 30.0
MAX_TOKEN_CHARACTERS: Final = 4096
"""Longer tokens are not minted: servers limit the size of headers."""
MAX_REUSED: Final = 4096
_NO_KEY: Final = "no signing key is in force"


class _Reusable(NamedTuple):
    """A token to reuse from `since` until before `until`, and everything that it depends on.

    Objects are compared by identity: they are immutable, and held here so that no other object gets their `id`.
    """

    key: SigningKey
    terms: MintTerms
    token: Token | None
    peer: Peer | None
    since: float
    until: float
    minted: MintedToken


class Minter:
    """Mints tokens of `issuer` with the keys in `ring`, which may be replaced at any time."""

    __slots__ = ("_reusable", "issuer", "ring")

    def __init__(self, issuer: str = "", ring: KeyRing | None = None) -> None:
        """Without `ring`, nothing can be minted."""
        self.issuer: Final = issuer
        self.ring = KeyRing() if ring is None else ring
        self._reusable: BoundedCache[tuple[int, int, int, str], _Reusable] = BoundedCache(MAX_REUSED)

    def mint(self, allow: Decision, decision_id: str, now: float) -> Decision:
        """`allow`, whose response orders a token, with that token; a denial if it can't be minted. Never raises.

        `now` is in seconds since the epoch.
        """
        terms, identity = allow.response.mint, allow.identity
        if terms is None:
            return allow
        key = self.ring.current(now)
        if key is None:
            return _unavailable(allow, _NO_KEY)
        if terms.kind is not TokenKind.SESSION:
            return self._mint(allow, terms, key, decision_id, now, ends_at(allow))
        caller = _caller(identity, terms)
        until = ends_at(allow)
        last = self._reusable[caller]
        if (
            last is not None
            and last.since <= now < last.until
            and last.key is key
            and last.terms is terms
            and last.token is identity.token
            and last.peer is identity.peer
            and last.minted.expires <= until
        ):
            return structs.replace(allow, minted=last.minted)
        decision = self._mint(allow, terms, key, decision_id, now, until)
        if decision.minted is not None:
            minted = decision.minted
            end = now + min((minted.expires - now) / 2, REUSE_SECONDS)
            reusable = _Reusable(key, terms, identity.token, identity.peer, now, end, minted)
            self._reusable.put(caller, reusable)
        return decision

    def issue(self, allow: Decision, decision_id: str, now: float) -> Decision:
        """As `mint`, but the token is always a new one."""
        terms, key = allow.response.mint, self.ring.current(now)
        if terms is None:
            return allow
        if key is None:
            return _unavailable(allow, _NO_KEY)
        return self._mint(allow, terms, key, decision_id, now, ends_at(allow))

    def _mint(
        self, allow: Decision, terms: MintTerms, key: SigningKey, decision_id: str, now: float, until: float
    ) -> Decision:
        claims = claims_of(terms, allow.identity, self.issuer, decision_id, now, until)
        if claims is None:
            return allow
        try:
            token = key.sign(TOKEN_TYPES[terms.kind], claims)
        except ValueError as error:
            return _unavailable(allow, str(error))
        if len(token) > MAX_TOKEN_CHARACTERS:
            return _unavailable(
                allow, f"the token would have {len(token)} characters, more than {MAX_TOKEN_CHARACTERS}"
            )
        minted = MintedToken(decision_id, key.key_id, terms.audience, claims["exp"], terms.header, token)
        return structs.replace(allow, minted=minted)


def _caller(identity: Identity, terms: MintTerms) -> tuple[int, int, int, str]:
    client = identity.api_client
    return id(terms), id(identity.token), id(identity.peer), "" if client is None else client.name


def _unavailable(allow: Decision, detail: str) -> Decision:
    return structs.replace(
        allow, verdict=Verdict.DENY, reason=Reason.MINTING_UNAVAILABLE, response=NO_RESPONSE, detail=detail
    )
