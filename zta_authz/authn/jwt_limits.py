"""The limits of IssuerPolicy documents on an issuer's tokens: age, expiry, algorithms, types, audiences, binding."""

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
"""Times in tokens and proofs are below this, in seconds since the epoch, as in jwt_authn."""


@dataclass(frozen=True, slots=True)
class IssuerLimits:
    """Limits of one issuer. None in `algorithms`, `types` or `audiences` allows any; `max_age` is in seconds.

    `types` are normalised by `token_type`.
    """

    max_age: float = float("inf")
    allow_missing_exp: bool = False
    require_bound: bool = False
    require_kid: bool = False
    algorithms: frozenset[str] | None = None
    types: frozenset[str] | None = None
    audiences: frozenset[str] | None = None

    def combine(self, other: IssuerLimits) -> IssuerLimits:
        """Combine both limits: what either refuses is refused."""
        return IssuerLimits(
            min(self.max_age, other.max_age),
            self.allow_missing_exp and other.allow_missing_exp,
            self.require_bound or other.require_bound,
            self.require_kid or other.require_kid,
            _intersection(self.algorithms, other.algorithms),
            _intersection(self.types, other.types),
            _intersection(self.audiences, other.audiences),
        )

    def check(self, token: VerifiedToken, now: float) -> None:
        """Check all limits except `require_bound`. Raises `Refused`."""
        if self.algorithms is not None and token.algorithm not in self.algorithms:
            raise Refused(Reason.TOKEN_ALGORITHM, f"`alg` is {_describe_mismatch(token.algorithm, self.algorithms)}")
        if self.types is not None and token.type not in self.types:
            raise Refused(Reason.TOKEN_HEADER, f"`typ` is {_describe_mismatch(token.type, self.types)}")
        if self.require_kid and not token.kid:
            raise Refused(Reason.TOKEN_HEADER, "no `kid`, which this issuer's tokens must have")
        if self.audiences is not None and self.audiences.isdisjoint(raw_audiences(token)):
            raise Refused(Reason.TOKEN_AUDIENCE, wrong_audience(raw_audiences(token), self.audiences, "IssuerPolicy"))
        if self.max_age < float("inf"):
            if token.issued_at is None:
                raise Refused(Reason.TOKEN_TOO_OLD, "no `iat`, so its age is unknown")
            if now - token.issued_at > self.max_age:
                raise Refused(Reason.TOKEN_TOO_OLD, f"{now - token.issued_at:.0f} s old, more than {self.max_age:.0f}")

    def check_binding(self, binding: Binding | None) -> None:
        """Check `require_bound`. Raises `Refused`."""
        if self.require_bound and binding is None:
            raise Refused(Reason.TOKEN_BINDING, "this issuer's tokens must be bound to their presenter")


NO_LIMITS: Final = IssuerLimits()


def _describe_mismatch(value: str, allowed: frozenset[str]) -> str:
    return f"{quoted((value,))}, and the issuer's IssuerPolicy has {quoted(sorted(allowed))}"


def wrong_audience(audiences: Iterable[str], allowed: Iterable[str], whose: str) -> str:
    """Describe the token's audiences and those that `whose` rule allows."""
    return f"the audience is {quoted(sorted(audiences))}, and the {whose} has {quoted(sorted(allowed))}"


def _intersection(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def raw_audiences(token: VerifiedToken) -> tuple[str, ...]:
    """The token's audiences, not normalised."""
    audience = token.claims.get("aud", ())
    return (audience,) if isinstance(audience, str) else tuple(audience)


def token_type(text: str) -> str:
    """Normalise a `typ`: lower case, without the optional `application/` (RFC 7515 section 4.1.9)."""
    return text.lower().removeprefix("application/")


def warn_of_unused_issuers(
    policies: Iterable[IssuerPolicy],
    authentications: Iterable[RequestAuthentication],
    warnings: list[Fault],
    revocations: Iterable[RevocationList] = (),
) -> None:
    """Warn of each IssuerPolicy and RevocationList for an issuer that no JWT rule names, because it has no effect.

    A rule without an issuer accepts any, so it names all.
    """
    issuers = {rule.issuer for document in authentications for rule in document.rules}
    references: list[tuple[str, IssuerPolicy | RevocationList, str]]
    references = [("IssuerPolicy", policy, policy.issuer) for policy in policies]
    for revocation_list in revocations:
        issuers_of_list = dict.fromkeys(entry.issuer for entry in revocation_list.entries if entry.issuer)
        references += [("RevocationList", revocation_list, issuer) for issuer in issuers_of_list]
    for kind, document, issuer in references:
        if issuers.isdisjoint((issuer, "")) and not issuer.startswith(SCHEME):
            at, name = document.position, f"{document.namespace}/{document.name}"
            message = f"{kind} `{name}` is for `{issuer}`, which no RequestAuthentication names"
            warnings.append(
                Fault(at.source, at.line, at.column, message, "compare them letter by letter, including a trailing `/`")
            )


def compile_limits(policies: Iterable[IssuerPolicy]) -> dict[str, IssuerLimits]:
    """Compile the limits of each issuer. Several policies for one issuer are combined."""
    limits: dict[str, IssuerLimits] = {}
    for policy in policies:
        compiled = IssuerLimits(
            policy.max_token_age,
            policy.allow_missing_exp,
            policy.require_bound,
            policy.require_kid,
            frozenset(policy.algorithms) if policy.algorithms else None,
            frozenset(map(token_type, policy.types)) if policy.types else None,
            frozenset(policy.audiences) if policy.audiences else None,
        )
        before = limits.get(policy.issuer)
        limits[policy.issuer] = compiled if before is None else before.combine(compiled)
    return limits
