"""A pattern matches the whole of a text, in time that the text can't make long."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, strategies as st

from zta_authz.policy.cel.pattern import MAX_CHARACTERS, matches_whole, pattern_fault


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (r"INC-\d+", "INC-4711", True),
        (r"INC-\d+", "see INC-4711", False),
        (r"INC-\d+", "INC-4711!", False),
        (r"INC-\d+", "INC-4711\n", False),
        (r"INC-\d+", "INC-\u0661", False),
        (r"(INC|CHG)-[0-9]{4}", "CHG-0001", True),
        (r"^INC$", "INC", True),
        ("a|b", "ab", False),
        ("a|b", "b", True),
        ("(?m)^a$", "a\nb", False),
        ("(?i)inc", "INC", True),
        (".*", "Straße 東", True),
        (".*", "a\0b", False),
        ("a", "a\0b", False),
        (".*", "\ud800", False),
        ("", "", True),
    ],
)
def test_the_whole_text_has_to_match(pattern: str, text: str, matches: bool) -> None:
    assert pattern_fault(pattern) == ""
    assert matches_whole(pattern, text) is matches


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("(", "missing )"),
        ("a)|(b", "unexpected )"),
        (r"\Qab", "missing )"),
        ("(?=a)", "invalid perl operator"),
        (r"(a)\1", "invalid escape sequence"),
        ("x{1001}", "invalid repetition size"),
        ("(a{30}){30}", "repeats too much"),
        ("a" * (MAX_CHARACTERS + 1), "more than 200 characters"),
        ("\ud800", "not printable"),
        ("a\0", "not printable"),
    ],
)
def test_other_patterns_are_refused(pattern: str, fault: str) -> None:
    assert fault in pattern_fault(pattern)


@given(st.text("ab()|*?+", max_size=10), st.text("ab", max_size=5))
def test_the_same_texts_match_as_with_another_engine(pattern: str, text: str) -> None:
    if re.search(r"[*+?]\+", pattern):  # possessive, which only the other engine knows
        return
    try:
        expected = re.fullmatch(pattern, text) is not None
    except re.error:
        return
    assert pattern_fault(pattern) == ""
    assert matches_whole(pattern, text) is expected


@pytest.mark.parametrize("pattern", ["(a+)+", r"\d?" * 60, "(.*)*x", "a?" * 60 + "a" * 60, r"(\w+\s?)*!"])
def test_no_text_is_slow_to_match(pattern: str) -> None:
    assert pattern_fault(pattern) == ""
    started = time.process_time()
    for text in ("a" * 500 + "!", "1" * 500 + "x", "a" * 59 + "b"):
        matches_whole(pattern, text)
    assert time.process_time() - started < 1.0
