"""The verdict on one request, why, and what must be done to fulfil it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from zta_authz.errors import Reason
from zta_authz.model.identity import ANONYMOUS, Identity

if TYPE_CHECKING:
    from zta_authz.model.identity import NamedToken


class Verdict(StrEnum):
    """Allow or deny; nothing else exists."""

    __hash__ = str.__hash__  # an enum's own is a Python call

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Response:
    """What a policy asks of the answer: headers to change on allow, status and message on denial (0, "" = ours)."""

    set_headers: tuple[tuple[str, str], ...] = ()
    remove_headers: tuple[str, ...] = ()
    status: int = 0
    message: str = ""


NO_RESPONSE = Response()


@dataclass(frozen=True, slots=True)
class Shadow:
    """A rule that matched without deciding: of an AUDIT policy, or of one in dry run. `action` is its policy's."""

    action: str
    policy: str
    rule: int
    dry_run: bool
    rule_name: str = ""


class Disagreement(msgspec.Struct, frozen=True):
    """What the shadow policies say where that is another verdict; policy and rule are as in a `Decision`."""

    verdict: Verdict
    reason: Reason
    policy: str = ""
    rule: int | None = None
    rule_name: str = ""


class Decision(msgspec.Struct, frozen=True):
    """One decision. `policy` is `namespace/name` and `rule` its rule's number from 0; "" and None where none decided.

    `rule_name` is what the policy calls that rule, "" where it does not: numbers shift with each insertion.

    `identity` is what was verified, whatever the verdict; `refused_token` is whom a token names that was refused.
    `detail` is for the decision log and spans only: it may name what an attacker would like to know.
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

    @property
    def allowed(self) -> bool:
        """True only for an explicit allow."""
        return self.verdict is Verdict.ALLOW


UNDECIDED = Decision(Verdict.DENY, Reason.INTERNAL_ERROR)
"""What a call is answered that nothing has decided yet."""
