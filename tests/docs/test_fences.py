"""Every block in README, docs/, envoy/, k8s/ and bench/ is valid: settings load, policies pass, commands exist."""

from __future__ import annotations

import re
import shlex
import shutil
from typing import TYPE_CHECKING

import jsonschema
import pytest

from tests.docs import checks
from tests.docs.commands import WrongCommand, check_line, logical_lines
from tests.docs.fences import ROOT, Fence, anchors, fences, fences_of, kind_of, named_tests, pages
from zta_authz.errors import FaultsError, SettingsErrors

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = [pytest.param(fence, id=str(fence)) for fence in fences()]
YAML = {
    "settings": checks.settings,
    "policies": checks.policies,
    "request": checks.request,
    "manifests": checks.manifests,
    "mesh": checks.mesh,
    "json": checks.written_json,
}
NOT_DECIDED_HERE = {"docs/policy-tests.md": "docs/examples"}
"""The page's tests are the beginning of those that lie there."""


def lay_out(page: Path, folder: Path) -> None:
    """Write the page's blocks that have a name (`file=…`) into `folder`."""
    if (shown := NOT_DECIDED_HERE.get(str(page.relative_to(ROOT)))) is not None:
        shutil.copytree(ROOT / shown, folder, dirs_exist_ok=True)
    for fence in fences_of(page):
        if name := fence.marks.get("file"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(checks.with_certificate(fence.text), encoding="utf-8")


def check(fence: Fence, folder: Path) -> None:
    """Check one block. Raises if it is not valid."""
    kind = kind_of(fence)
    if kind == "commands":
        lines = logical_lines(fence.text)
        assert lines, f"{fence}: no command in it; pictures and output are `text`"
        for line in lines:
            check_line(line)
    elif kind == "tests":
        lay_out(fence.page, folder)
        (folder / "block_test.yaml").write_text(fence.text, encoding="utf-8")
        status, result = checks.run("test", str(folder / "block_test.yaml"))
        assert status == 0, result
    elif kind in YAML:
        YAML[kind](fence.text, folder)


@pytest.mark.parametrize("fence", BLOCKS)
def test_each_block_is_what_it_says(fence: Fence, tmp_path: Path) -> None:
    check(fence, tmp_path)


def test_there_are_blocks_to_check() -> None:
    kinds = [kind_of(fence) for fence in fences()]
    assert len(kinds) >= 50
    assert {"commands", "settings", "policies", "tests", "json", "picture"} <= set(kinds)
    assert ROOT / "docs" / "index.md" in pages()


RUN_HERE = [
    pytest.param(fence, id=str(fence)) for fence in fences() if fence.language == "console" and "run" in fence.marks
]


@pytest.mark.parametrize("fence", RUN_HERE)
def test_a_command_prints_what_is_shown_below_it(fence: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command, *shown = fence.text.splitlines()
    program, *arguments = shlex.split(command.removeprefix("$ "))
    assert program == "zta-authz"
    _, output = checks.run(*arguments)
    missing = [line for line in shown if line.rstrip() not in [printed.rstrip() for printed in output.splitlines()]]
    assert missing == [], output


def test_what_is_quoted_from_elsewhere_has_its_counterpart_on_the_same_page() -> None:
    for fence in fences():
        if kind_of(fence) == "foreign":
            after = [other for other in fences_of(fence.page) if other.line > fence.line]
            assert after, str(fence)
            assert kind_of(after[0]) in {"policies", "tests"}, str(fence)


WRONG = {
    "settings": ("yaml", "lisen: []\n"),
    "policies": (
        "yaml",
        "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: a}\nspec: {ruls: []}\n",
    ),
    "manifests": ("yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {prts: []}\n"),
    "request": ("yaml", "method: GET\npaht: /\n"),
    "mesh": ("yaml", "meshConfig: {extensionProvider: []}\n"),
    "tests": (
        "yaml",
        "apiVersion: zta.dev/v1\nkind: PolicyTest\npolicies: []\ntests:\n- {name: a, request: {}, expect: {verdict: allow}}\n",
    ),
    "json": ("json", '{"decision_id": "none"}'),
    "commands": ("", "zta-authz explain --reqest a.yaml"),
    "nothing": ("toml", "a = 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_block_with_a_mistake_is_noticed(name: str, tmp_path: Path) -> None:
    info, text = WRONG[name]
    with pytest.raises((AssertionError, ValueError, OSError, jsonschema.ValidationError, SettingsErrors, FaultsError)):
        check(Fence(ROOT / "README.md", 1, info, text), tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "zta-authz serv --config a.yaml",
        "zta-authz check PATH… [--strict-warning]",
        "make tset",
        "make run ONE=1",
        "python -m bench --lst",
        "python -m bench.gone",
        "kubectl apply -k k8s/overlays/linkerd",
        "kubectl aply -k k8s/overlays/istio",
        "cp envoy/bootstrap-tcp.yaml .",
        "cat a | make tset",
        "frobnicate",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(WrongCommand):
        check_line(line)


def test_commands_are_separated_from_output_comments_and_continuations() -> None:
    text = "$ make run \\\n    ONCE=1\nmake is what printed this\n$ make test   # all of it\n"
    assert logical_lines(text) == ["make run ONCE=1", "make test   # all of it"]
    assert logical_lines("cat > a <<'EOF'\nnot a command\nEOF\nmake\n") == ["cat > a <<'EOF'", "make"]


def test_every_yaml_that_a_page_tells_to_run_is_where_it_says() -> None:
    for page in pages():
        for path in re.findall(r"`((?:docs|envoy|k8s|bench)/[\w./-]+)`", page.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), (str(page), path)


def test_links_to_headings_lead_to_one() -> None:
    broken = []
    for page in (*pages(), ROOT / "CHANGELOG.md"):
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
            linked = page.parent / target if target else page
            if "://" not in target and linked.is_file() and anchor not in anchors(linked.read_text(encoding="utf-8")):
                broken.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert broken == []


def test_anchors_are_made_as_github_makes_them() -> None:
    text = "# What `x_y` is, [here](a.md)\n## JSON\n```\n# a comment\n```\n## JSON\n"
    assert anchors(text) == {"what-x_y-is-here", "json", "json-1"}


def test_every_test_that_a_page_names_exists() -> None:
    gone, count = [], 0
    for page in pages():
        for file, name in named_tests(page.read_text(encoding="utf-8")):
            count += 1
            path = ROOT / file
            if not path.exists() or not re.search(rf"def {name}\(", path.read_text(encoding="utf-8")):
                gone.append(f"{page.relative_to(ROOT)}: {file}::{name}")
    assert count > 80
    assert gone == []
