"""Every cache is listed in `docs/architecture.md` with its saving and its end, and none belongs to a module."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "zta_authz"
SECTION = (ROOT / "docs" / "architecture.md").read_text().partition("## Caches\n")[2].partition("\n## ")[0]
LISTED = re.split(r"^- ", SECTION.partition("\n\nBesides")[0], flags=re.MULTILINE)[1:]
_MEMOS = frozenset(("cache", "lru_cache"))
_OFF_THE_PATH = ("cli", "settings", "admin", "administrator")
"""Packages that no check enters."""


def trees() -> dict[str, ast.Module]:
    files = (path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in _OFF_THE_PATH)
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in files}


TREES = trees()


def is_cache(node: ast.AST) -> bool:
    """Whether `node` makes a cache: a call of `BoundedCache`, or a class that is one."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "BoundedCache"
    bases = node.bases if isinstance(node, ast.ClassDef) else []
    return any(isinstance(base, ast.Subscript) and ast.unparse(base.value) == "BoundedCache" for base in bases)


def memos(tree: ast.Module) -> list[str]:
    """Imports of `functools.lru_cache` and `functools.cache`, which keep a cache of the module."""
    nodes = list(ast.walk(tree))
    imported = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "functools"]
    used = [node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "functools"]
    names = [alias.name for node in imported for alias in node.names] + [node.attr for node in used]
    return [name for name in names if name in _MEMOS]


def of_the_module(tree: ast.Module) -> list[str]:
    """Caches that are made when the module is imported."""
    made = [node for node in tree.body if not isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return [ast.unparse(node) for each in made for node in ast.walk(each) if is_cache(node)]


def test_each_cache_is_listed_and_each_that_is_listed_exists() -> None:
    made = Counter(file for file, tree in TREES.items() for node in ast.walk(tree) if is_cache(node))
    named = Counter(
        file
        for item in LISTED
        for file, names in [re.findall(r"\(`([\w/.]+)`, (`.*?)\):", item, re.DOTALL)[0]]
        for _ in re.findall(r"`[\w.]+`", names)
    )
    assert named == made, "list it with what it saves on a whole call and what ends it, or do without"


def test_each_cache_that_is_listed_says_what_it_saves_and_what_ends_it() -> None:
    assert len(LISTED) >= 8
    for item in LISTED:
        assert re.search(r"\d", item.partition("):")[2]), item
        assert re.search(r"\bends?\b", item, re.IGNORECASE), item


@pytest.mark.parametrize("file", TREES)
def test_no_module_on_the_path_of_a_check_has_a_cache_of_its_own(file: str) -> None:
    assert memos(TREES[file]) == []
    assert of_the_module(TREES[file]) == []


@pytest.mark.parametrize(
    "source",
    [
        "from functools import lru_cache",
        "from functools import cache as once, partial",
        "import functools\n@functools.cache\ndef f(): ...",
        "def f():\n    import functools\n    return functools.lru_cache(g)",
        "_known: BoundedCache[str, int] = BoundedCache(8)",
    ],
)
def test_a_cache_of_a_module_is_noticed(source: str) -> None:
    tree = ast.parse(source)
    assert memos(tree) or of_the_module(tree)
