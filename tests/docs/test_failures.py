"""docs/failures.md names tests: they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_document_names_exists_and_every_row_names_one() -> None:
    rows = [line for line in (ROOT / "docs" / "failures.md").read_text().splitlines() if line.startswith("| ")][2:]
    rows = [row for row in rows if "::" in row or row.count("|") == 4]
    assert len(rows) >= 15
    for row in rows:
        named = re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`", row)
        assert named, row
        for file, name in named:
            assert re.search(rf"def {name}\(", (ROOT / file).read_text()), (file, name)
