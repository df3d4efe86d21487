"""Regular expressions that a whole text must match, in RE2's syntax and by its engine.

RE2 takes time in proportion to the text, whatever the pattern is (https://github.com/google/re2/wiki/WhyRE2). Python's
`re` may need exponential time, and the text is written by somebody who may want that.
"""

from __future__ import annotations

from typing import Any, Final

from cel_expr_python import cel

from zta_authz.policy.cel.cost import pattern_size

MAX_CHARACTERS: Final = 200
MAX_SIZE: Final = 512
"""Instructions of a pattern with its repetitions written out: at most 13 ms for a text of 500 characters."""

_ENV: Final = cel.NewEnv(variables={"text": cel.Type.STRING, "pattern": cel.Type.STRING})
_MATCHES: Final = _ENV.compile("text.matches(pattern)")


def pattern_fault(pattern: str) -> str:
    """Why `pattern` is not supported, "" if it is."""
    if len(pattern) > MAX_CHARACTERS or not pattern.isprintable():
        return f"it has more than {MAX_CHARACTERS} characters, or one that is not printable"
    # Also by itself, because `a)|(b` is valid within the brackets of `_whole`.
    for text in (pattern, _whole(pattern)):
        result = _evaluate("", text)
        if result.type() != cel.Type.BOOL:
            return str(result.value()).partition(": ")[2] or "it is not a regular expression"
    return f"it repeats too much: more than {MAX_SIZE} steps" if pattern_size(pattern) > MAX_SIZE else ""


def matches_whole(pattern: str, text: str) -> bool:
    """Whether all of `text` matches `pattern`, which `pattern_fault` has accepted. Only printable texts match.

    The engine would read a text up to a NUL only.
    """
    if not text.isprintable():
        return False
    result = _evaluate(text, _whole(pattern))
    return result.type() == cel.Type.BOOL and result.value() is True


def _whole(pattern: str) -> str:
    return rf"\A(?:{pattern})\z"


def _evaluate(text: str, pattern: str) -> Any:
    return _MATCHES.eval(_ENV.Activation({"text": text, "pattern": pattern}))
