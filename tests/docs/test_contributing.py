"""CONTRIBUTING.md matches paths, targets, limits and layers, and unit tests mirror modules."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.docs.unit_tests import OTHER_NAMES, TESTED_THROUGH
from tests.test_project import MAX_LINES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted(path for path in (ROOT / "zta_authz").rglob("*.py") if "_proto" not in path.parts)
CODE = re.compile(r"`([^`\n]+)`")
MADE = ("dist/", ".venv", ".venv-envoy", ".venv-release")
"""Named paths that are generated."""
EXAMPLES = ("tests/unit/authn/test_keys.py", "policies/a.yaml")


def paths_named() -> set[str]:
    """Whatever stands in backticks and is a path: with a slash, or a file's ending."""
    named = set(CODE.findall(PAGE)) - set(EXAMPLES)
    return {name for name in named if re.fullmatch(r"[\w.-]+(?:/[\w.-]*)+|[\w-]+\.(?:md|py|txt|toml)", name)} - set(
        MADE
    )


def targets_named() -> set[str]:
    commands = [code.split() for code in CODE.findall(PAGE) if code.startswith("make ")]
    return {word for words in commands for word in words[1:] if re.fullmatch(r"[a-z][a-z0-9-]*", word)}


def targets_of_the_makefile() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):[^=\n]*##", MAKEFILE, flags=re.MULTILINE))


def test_each_path_exists() -> None:
    named = paths_named()
    assert len(named) > 15
    inside = [ROOT, ROOT / "zta_authz"]  # modules are named by their path in the package, too
    assert {name for name in named if not any((root / name).exists() for root in inside)} == set()


def test_each_make_target_exists_and_each_is_listed() -> None:
    assert targets_named() - targets_of_the_makefile() == set()
    assert targets_of_the_makefile() - targets_named() == set()


def test_make_help_lists_each_target() -> None:
    shown = re.search(r"sed -n '(s/.*?)' Makefile", MAKEFILE)
    assert shown
    assert "^\\([a-z0-9-]*\\):.*## " in shown[1]


def test_the_limits_are_those_that_are_checked() -> None:
    limits = re.search(r"Modules have at most (\d+) lines, functions at most (\d+) statements", PAGE)
    assert limits
    assert int(limits[1]) == MAX_LINES
    assert int(limits[2]) == PROJECT["tool"]["ruff"]["lint"]["pylint"]["max-statements"]
    assert f"at least {PROJECT['tool']['coverage']['report']['fail_under']} %" in PAGE
    assert PROJECT["tool"]["pytest"]["ini_options"]["timeout"] == 120
    assert PROJECT["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    assert "JOBS ?= 4" in MAKEFILE


def rows_of(drawn: str) -> list[set[str]]:
    return [{cell.strip() for cell in row.split("|")} for row in " ".join(drawn.split()).split("->")]


def test_the_layers_are_those_of_the_import_contracts() -> None:
    drawn = re.search(r"```text\n(__main__ .*?)```", PAGE, flags=re.DOTALL)
    assert drawn
    outer, _, inner = drawn[1].partition("\n\n")
    within = {
        f"zta_authz.{package}": rows
        for package, rows in re.findall(r"^within ([\w.]+): +(.*)$", inner, flags=re.MULTILINE)
    }
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    layers = {
        contract["containers"][0]: rows_of("->".join(contract["layers"]))
        for contract in contracts
        if contract["type"] == "layers"
    }
    assert {package: rows_of(rows) for package, rows in {"zta_authz": outer, **within}.items()} == layers


def test_each_folder_of_tests_is_listed() -> None:
    folders = {
        f"tests/{path.name}/" for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name[0] not in "._"
    }
    assert folders - set(CODE.findall(PAGE)) == set()


def test_only_one_module_makes_answers() -> None:
    makers = [
        path.relative_to(ROOT) for path in MODULES if re.search(r"\bCheckResponse\(", path.read_text(encoding="utf-8"))
    ]
    assert [str(path) for path in makers] == ["zta_authz/ext_authz/response.py"]


def test_each_lint_rule_that_is_switched_off_has_its_reason_beside_it() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    off = re.findall(r'^  "[A-Z]+\d+",(.*)$', text, flags=re.MULTILINE)
    assert len(off) > 10
    assert [line for line in off if not re.fullmatch(r" +# \S.*", line)] == []


def test_nothing_but_the_package_holds_the_version() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "zta_authz.__version__"}


def own_test(module: str) -> str:
    """Where the unit test of `module` stands, both as paths in the repository."""
    path = Path(module)
    return str(Path("tests/unit", *path.parent.parts[1:], f"test_{path.name}"))


def test_each_unit_test_is_called_after_its_module() -> None:
    tests = [path.relative_to(ROOT) for path in (ROOT / "tests" / "unit").rglob("test_*.py")]
    called = set()
    for test in tests:
        folder = Path(*test.parent.parts[2:])
        name = test.name.removeprefix("test_").removesuffix(".py")
        beginnings = (Path("zta_authz") / folder, folder)  # the second one is for `bench/`
        if not any((ROOT / start / f"{name}.py").is_file() or (ROOT / start / name).is_dir() for start in beginnings):
            called.add(str(test))
    assert called == set(OTHER_NAMES)


def test_each_module_has_a_unit_test_or_is_tested_through_another() -> None:
    modules = {str(path.relative_to(ROOT)) for path in MODULES if not path.name.startswith("__")}
    alone = {module for module in modules if not (ROOT / own_test(module)).is_file()}
    assert alone - set(TESTED_THROUGH) == set(), "write a test, or say in unit_tests.py which one goes through it"
    assert set(TESTED_THROUGH) - alone == set(), "these have a test of their own, or are gone"


def test_the_tests_that_go_through_others_exist() -> None:
    assert {test for test in TESTED_THROUGH.values() if not (ROOT / test).is_file()} == set()


CHANGES = PAGE.partition("### Where to make a change")[2].partition("### Layers")[0]
SYMBOL = re.compile(r"`(zta_authz/[\w/]+\.py|tests/[\w/]+\.py)`|`(_?[A-Za-z][\w.]*)`")
PARTS_OF_DOCUMENTS = {"source", "operation", "when", "require", "http2"}
"""Fields of policies and settings, which no module defines."""


def symbols_of_changes() -> list[tuple[str, str]]:
    """The files of the section with the symbols that are named with each, as (symbol, files of its entry)."""
    entries = re.split(r"^- ", CHANGES, flags=re.MULTILINE)[1:]
    return [
        (symbol, " ".join(file for file, _ in SYMBOL.findall(entry) if file))
        for entry in entries
        for _, symbol in SYMBOL.findall(entry)
        if symbol and symbol not in PARTS_OF_DOCUMENTS and not symbol.endswith(".md")
    ]


def names(symbol: str, files: str) -> bool:
    """Whether one of `files`, or a module of a named package, defines the last part of `symbol`."""
    name = re.escape(symbol.rpartition(".")[2])
    defined = re.compile(rf"^\s*(?:(?:async )?def|class) {name}\b|^{name}\s*[:=]", re.MULTILINE)
    return any(defined.search((ROOT / file).read_text(encoding="utf-8")) for file in files.split())


def test_everyday_changes_name_ten_kinds_and_files_that_exist() -> None:
    paths = {name for name in CODE.findall(CHANGES) if "/" in name}
    assert CHANGES.count("\n- **") >= 10
    assert {name for name in paths if not (ROOT / name).exists()} == set()


def test_everyday_changes_name_symbols_that_their_files_define() -> None:
    symbols = [pair for pair in symbols_of_changes() if pair[0] != "register"]
    assert len(symbols) > 15
    assert [symbol for symbol, files in symbols if not names(symbol, files)] == []


def test_each_command_has_the_function_that_the_page_names() -> None:
    assert "with a function `register`" in CHANGES
    assert names("register", "zta_authz/cli/check.py")


def test_a_symbol_that_moved_is_noticed() -> None:
    assert not names("KINDS", "zta_authz/errors.py")
