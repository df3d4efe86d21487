"""Percent-decoding in C gives the same result as decoding one escape after the other."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, strategies as st

from zta_authz.model.percent import has_stray_percent, percent_decoded, utf8_bytes

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_PIECES = st.sampled_from(
    [b"%", b"=", b"%41", b"%3D", b"%3d", b"%25", b"%0a", b"%E9", b"%F", b"\n", b"\r", b" ", b"a", b"_"]
)


@given(st.lists(_PIECES | st.binary(max_size=3)).map(b"".join))
def test_every_escape_becomes_its_byte_and_nothing_else_changes(data: bytes) -> None:
    assert percent_decoded(data) == _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), data)


@given(st.lists(_PIECES).map(b"".join))
def test_a_stray_percent_is_one_without_two_hex_digits(data: bytes) -> None:
    assert has_stray_percent(data) is (b"%" in _ESCAPE.sub(b"", data))


@pytest.mark.parametrize("text", ["", "a", "caf\u00e9", "\udcff"])
def test_surrogate_escapes_become_the_original_bytes(text: str) -> None:
    assert utf8_bytes(text).decode("utf-8", "surrogateescape") == text


def test_text_that_was_never_bytes_can_be_encoded_too() -> None:
    assert utf8_bytes("\ud800") == b"\xed\xa0\x80"


def test_decoding_58_kb_of_escapes_costs_little() -> None:
    begun = time.process_time()
    for _ in range(10):
        assert percent_decoded(b"%20" * 19_300) == b" " * 19_300
    assert (time.process_time() - begun) / 10 < 0.01
