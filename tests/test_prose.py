"""Names and phrases that CONTRIBUTING.md forbids do not come back: one scan over the code, one over the prose."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[1]
NAMES: Final = frozenset(
    {"found", "each", "told", "said", "wanted", "tell", "tells", "telling", "mend", "ours", "theirs"}
)
"""Words that no name of a variable, argument, attribute, function or class contains, by underscores."""
ALLOWED_NAMES: Final = {
    "_FOUND": "the HTTP status 302",
    "NOT_FOUND": "the gRPC status and the usual word of lookups",
    "not_found": "the gRPC status and the usual word of lookups",
}
PHRASES: Final = {
    "is none": r"\b(?:(?:[Tt]hat|[Ww]hich|[Ii]t|token|host) is|[Tt]here are) none\b",
    "of ours": r"\bof (?:ours|theirs)\b",
    "mend": r"\b[Mm]end(?:s|ed|ing)?\b",
    "tell": r"\b[Tt]ell(?:s|ing)?\b",
    "told": r"\b[Tt]old\b",
    "hear of": r"\b[Hh]ears? of\b",
    "two readings": r"\b[Tt]wo readings\b",
}
"""Phrases that no text contains, by the words that CONTRIBUTING.md lists. `None` is Python's, `none` is not."""
ALLOWED_LINES: Final = {
    "zta_authz/cli/compliance/report.py": ('"mend"',),  # a field of the JSON report, which is a contract
    "docs/compliance.md": ('"mend"',),
}
"""Parts of lines that are removed before the scan, by file."""
PYTHON: Final = sorted(
    path
    for folder in ("zta_authz", "envoy", "bench")
    for path in (ROOT / folder).rglob("*.py")
    if "_proto" not in path.parts
)
PROSE: Final = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
        *(path for folder in ("docs", "envoy", "bench") for path in (ROOT / folder).rglob("*.md")),
        *(path for folder in ("docs", "envoy") for path in (ROOT / folder).rglob("*.yaml")),
    ]
)


def names_of(source: str) -> Iterator[str]:
    """Every name that `source` gives to something."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name
            case _:
                pass


def forbidden_names(source: str) -> set[str]:
    words = {name: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_") for name in names_of(source)}
    return {name for name, parts in words.items() if name not in ALLOWED_NAMES and NAMES & set(parts)}


def forbidden_phrases(text: str) -> set[str]:
    """The phrases in `text`, also across the end of a line. Code in backticks is not prose."""
    prose = re.sub(r"`[^`\n]*`", "``", text)
    prose = re.sub(r"\s+(?:#\s+)?", " ", prose)
    return {phrase for phrase, pattern in PHRASES.items() if re.search(pattern, prose)}


def prose_of(source: str) -> str:
    """The comments and strings of a module, where its prose is."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return "\n".join(token.string for token in tokens if token.type in kinds)


def read(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    for part in ALLOWED_LINES.get(path.relative_to(ROOT).as_posix(), ()):
        assert part in text, f"{path}: {part} is allowed but does not exist"
        text = text.replace(part, '""')
    return text


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_has_a_forbidden_name_or_phrase(path: Path) -> None:
    assert forbidden_names(path.read_text(encoding="utf-8")) == set()
    assert forbidden_phrases(prose_of(read(path))) == set()


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_document_has_a_forbidden_phrase(path: Path) -> None:
    assert forbidden_phrases(read(path)) == set()


@pytest.mark.parametrize(
    "source",
    ["found = 1", "def tell(): ...", "def f(each): ...", "class WhatIsTold: ...", "x.said = 1", "for wanted in y: ..."],
)
def test_a_forbidden_name_is_noticed(source: str) -> None:
    assert forbidden_names(source)


def test_an_allowed_name_passes() -> None:
    assert forbidden_names("NOT_FOUND = 5; teller = 1; founded = 2") == set()


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("a token that is none", "is none"),
        ("# a stand-in of\n# ours", "of ours"),
        ("how to mend it", "mend"),
        ("which tells whether", "tell"),
        ("it is told at once", "told"),
        ("telemetry hears of it", "hear of"),
        ("Two readings of a policy", "two readings"),
    ],
)
def test_a_forbidden_phrase_is_noticed(text: str, phrase: str) -> None:
    assert phrase in forbidden_phrases(text)
    assert phrase in forbidden_phrases(prose_of(f'x = """{text}"""'))


def test_the_page_for_contributors_lists_each_word() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {word for word in NAMES | set(PHRASES) if f"`{word}`" not in page} == set()
