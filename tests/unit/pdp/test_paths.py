"""Paths that two parties may read differently never match an ALLOW, whatever the rules are."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from tests.support.policies import ISTIO, STRICT, operation, policy, request, snapshot
from zta_authz.errors import Reason
from zta_authz.model.request import NO_EVIDENCE
from zta_authz.pdp.decide import evaluate
from zta_authz.pdp.paths import MAX_PATH_CHARACTERS, path_ambiguity

_AMBIGUOUS = {
    "": "the path is empty",
    "admin": "it does not start with `/`",
    "*": "it does not start with `/`",
    "http://example.com/admin": "it does not start with `/`",
    "%2fadmin": "it does not start with `/`",
    "//admin": "the path has an empty segment",
    "/public//admin": "the path has an empty segment",
    "//": "the path has an empty segment",
    "/./admin": "the path has a dot segment",
    "/public/../admin": "the path has a dot segment",
    "/..": "the path has a dot segment",
    "/public/.": "the path has a dot segment",
    "/public/..;/admin": "the path has a dot segment",
    "/public/.;x/admin": "the path has a dot segment",
    "/public/%2e%2e/admin": "the path has an encoded character that needs no encoding",
    "/public/.%2E/admin": "the path has an encoded character that needs no encoding",
    "/%61dmin": "the path has an encoded character that needs no encoding",
    "/a%2Db": "the path has an encoded character that needs no encoding",
    "/a%5fb": "the path has an encoded character that needs no encoding",
    "/a%7Eb": "the path has an encoded character that needs no encoding",
    "/a%30": "the path has an encoded character that needs no encoding",
    "/public%2fadmin": "the path has an encoded `/`",
    "/public%2Fadmin": "the path has an encoded `/`",
    "/public\\admin": "the path has a backslash",
    "/public%5cadmin": "the path has a backslash",
    "/public%5Cadmin": "the path has a backslash",
    "/admin;v=1": "the path has path parameters (`;`)",
    "/admin%3bv=1": "the path has path parameters (`;`)",
    "/admin%3B": "the path has path parameters (`;`)",
    "/admin#x": "the path has `#`, or an encoded `#` or `?`",
    "/admin%23x": "the path has `#`, or an encoded `#` or `?`",
    "/admin%3fx": "the path has `#`, or an encoded `#` or `?`",
    "/admin%3Fx": "the path has `#`, or an encoded `#` or `?`",
    "/%252fadmin": "the path has an encoded `%`, which may hide another encoding",
    "/%25": "the path has an encoded `%`, which may hide another encoding",
    "/100%": "the path has `%` without two hex digits",
    "/%zz": "the path has `%` without two hex digits",
    "/%2": "the path has `%` without two hex digits",
    "/%u002f": "the path has `%` without two hex digits",
    "/admin%00": "the path has a control character or blank",
    "/admin\x00": "the path has a control character or blank",
    "/admin%0d%0a": "the path has a control character or blank",
    "/admin\n": "the path has a control character or blank",
    "/admin\t": "the path has a control character or blank",
    "/admin ": "the path has a control character or blank",
    "/admin%7f": "the path has a control character or blank",
    "/admin\x7f": "the path has a control character or blank",
    "/%c0%afadmin": "the path has an overlong UTF-8 encoding",
    "/%C1%9C": "the path has an overlong UTF-8 encoding",
    "/%e0%80%af": "the path has an overlong UTF-8 encoding",
    "/%f0%80%80%af": "the path has an overlong UTF-8 encoding",
    "/caf\u00e9": "the path has a character outside ASCII",
    "/\uff0fadmin": "the path has a character outside ASCII",
    "/\udcffadmin": "the path has a character outside ASCII",
}

_PLAIN = [
    "/",
    "/a",
    "/a/",
    "/A/b",
    "/a.b/c.html",
    "/.well-known/jwks.json",
    "/...",
    "/a/..b/.c",
    "/a~b/-_!$&'()*+,:@=",
    "/caf%C3%A9",
    "/a%20b",
    "/a%26b%3Dc",
    "/a%7Cb",
    "/" + "a" * 100_000,
]


@pytest.mark.parametrize(("path", "what"), _AMBIGUOUS.items(), ids=[ascii(path) for path in _AMBIGUOUS])
def test_an_ambiguous_path_is_described(path: str, what: str) -> None:
    assert path_ambiguity(path, "GET") == what


@pytest.mark.parametrize("path", _PLAIN, ids=[path[:30] for path in _PLAIN])
def test_a_plain_path_is_not_ambiguous(path: str) -> None:
    assert path_ambiguity(path, "GET") == ""


def test_only_connect_has_no_path() -> None:
    assert path_ambiguity("", "CONNECT") == ""
    assert path_ambiguity("/..", "CONNECT") != ""


def test_a_very_long_path_costs_time_in_proportion_to_its_length() -> None:
    for hostile in ("/a" * 200_000 + " ", "/" + "." * 400_000 + ";", "/%41" * 100_000, "/a." * 130_000 + "\\"):
        assert path_ambiguity(hostile, "GET") != ""


def test_thousands_of_plain_escapes_are_checked_in_one_pass() -> None:
    """Separate passes for each kind of suspicious text took 50 ms."""
    begun = time.process_time()
    for _ in range(10):
        assert path_ambiguity("/" + "%20" * 19_300, "GET") == ""
    assert (time.process_time() - begun) / 10 < 0.02


@pytest.mark.parametrize("byte", range(256))
def test_an_escape_is_plain_only_if_both_readings_preserve_it(byte: int) -> None:
    plain = set(b" !\"$&'()*+,:<=>@[]^`{|}") | (set(range(0x80, 0x100)) - {0xC0, 0xC1})
    for text in (f"/a%{byte:02X}b", f"/a%{byte:02x}b"):
        assert (path_ambiguity(text, "GET") == "") is (byte in plain), text


def test_a_path_of_8192_characters_is_decided_and_a_longer_one_is_refused_in_strict_only() -> None:
    strict, istio = (snapshot(json.dumps(_ALL), options=options) for options in (STRICT, ISTIO))
    longest = "/" + "a" * (MAX_PATH_CHARACTERS - 1)
    assert evaluate(strict, request(path=longest), NO_EVIDENCE, 0.0).allowed
    assert evaluate(strict, request(path=f"{longest}?{'q' * 50_000}"), NO_EVIDENCE, 0.0).allowed
    refused = evaluate(strict, request(path=f"{longest}a?q"), NO_EVIDENCE, 0.0)
    assert (refused.allowed, refused.reason) == (False, Reason.PATH_TOO_LONG)
    assert refused.detail == "8193 characters, more than 8192"
    assert evaluate(istio, request(path=f"{longest}a"), NO_EVIDENCE, 0.0).allowed


def test_the_length_limit_applies_if_ambiguous_paths_are_accepted() -> None:
    lax = snapshot(json.dumps(_ALL), options=replace(STRICT, accept_ambiguous_paths=True))
    assert evaluate(lax, request(path="/a//b"), NO_EVIDENCE, 0.0).allowed
    assert evaluate(lax, request(path="/" + "%20" * 19_300), NO_EVIDENCE, 0.0).reason is Reason.PATH_TOO_LONG


_ALL = policy("all", operation(paths=["*"]), operation(notPaths=["/x"]), operation(paths=["/{**}"]), {})


@pytest.mark.parametrize("path", _AMBIGUOUS, ids=[ascii(path) for path in _AMBIGUOUS])
def test_no_ambiguous_path_reaches_an_allow(path: str) -> None:
    strict, istio = (snapshot(json.dumps(_ALL), options=options) for options in (STRICT, ISTIO))
    for asked in (request(path=path), request(path=f"{path}?x=/public")):
        refused = evaluate(strict, asked, NO_EVIDENCE, 0.0)
        assert (refused.allowed, refused.reason) == (False, Reason.PATH_AMBIGUOUS)
        assert refused.detail == _AMBIGUOUS[path]
        assert refused.policy == ""
        assert evaluate(istio, asked, NO_EVIDENCE, 0.0).reason is Reason.ALLOW_POLICY


@pytest.mark.parametrize("path", ["/", "/a/b?c=//../%2f;#", "/ADMIN", "/a/" + "b" * 5_000])
def test_a_path_that_is_plain_before_its_query_reaches_the_rules(path: str) -> None:
    assert evaluate(snapshot(json.dumps(_ALL)), request(path=path), NO_EVIDENCE, 0.0).allowed


def test_upper_case_is_another_path() -> None:
    only = snapshot(json.dumps(policy("p", operation(paths=["/admin"]))))
    assert evaluate(only, request(path="/admin"), NO_EVIDENCE, 0.0).allowed
    assert evaluate(only, request(path="/ADMIN"), NO_EVIDENCE, 0.0).reason is Reason.NO_MATCHING_POLICY
