"""What an IssuerPolicy asks of an issuer's tokens beyond its JWT rules: age, expiry, algorithms, types, binding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault, Reason, Refused, quoted
from zta_authz.model.spiffe import SCHEME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.authn.token import VerifiedToken
    from zta_authz.model.documents import IssuerPolicy, RequestAuthentication, RevocationList
    from zta_authz.model.identity import Binding

MAX_TIME: Final = 2.0**64
"""Seconds since the epoch that tokens and proofs may name are fewer, as for jwt_authn."""


@dataclass(frozen=True, slots=True)
class IssuerLimits:
    """Limits of one issuer. `algorithms`, `types` and `audiences` are None where any will do; ages are in seconds.

    `types` are as `token_type` writes them.
    """

    max_age: float = float("inf")
    allow_missing_exp: bool = False
    require_bound: bool = False
    require_kid: bool = False
    algorithms: frozenset[str] | None = None
    types: frozenset[str] | None = None
    audiences: frozenset[str] | None = None

    def and_(self, other: IssuerLimits) -> IssuerLimits:
        """Both at once: whatever either refuses is refused."""
        return IssuerLimits(
            min(self.max_age, other.max_age),
            self.allow_missing_exp and other.allow_missing_exp,
            self.require_bound or other.require_bound,
            self.require_kid or other.require_kid,
            _both(self.algorithms, other.algorithms),
            _both(self.types, other.types),
            _both(self.audiences, other.audiences),
        )

    def judge(self, token: VerifiedToken, now: float) -> None:
        """Raises `Refused` unless the token keeps to all limits but that of binding."""
        if self.algorithms is not None and token.algorithm not in self.algorithms:
            raise Refused(Reason.TOKEN_ALGORITHM, f"`alg` is {_told(token.algorithm, self.algorithms)}")
        if self.types is not None and token.type not in self.types:
            raise Refused(Reason.TOKEN_HEADER, f"`typ` is {_told(token.type, self.types)}")
        if self.require_kid and not token.kid:
            raise Refused(Reason.TOKEN_HEADER, "no `kid`, which this issuer's tokens must have")
        if self.audiences is not None and self.audiences.isdisjoint(raw_audiences(token)):
            raise Refused(Reason.TOKEN_AUDIENCE, wrong_audience(raw_audiences(token), self.audiences, "IssuerPolicy"))
        if self.max_age < float("inf"):
            if token.issued_at is None:
                raise Refused(Reason.TOKEN_TOO_OLD, "no `iat`, so that its age can't be told")
            if now - token.issued_at > self.max_age:
                raise Refused(Reason.TOKEN_TOO_OLD, f"{now - token.issued_at:.0f} s old, more than {self.max_age:.0f}")

    def judge_binding(self, binding: Binding | None) -> None:
        """Raises `Refused` where the issuer's tokens must be bound and this one is not."""
        if self.require_bound and binding is None:
            raise Refused(Reason.TOKEN_BINDING, "this issuer's tokens must be bound to who presents them")


NO_LIMITS: Final = IssuerLimits()


def _told(seen: str, wanted: frozenset[str]) -> str:
    return f"{quoted((seen,))}, and the issuer's IssuerPolicy has {quoted(sorted(wanted))}"


def wrong_audience(seen: Iterable[str], wanted: Iterable[str], whose: str) -> str:
    """What the token has and what `whose` rule wants."""
    return f"the audience is {quoted(sorted(seen))}, and the {whose} has {quoted(sorted(wanted))}"


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def raw_audiences(token: VerifiedToken) -> tuple[str, ...]:
    """The token's audiences as they stand in it."""
    audience = token.claims.get("aud", ())
    return (audience,) if isinstance(audience, str) else tuple(audience)


def token_type(text: str) -> str:
    """A `typ` in lower case and without `application/`, which may be left out (RFC 7515 section 4.1.9)."""
    return text.lower().removeprefix("application/")


def warn_of_strangers(
    policies: Iterable[IssuerPolicy],
    authentications: Iterable[RequestAuthentication],
    warnings: list[Fault],
    revocations: Iterable[RevocationList] = (),
) -> None:
    """Warn of each policy and list with an issuer that no JWT rule names: it would limit nobody, or revoke nothing.

    A rule without issuer may meet any.
    """
    issuers = {rule.issuer for document in authentications for rule in document.rules}
    named: list[tuple[str, IssuerPolicy | RevocationList, str]]
    named = [("IssuerPolicy", policy, policy.issuer) for policy in policies]
    for revoked in revocations:
        of = dict.fromkeys(entry.issuer for entry in revoked.entries if entry.issuer)
        named += [("RevocationList", revoked, issuer) for issuer in of]
    for kind, document, issuer in named:
        if issuers.isdisjoint((issuer, "")) and not issuer.startswith(SCHEME):
            at, name = document.position, f"{document.namespace}/{document.name}"
            message = f"{kind} `{name}` is for `{issuer}`, which no RequestAuthentication names"
            warnings.append(
                Fault(at.source, at.line, at.column, message, "compare letter by letter: a final `/` counts")
            )


def compile_limits(policies: Iterable[IssuerPolicy]) -> dict[str, IssuerLimits]:
    """The limits of each issuer; several policies for one issuer all count."""
    limits: dict[str, IssuerLimits] = {}
    for policy in policies:
        found = IssuerLimits(
            policy.max_token_age,
            policy.allow_missing_exp,
            policy.require_bound,
            policy.require_kid,
            frozenset(policy.algorithms) if policy.algorithms else None,
            frozenset(map(token_type, policy.types)) if policy.types else None,
            frozenset(policy.audiences) if policy.audiences else None,
        )
        before = limits.get(policy.issuer)
        limits[policy.issuer] = found if before is None else before.and_(found)
    return limits
