"""CEL source text as tokens and as an outline: `&&`, `||`, `!`, `?:` and brackets, with clauses as leaves.

The runtime exposes no syntax tree. The outline is enough to find the clause that decided a condition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_TOKENS: Final = re.compile(
    r"""(?P<comment>//[^\n]*)
      | (?P<string>[bB]?[rR][bB]?(?:\"\"\".*?\"\"\"|'''.*?'''|"[^"\n]*"|'[^'\n]*')
          |[bB]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
      | (?P<name>[A-Za-z_]\w*)
      | (?P<other>&&|\|\||[=!<>]=|\S)""",
    re.VERBOSE | re.DOTALL,
)
_OPENING: Final = "([{"
_CLOSING: Final = ")]}"


class Op(StrEnum):
    """The operator that joins the parts of an outline; a clause has no parts."""

    AND = "&&"
    OR = "||"
    NOT = "!"
    CHOICE = "?:"
    CLAUSE = ""


@dataclass(frozen=True, slots=True)
class Outline:
    """An expression: `text` as written, and the parts that `op` joins. CHOICE has three: condition, then, else."""

    op: Op
    text: str
    parts: tuple[Outline, ...] = ()

    def clauses(self) -> tuple[Outline, ...]:
        """All clauses, in order."""
        return (self,) if self.op is Op.CLAUSE else tuple(clause for part in self.parts for clause in part.clauses())


def tokens_of(text: str) -> list[re.Match[str]]:
    """The tokens of `text` without comments; `lastgroup` is their kind: `string`, `name` or `other`."""
    return [token for token in _TOKENS.finditer(text) if token.lastgroup != "comment"]


def without_strings(text: str) -> str:
    """The text with literals and comments replaced by blanks, so that positions stay the same."""

    def blank(token: re.Match[str]) -> str:
        if token.lastgroup in ("name", "other"):
            return token.group()
        return re.sub(r"[^\n]", " ", token.group())

    return _TOKENS.sub(blank, text)


def outline(text: str) -> Outline:
    """The outline of an expression. The runtime must have compiled it, which bounds its depth to 32."""
    return _choice(text, tokens_of(text))


def closing(tokens: list[re.Match[str]], opening: int) -> int:
    """The index where the bracket at `opening` closes; the number of tokens if it does not."""
    depth = 0
    for index in range(opening, len(tokens)):
        if tokens[index].lastgroup == "other":
            word = tokens[index].group()
            depth += (word in _OPENING) - (word in _CLOSING)
            if depth == 0:
                return index
    return len(tokens)


def misread_map(tokens: list[re.Match[str]], name: str) -> re.Match[str] | None:
    """The first use of the variable `name` (like `a.b`) other than reading one of its keys; None without any.

    `a.b.key` and `a.b[key]` are errors if there is no such key. `has`, `in`, `size`, `==` and comprehensions are not:
    they take a missing key for an answer.
    """
    words = [token.group() for token in tokens]
    parts = [part for word in name.split(".") for part in (".", word)][1:]
    for at in range(len(words) - len(parts) + 1):
        if words[at : at + len(parts)] != parts or tokens[at].lastgroup != "name" or words[at - 1 : at] == ["."]:
            continue
        following = [*words[at + len(parts) :], "", "", ""]
        method = following[0] == "." and following[2] == "("
        read = (following[0] == "." and following[1].isidentifier()) or (following[0] == "[" and following[1] != "?")
        before = at - 1
        while before >= 0 and words[before] == "(":
            before -= 1
        asked = 0 <= before < at - 1 and words[before] == "has"
        if method or asked or not read:
            return tokens[at]
    return None


def split(tokens: list[re.Match[str]], *separators: str) -> list[list[re.Match[str]]]:
    """Split the tokens at `separators` outside all brackets."""
    runs: list[list[re.Match[str]]] = [[]]
    depth = 0
    for token in tokens:
        word = token.group() if token.lastgroup == "other" else ""
        if word and word in _OPENING:
            depth += 1
        elif word and word in _CLOSING:
            depth -= 1
        if depth == 0 and word in separators:
            runs.append([])
        else:
            runs[-1].append(token)
    return runs


def _choice(text: str, tokens: list[re.Match[str]]) -> Outline:
    depth = 0
    ask = -1
    level = 0
    for at, token in enumerate(tokens):
        word = token.group() if token.lastgroup == "other" else ""
        depth += (bool(word) and word in _OPENING) - (bool(word) and word in _CLOSING)
        if depth:
            continue
        if word == "?" and ask < 0:
            ask, level = at, 0
        elif word == "?":
            level += 1
        elif word == ":" and level:
            level -= 1
        elif word == ":" and ask >= 0:
            parts = (_any(text, tokens[:ask]), _choice(text, tokens[ask + 1 : at]), _choice(text, tokens[at + 1 :]))
            return Outline(Op.CHOICE, _text(text, tokens), parts)
    return _any(text, tokens)


def _any(text: str, tokens: list[re.Match[str]]) -> Outline:
    runs = split(tokens, "||")
    return (
        _all(text, tokens)
        if len(runs) == 1
        else Outline(Op.OR, _text(text, tokens), tuple(_all(text, r) for r in runs))
    )


def _all(text: str, tokens: list[re.Match[str]]) -> Outline:
    runs = split(tokens, "&&")
    if len(runs) == 1:
        return _unary(text, tokens)
    return Outline(Op.AND, _text(text, tokens), tuple(_unary(text, run) for run in runs))


def _unary(text: str, tokens: list[re.Match[str]]) -> Outline:
    """A negation or bracket of all tokens, else a clause. `!a.b` is a negation; `!a == b` and `(a).b` are clauses."""
    negations = 0
    while negations < len(tokens) and tokens[negations].group() == "!":
        negations += 1
    inner = tokens[negations:]
    if negations and not _is_relation(inner):
        operand = _unary(text, inner)
        return Outline(Op.NOT, _text(text, tokens), (operand,)) if negations % 2 else operand
    if not negations and inner and inner[0].group() == "(" and closing(inner, 0) == len(inner) - 1:
        return _choice(text, inner[1:-1])
    return Outline(Op.CLAUSE, _text(text, tokens))


def _is_relation(tokens: list[re.Match[str]]) -> bool:
    return len(split(tokens, "==", "!=", "<", "<=", ">", ">=")) > 1 or any(
        token.lastgroup == "name" and token.group() == "in" for token in _outside(tokens)
    )


def _outside(tokens: list[re.Match[str]]) -> list[re.Match[str]]:
    """The tokens outside all brackets."""
    outside: list[re.Match[str]] = []
    depth = 0
    for token in tokens:
        word = token.group() if token.lastgroup == "other" else ""
        if word and word in _OPENING:
            depth += 1
        elif word and word in _CLOSING:
            depth -= 1
        elif depth == 0:
            outside.append(token)
    return outside


def _text(text: str, tokens: list[re.Match[str]]) -> str:
    return text[tokens[0].start() : tokens[-1].end()] if tokens else ""
