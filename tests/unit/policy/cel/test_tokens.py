"""The outline of a condition: the clauses that `&&`, `||`, `!`, `?:` and brackets join."""

from __future__ import annotations

import pytest

from zta_authz.policy.cel.tokens import Outline, outline


def shown(part: Outline) -> object:
    return part.text if not part.parts else (part.op.value, *(shown(clause) for clause in part.parts))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "a"),
        ("a && b || c", ("||", ("&&", "a", "b"), "c")),
        ("a && (b || c)", ("&&", "a", ("||", "b", "c"))),
        ("((a))", "a"),
        ("!a", ("!", "a")),
        ("!!a", "a"),
        ("!(a && b)", ("!", ("&&", "a", "b"))),
        ("!a == b", "!a == b"),
        ("!a in b", "!a in b"),
        ("!a.exists(x, x == 1)", ("!", "a.exists(x, x == 1)")),
        ("(a).b", "(a).b"),
        ("(a) == (b)", "(a) == (b)"),
        ("a ? b : c", ("?:", "a", "b", "c")),
        ("a || b ? c && d : e ? f : g", ("?:", ("||", "a", "b"), ("&&", "c", "d"), ("?:", "e", "f", "g"))),
        ("a ? {'x': 1} == b : c", ("?:", "a", "{'x': 1} == b", "c")),
        ("x == '&& || (' && b", ("&&", "x == '&& || ('", "b")),
        ("a // && c\n && b", ("&&", "a", "b")),
        ("x.exists(y, y == 1 || y == 2) && b", ("&&", "x.exists(y, y == 1 || y == 2)", "b")),
        ('r"\\" && a', ("&&", 'r"\\"', "a")),
    ],
)
def test_an_outline_shows_how_clauses_are_joined(text: str, expected: object) -> None:
    assert shown(outline(text)) == expected


def test_clauses_are_returned_in_order() -> None:
    assert [clause.text for clause in outline("a && (!b || c) ? d : e").clauses()] == ["a", "b", "c", "d", "e"]
