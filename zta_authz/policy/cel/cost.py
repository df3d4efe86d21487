"""Upper bounds for the cost of conditions, in units of about 20 ns, from their text and the sizes of what they read.

The runtime bounds steps, but one step may be long: a regular expression over a header of 60 KiB, repeated for each
element of a list. The text is analysed once, when loaded; each request supplies the sizes.

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
"""Instructions of one pattern with its repetitions expanded; larger patterns are rejected when loaded."""
MAX_UNITS: Final = 1_000_000
"""The maximum cost of one condition, and of all conditions of a request together beyond `FREE_UNITS` each."""
FREE_UNITS: Final = 16_384
"""The cost of each condition that is not counted; further views of a request (for other tokens, say) share it."""
COMPREHENSIONS: Final = frozenset(("exists", "exists_one", "all"))
_OPERATORS: Final = frozenset(("in", "+", "==", "!=", "<", "<=", ">", ">="))
_COSTLY: Final = COMPREHENSIONS | {"matches", "contains", "size", "bytes", "string", "+"}
_COPIES: Final = 8  # passes per `+`: each later `+` copies the text again
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
    """Sizes of what a condition reads: all characters, the longest text, the elements of the largest collection."""

    characters: int = 0
    longest: int = 0
    elements: int = 0


class ConditionMemory:
    """State that the conditions of one request share: values by variable, activations by set of variables, and sizes.

    `units` is the remaining common budget, `free` the uncounted cost of each condition. `results` has the values of
    conditions that read no token; it is None if the rules are evaluated for one token only.
    """

    __slots__ = ("activations", "free", "header_unclear", "results", "sizes", "units", "values")

    def __init__(self) -> None:
        self.activations: dict[tuple[str, ...], Any] = {}
        self.values: dict[str, Any] = {}
        self.sizes: dict[object, Sizes] = {}
        self.header_unclear: bool | None = None
        self.units = MAX_UNITS
        self.free = FREE_UNITS
        self.results: dict[object, bool] | None = None  # by `Condition`


@dataclass(slots=True)
class Calls:
    """Calls in one part of a condition. `patterns` is the sum of the patterns' costs per character."""

    passes: int = 0
    """Calls and operators that read each text at most once."""
    searches: int = 0
    patterns: int = 0
    compiling: int = 0
    """Units for compiling the patterns."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The costly calls of a condition.

    `once` are made once, `per_element` for every element of a collection on that element, `crossed` for every element
    on something else. `written` bounds the elements of lists that are written in the condition.
    """

    once: Calls
    per_element: Calls
    crossed: Calls
    written: int

    def units(self, sizes: Sizes) -> int:
        """The maximum cost of the condition on inputs of these sizes."""
        characters, longest, elements = sizes
        elements = max(elements, self.written)
        one_pass = characters // _CHARACTERS_A_UNIT + elements
        one_search = longest * longest // _COMPARISONS_A_UNIT
        once, per_element, crossed = self.once, self.per_element, self.crossed
        outside = once.passes * one_pass + once.searches * one_search + once.patterns * longest + once.compiling
        apart = (
            (per_element.passes + per_element.searches) * one_pass
            + per_element.searches * one_search
            + per_element.patterns * characters
        )
        per_step = (
            crossed.passes * one_pass
            + crossed.searches * one_search
            + crossed.patterns * longest
            + crossed.compiling
            + per_element.compiling
        )
        return outside + apart + elements * per_step


def cost_of(text: str, variables_in: Callable[[str], Iterable[str]], literal: Callable[[str], str]) -> Cost | None:
    """The cost of a compiled condition; None if it has no costly call.

    `variables_in` returns the variables that a text uses, `literal` the value of a string literal.
    """
    tokens = tokens_of(text)
    if not any(token.lastgroup != "string" and token.group() in _COSTLY for token in tokens):
        return None
    scopes = [scope for at in range(len(tokens)) if (scope := _scope(text, tokens, at, variables_in)) is not None]
    once, per_element, crossed = Calls(), Calls(), Calls()
    for at, token in enumerate(tokens):
        scope = next((scope for scope in scopes if scope.first <= at <= scope.last), None)
        calls = once if scope is None else crossed if scope.crossed else per_element
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
    return Cost(once, per_element, crossed, sum(token.group() == "," for token in tokens) + 1)


class _Scope(NamedTuple):
    """The tokens of a comprehension's body; `crossed` if it reads more than the current element."""

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
    while body:  # `headers[h]` in `headers.exists(h, …)` is the current element
        if over and body[: len(element)] == element:
            body = body[len(element) :]
        else:
            rest.append(body.pop(0))
    return _Scope(at + 1, last, bool(list(variables_in(" ".join(rest)))))


def _range(tokens: Tokens, at: int) -> list[str] | None:
    """The words of the collection that a comprehension iterates over if it is dotted names, else [].

    None for a written list, which may contain the same value many times.
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
    """Whether the brackets that close at `closed` follow a value, so that they select one of its fields."""
    opened = next((at for at in range(closed, -1, -1) if closing(tokens, at) == closed and at != closed), 0)
    before = tokens[opened - 1] if opened else None
    return before is not None and (
        (before.lastgroup == "name" and before.group() != "in") or before.group() in (")", "]")
    )


def pattern_size(pattern: str) -> int:
    """Estimate the instructions of an RE2 pattern with its repetitions expanded; never far too low."""
    groups: list[tuple[int, int]] = []  # per open group: the size before it, and the size of its last part
    total = last = at = 0
    while at < len(pattern):
        character = pattern[at]
        construct = _next(pattern, at)
        if character == "(" and construct is not None and not construct["flags"]:
            groups.append((total, 0))
            total = last = 0
        elif character == ")" and groups:
            last = total + 1
            total = groups.pop()[0] + last
        elif character == "{" and construct is not None:
            grown = _repeated(last, construct)
            total, last = total - last + grown, grown
        elif character in "*+?|":
            total, last = total + 1, last + 1
        else:
            last = _atom_size(construct)
            total += last
        at = construct.end() if construct is not None else at + 1
    return total + sum(before for before, _ in groups)


def _next(pattern: str, at: int) -> re.Match[str] | None:
    """The construct at `at` if it has more than one character."""
    forms = {"(": _GROUP, "{": _REPETITION, "\\": _ESCAPE, "[": _CLASS}
    form = forms.get(pattern[at])
    return None if form is None else form.match(pattern, at)


def _repeated(size: int, repetition: re.Match[str]) -> int:
    """The size of `x{least,most}` if x has `size`."""
    least = int(repetition[1])
    most = int(repetition[3]) if repetition[3] else least + 1 if repetition[2] else least
    return size * max(1, least, most) + max(0, most - least)


def _atom_size(atom: re.Match[str] | None) -> int:
    if atom is None or atom.re is not _ESCAPE:
        return 1
    if atom["quoted"] is not None:
        return max(1, len(atom["quoted"]))
    return _PROPERTY_SIZE if atom["property"] else 1
