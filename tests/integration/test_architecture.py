"""`docs/architecture.md` follows one request: each call that it names is made in its order, on both servers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.call_trace import ROOT, CallTrace, trace_check

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "architecture.md"
_STEP = re.compile(r"`(zta_authz/[\w/]+\.py)`,? `([\w.<>]+)`")
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
CHECK = "The check"
WAYS = {
    "fast": ("In through the fast server", CHECK, "Out through the fast server"),
    "grpcio": ("In and out through gRPC's own server", CHECK),
}


def sections() -> dict[str, str]:
    """The page's sections by their headings."""
    parts = _HEADING.split(PAGE.read_text())
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def steps(section: str) -> list[tuple[str, str]]:
    """The calls that a section names, in its order."""
    return _STEP.findall(sections()[section])


@pytest.fixture(params=WAYS)
async def walked(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, CallTrace]:
    server: str = request.param
    return server, await trace_check(server, tmp_path)


def test_each_section_names_what_is_called_in_its_order(walked: tuple[str, CallTrace]) -> None:
    server, trace = walked
    for section in WAYS[server]:
        named = steps(section)
        assert len(named) > 2
        assert [step for step in dict.fromkeys(trace.calls) if step in named] == named


def test_the_page_leaves_no_file_out(walked: tuple[str, CallTrace]) -> None:
    server, trace = walked
    assert set(trace.files) == {file for section in WAYS[server] for file, _ in steps(section)}


async def test_the_page_says_through_how_many_files_a_check_on_the_fast_server_goes(tmp_path: Path) -> None:
    """Moves may be fewer: Python 3.12 calls no function for a comprehension."""
    trace = await trace_check("fast", tmp_path)
    said = re.search(r"(\d+) files, with (\d+) moves", PAGE.read_text())
    assert said is not None
    files, moves = map(int, said.groups())
    assert len(trace.files) == files
    assert moves - 3 <= trace.moves <= moves


def test_every_path_that_the_page_names_exists() -> None:
    paths = set(re.findall(r"`((?:zta_authz|docs|tests)/[\w/.-]+\.\w+)`", PAGE.read_text()))
    assert len(paths) > 40
    assert not [path for path in paths if not (ROOT / path).exists()]
