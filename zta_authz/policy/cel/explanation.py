"""Explain the value of a condition on one request, clause by clause, for operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zta_authz.model.facts import describe
from zta_authz.policy.cel.condition import evaluate_part
from zta_authz.policy.cel.fact_variables import fact_reader
from zta_authz.policy.cel.tokens import closing, outline, tokens_of
from zta_authz.policy.cel.variables import VARIABLES

if TYPE_CHECKING:
    import re

    from zta_authz.policy.cel.condition import Condition
    from zta_authz.policy.rules.inputs import Inputs

_MAX_CLAUSES: Final = 12
_MAX_CHARACTERS: Final = 200
_NOT_CEL: Final = "a value that CEL can't represent"
_NO_VALUE: Final = "found in Activation"
"""The runtime's error for an unknown fact, whose state is shown instead."""
_SECRETS: Final = frozenset(("authorization", "cookie", "proxy-authorization", "dpop", "x-api-key", "set-cookie"))
_WHOLE: Final = frozenset(("request.headers", "claims", "context"))


def explain_condition(condition: Condition, inputs: Inputs) -> str:
    """Describe the condition's value and each clause's, with what it reads: `false: `a == 1` is false (`a` is `2`)`."""
    why = condition.why_unknown(inputs)
    if why:
        return f"Unknown: it is not evaluated, because {why}"
    value = condition.evaluate(inputs)
    clauses = outline(condition.text).clauses()
    parts = [_clause(clause.text, inputs) for clause in clauses[:_MAX_CLAUSES]]
    more = [f"{len(clauses) - _MAX_CLAUSES} more"] if len(clauses) > _MAX_CLAUSES else []
    return f"{_word(value)}: {'; '.join([*parts, *more])}"


def _clause(text: str, inputs: Inputs) -> str:
    value, error = _evaluated(text, inputs)
    notes = [error.partition(": ")[2] or error] if error and _NO_VALUE not in error else []
    names = [name for name in readings(text) if name != text or value is None]
    notes += [f"`{name}` is {_shown(name, inputs)}" for name in names]
    return f"`{' '.join(text.split())}` is {_word(value)}" + (f" ({', '.join(notes)})" if notes else "")


def _evaluated(text: str, inputs: Inputs) -> tuple[bool | None, str]:
    result = _part(text, inputs)
    if result is None:
        return None, _NOT_CEL
    if result.type().name() == "BOOL":
        return result.value() is True, ""
    if result.type().name() == "ERROR":
        return None, _cut(str(result.value()))
    return None, f": it is of type {result.type().name()}"


def _part(text: str, inputs: Inputs) -> Any:
    """Evaluate `text`; None if the runtime can't represent what the request has (bytes that are not UTF-8)."""
    try:
        return evaluate_part(text, inputs)
    except Exception:  # noqa: BLE001 - the explanation reports it; the condition is then Unknown
        return None


def _shown(name: str, inputs: Inputs) -> str:
    """The value of `name`. Secrets are not shown, and of whole maps only the size."""
    if any(secret in name.lower() for secret in _SECRETS):
        return "not shown"
    result = _part(name, inputs)
    if result is None:
        return _NOT_CEL
    if result.type().name() == "ERROR":
        read = fact_reader(name)
        return "absent" if read is None else describe(read(inputs), inputs.now)
    if name in _WHOLE:
        return f"{len(result.value())} entries"
    return f"`{_cut(str(result))}`"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"


def _word(value: bool | None) -> str:
    return "Unknown" if value is None else "true" if value else "false"


def readings(text: str) -> tuple[str, ...]:
    """The variables that an expression reads, with the fields and elements that it names, each once."""
    tokens = tokens_of(text)
    names: dict[str, None] = {}
    at = 0
    while at < len(tokens):
        last = _variable(tokens, at)
        if last is None:
            at += 1
            continue
        last = _fields(tokens, last)
        names.setdefault(text[tokens[at].start() : tokens[last].end()])
        at = last + 1
    return tuple(names)


def _variable(tokens: list[re.Match[str]], at: int) -> int | None:
    """The last token of the variable that begins at `at`; None if no variable does."""
    if tokens[at].lastgroup != "name" or (at and tokens[at - 1].group() == "."):
        return None
    for last in (at + 2, at):
        name = "".join(token.group() for token in tokens[at : last + 1])
        if last < len(tokens) and name in VARIABLES:
            return last
    return None


def _fields(tokens: list[re.Match[str]], last: int) -> int:
    """The last token of the fields and elements that follow: names without a call, literals in brackets."""
    while last + 2 < len(tokens):
        sign, after = tokens[last + 1].group(), tokens[last + 2]
        called = last + 3 < len(tokens) and tokens[last + 3].group() == "("
        if sign == "." and after.lastgroup == "name" and not called:
            last += 2
        elif sign == "[" and (end := closing(tokens, last + 1)) < len(tokens) and not _reads(tokens[last + 2 : end]):
            last = end
        else:
            break
    return last


def _reads(tokens: list[re.Match[str]]) -> bool:
    """Whether the tokens in brackets are more than one literal."""
    return len(tokens) != 1 or (tokens[0].lastgroup != "string" and not tokens[0].group().isdigit())
