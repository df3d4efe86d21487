"""CEL source text as tokens, and as an outline: `&&`, `||`, `!`, `?:` and brackets around clauses without them.

The runtime gives no syntax tree. The outline is enough to say which clause of a condition decided it.
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
    """How the parts of an outline are joined; a clause has no parts."""

    AND = "&&"
    OR = "||"
    NOT = "!"
    CHOICE = "?:"
    CLAUSE = ""


@dataclass(frozen=True, slots=True)
class Outline:
    """One expression: `text` as written, and what `op` joins. CHOICE has three parts: condition, then, else."""

    op: Op
    text: str
    parts: tuple[Outline, ...] = ()

    def clauses(self) -> tuple[Outline, ...]:
        """The clauses in it, as they stand."""
        return (self,) if self.op is Op.CLAUSE else tuple(found for part in self.parts for found in part.clauses())


def tokens_of(text: str) -> list[re.Match[str]]:
    """The tokens of `text` without comments. `lastgroup` tells their sort: `string`, `name` or `other`."""
    return [found for found in _TOKENS.finditer(text) if found.lastgroup != "comment"]


def without_strings(text: str) -> str:
    """The text with the content of literals and comments blanked, positions kept."""

    def blank(found: re.Match[str]) -> str:
        if found.lastgroup in ("name", "other"):
            return found.group()
        return re.sub(r"[^\n]", " ", found.group())

    return _TOKENS.sub(blank, text)


def outline(text: str) -> Outline:
    """The outline of an expression that the runtime has compiled, which bounds how deep it nests (32)."""
    return _choice(text, tokens_of(text))


def closing(tokens: list[re.Match[str]], opening: int) -> int:
    """Where the bracket at `opening` closes; the number of tokens where it does not."""
    depth = 0
    for place in range(opening, len(tokens)):
        if tokens[place].lastgroup == "other":
            word = tokens[place].group()
            depth += (word in _OPENING) - (word in _CLOSING)
            if depth == 0:
                return place
    return len(tokens)


def split(tokens: list[re.Match[str]], *separators: str) -> list[list[re.Match[str]]]:
    """The runs of tokens between `separators` that stand outside all brackets."""
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
    """A negation or bracket of the whole run, else a clause: `!a.b` negates it, `!a == b` and `(a).b` do not."""
    marks = 0
    while marks < len(tokens) and tokens[marks].group() == "!":
        marks += 1
    inner = tokens[marks:]
    if marks and not _is_relation(inner):
        found = _unary(text, inner)
        return Outline(Op.NOT, _text(text, tokens), (found,)) if marks % 2 else found
    if not marks and inner and inner[0].group() == "(" and closing(inner, 0) == len(inner) - 1:
        return _choice(text, inner[1:-1])
    return Outline(Op.CLAUSE, _text(text, tokens))


def _is_relation(tokens: list[re.Match[str]]) -> bool:
    return len(split(tokens, "==", "!=", "<", "<=", ">", ">=")) > 1 or any(
        token.lastgroup == "name" and token.group() == "in" for token in _outside(tokens)
    )


def _outside(tokens: list[re.Match[str]]) -> list[re.Match[str]]:
    """The tokens outside all brackets."""
    found: list[re.Match[str]] = []
    depth = 0
    for token in tokens:
        word = token.group() if token.lastgroup == "other" else ""
        if word and word in _OPENING:
            depth += 1
        elif word and word in _CLOSING:
            depth -= 1
        elif depth == 0:
            found.append(token)
    return found


def _text(text: str, tokens: list[re.Match[str]]) -> str:
    return text[tokens[0].start() : tokens[-1].end()] if tokens else ""
