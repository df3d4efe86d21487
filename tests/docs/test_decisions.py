"""The decision records: each has a number, a date, a status and its parts, and the list of them says the same."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "decisions"
RECORDS = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
SUPERSEDED = r"Superseded by \[(?P<number>\d{4})\]\((?P<file>[\w.-]+)\)(?: for [\w ,]+)?"
STATUS = re.compile(rf"Accepted|Proposed|(?:Accepted\. )?{SUPERSEDED}")
STATUS_LINE = re.compile(r"\*\*Date\.\*\* (?P<date>\d{4}-\d\d-\d\d)\. \*\*Status\.\*\* (?P<status>.+)\.")
PARTS = ["**Context.**", "**Choice.**", "**Cost.**"]


def faults_of(name: str, text: str) -> list[str]:
    """Return the faults in the form of a record."""
    faults = []
    number = name[:4]
    lines = text.split("\n")
    if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name):
        faults.append("the file's name is not a number and a slug")
    if not lines[0].startswith(f"# {number}: "):
        faults.append("the title does not begin with the number")
    stated = STATUS_LINE.fullmatch(lines[2]) if len(lines) > 2 else None
    if stated is None:
        faults.append("the third line does not state date and status")
    else:
        try:
            datetime.date.fromisoformat(stated["date"])
        except ValueError:
            faults.append("there is no such date")
        status = STATUS.fullmatch(stated["status"])
        if status is None:
            faults.append("the status is none of Accepted, Proposed, Superseded by")
        elif status["file"] and (
            not status["file"].startswith(status["number"]) or not (FOLDER / status["file"]).exists()
        ):
            faults.append("no such later record")
        elif status["number"] and status["number"] <= number:
            faults.append("a record is superseded by a later one")
    places = [text.find(f"\n{part}") for part in PARTS]
    if -1 in places or places != sorted(places):
        faults.append("context, choice and cost do not follow each other")
    return faults


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_each_record_has_the_form(path: Path) -> None:
    assert faults_of(path.name, path.read_text(encoding="utf-8")) == []


def test_the_numbers_have_no_gap_and_no_double() -> None:
    assert [path.name[:4] for path in RECORDS] == [f"{number:04}" for number in range(1, len(RECORDS) + 1)]


def test_the_list_has_each_record_with_its_title_date_and_status() -> None:
    rows = []
    for path in RECORDS:
        title, _, stated = path.read_text(encoding="utf-8").split("\n")[:3]
        match = STATUS_LINE.fullmatch(stated)
        assert match, path.name
        rows.append(f"| [{path.name[:4]}]({path.name}) | {title[8:]} | {match['date']} | {match['status']} |")
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[.+\|$", text, flags=re.MULTILINE) == rows


GOOD = "# 0003: T\n\n**Date.** 2026-11-21. **Status.** Accepted.\n\n**Context.** a\n\n**Choice.** b\n\n**Cost.** c\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# 0003", "# 0004"),
        ("2026-11-21", "2026-13-21"),
        ("**Date.** 2026-11-21. ", ""),
        ("Accepted", "Done"),
        ("Accepted", "Superseded by a later one"),
        ("Accepted", "Superseded by [0099](0099-nothing.md)"),
        ("Accepted", "Superseded by [0001](0001-own-ext-authz-definitions.md)"),
        ("\n**Cost.** c", ""),
        ("**Context.**", "**Background.**"),
    ],
)
def test_a_record_without_the_form_is_found(old: str, new: str) -> None:
    assert faults_of("0003-t.md", GOOD) == []
    assert faults_of("0003-t.md", GOOD.replace(old, new)) != []
