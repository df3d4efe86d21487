"""Claims as header values, compared with those that a real Envoy 1.40 wrote."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from zta_authz.model.claims import claim_at, claim_text, is_header_value
from zta_authz.model.identity import Token

TEXTS: list[tuple[Any, str]] = [
    ("alice", "alice"),
    ("", ""),
    (" a ", " a "),
    ("\ta\tb", "\ta\tb"),
    ("Zo\u00eb", "Zo\u00eb"),
    ("\U0001f600", "\U0001f600"),
    ("a\u00a0,%20", "a\u00a0,%20"),
    ("x" * 30_000, "x" * 30_000),
    (True, "true"),
    (False, "false"),
    (None, ""),
    (0, "0"),
    (-0.0, "0"),
    (7, "7"),
    (7.0, "7"),
    (-7, "-7.000000"),
    (7.5, "7.500000"),
    (0.0000001, "0.000000"),
    (123456789.123456789, "123456789.123457"),
    (2**53 + 1, "9007199254740992"),
    (18446744073709549568, "18446744073709549568"),
    (2**64 - 1, "18446744073709551616.000000"),
    (1e20, "100000000000000000000.000000"),
    (-1e30, "-1000000000000000019884624838656.000000"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS, ids=lambda value: repr(value)[:24])
def test_a_claim_is_written_into_a_header_as_envoy_writes_it(value: Any, text: str) -> None:
    assert claim_text(value) == text


JSONS: list[tuple[Any, str]] = [
    ([], "[]"),
    ({}, "{}"),
    (["a", "b"], '["a","b"]'),
    (["a b", 7, True, None, 1.5, {"z": 1, "a": [2]}], '["a b",7,true,null,1.5,{"a":[2],"z":1}]'),
    (["<a>&'/\"\\"], r'["\u003ca\u003e&' + "'/" + r'\"\\"]'),
    (["\x01\t\n\b\f\r\x7f\x80\u2029"], r'["\u0001\t\n\b\f\r\u007f\u0080\u2029"]'),
    (["\u00ad\u0600\u0603\u0604\u06dd\u070f\u17b4\u17b5"], r'["\u00ad\u0600\u0603' + "\u0604" + r'\u06dd\u070f\u17b4\u17b5"]'),
    (["\u200b\u200f\u2010\u2028\u202e\u202f"], r'["\u200b\u200f' + "\u2010" + r"\u2028\u202e" + "\u202f" + '"]'),
    (["\u2060\u2064\u2065\u206a\u206f\u2070"], r'["\u2060\u2064' + "\u2065" + r"\u206a\u206f" + "\u2070" + '"]'),
    (["\ufeff\ufff9\ufffb\ufffc\u00a0\u009f"], r'["\ufeff\ufff9\ufffb' + "\ufffc\u00a0" + r'\u009f"]'),
    (["\U0001d173\U000e0001\U000e007f\U0001f600"], r'["\ud834\udd73\udb40\udc01\udb40\udc7f' + "\U0001f600" + '"]'),
    ([1e20, 1e21, 123456789012345678, -0.0, 0.1, 1e-7], "[1e+20,1e+21,1.2345678901234568e+17,-0,0.1,1e-07]"),
    ([5e-324, 1.7976931348623157e308], "[4.94065645841247e-324,1.7976931348623157e+308]"),
    ([100000, 1e15, 1e16, -5, 2**53 + 1], "[100000,1e+15,1e+16,-5,9007199254740992]"),
    ([0.30000000000000004, 1.10, 3.14159265358979], "[0.30000000000000004,1.1,3.14159265358979]"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "json"), JSONS, ids=[json[:24].encode().hex() for _, json in JSONS])
def test_a_list_or_object_is_base64_of_the_json_that_envoy_writes(value: Any, json: str) -> None:
    assert base64.b64decode(claim_text(value), validate=True).decode() == json


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\x00b", "a\x7f", "\x85", "\ud800"])
def test_a_text_with_a_control_character_is_compared_and_never_sent(value: str) -> None:
    assert claim_text(value) == value
    assert not is_header_value(value)
    assert Token("i", "s", {"x": value}).header_text(("x",)) == ""


def test_a_claim_path_follows_nested_objects_only() -> None:
    claims = {"a": {"b": "c"}, "a.b": "dotted", "list": [{"b": 1}]}
    assert claim_at(claims, ("a", "b")) == "c"
    assert claim_at(claims, ("a.b",)) == "dotted"
    assert claim_at(claims, ("a", "b", "c")) is None
    assert claim_at(claims, ("list", "b")) is None
    assert claim_at(claims, ("none", "b")) is None


def test_a_token_converts_a_claim_once() -> None:
    token = Token("i", "s", {"groups": ["a"]})
    first = token.header_text(("groups",))
    assert first == base64.b64encode(b'["a"]').decode()
    assert token.header_text(("groups",)) is first
