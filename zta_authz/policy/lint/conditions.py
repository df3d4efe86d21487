"""Find clauses of conditions that have the same value for every request, and suggest what was probably meant."""

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
from zta_authz.policy.lint.fact_sources import absence_of_variable
from zta_authz.policy.lint.unmatchable import SuspiciousValue
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.policy.lint.unmatchable import Reachability

_PSEUDO: Final = {
    ":method": "request.method", ":path": "request.path", ":authority": "request.host", ":scheme": "request.scheme",
}  # fmt: skip
_OF_TOKENS: Final = frozenset(("claims", "token.subject", "token.issuer"))


@dataclass(frozen=True, slots=True)
class SuspiciousClause(SuspiciousValue):
    """A clause with the same value for every request: true, false, or None for Unknown."""

    result: bool | None = None


def suspicious_clauses(text: str, reach: Reachability) -> tuple[list[SuspiciousClause], Outcomes]:
    """The suspicious clauses of a compiled condition, and its possible values for requests that reach the rules."""
    suspicious: list[SuspiciousClause] = []

    def clause(part: str) -> Outcomes:
        finding, values = _clause(part, reach)
        if finding is not None:
            suspicious.append(finding)
        return values

    return suspicious, outcomes(outline(text), clause)


def _clause(text: str, reach: Reachability) -> tuple[SuspiciousClause | None, Outcomes]:
    for check in (_header, _compared, _token, _fact):
        finding = check(text, reach)
        if finding is not None:
            reason, hint, result = finding
            suspicious = SuspiciousClause("condition", text, reason, hint, certain=True, result=result)
            return suspicious, frozenset((result,))
    return None, ANY


def _fact(text: str, reach: Reachability) -> _Finding:
    """Find a variable that reads a fact that nothing gives."""
    if reach.facts is None or not ABSORBING.isdisjoint(token.group() for token in tokens_of(text)):
        return None
    for name in sorted(variables_in(text)):
        absence = absence_of_variable(name, reach.facts)
        if absence is not None and absence.certain:
            return absence.reason, absence.hint, None
    return None


_Finding = tuple[str, str, bool | None] | None
"""The reason why a clause always has the same value, a hint, and the value."""


def _header(text: str, reach: Reachability) -> _Finding:
    """Find a header name that `request.headers` never has: upper case, or a pseudo-header."""
    del reach
    words = [token.group() for token in tokens_of(text)]
    absorbed = not ABSORBING.isdisjoint(words)
    for at in range(len(words) - 2):
        if words[at : at + 3] != ["request", ".", "headers"] or words[at - 1 : at] == ["."]:
            continue
        left = words[at - 2 : at] if at == 2 and len(words) == 5 else []
        follows = words[at + 3 : at + 6]
        if len(left) == 2 and left[1] == "in" and (name := _text(left[0])) is not None:
            result: bool | None = False
        elif len(follows) == 3 and follows[0] == "[" and follows[2] == "]" and not absorbed:
            name, result = _text(follows[1]), None
        elif len(follows) > 1 and follows[0] == "." and follows[2:] != ["("] and not absorbed:
            name, result = follows[1], None
        else:
            continue
        if name is not None and name in _PSEUDO:
            return f"`{name}` is not among `request.headers`", f"write `{_PSEUDO[name]}`", result
        if name is not None and name != name.lower():
            return "header names are in lower case", f"write `{name.lower()}`", result
    return None


def _compared(text: str, reach: Reachability) -> _Finding:
    """Find a variable that is compared with a text that it never equals."""
    parts = re.fullmatch(r"\s*([a-zA-Z.]+)\s*(==|!=)\s*(\S.*?)\s*", text, re.DOTALL)
    reversed_parts = re.fullmatch(r"\s*(\S.*?)\s*(==|!=)\s*([a-zA-Z.]+)\s*", text, re.DOTALL)
    for name, sign, literal in [
        *([parts.groups()] if parts else []),
        *([reversed_parts.groups()[::-1]] if reversed_parts else []),
    ]:
        value = _text(literal)
        reason = None if value is None else _never_is(name, value, reach)
        if reason is not None:
            return *reason, sign == "!="
    return None


def _never_is(name: str, value: str, reach: Reachability) -> tuple[str, str] | None:
    match name:
        case "request.path" if re.search(r"[?#]", value) and not (reach.strict and not reach.refused_path("/%3F")):
            return "`request.path` is without query and fragment", "compare `request.query` separately"
        case "request.method" if reach.strict and re.search(r"[a-z]", value):
            return "methods in lower case are refused before any rule is evaluated", f"write `{value.upper()}`"
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
    "no RequestAuthentication applies to these workloads, so no token is ever verified",
    "add a RequestAuthentication for them",
)


def _token(text: str, reach: Reachability) -> _Finding:
    """Find a clause on claims although no token is ever verified."""
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
    """The value of a plain string literal; None for any other text."""
    if not re.fullmatch(r"'[^'\\\n]*'|\"[^\"\\\n]*\"", literal):
        return None
    return literal[1:-1]
