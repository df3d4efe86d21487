"""docs/standards.md matches the code: its modules exist and name their standards, and every RFC is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "standards.md"
MODULES = sorted(path for path in (ROOT / "zta_authz").rglob("*.py") if "_proto" not in path.parts)

RFC = re.compile(r"\bRFC[ -]?(\d{3,5})\b")
MODULE = re.compile(r"`(zta_authz/[\w/]+\.py)`")
WORDS = {
    "gRPC over HTTP/2": r"gRPC over HTTP/2|PROTOCOL-HTTP2",
    "OpenID": "OpenID Connect Discovery",
    "Shared Signals": r"SSF|CAEP|RISC",
    "Standard Webhooks": "Standard Webhooks",
    "SPIFFE": "SPIFFE",
    "Envoy's": "Envoy",
    "Istio's": "Istio",
    "CEL": "Common Expression Language",
    "W3C": "W3C Trace Context",
    "OpenTelemetry": "OpenTelemetry|OTLP",
    "NIST": "NIST",
}
"""What an entry that is no RFC begins with -> what its modules must name."""


def entries(text: str) -> list[tuple[str, list[str], list[str]]]:
    """Each paragraph or list item: its first words, the RFCs that it is about, its modules."""
    entries = []
    for block in re.split(r"\n(?=- )|\n\n", text):
        about = re.findall(r"\*\*\[([^\]]+)\]", block)
        if about:
            entries.append(
                (about[0], [number for name in about for number in RFC.findall(name)], MODULE.findall(block))
            )
    return entries


def rfcs_named_by(path: Path) -> set[str]:
    return set(RFC.findall(path.read_text(encoding="utf-8")))


ENTRIES = entries(PAGE.read_text(encoding="utf-8"))
NAMES = [name for name, _, _ in ENTRIES]


def test_the_page_has_entries_of_every_kind() -> None:
    assert len(ENTRIES) > 40
    assert {word for word in WORDS if not any(name.startswith(word) for name in NAMES)} == set()


@pytest.mark.parametrize(("name", "numbers", "modules"), ENTRIES, ids=NAMES)
def test_each_module_of_an_entry_exists_and_names_its_specification(
    name: str, numbers: list[str], modules: list[str]
) -> None:
    assert modules, "an entry without a module"
    assert [module for module in modules if not (ROOT / module).is_file()] == []
    if numbers:
        silent = [module for module in modules if not set(numbers) <= rfcs_named_by(ROOT / module)]
    else:
        (word,) = (pattern for beginning, pattern in WORDS.items() if name.startswith(beginning))
        silent = [module for module in modules if not re.search(word, (ROOT / module).read_text(encoding="utf-8"))]
    assert silent == []


def test_each_rfc_that_a_module_names_is_on_the_page() -> None:
    listed = {number for _, numbers, _ in ENTRIES for number in numbers}
    missing = {f"RFC {number}: {path.relative_to(ROOT)}" for path in MODULES for number in rfcs_named_by(path) - listed}
    assert missing == set()


def test_no_specification_is_listed_twice() -> None:
    listed = [number for _, numbers, _ in ENTRIES for number in numbers]
    assert sorted(set(listed)) == sorted(listed)


def test_each_address_is_that_of_its_rfc() -> None:
    links = re.findall(r"\[RFC (\d+)\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert [number for number, address in links if address != f"https://www.rfc-editor.org/rfc/rfc{number}"] == []
