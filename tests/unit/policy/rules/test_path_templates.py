"""Paths: Istio's string forms, and templates as Envoy's `uri_template` matches them."""

from __future__ import annotations

import re

import pytest

from tests.support.policies import ISTIO, STRICT, matches, operation, request
from zta_authz.policy.rules.path_templates import Template, TemplateTrie, parse_template, path_matcher

_TEMPLATES = [
    (
        "/{*}",
        ["/a", "/*", "/..", "/%2F", "/;v=1", "/a=b"],
        ["/", "/a/", "/a/b", "", "/a b", "/[", '/"', "/|", "/^", "/é"],
    ),
    ("/a/{*}", ["/a/b"], ["/a/", "/a", "/a/b/", "/A/b"]),
    ("/a/{*}/c", ["/a/b/c"], ["/a//c", "/a/b/c/", "/a/b/x/c"]),
    ("/{*}/{*}", ["/a/b"], ["/a", "/a/b/c"]),
    ("/a/{**}", ["/a/", "/a/b", "/a/b/c/", "/a//", "/a/*"], ["/a", "/ab", "/a/b c", "/a/[", ""]),
    ("/{**}", ["/", "/a/b", "//"], ["", "a", "/{"]),
    ("/{**}/b", ["//b", "/a/b", "/a/c/b", "/b/b"], ["/b", "/a/b/", "/a/bb"]),
    ("/{**}/b/c", ["/a/b/c", "//b/c"], ["/b/c", "/a/c"]),
    ("/a/{**}/", ["/a//", "/a/b/"], ["/a/", "/a/b"]),
    ("/a/{*}/{**}/d.x", ["/a/b//d.x", "/a/b/c/d.x"], ["/a/b/d.x", "/a/b/c/dxx"]),
    ("/foo/{**}/", [], ["/foo/bar/baz.txt"]),
]


@pytest.mark.parametrize(("template", "met", "missed"), _TEMPLATES)
def test_templates_match_as_envoy_does(template: str, met: list[str], missed: list[str]) -> None:
    for path, expected in [*((path, True) for path in met), *((path, False) for path in missed)]:
        assert path_matcher(template).matches(path) is expected, path
        for options in (STRICT, ISTIO):
            assert matches(operation(paths=[template]), request(path=path), options=options) is expected, path
            assert matches(operation(notPaths=[template]), request(path=path), options=options) is not expected, path


@pytest.mark.parametrize(
    ("value", "met", "missed"),
    [
        ("/a", ["/a", "/a?b", "/a#b", "/a?#", "/a#?"], ["/a/", "/A", "/a;b", "/a%3Fb"]),
        ("/a/*", ["/a/", "/a/b?c"], ["/a", "/b/a/"]),
        ("*.html", ["/x.html", ".html?q=.php"], ["/x.php?.html", "/x.html/"]),
        ("*", ["/", "x"], ["", "?a", "#"]),
        ("/a/*/b", ["/a/*/b"], ["/a/x/b"]),
        ("/{a}", ["/{a}"], ["/a"]),
    ],
)
def test_other_paths_are_compared_without_query_and_fragment(value: str, met: list[str], missed: list[str]) -> None:
    for path, expected in [*((path, True) for path in met), *((path, False) for path in missed)]:
        assert matches(operation(paths=[value]), request(path=path)) is expected, path


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{*}", "a path template starts with `/`"),
        ("/{*}a", "`{*}a`: `{*}` and `{**}` stand for a whole path segment"),
        ("/{*}{*}", "`{*}{*}`: `{*}` and `{**}` stand for a whole path segment"),
        ("/{x}/{*}", "`{x}`: `{*}` and `{**}` stand for a whole path segment"),
        ("/{**}/{*}", "`{**}` is the last operator of a path template"),
        ("/{**}/{**}", "`{**}` is the last operator of a path template"),
        ("/a*/{*}", "`a*` has characters that a path template can't contain"),
        ("/{*}/é", "`é` has characters that a path template can't contain"),
    ],
)
def test_an_invalid_template_is_reported_with_the_reason(value: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_template(value)


def test_a_template_is_displayed_as_written() -> None:
    template = parse_template("/a/{*}/{**}/b")
    assert template == Template("/a/{*}/{**}/b", ("", "a", None), "/b")
    assert template.key is not None
    assert template.key.form == "template"


def test_the_trie_finds_every_matching_template_and_few_others() -> None:
    texts = [template for template, _, _ in _TEMPLATES]
    trie: TemplateTrie[str] = TemplateTrie()
    for text in texts:
        trie.add(text, text)
    paths = {path for _, met, missed in _TEMPLATES for path in (*met, *missed)}
    for path in paths:
        texts_found = list(trie.find(path))
        assert {text for text in texts if parse_template(text).matches(path)} <= set(texts_found), path
    assert set(trie.find("/x/y")) <= {"/{*}/{*}", "/{**}", "/{**}/b"}
    assert not set(trie.find("z")) - {"/{**}"}
