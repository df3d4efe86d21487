"""The verdict on one request, its reason, and the changes that carry it out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from zta_authz.errors import Reason
from zta_authz.model.identity import ANONYMOUS, Identity

if TYPE_CHECKING:
    from zta_authz.model.access import Grant
    from zta_authz.model.facts import DeviceFacts, NetworkFacts, SignalFacts
    from zta_authz.model.identity import NamedToken
    from zta_authz.model.minting import MintedToken, MintTerms
    from zta_authz.model.trust import ResourceClass, TrustAssessment


class Verdict(StrEnum):
    """Allow or deny; nothing else exists."""

    __hash__ = str.__hash__  # Enum.__hash__ is a Python call

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Response:
    """A policy's changes to the response: headers on allow, status and message on denial (0 and "": the default)."""

    set_headers: tuple[tuple[str, str], ...] = ()
    remove_headers: tuple[str, ...] = ()
    status: int = 0
    message: str = ""
    mint: MintTerms | None = None
    """The token to mint for the application. Its header is one of `remove_headers`, for requests that get no token."""


NO_RESPONSE = Response()


@dataclass(frozen=True, slots=True)
class Shadow:
    """A rule that matched but did not decide: its policy has the action AUDIT, or is in dry run."""

    action: str
    policy: str
    rule: int
    dry_run: bool
    rule_name: str = ""


class Disagreement(msgspec.Struct, frozen=True):
    """The shadow policies' decision, if its verdict differs. `policy` and `rule` are as in `Decision`."""

    verdict: Verdict
    reason: Reason
    policy: str = ""
    rule: int | None = None
    rule_name: str = ""


class DecisionFacts(msgspec.Struct, frozen=True, gc=False):
    """The facts that rules read for a decision; None for those that no rule read.

    `session_expires` is when the session of an allowed request ends by its trust level (seconds since the epoch), 0
    without a trust model.
    """

    network: NetworkFacts | None = None
    device: DeviceFacts | None = None
    trust: TrustAssessment | None = None
    resource: ResourceClass | None = None
    session_expires: int = 0
    signals: SignalFacts | None = None


@dataclass(frozen=True, slots=True)
class Remedy:
    """What the refused caller could do: log in, raise the trust in `components`, or ask for `entitlement`.

    `policy` and `rule` name the ALLOW rule that would match. A login is as `acr` and `max_age` say: `acr` () asks for
    no value, `max_age` is in seconds and None asks for none. Browsers are sent to `login`, "" for nowhere. `dpop` is
    true for a token that is bound to a DPoP key. The caller may learn `components` only if `disclosed`.
    """

    policy: str
    rule: int
    acr: tuple[str, ...] = ()
    max_age: int | None = None
    login: str = ""
    dpop: bool = False
    components: tuple[str, ...] = ()
    disclosed: bool = False
    entitlement: str = ""

    def describe(self) -> str:
        """Describe the remedy for an operator."""
        if self.entitlement:
            return f"a grant of `{self.entitlement}` is required"
        if self.components:
            return f"trust is too low: {', '.join(self.components)}"
        parts = [f"acr {' or '.join(self.acr)}"] if self.acr else []
        if self.max_age is not None:
            parts.append(f"at most {self.max_age} s ago")
        return f"a login is required: {', '.join(parts)}" if parts else "a login with several factors is required"


class AccessBasis(msgspec.Struct, frozen=True):
    """What a decision rests on that the administrator's access log explains.

    `grant` is the one that an allow needs. `revocation` is the ID of the administrator's revocation, and `signal` the
    `jti` of the security event, that a denial rests on; "" for none.
    """

    grant: Grant | None = None
    revocation: str = ""
    signal: str = ""


class Decision(msgspec.Struct, frozen=True):
    """One decision.

    `policy` is `namespace/name` and `rule` the number of its rule from 0; "" and None if no rule decided. `rule_name`
    is that rule's name in the policy, "" if it has none; unlike the number, it stays when rules are inserted.

    `identity` is what was verified, whatever the verdict. `refused_token` is the subject that a refused token names.
    `detail` is only for the decision log and spans: it may help an attacker. `remedy` belongs to the reasons
    `step_up_required`, `trust_too_low` and `grant_required`. `minted` describes the token that an allow carries.
    """

    verdict: Verdict
    reason: Reason
    policy: str = ""
    rule: int | None = None
    identity: Identity = ANONYMOUS
    detail: str = ""
    response: Response = NO_RESPONSE
    shadows: tuple[Shadow, ...] = ()
    disagreement: Disagreement | None = None
    refused_token: NamedToken | None = None
    rule_name: str = ""
    facts: DecisionFacts | None = None
    remedy: Remedy | None = None
    access: AccessBasis | None = None
    minted: MintedToken | None = None

    @property
    def allowed(self) -> bool:
        """True only for an explicit allow."""
        return self.verdict is Verdict.ALLOW


UNDECIDED = Decision(Verdict.DENY, Reason.INTERNAL_ERROR)
"""The answer to a call that has not been decided yet."""
