"""Clauses of conditions that come out the same for every request, and what was probably meant by them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.model.identity import ANONYMOUS
from zta_authz.model.options import Options
from zta_authz.model.request import RequestAttributes
from zta_authz.model.spiffe import SCHEME, SpiffeId
from zta_authz.policy.cel.condition import evaluate_text, variables_in
from zta_authz.policy.cel.logic import ANY, Outcomes, outcomes
from zta_authz.policy.cel.tokens import outline, tokens_of
from zta_authz.policy.lint.anonymous import ABSORBING, reads_claim
from zta_authz.policy.lint.unmatchable import Doubt
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.policy.lint.unmatchable import Reach

_PSEUDO: Final = {
    ":method": "request.method", ":path": "request.path", ":authority": "request.host", ":scheme": "request.scheme",
}  # fmt: skip
_OF_TOKENS: Final = frozenset(("claims", "token.subject", "token.issuer"))


@dataclass(frozen=True, slots=True)
class ConditionDoubt(Doubt):
    """A clause that comes to the same for every request: true, false, or None for Unknown."""

    comes_to: bool | None = None


def condition_doubts(text: str, reach: Reach) -> tuple[list[ConditionDoubt], Outcomes]:
    """What is doubtful about a compiled condition, and all that it may come to for requests that reach the rules."""
    found: list[ConditionDoubt] = []

    def clause(part: str) -> Outcomes:
        doubt, possible = _clause(part, reach)
        if doubt is not None:
            found.append(doubt)
        return possible

    return found, outcomes(outline(text), clause)


def _clause(text: str, reach: Reach) -> tuple[ConditionDoubt | None, Outcomes]:
    for judge in (_header, _compared, _token):
        result = judge(text, reach)
        if result is not None:
            reason, hint, comes_to = result
            doubt = ConditionDoubt("condition", text, reason, hint, certain=True, comes_to=comes_to)
            return doubt, frozenset((comes_to,))
    return None, ANY


_Judged = tuple[str, str, bool | None] | None
"""Why a clause always comes to the same, what was probably meant, and what it comes to."""


def _header(text: str, reach: Reach) -> _Judged:
    """A header by a name that no header has here: names are in lower case, and pseudo-headers are variables."""
    del reach
    words = [token.group() for token in tokens_of(text)]
    absorbed = not ABSORBING.isdisjoint(words)
    for at in range(len(words) - 2):
        if words[at : at + 3] != ["request", ".", "headers"] or words[at - 1 : at] == ["."]:
            continue
        asked = words[at - 2 : at] if at == 2 and len(words) == 5 else []
        follows = words[at + 3 : at + 6]
        if len(asked) == 2 and asked[1] == "in" and (name := _text(asked[0])) is not None:
            possible: bool | None = False
        elif len(follows) == 3 and follows[0] == "[" and follows[2] == "]" and not absorbed:
            name, possible = _text(follows[1]), None
        elif len(follows) > 1 and follows[0] == "." and follows[2:] != ["("] and not absorbed:
            name, possible = follows[1], None
        else:
            continue
        if name is not None and name in _PSEUDO:
            return f"`{name}` is not among `request.headers`", f"write `{_PSEUDO[name]}`", possible
        if name is not None and name != name.lower():
            return "names of headers are in lower case", f"write `{name.lower()}`", possible
    return None


def _compared(text: str, reach: Reach) -> _Judged:
    """A variable compared with a text that it never is."""
    parts = re.fullmatch(r"\s*([a-zA-Z.]+)\s*(==|!=)\s*(\S.*?)\s*", text, re.DOTALL)
    turned = re.fullmatch(r"\s*(\S.*?)\s*(==|!=)\s*([a-zA-Z.]+)\s*", text, re.DOTALL)
    for name, sign, literal in [*([parts.groups()] if parts else []), *([turned.groups()[::-1]] if turned else [])]:
        value = _text(literal)
        found = None if value is None else _never_is(name, value, reach)
        if found is not None:
            return *found, sign == "!="
    return None


def _never_is(name: str, value: str, reach: Reach) -> tuple[str, str] | None:
    match name:
        case "request.path" if re.search(r"[?#]", value) and not (reach.strict and not reach.refused_path("/%3F")):
            return "`request.path` is without query and fragment", "compare `request.query` apart"
        case "request.method" if reach.strict and re.search(r"[a-z]", value):
            return "methods in lower case are refused before any rule is asked", f"write `{value.upper()}`"
        case "request.host" | "connection.sni" if re.search(r"[A-Z]", value):
            return f"`{name}` is in lower case", f"write `{value.lower()}`"
        case "source.principal" if value and reach.strict:
            try:
                SpiffeId.parse(value)
            except ValueError:
                return "`source.principal` is a SPIFFE ID", f"write `{SCHEME}{value.removeprefix(SCHEME)}`"
        case "token.subject" | "token.issuer" if value and not reach.has_tokens:
            return _NO_TOKENS
    return None


_NO_TOKENS: Final = (
    "no RequestAuthentication is for these workloads, so no token is ever verified",
    "add a RequestAuthentication for them",
)


def _token(text: str, reach: Reach) -> _Judged:
    """A clause on claims where no token is ever verified."""
    if reach.has_tokens:
        return None
    variables = set(variables_in(text))
    if variables and variables <= _OF_TOKENS:
        value = evaluate_text(text, Inputs(RequestAttributes(), ANONYMOUS, Options()))
        return None if value is True else (*_NO_TOKENS, value)
    if reads_claim(text) and ABSORBING.isdisjoint(token.group() for token in tokens_of(text)):
        return *_NO_TOKENS, None
    return None


def _text(literal: str) -> str | None:
    """The value of a plain string literal, None for anything else."""
    if not re.fullmatch(r"'[^'\\\n]*'|\"[^\"\\\n]*\"", literal):
        return None
    return literal[1:-1]
