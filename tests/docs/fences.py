"""The fenced blocks of the documents and their kinds."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("docs", "envoy", "k8s", "bench")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)

PICTURES = {"text"}
"""Blocks that no program reads: pictures and output."""
FOREIGN = {"rego"}
"""Blocks of other products, quoted beside their counterpart."""
SHELL = {"", "sh", "console"}
OUR_GROUPS = ("security.istio.io/", "zta.dev/")


@dataclass(frozen=True, slots=True)
class Fence:
    """A block: `info` is what follows the backticks, `text` is without the block's own indentation."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        """The first word of `info`, "" if there is none."""
        return (self.info.split() or [""])[0]

    @property
    def marks(self) -> dict[str, str]:
        """The other words: `run` as {"run": ""}, `file=a.yaml` as {"file": "a.yaml"}."""
        return {name: value for name, _, value in (word.partition("=") for word in self.info.split()[1:])}

    @property
    def documents(self) -> list[Any]:
        """Parse the YAML documents of the block."""
        return [document for document in yaml.safe_load_all(self.text) if document is not None]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def pages() -> tuple[Path, ...]:
    """Return the Markdown pages at the top, and in docs/, envoy/, k8s/ and bench/."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return (*top, *sorted(page for folder in _FOLDERS for page in (ROOT / folder).rglob("*.md")))


def fences_of(page: Path) -> list[Fence]:
    """Return the blocks of one page in order. Raises AssertionError for an unterminated block."""
    text = page.read_text(encoding="utf-8")
    fences = [
        Fence(page, text.count("\n", 0, match.start()) + 1, match["info"].strip(), textwrap.dedent(match["text"]))
        for match in _FENCE.finditer(text)
    ]
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(fences), f"{page}: a block does not end"
    return fences


@cache
def fences() -> tuple[Fence, ...]:
    """Return the blocks of all pages."""
    return tuple(fence for page in pages() for fence in fences_of(page))


def kind_of(fence: Fence) -> str:
    """What checks it: `picture`, `foreign`, `commands`, `json`, `tests`, `policies`, `manifests`, `request`, `mesh` or
    `settings`. Raises ValueError for a block that nothing checks.
    """
    if fence.language in PICTURES:
        return "picture"
    if fence.language in FOREIGN:
        return "foreign"
    if fence.language in SHELL:
        return "commands"
    if fence.language == "json":
        return "json"
    if fence.language == "yaml":
        kinds = {_kind_of_document(document) for document in fence.documents}
        if len(kinds) == 1:
            return kinds.pop()
        raise ValueError(f"{fence}: holds {sorted(kinds) or 'nothing'}; put each kind into a block of its own")
    raise ValueError(f"{fence}: nothing checks `{fence.info}`; pictures and output are `text`")


def _kind_of_document(document: Any) -> str:
    if not isinstance(document, dict):
        raise ValueError(f"a YAML document that is no mapping: {document!r}")
    api = str(document.get("apiVersion", ""))
    if document.get("kind") == "PolicyTest":
        return "tests"
    if document.get("kind") == "List":
        kinds = {_kind_of_document(item) for item in document["items"]}
        return kinds.pop() if len(kinds) == 1 else "manifests"
    if document.get("kind") in _ISTIO_FOR_ISTIO and _is_for_istio(document):
        return "manifests"
    if api.startswith(OUR_GROUPS):
        return "policies" if document.get("kind") != "PeerAuthentication" else "manifests"
    if api:
        return "manifests"
    if "meshConfig" in document:
        return "mesh"
    return "request" if document.keys() & {"method", "path", "principal", "claims"} else "settings"


_ISTIO_FOR_ISTIO = {"AuthorizationPolicy"}


def _is_for_istio(document: dict[str, Any]) -> bool:
    """A policy that configures Istio's ext_authz provider; zta-authz does not read it."""
    return document.get("spec", {}).get("action") == "CUSTOM"


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them, with numbers for repeated ones."""
    without_blocks = _FENCE.sub("", text)
    seen: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#+ (.+)$", without_blocks, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w -]", "", shown).lower().replace(" ", "-")
        number = seen[anchor] = seen.get(anchor, -1) + 1
        found.add(f"{anchor}-{number}" if number else anchor)
    return found


def named_tests(text: str) -> list[tuple[str, str]]:
    """Return the tests that a text names, as (file, function)."""
    return re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`", text)
