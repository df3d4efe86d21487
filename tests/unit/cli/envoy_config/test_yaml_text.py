from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from zta_authz.cli.envoy_config.yaml_text import Annotations, comment, render, scalar

PLAIN = Annotations({}, {})
PERCENTAGES = st.integers(0, 1_000_000).map(lambda number: number / 10_000)
SCALARS = st.one_of(st.booleans(), st.integers(), PERCENTAGES, st.text())
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.dictionaries(st.text(), inner, max_size=4) | st.lists(SCALARS, max_size=3), max_leaves=12
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), VALUES | st.lists(st.dictionaries(st.text(), VALUES, min_size=1), max_size=3)))
def test_any_values_are_read_back_as_they_were(mapping: dict[str, Any]) -> None:
    assert yaml.safe_load(render(mapping, "x", PLAIN) or "{}") == mapping


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (3, "3"),
        (100.0, "100.0"),
        ("0.200s", "0.200s"),
        ("STATIC", "STATIC"),
        ("/run/a.sock", "/run/a.sock"),
        ("true", '"true"'),
        ("No", '"No"'),
        ("null", '"null"'),
        ("0x1f", '"0x1f"'),
        ("1e3", '"1e3"'),
        ("12", '"12"'),
        ("127.0.0.1", '"127.0.0.1"'),
        ("::1", '"::1"'),
        ("", '""'),
        ("a: b", '"a: b"'),
        ("a #b", '"a #b"'),
        ("{a}", '"{a}"'),
        ("*", '"*"'),
        ("@type", '"@type"'),
        ('say "x"\\', '"say \\"x\\"\\\\"'),
        ("a\nb: c", '"a\\U0000000ab: c"'),
        ("größe", '"größe"'),
    ],
)
def test_text_is_quoted_wherever_it_could_be_read_as_something_else(value: object, text: str) -> None:
    assert scalar(value) == text
    assert yaml.safe_load(text) == value


def test_a_comment_stands_above_what_it_explains_and_above_the_dash_of_an_item() -> None:
    notes = {"x.a": "why a", "Cluster[one]": "why one", "Cluster[two].name": "why its name"}
    mapping = {"b": 1, "a": 2, "clusters": [{"name": "one"}, {"type": "T", "name": "two"}]}
    assert render(mapping, "x", Annotations(notes, {"x": ("a",)})).splitlines() == [
        "# why a",
        "a: 2",
        "b: 1",
        "clusters:",
        "  # why one",
        "  - name: one",
        "  # why its name",
        "  - name: two",
        "    type: T",
    ]


def test_a_mapping_is_on_one_line_unless_that_hides_something() -> None:
    mapping = {"a": {"b": {"c": 1}}, "d": {"e": 1}, "f": {"g": [{"h": 1}]}, "i": {"@type": "x/y.Z", "j": 1}}
    assert render(mapping, "x", Annotations({"x.d.e": "why"}, {})).splitlines() == [
        "a: {b: {c: 1}}",
        "d:",
        "  # why",
        "  e: 1",
        "f:",
        "  g:",
        "    - h: 1",
        "i:",
        '  "@type": x/y.Z',
        "  j: 1",
    ]


def test_comments_are_wrapped_at_words_and_drawings_are_not() -> None:
    lines = comment("word " * 40 + "\n\n  +--drawing--> " + "x" * 120, indent=4)
    assert all(len(line) <= 118 for line in lines[:2])
    assert lines[0].startswith("    # word")
    assert lines[-2] == "    #"
    assert lines[-1] == "    #   +--drawing--> " + "x" * 120
