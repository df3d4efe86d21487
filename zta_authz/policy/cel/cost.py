"""What evaluating a condition may cost, in units of about 20 ns, from its text and the sizes of what it reads.

The runtime bounds steps, but one step may be long: a regular expression over a header of 60 KiB, or over it again for
each element of a list. The text is looked at once, when loaded; each request then gives the sizes.

Measured with the runtime's RE2: it compiles the pattern for each call (6 us, and 0.5 us an instruction). Matching costs
at most 20 to 50 ns a character and instruction, where the automaton has too many states to keep; a pattern of few
instructions always costs 2 ns a character.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zta_authz.policy.cel.tokens import closing, tokens_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Tokens = list[re.Match[str]]

MAX_PATTERN: Final = 2048
"""Instructions of one pattern with its repetitions written out; larger ones are refused when loaded."""
MAX_UNITS: Final = 1_000_000
"""What one condition may cost, and what all conditions of a request may cost together beyond `FREE_UNITS` each."""
FREE_UNITS: Final = 16_384
"""What each condition may cost besides; further looks at the same request, for other tokens say, share it again."""
COMPREHENSIONS: Final = frozenset(("exists", "exists_one", "all"))
_OPERATORS: Final = frozenset(("in", "+", "==", "!=", "<", "<=", ">", ">="))
_COSTLY: Final = COMPREHENSIONS | {"matches", "contains", "size", "bytes", "string", "+"}
_COPIES: Final = 8  # passes that a `+` counts for: what it joins is copied again by each `+` after it
_SMALL_PATTERN: Final = 12  # at most 2**12 states, which RE2 keeps
_REPETITION: Final = re.compile(r"\{(\d+)(?:(,)(\d*))?\}")
_GROUP: Final = re.compile(r"\((?:\?(?:P?<[^>]*>|[A-Za-z-]*:|(?P<flags>[A-Za-z-]*\))))?")
_ESCAPE: Final = re.compile(
    r"\\(?:Q(?P<quoted>.*?)(?:\\E|\Z)|(?P<property>[pP](?:\{[^}]*\}|.))|x\{[^}]*\}|.)", re.DOTALL
)
_CLASS: Final = re.compile(r"\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]", re.DOTALL)
_PROPERTY_SIZE: Final = 16
_CHARACTERS_A_UNIT: Final = 16  # of a pass over a text
_COMPARISONS_A_UNIT: Final = 1024  # of a search for one text in another
_UNITS_A_PATTERN: Final = 300  # to compile it, and
_UNITS_AN_INSTRUCTION: Final = 25


class Sizes(NamedTuple):
    """What a condition reads of one request: all characters, the longest text, the most elements of one collection."""

    characters: int = 0
    longest: int = 0
    elements: int = 0


class ConditionMemory:
    """What the conditions of one request share: values of variables by name, the runtime's by set of variables, sizes.

    `units` is what they may still cost together, `free` what each may cost besides. `told` has values of
    conditions that read no token, None where one token at most is asked about.
    """

    __slots__ = ("activations", "free", "header_unclear", "results", "sizes", "units", "values")

    def __init__(self) -> None:
        self.activations: dict[tuple[str, ...], Any] = {}
        self.values: dict[str, Any] = {}
        self.sizes: dict[object, Sizes] = {}
        self.header_unclear: bool | None = None
        self.units = MAX_UNITS
        self.free = FREE_UNITS
        self.results: dict[object, bool] | None = None  # by `cel.Condition`


@dataclass(slots=True)
class Calls:
    """Calls in one part of a condition. `patterns` are weights of patterns, by which one character costs."""

    passes: int = 0
    """Calls and operators that look at each text once at most."""
    searches: int = 0
    patterns: int = 0
    compiling: int = 0
    """Units that compiling the patterns costs."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a condition's text has of costly calls.

    `once` are made once; `each` for every element of a collection, on that element; `crossed` for every element, on
    something else. `written` bounds the elements of lists that are written in the condition.
    """

    once: Calls
    each: Calls
    crossed: Calls
    written: int

    def units(self, sizes: Sizes) -> int:
        """The most that the condition costs on inputs of these sizes."""
        characters, longest, elements = sizes
        elements = max(elements, self.written)
        one_pass = characters // _CHARACTERS_A_UNIT + elements
        one_search = longest * longest // _COMPARISONS_A_UNIT
        once, each, crossed = self.once, self.each, self.crossed
        outside = once.passes * one_pass + once.searches * one_search + once.patterns * longest + once.compiling
        apart = (each.passes + each.searches) * one_pass + each.searches * one_search + each.patterns * characters
        for_each = (
            crossed.passes * one_pass
            + crossed.searches * one_search
            + crossed.patterns * longest
            + crossed.compiling
            + each.compiling
        )
        return outside + apart + elements * for_each


def cost_of(text: str, variables_in: Callable[[str], Iterable[str]], literal: Callable[[str], str]) -> Cost | None:
    """The cost of a compiled condition; None where it has no costly call.

    `variables_in` gives the variables that a text names, `literal` the value of a string literal.
    """
    tokens = tokens_of(text)
    if not any(token.lastgroup != "string" and token.group() in _COSTLY for token in tokens):
        return None
    scopes = [scope for at in range(len(tokens)) if (scope := _scope(text, tokens, at, variables_in)) is not None]
    once, each, crossed = Calls(), Calls(), Calls()
    for at, token in enumerate(tokens):
        scope = next((scope for scope in scopes if scope.first <= at <= scope.last), None)
        calls = once if scope is None else crossed if scope.crossed else each
        word = token.group()
        if not _called(tokens, at):
            calls.passes += _COPIES if word == "+" else word in _OPERATORS
        elif word == "matches":
            size = pattern_size(literal(tokens[closing(tokens, at + 1) - 1].group()))
            calls.patterns += 1 if size <= _SMALL_PATTERN else size
            calls.compiling += _UNITS_A_PATTERN + _UNITS_AN_INSTRUCTION * size
        elif word == "contains":
            calls.searches += 1
        else:
            calls.passes += 1
    return Cost(once, each, crossed, sum(token.group() == "," for token in tokens) + 1)


class _Scope(NamedTuple):
    """The body of a comprehension, by its tokens; `crossed` where it reads more than the element it is at."""

    first: int
    last: int
    crossed: bool


def _called(tokens: Tokens, at: int) -> bool:
    return tokens[at].lastgroup == "name" and tokens[at + 1 : at + 2] != [] and tokens[at + 1].group() == "("


def _scope(text: str, tokens: Tokens, at: int, variables_in: Callable[[str], Iterable[str]]) -> _Scope | None:
    if tokens[at].group() not in COMPREHENSIONS or not _called(tokens, at):
        return None
    last = closing(tokens, at + 1) - 1
    body = [token.group() for token in tokens[at + 4 : last + 1]]
    over = _range(tokens, at)
    if over is None:
        return _Scope(at + 1, last, crossed=True)
    element = [*over, "[", tokens[at + 2].group(), "]"]
    rest: list[str] = []
    while body:  # `headers[h]` in `headers.exists(h, …)` is the element that it is at
        if over and body[: len(element)] == element:
            body = body[len(element) :]
        else:
            rest.append(body.pop(0))
    return _Scope(at + 1, last, bool(list(variables_in(" ".join(rest)))))


def _range(tokens: Tokens, at: int) -> list[str] | None:
    """The words of what a comprehension goes over, where it is names joined by dots; else [].

    None for a list that is written there: what it holds may be there many times.
    """
    words: list[str] = []
    place = at - 1
    while place > 0 and tokens[place].group() == "." and tokens[place - 1].lastgroup == "name":
        words = [tokens[place - 1].group(), *((".", *words) if words else ())]
        place -= 2
    if words and (place < 0 or tokens[place].group() != "."):
        return words
    return None if tokens[place - 1].group() in (")", "]", "}") and not _indexed(tokens, place - 1) else []


def _indexed(tokens: Tokens, closed: int) -> bool:
    """Whether the brackets that close at `closed` stand after a value, so that they ask for one of its fields."""
    opened = next((at for at in range(closed, -1, -1) if closing(tokens, at) == closed and at != closed), 0)
    before = tokens[opened - 1] if opened else None
    return before is not None and (
        (before.lastgroup == "name" and before.group() != "in") or before.group() in (")", "]")
    )


def pattern_size(pattern: str) -> int:
    """About how many instructions a pattern of RE2 has, its repetitions written out; never far below."""
    groups: list[tuple[int, int]] = []  # of each open group: what stands before it, and the size of its last part
    total = last = at = 0
    while at < len(pattern):
        character = pattern[at]
        found = _next(pattern, at)
        if character == "(" and found is not None and not found["flags"]:
            groups.append((total, 0))
            total = last = 0
        elif character == ")" and groups:
            last = total + 1
            total = groups.pop()[0] + last
        elif character == "{" and found is not None:
            grown = _repeated(last, found)
            total, last = total - last + grown, grown
        elif character in "*+?|":
            total, last = total + 1, last + 1
        else:
            last = _atom_size(found)
            total += last
        at = found.end() if found is not None else at + 1
    return total + sum(before for before, _ in groups)


def _next(pattern: str, at: int) -> re.Match[str] | None:
    """The construct at `at` where it is of more than one character."""
    forms = {"(": _GROUP, "{": _REPETITION, "\\": _ESCAPE, "[": _CLASS}
    form = forms.get(pattern[at])
    return None if form is None else form.match(pattern, at)


def _repeated(size: int, found: re.Match[str]) -> int:
    """The size of `x{least,most}` where x has `size`."""
    least = int(found[1])
    most = int(found[3]) if found[3] else least + 1 if found[2] else least
    return size * max(1, least, most) + max(0, most - least)


def _atom_size(found: re.Match[str] | None) -> int:
    if found is None or found.re is not _ESCAPE:
        return 1
    if found["quoted"] is not None:
        return max(1, len(found["quoted"]))
    return _PROPERTY_SIZE if found["property"] else 1
