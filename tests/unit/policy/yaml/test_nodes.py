"""YAML nodes: what is refused, and with which position."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from zta_authz.policy.yaml import nodes
from zta_authz.policy.yaml.nodes import Scalar, iter_documents, locate, to_plain

if TYPE_CHECKING:
    from zta_authz.errors import Fault


def read(text: str) -> tuple[list[Any], list[str]]:
    faults: list[Fault] = []
    nodes = list(iter_documents("f.yaml", text, faults))
    return [to_plain(node) for node in nodes], [str(fault) for fault in faults]


def faults(text: str) -> list[str]:
    return read(text)[1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: [1, 0x1f, 0b11, 017, 0o17, -2_000, +3]}", {"a": [1, 31, 3, 15, 15, -2000, 3]}),
        ("[1.5, .5, 1e3, -.inf, 1_0.0]", [1.5, 0.5, 1000.0, -math.inf, 10.0]),
        ("[~, null, Null, NULL, ]", [None, None, None, None]),
        ("[yes, No, on, OFF, y, N, true, FALSE]", [True, False, True, False, True, False, True, False]),
        ("['yes', \"1\"]", ["yes", "1"]),
        ("[2020-01-02, 1.2.3, -x, yesterday, nullable]", ["2020-01-02", "1.2.3", "-x", "yesterday", "nullable"]),
        ("[08, 12:30]", [8.0, "12:30"]),
        ("|\n  text\n  more\n", "text\nmore\n"),
        ("[&x {a: b}, *x]", [{"a": "b"}, {"a": "b"}]),
        ("!", ""),
    ],
)
def test_values_have_their_yaml_1_1_types(text: str, value: Any) -> None:
    assert read(text) == ([value], [])


def test_not_a_number_is_a_number() -> None:
    assert math.isnan(read("[.nan]")[0][0][0])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NO", "boolean"),
        ("5", "integer"),
        ("1.0", "number"),
        ("1:30", "number"),
        ("2020-01-01", "timestamp"),
        ("2020-01-01T00:00:00Z", "timestamp"),
        ("~", "null"),
        ("nope", "string"),
        ("no way", "string"),
        ("1.2.3", "string"),
        ("/a", "string"),
        ("-", "string"),
    ],
)
def test_a_plain_scalar_has_the_kind_yaml_gives_it_and_a_quoted_one_is_text(text: str, kind: str) -> None:
    assert Scalar(text, True, 1, 1).kind == kind
    assert Scalar(text, False, 1, 1).kind == "string"


def test_empty_documents_are_skipped() -> None:
    assert read("---\n---\na: b\n---\n# only this\n---\n~\n") == ([{"a": "b"}], [])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [b\nc: d\n", "f.yaml:2:2: not valid YAML: did not find expected ',' or ']' while parsing a flow sequence"),
        ("a:\n\t- b\n", "f.yaml:2:1: not valid YAML: found character that cannot start any token while scanning"),
        ('a: "b\n', "f.yaml:2:1: not valid YAML: found unexpected end of stream while scanning a quoted scalar"),
        ('a: "\\ud800"\n', "f.yaml:1:7: not valid YAML: found invalid Unicode character escape code"),
        ("a: b\n---\nc: {\n", "f.yaml:4:1: not valid YAML: did not find expected node content"),
    ],
)
def test_invalid_yaml_is_reported_with_its_position(text: str, fault: str) -> None:
    reported = faults(text)
    assert len(reported) == 1
    assert reported[0].startswith(fault)
    assert reported[0].endswith("; check indentation, quotes and brackets here")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: b\x00", "f.yaml:1:5: not valid YAML: character U+0000 is not allowed; save the file as UTF-8 text"),
        ("# éé\né: \x01\n", "f.yaml:2:4: not valid YAML: character U+0001 is not allowed; save the file as UTF-8 text"),
        ("a: 日\ufffe", "f.yaml:1:5: not valid YAML: character U+FFFE is not allowed; save the file as UTF-8 text"),
        ("é\n a\ud800", "f.yaml:2:3: not valid YAML: character U+D800 is not allowed; save the file as UTF-8 text"),
    ],
)
def test_a_forbidden_character_is_reported_with_its_position_in_characters(text: str, fault: str) -> None:
    assert faults(text) == [fault]


def test_documents_before_a_syntax_error_are_still_read() -> None:
    documents, reported = read("a: b\n---\nc: [\n")
    assert documents == [{"a": "b"}]
    assert len(reported) == 1


def test_every_duplicate_key_is_reported_with_the_line_of_the_first() -> None:
    assert faults("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n") == [
        "f.yaml:4:3: duplicate key `c` (first at line 3); remove one of the two",
        "f.yaml:5:1: duplicate key `a` (first at line 1); remove one of the two",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a:\n  <<: {b: c}\n", "f.yaml:2:3: merge keys (`<<`) are not allowed; write the fields out"),
        ("{? [a] : b}\n", "f.yaml:1:4: a key is a list, not a string; write a plain key"),
        ("{? {a: b} : c}\n", "f.yaml:1:4: a key is a mapping, not a string; write a plain key"),
        ("a: !!str b\n", "f.yaml:1:4: tag `tag:yaml.org,2002:str` is not allowed; write the value without a tag"),
        ("a: !x {}\n", "f.yaml:1:4: tag `!x` is not allowed; write the value without a tag"),
        (
            "a: !!binary [b]\n",
            "f.yaml:1:4: tag `tag:yaml.org,2002:binary` is not allowed; write the value without a tag",
        ),
        ("a: *x\n", "f.yaml:1:4: alias `*x` has no anchor before it; define the anchor first"),
        ("a: &x [*x]\n", "f.yaml:1:8: alias `*x` has no anchor before it; define the anchor first"),
    ],
)
def test_yaml_features_that_policies_do_not_allow_are_refused(text: str, fault: str) -> None:
    assert faults(text) == [fault]


def test_a_quoted_merge_key_is_an_ordinary_key() -> None:
    assert read('"<<": a\n') == ([{"<<": "a"}], [])


def test_nesting_is_bounded() -> None:
    assert faults("[" * 65 + "]" * 65) == []
    assert faults("[" * 66 + "]" * 66) == ["f.yaml:1:66: nesting is deeper than 64 levels; flatten the document"]


def test_aliases_are_bounded_by_number() -> None:
    assert faults(f"- &a b\n- [{', '.join(['*a'] * 256)}]\n") == []
    assert faults(f"- &a b\n- [{', '.join(['*a'] * 257)}]\n") == [
        "f.yaml:2:1028: aliases expand to too much (at most 256 a document, 100000 nodes in all); write the values out"
    ]


def test_aliases_are_bounded_by_their_expanded_size() -> None:
    names = "abcdefg"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{n}: &{n} [{', '.join([f'*{m}'] * 10)}]" for m, n in pairwise(names)]
    reported = faults("\n".join(lines) + "\n")
    assert len(reported) == 1
    assert "aliases expand to too much" in reported[0]
    assert int(reported[0].split(":")[1]) <= 6, "the millionth `x` is never walked to"


def test_aliases_are_counted_per_document() -> None:
    document = f"- &a b\n- [{', '.join(['*a'] * 200)}]\n"
    assert faults(f"{document}---\n{document}") == []
    assert faults("- &a b\n---\n- *a\n") == ["f.yaml:3:3: alias `*a` has no anchor before it; define the anchor first"]


def test_a_text_of_33_mib_is_refused_unread() -> None:
    assert faults("x" * (33 * 1024 * 1024)) == [
        "f.yaml:1:1: the file has 33.0 MiB, more than the limit of 32 MiB; split it into several files"
    ]


def test_numbers_that_python_cannot_parse_stay_text() -> None:
    assert to_plain(Scalar("0o", True, 1, 1)) == "0o"
    assert to_plain(Scalar("1_:3", True, 1, 1)) == "1_:3"
    assert to_plain(Scalar("09", True, 1, 1)) == 9.0


def test_locate_goes_as_deep_as_the_path_exists() -> None:
    node = next(iter_documents("f.yaml", "a:\n  - b: c\n", []))
    assert to_plain(locate(node, ["a", 0, "b"])) == "c"
    assert to_plain(locate(node, ["a", 7, "b"])) == [{"b": "c"}]
    assert to_plain(locate(node, ["a", "x"])) == [{"b": "c"}]
    assert to_plain(locate(node, ["a", 0, "b", "deeper"])) == "c"
    assert to_plain(locate(node, ["z"])) == {"a": [{"b": "c"}]}


def test_documents_are_read_one_at_a_time() -> None:
    reported: list[Fault] = []
    documents = iter_documents("f.yaml", "a: b\n---\n[\n", reported)
    next(documents)
    assert reported == []
    assert list(documents) == []
    assert len(reported) == 1


def test_the_pure_python_loader_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_LOADER", nodes.yaml.SafeLoader)
    assert read("a: [b, {c: 1}]\n") == ([{"a": ["b", {"c": 1}]}], [])
    assert faults("# é\na: \x01\n") == [
        "f.yaml:2:4: not valid YAML: character U+0001 is not allowed; save the file as UTF-8 text"
    ]
