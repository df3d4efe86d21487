"""Conditions in CEL (Common Expression Language): type-checked when loaded, bounded, and three-valued.

A condition is true, false or Unknown. If the runtime can't evaluate it (a missing claim, an integer out of range), it
is Unknown, and Unknown never widens access: an ALLOW does not match, a DENY does. The runtime returns errors as values
that are truthy in Python, so only a value of type BOOL that `is True` counts as true.

The runtime bounds steps but not memory, so expressions that can build large values are rejected when loaded: `map` and
`filter`, nested comprehensions, `+` within a comprehension, and regular expressions that are not literals or are too
large. Time is bounded per request, by the cost of the expression and the sizes of the values it reads: beyond the
bound, a condition is Unknown without being evaluated.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from cel_expr_python import cel

from zta_authz.policy.cel.cost import COMPREHENSIONS, MAX_PATTERN, MAX_UNITS, Sizes, cost_of, pattern_size
from zta_authz.policy.cel.fact_variables import DEVICE_FIELDS, hint_for_undeclared
from zta_authz.policy.cel.tokens import closing, misread_map, tokens_of, without_strings
from zta_authz.policy.cel.variables import OF_TOKENS, VARIABLES
from zta_authz.policy.rules.spellings import RespelledParts

if TYPE_CHECKING:
    from collections.abc import Collection

    from zta_authz.policy.cel.cost import Cost
    from zta_authz.policy.rules.inputs import Inputs

Names = frozenset[str] | None
"""Names of a variable's fields; None for all fields."""

MAX_LENGTH: Final = 2048
_TYPE: Final = cel.Type
_TEXTS: Final = frozenset((str,))
_BOOL: Final = _TYPE.BOOL


_ENV: Final = cel.NewEnv(variables={name: variable.type for name, variable in VARIABLES.items()})
_ADDRESSES: Final = frozenset(("source.ip", "remote.ip", "destination.ip"))
_NAMES: Final = re.compile(
    "|".join(
        r"(?<![\w.])" + r"\s*\.\s*".join(name.split(".")) + r"(?!\w)"
        for name in sorted(VARIABLES, key=len, reverse=True)
    )
)
_LITERAL: Final = re.compile(r"[bBrR]{0,2}[\"']+(.*?)[\"']+", re.DOTALL)
_WITH_PORT: Final = re.compile(r":(?!//)")
_BUILDING: Final = frozenset(("map", "filter"))
_ERROR_POSITION: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")


class ConditionError(ValueError):
    """An invalid expression; `line` and `column` count from 1 within the expression."""

    def __init__(self, message: str, hint: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.line = line
        self.column = column


class Condition:
    """A compiled expression of type bool.

    In strict mode, a condition is also Unknown if it reads a header with several values, if its value is not the same
    for an IPv6 address and the IPv4 address embedded in it, or if its value is not the same for the received path,
    query and host and for the forms that an upstream may read.
    """

    __slots__ = (
        "_cost", "_expression", "_headers", "_reads", "_reads_addresses", "_reads_token", "_respelled", "text",
        "variables",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        """Compile `text`.

        Raises:
            ConditionError: if the expression is invalid, not a bool, or could cost too much.
        """
        self.text = text
        _check_bounds(text)
        try:
            self._expression = _ENV.compile(text)
        except RuntimeError as error:
            raise _compile_error(error) from None
        result = self._expression.return_type()
        if result != _BOOL:
            hint = "compare it with something" if result != _TYPE.DYN else "write `… == true`"
            raise ConditionError(f"the condition is of type {result.name()}, not bool", hint)
        self.variables = variables_in(text)
        self._headers = _headers_named(text) if "request.headers" in self.variables else frozenset()
        self._reads = (
            self.variables,
            self._headers,
            _claims_named(text) if "claims" in self.variables else frozenset(),
        )
        self._reads_addresses = not _ADDRESSES.isdisjoint(self.variables)
        self._reads_token = not OF_TOKENS.isdisjoint(self.variables)
        self._respelled = _respelled(self.variables, text)
        self._cost = cost_of(text, variables_in, literal_value)

    def evaluate(self, inputs: Inputs) -> bool | None:
        """The value: true, false, or None for Unknown."""
        results = inputs.conditions.results
        if results is None or self._reads_token:
            return self._evaluate(inputs)
        value = results.get(self)
        if value is None:
            value = self._evaluate(inputs)
            if value is not None:
                results[self] = value
        return value

    def _evaluate(self, inputs: Inputs) -> bool | None:
        if self._headers != frozenset() and inputs.strict and self._repeated(inputs):
            return None
        value = self._value(inputs)
        return None if value is None or self._depends_on_reading(inputs, value) else value

    def _depends_on_reading(self, inputs: Inputs, value: bool | None) -> str:
        """Why another reading of an address, path, query or host gives another value than `value`; "" if none does."""
        if not inputs.strict:
            return ""
        ipv4_view = inputs.with_embedded_ipv4() if self._reads_addresses else None
        if ipv4_view is not None and self._differs(inputs, (ipv4_view,), value):
            return "an IPv6 address stands for an IPv4 address, and the condition has different values for them"
        parts = self._respelled
        if parts is not None and self._differs(inputs, inputs.respelled(parts), value):
            return (
                "the path, query or host may be read in several ways, and the condition has different values for them"
            )
        return ""

    def _differs(self, inputs: Inputs, others: tuple[Inputs, ...], value: bool | None) -> bool:
        for other in others:
            other.share_condition_units(inputs, len(others))
            other_value = self._value(other)
            inputs.continue_condition_units(other)
            if other_value is not value:
                return True
        return False

    def _value(self, inputs: Inputs) -> bool | None:
        try:
            if self._cost is not None and not self._affordable(self._cost, inputs):
                return None
            return _truth(self._expression, _activation(self.variables, inputs))
        except Exception:  # noqa: BLE001 - whatever the runtime can't evaluate is Unknown, never an allow
            return None

    def why_unknown(self, inputs: Inputs) -> str:
        """Why the condition is Unknown without being evaluated; "" if it is evaluated."""
        if self._headers != frozenset() and inputs.strict and self._repeated(inputs):
            names = inputs.header_names() if self._headers is None else self._headers
            unclear = sorted(name for name in names if inputs.header_unclear(name))
            if not unclear:
                return "a header has a name that an application may read as another name"
            return f"header `{unclear[0]}` has several values, or blanks around one"
        reading = self._depends_on_reading(inputs, self._value(inputs))
        if reading:
            return reading
        try:
            activation = _activation(self.variables, inputs)
            if self._cost is not None and self._cost.units(_sizes(self._reads, inputs)) > MAX_UNITS:
                return "it would cost too much on what it reads"
        except Exception as error:  # noqa: BLE001 - as above
            return f"the runtime can't represent what it reads: {error}"
        del activation
        return ""

    def _repeated(self, inputs: Inputs) -> bool:
        """Whether a header that the condition may read has several values, which an expression can't compare singly.

        A value with blanks around it counts as two, because the upstream may see it without blanks.
        """
        if self._headers is None:
            return inputs.any_header_unclear()
        return any(inputs.header_unclear(name) for name in self._headers)

    def _affordable(self, cost: Cost, inputs: Inputs) -> bool:
        """Whether `cost` fits into the request's budget; the part beyond the free units is subtracted from it."""
        units = cost.units(_sizes(self._reads, inputs))
        memory = inputs.conditions
        if units <= memory.free:
            return True
        if units > MAX_UNITS or units - memory.free > memory.units:
            return False
        memory.units -= units - memory.free
        return True


def _respelled(variables: tuple[str, ...], text: str) -> RespelledParts | None:
    """The parts of a condition that an upstream may read differently. The port is kept if a literal has one."""
    path, query, host = (name in variables for name in ("request.path", "request.query", "request.host"))
    if not (path or query or host):
        return None
    port = not any(token.lastgroup == "string" and _WITH_PORT.search(token.group()) for token in tokens_of(text))
    return RespelledParts(path, query, host, port and host)


def variables_in(text: str) -> tuple[str, ...]:
    """The variables that an expression uses, in alphabetical order."""
    return tuple(sorted({"".join(name.split()) for name in _NAMES.findall(without_strings(text))}))


def evaluate_part(text: str, inputs: Inputs) -> Any:
    """Evaluate a part of a compiled condition to the runtime's value."""
    return _ENV.compile(text).eval(_activation(variables_in(text), inputs))


def evaluate_text(text: str, inputs: Inputs) -> bool | None:
    """Evaluate a part of a compiled condition; None if its value is not a boolean."""
    return _truth(_ENV.compile(text), _activation(variables_in(text), inputs))


def _truth(expression: Any, activation: Any) -> bool | None:
    """The runtime's result: true, false, or None for an error or a value of another type."""
    result = expression.eval(activation)
    value = result.value() if result.type() == _BOOL else None
    return value if isinstance(value, bool) else None


def _sizes(reads: tuple[tuple[str, ...], Names, Names], inputs: Inputs) -> Sizes:
    """The sizes of the variables, headers and claims that a condition reads (None for all), measured once a request."""
    sizes = inputs.conditions.sizes.get(reads)
    if sizes is None:
        variables, headers, claims = reads
        values: list[Any] = []
        for name in variables:
            if name == "request.headers" and headers is not None:
                values += (",".join(inputs.header(field)) for field in headers)
            elif name == "claims" and claims is not None:
                given = inputs.claims or {}
                values += (given[field] for field in claims if field in given)
            else:
                values.append(_value(name, inputs))
        sizes = inputs.conditions.sizes[reads] = _measured(values)
    return sizes


def _measured(values: list[Any]) -> Sizes:
    """The sizes of these values and of all values and field names in them."""
    characters = longest = elements = 0
    batches: list[Collection[Any]] = [values]
    while batches:
        batch = batches.pop()
        if not _TEXTS.issuperset(map(type, batch)):
            for value in batch:
                kind = type(value)
                if kind is dict:
                    elements = max(elements, len(value))
                    batches += (value.keys(), value.values())
                elif kind is list or kind is tuple:
                    elements = max(elements, len(value))
                    batches.append(value)
            batch = [value for value in batch if type(value) is str]
        if batch:  # nearly always all of them: measured in C
            lengths = list(map(len, batch))
            characters += sum(lengths)
            longest = max(longest, *lengths)
    return Sizes(characters, longest, elements)


def _value(name: str, inputs: Inputs) -> Any:
    """A variable's value, read once a request."""
    values = inputs.conditions.values
    if name not in values:
        values[name] = VARIABLES[name].read(inputs)
    return values[name]


def literal_value(text: str) -> str:
    """The value of a string literal, as the runtime reads it."""
    value = _ENV.compile(text).eval(_ENV.Activation({})).value()
    return value if isinstance(value, str) else ""


def _claims_named(text: str) -> Names:
    """The claims that an expression can read; None if it may read any."""
    tokens = tokens_of(text)
    words = [token.group() for token in tokens]
    claims: set[str] = set()
    for at, word in enumerate(words):
        if word != "claims" or tokens[at].lastgroup != "name" or words[at - 1 : at] == ["."]:
            continue
        follows = words[at + 1 : at + 4]
        if follows[:1] == ["."] and len(follows) > 1 and follows[2:] != ["("]:
            claims.add(follows[1])
        elif len(follows) == 3 and follows[0] == "[" and follows[2] == "]" and tokens[at + 2].lastgroup == "string":
            claims.add(literal_value(follows[1]))
        else:
            return None
    return frozenset(claims)


def _headers_named(text: str) -> frozenset[str] | None:
    """The headers that an expression can read: every literal and name in it; None if it may read any."""
    tokens = tokens_of(text)
    words = [token.group() for token in tokens]
    for at in range(len(words) - 2):
        if words[at : at + 3] != ["request", ".", "headers"]:
            continue
        follows = words[at + 3 : at + 6]
        literal = len(follows) == 3 and follows[0] == "[" and follows[2] == "]" and tokens[at + 4].lastgroup == "string"
        field = len(follows) > 1 and follows[0] == "." and tokens[at + 4].lastgroup == "name"
        called = len(follows) > 2 and field and follows[2] == "("
        asked = at > 1 and words[at - 1] == "in" and tokens[at - 2].lastgroup == "string"
        if called or not (literal or field or asked):
            return None
    return frozenset(_LITERAL.sub(r"\1", word).lower() for word in words)


def _activation(variables: tuple[str, ...], inputs: Inputs) -> Any:
    """The runtime's activation for a set of variables, made once a request."""
    activation = inputs.conditions.activations.get(variables)
    if activation is None:
        activation = inputs.conditions.activations[variables] = _ENV.Activation(
            {name: value for name in variables if (value := _value(name, inputs)) is not None}
        )
    return activation


def _compile_error(error: RuntimeError) -> ConditionError:
    match = _ERROR_POSITION.search(str(error))
    if match is None:
        return ConditionError(str(error).splitlines()[0], "see the policy reference for the language")
    line, column, message = int(match[1]), int(match[2]), match[3].removesuffix(" (in container '')")
    hint = "see the policy reference for the language"
    if message.startswith("undeclared reference"):
        hint = f"{hint_for_undeclared(message)}known variables: {', '.join(VARIABLES)}"
    elif message.startswith("found no matching overload"):
        hint = "compare values of one type"
    return ConditionError(message, hint, line, column)


def _check_bounds(text: str) -> None:
    """Reject expressions whose memory is unbounded, or that read an unknown fact as one. Raises ConditionError."""
    if len(text) > MAX_LENGTH:
        raise ConditionError(f"the condition has {len(text)} characters, more than {MAX_LENGTH}", "split the rule")
    tokens = tokens_of(text)
    inside: list[bool] = []  # for each open bracket, whether it is that of a comprehension or inside one
    for at, token in enumerate(tokens):
        word = token.group()
        called = at + 1 < len(tokens) and tokens[at + 1].group() == "("
        if token.lastgroup == "name" and called:
            _check_call(text, tokens, at, within=bool(inside) and inside[-1])
        elif token.lastgroup == "other" and word in "([{":
            opens = word == "(" and at > 0 and tokens[at - 1].group() in COMPREHENSIONS
            inside.append(opens or (bool(inside) and inside[-1]))
        elif token.lastgroup == "other" and word in ")]}" and inside:
            inside.pop()
        elif word == "+" and token.lastgroup == "other" and inside and inside[-1]:
            raise _at(text, token, "`+` within a comprehension may build values without bound", "move it outside")
    unclear = misread_map(tokens, DEVICE_FIELDS)
    if unclear is not None:
        hint = "write `device.fields.NAME`: a field that is unknown makes the condition Unknown"
        raise _at(
            text, unclear, "whether `device.fields` has a field must not decide: an unknown field is not in it", hint
        )


def _check_call(text: str, tokens: list[re.Match[str]], at: int, *, within: bool) -> None:
    token = tokens[at]
    name = token.group()
    if name in _BUILDING:
        raise _at(text, token, f"`{name}` may build values without bound", "use `exists` or `all`")
    if name in COMPREHENSIONS and within:
        raise _at(text, token, f"`{name}` within a comprehension costs without bound", "write two conditions")
    if name == "matches":
        _check_pattern(text, tokens, at)


def _check_pattern(text: str, tokens: list[re.Match[str]], at: int) -> None:
    """Check the pattern of `x.matches('literal')` or `matches(x, 'literal')`: the last token in the brackets."""
    end = closing(tokens, at + 1)
    if end == len(tokens):
        return  # unbalanced: the compiler reports it
    literal, before = tokens[end - 1], tokens[end - 2]
    if literal.lastgroup != "string" or before.group() not in ("(", ","):
        raise _at(text, tokens[at], "the pattern of `matches` is not a literal", "write it in quotes")
    try:
        result = _ENV.compile(f"''.matches({literal.group()})").eval(_ENV.Activation({}))
    except RuntimeError as error:
        raise _compile_error(error) from None
    if result.type() != _BOOL:
        raise _at(text, literal, f"{result.value()}".partition(": ")[2] or "not a pattern", "see RE2's syntax")
    size = pattern_size(literal_value(literal.group()))
    if size > MAX_PATTERN:
        message = f"the pattern has {size} steps with its repetitions written out, more than {MAX_PATTERN}"
        raise _at(text, literal, message, "shorten its repetitions, or compare `size(…)`")


def _at(text: str, token: re.Match[str], message: str, hint: str) -> ConditionError:
    before = text[: token.start()]
    return ConditionError(message, hint, before.count("\n") + 1, token.start() - (before.rfind("\n") + 1) + 1)
