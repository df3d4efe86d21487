"""Strict decoders for base64url, JSON and percent-encoding: the usual ones accept too much."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from typing import Any, Final, NoReturn

from zta_authz.model.percent import has_stray_percent, percent_decoded, utf8_bytes

MAX_JSON_DEPTH: Final = 32
"""The maximum nesting of a token's JSON with strict semantics; real tokens have 4 levels."""
ENVOY_JSON_DEPTH: Final = 100
"""The maximum nesting in Envoy, which uses protobuf's JSON parser (measured with Envoy 1.40)."""
_MAX_DOUBLE_BITS: Final = 1023
"""Any integer with at most this many bits is a finite double (IEEE 754)."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_BASE64URL_PADDED = re.compile(r"[A-Za-z0-9_-]*={0,2}")
_TO_STANDARD = str.maketrans("-_", "+/")


def base64url_decode(text: str, *, canonical: bool = True) -> bytes:
    """Decode base64url (RFC 7515 section 2: no padding, no line breaks). Raises ValueError.

    `canonical` also refuses padding and non-zero trailing bits, so that each value has only one encoding: a token that
    differs in any character is another token.
    """
    if not (_BASE64URL if canonical else _BASE64URL_PADDED).fullmatch(text):
        raise ValueError("not base64url")
    bare = text.rstrip("=")
    if len(bare) % 4 == 1 or (bare != text and len(text) % 4):
        raise ValueError("not base64url: a character is missing")
    data = binascii.a2b_base64(bare.translate(_TO_STANDARD) + "=" * (-len(bare) % 4))
    if canonical and base64url_encode(data) != text:
        raise ValueError("not base64url: trailing bits are set")
    return data


def base64url_encode(data: bytes) -> str:
    """Encode `data` as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def json_object(data: bytes, *, max_depth: int = MAX_JSON_DEPTH) -> dict[str, Any]:
    """Parse the JSON object in `data` (UTF-8, RFC 8259). Raises ValueError.

    Besides syntax errors, this refuses values that are not an object, duplicate names in an object (also if escaped
    differently), NaN and infinities, numbers too large for a double (integers too), lone surrogates, and more than
    `max_depth` levels of nesting. Envoy refuses all of these too.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_unique_names,
        )
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("JSON is not an object")
    _check_values(value, max_depth)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"`{name}` is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a JSON number is too large")
    return number


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a JSON object has a name twice")
    return value


def _check_values(value: Any, levels: int) -> None:
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate has no encoding: UnicodeEncodeError is a ValueError
        return
    if not isinstance(value, (dict, list)):
        if isinstance(value, int) and value.bit_length() > _MAX_DOUBLE_BITS:
            _check_finite(value)
        return
    if not levels:
        raise ValueError("JSON is nested too deeply")
    if isinstance(value, dict):
        for name in value:
            name.encode("utf-8")
    for item in value.values() if isinstance(value, dict) else value:
        _check_values(item, levels - 1)


def _check_finite(value: int) -> None:
    try:
        float(value)
    except OverflowError:
        raise ValueError("a JSON number is too large") from None


def percent_decode_strict(data: bytes) -> bytes:
    """Replace each `%XX` by its byte; `+` stays. Raises ValueError for a `%` without two hex digits."""
    if has_stray_percent(data):
        raise ValueError("`%` without two hex digits")
    return percent_decoded(data)


def percent_decode(text: str) -> str:
    """Decode a query component as Envoy does: `%XX` is a byte; `+` and a stray `%` stay."""
    return percent_decoded(utf8_bytes(text)).decode("utf-8", "surrogateescape") if "%" in text else text
