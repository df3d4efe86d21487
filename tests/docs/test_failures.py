"""docs/failures.md names tests for each failure, and they exist."""

from __future__ import annotations

import re

from tests.docs.fences import ROOT, named_tests


def test_every_failure_names_a_test_and_every_named_test_exists() -> None:
    text = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
    events = re.findall(r"^- \*\*.*(?:\n  .*)*", text, re.MULTILINE)
    assert len(events) >= 15
    for event in events:
        named = named_tests(event)
        assert named, event
        for file, name in named:
            assert re.search(rf"def {name}\(", (ROOT / file).read_text(encoding="utf-8")), (file, name)
