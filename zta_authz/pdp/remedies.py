"""What a refused caller could do to be allowed: log in again, ask for access, or raise the trust in the request. Pure.

This is for denials only: no DENY rule and no ALLOW rule has matched. The first ALLOW rule decides of which every
failing clause is one that the caller can change. A challenge is given only if the request would be allowed after the
login that it asks for: the request is decided again with a token that says so. So a caller whom the rule would refuse
anyway learns nothing, and no user is sent to a login that would not help.

The cost is bounded: one lookup for the first candidate, `MAX_CANDIDATES` rules, and `MAX_TRIALS` repeated decisions,
whose conditions share the budget of one request.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import Reason
from zta_authz.model.decision import Remedy
from zta_authz.model.identity import Binding, Token
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.require_authentication import AuthenticationClause, LoginRequest
from zta_authz.policy.rules.require_grant import GrantClause, subjects_of
from zta_authz.policy.rules.require_trust import TrustClause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from zta_authz.model.decision import Decision
    from zta_authz.policy.rules.rule import Rule
    from zta_authz.policy.rules.table import RemediableRules

    WouldAllow = Callable[[Inputs], bool]

MAX_CANDIDATES: Final = 16
MAX_TRIALS: Final = 4
MAX_CHALLENGES: Final = 8
"""Challenges for one login and one rule; the client's further requests get a plain 403."""
QUIET_SECONDS: Final = 600.0
"""After this time without a request, the count of one login begins again."""
REMEMBERED_LOGINS: Final = 8192
_MAX_LABEL: Final = 128


class ChallengeMemory:
    """Counts the challenges for one login and one rule, in one process. It survives reloads.

    A client that returns with the same `acr` and `auth_time` did not log in as asked. Without a limit it would be sent
    to the login for ever. When the memory is full, the oldest logins are forgotten, and may be challenged again.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: BoundedCache[bytes, tuple[int, float]] = BoundedCache(REMEMBERED_LOGINS)

    def permits(self, token: Token, remedy: Remedy, now: float) -> bool:
        """Count a challenge at `now` (seconds since the epoch); False if this login has had all of its challenges."""
        key = _login_key(token, remedy)
        count, last = self._counts[key] or (0, now)
        if now - last > QUIET_SECONDS:
            count = 0
        self._counts.put(key, (min(count + 1, MAX_CHALLENGES + 1), now))
        return count < MAX_CHALLENGES


def _login_key(token: Token, remedy: Remedy) -> bytes:
    """A digest, so that long subjects need no more memory. Each part is framed by its length."""
    digest = blake2b(digest_size=16)
    claims = token.claims
    parts = (token.issuer, token.subject, remedy.policy, str(remedy.rule), *map(_scalar, map(claims.get, _OF_LOGIN)))
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.digest()


_OF_LOGIN: Final = ("acr", "auth_time")


def _scalar(value: Any) -> str:
    """A claim as text. Other types are equal here: they satisfy no rule, so they must not start a new count."""
    if type(value) is int:
        return hex(value)  # unlike `str`, it has no limit of digits
    return value if isinstance(value, str) else ""


def with_remedy(
    decision: Decision,
    rules: RemediableRules,
    inputs: Inputs,
    would_allow: WouldAllow,
    challenges: ChallengeMemory | None = None,
) -> Decision:
    """The denial `decision`, for `no_matching_policy`, with the first remedy if there is one.

    `would_allow` decides the request with other inputs. `challenges` None counts nothing, for explanations.
    """
    identity = inputs.identity
    token = identity.token
    if token is None and identity.peer is None and identity.api_client is None:
        return decision
    search = _Search(inputs, would_allow)
    for rule, clauses in candidates(rules, inputs):
        remedy = search.remedy(rule, clauses)
        if remedy is None:
            continue
        detail = f"by rule {rule.label[:_MAX_LABEL]} of `{remedy.policy}`: {remedy.describe()}"
        if remedy.entitlement:
            return structs.replace(decision, reason=Reason.GRANT_REQUIRED, detail=detail, remedy=remedy)
        if remedy.components:
            return structs.replace(decision, reason=Reason.TRUST_TOO_LOW, detail=detail, remedy=remedy)
        if token is not None and challenges is not None and not challenges.permits(token, remedy, inputs.now):
            return structs.replace(decision, detail=f"challenged {MAX_CHALLENGES} times without a new login, {detail}")
        return structs.replace(decision, reason=Reason.STEP_UP_REQUIRED, detail=detail, remedy=remedy)
    return decision


def candidates(rules: RemediableRules, inputs: Inputs) -> Iterator[tuple[Rule, Sequence[object]]]:
    """The first `MAX_CANDIDATES` rules from the first one on whose other clauses all hold, with their own clauses.

    Only rules whose other clauses hold are returned.
    """
    first = rules.others.first(inputs)
    if first is None:
        return
    yield first, rules.clauses[first.id]
    for rule in rules.others.rules[first.id + 1 : first.id + MAX_CANDIDATES]:
        if rule.holds(inputs, False):
            yield rule, rules.clauses[rule.id]


class _Search:
    """The search of one denial: the trials that it has left, and the request."""

    __slots__ = ("_inputs", "_last", "_trials", "_tried", "_would_allow")

    def __init__(self, inputs: Inputs, would_allow: WouldAllow) -> None:
        self._inputs = self._tried = inputs
        self._would_allow = would_allow
        self._trials = MAX_TRIALS
        self._last: Inputs | None = None

    def remedy(self, rule: Rule, clauses: Sequence[object]) -> Remedy | None:
        """What the caller can do about the failing `clauses` of `rule`; None if nothing."""
        inputs = self._inputs
        logins = [clause for clause in clauses if isinstance(clause, AuthenticationClause)]
        demands = [clause for clause in clauses if isinstance(clause, TrustClause)]
        too_low = [clause for clause in demands if not clause.holds(inputs, False)]
        missing = _missing_grants(clauses, inputs)
        if missing is None:
            return None
        self._tried = _with_grants(inputs, frozenset(missing)) if missing else inputs
        request = self._login_request(logins, too_low)
        if request is not None and all(clause.step_up is not None for clause in too_low) and not self._meets(request):
            acr = self._sufficient(request)
            if acr is not None:
                dpop = inputs.identity.binding is Binding.DPOP
                age = None if request.max_age is None else int(request.max_age)
                return Remedy(rule.policy.name, rule.number, acr, age, request.login, dpop)
        logged_in = all(clause.holds(inputs, False) for clause in logins)
        if missing and logged_in and not too_low:
            allowed = self._is_allowed(self._tried)
            return Remedy(rule.policy.name, rule.number, entitlement=missing[0]) if allowed else None
        if not too_low or not (logged_in or request is not None):
            return None
        components = dict.fromkeys(name for clause in too_low for name in clause.liftable(inputs))
        if not components:
            return None
        disclosed = all(clause.show_components for clause in too_low)
        return Remedy(rule.policy.name, rule.number, components=tuple(components), disclosed=disclosed)

    def _login_request(self, logins: list[AuthenticationClause], too_low: list[TrustClause]) -> LoginRequest | None:
        """What a login must satisfy for all clauses together; None if there is no such login, or no token."""
        token = self._inputs.identity.token
        if token is None:
            return None
        requests = [clause.login_request(token) for clause in logins]
        requests += [clause.step_up for clause in too_low if clause.step_up is not None]
        combined = LoginRequest()
        for request in requests:
            if request is None:
                return None
            combined = combined.combine(request)
        return None if combined.acr == () or combined == LoginRequest() else combined

    def _meets(self, request: LoginRequest) -> bool:
        """Whether the caller has already logged in as `request` asks, so that asking again would not help."""
        return AuthenticationClause(request.acr or (), max_age=request.max_age).holds(self._inputs, False)

    def _sufficient(self, request: LoginRequest) -> tuple[str, ...] | None:
        """The values of `acr` with which the request would be allowed; () if any would do, None if none does."""
        if request.acr is None:
            return () if self._allowed_after(request, None) else None
        sufficient = tuple(acr for acr in request.acr if self._allowed_after(request, acr))
        return sufficient or None

    def _allowed_after(self, request: LoginRequest, acr: str | None) -> bool:
        """Whether the request would be allowed with a token from a login now, as `request` asks."""
        identity = self._inputs.identity
        token = identity.token
        if token is None:
            return False
        claims: dict[str, Any] = {**token.claims}
        if acr is not None:
            claims["acr"] = acr
        if request.max_age is not None:
            claims["auth_time"] = int(self._inputs.now)
        if request.several_factors:
            claims["amr"] = _with_several_factors(claims.get("amr"))
        after = replace(token, claims=claims)
        tokens = tuple(after if other is token else other for other in identity.tokens)
        return self._is_allowed(self._tried.with_identity(replace(identity, token=after, tokens=tokens)))

    def _is_allowed(self, again: Inputs) -> bool:
        """Decide the request again, if there is a trial left."""
        if self._trials == 0:
            return False
        self._trials -= 1
        again.share_condition_units(self._inputs, MAX_TRIALS)
        if self._last is not None:
            again.continue_condition_units(self._last)
        self._last = again
        return self._would_allow(again)


def _with_grants(inputs: Inputs, entitlements: frozenset[str]) -> Inputs:
    """`inputs` for a trial, in which the caller holds grants of `entitlements`."""
    opener = inputs.open_facts.assuming(entitlements)
    return Inputs(inputs.request, inputs.identity, inputs.options, inputs.now, inputs.stages, opener)


def _missing_grants(clauses: Sequence[object], inputs: Inputs) -> tuple[str, ...] | None:
    """The entitlements of which the caller has no grant but can ask for one; None if it can't ask for one of them."""
    names: list[str] = []
    for clause in clauses:
        if not isinstance(clause, GrantClause) or clause.holds(inputs, False):
            continue
        entitlement = clause.entitlement
        if entitlement is None or not entitlement.permits_use(inputs) or not entitlement.may_obtain(inputs):
            return None
        names.append(entitlement.name)
    return tuple(names) if not names or subjects_of(inputs.identity) else None


def _with_several_factors(methods: Any) -> list[Any]:
    return [*(methods if isinstance(methods, list | tuple) else ()), "mfa"]
