"""Convert a token's claims to header values, for `outputClaimToHeaders` and for headers set by policies.

The conversion is that of Envoy's `jwt_authn` filter (measured with Envoy 1.40); docs/policies.md documents it:

    string                itself; an empty string sets no header
    true, false           `true`, `false`
    number                as a double: a whole number from 0 to below 2**64 as digits, else with six decimals
    list, object          base64 of its JSON, as protobuf writes JSON; an object's members are sorted by name
    null, absent          no header

Envoy writes an object's members in random order. Rules compare a string that contains control characters other than a
tab (`is_header_value`), as in Envoy, but it is never sent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

_SENDABLE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]*")  # RFC 9110 section 5.5, and encodable as UTF-8
_FIRST_TOO_LARGE: Final = 2.0**64
_ESCAPED = re.compile(
    r"[\x00-\x1f\"\\<>\x7f-\x9f\xad\u0600-\u0603\u06dd\u070f\u17b4\u17b5\u200b-\u200f\u2028-\u202e\u2060-\u2064"
    r"\u206a-\u206f\ufeff\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
_SHORT_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\f": "\\f", "\b": "\\b", "\\": "\\\\"}


def is_header_value(text: str) -> bool:
    """Whether `text` can be sent as a header's value: it has no control characters and can be encoded."""
    return _SENDABLE.fullmatch(text) is not None


def claim_at(claims: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The claim at `path`, one name for each nested object; None if absent."""
    value: Any = claims
    for name in path:
        value = value.get(name) if type(value) is dict or isinstance(value, Mapping) else None
    return value


def claim_text(value: Any) -> str:
    """Convert a parsed claim to a header's value, which may not be sendable; "" if it has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return _number(float(value))
    if isinstance(value, (Mapping, list)):
        return base64.b64encode(_json(value).encode("utf-8")).decode("ascii")
    return ""


def other_texts(value: Any) -> tuple[str, ...]:
    """The header values of a claim, or of the items of a list claim, that are not strings."""
    items = value if isinstance(value, list) else (value,)
    return tuple(text for item in items if not isinstance(item, str) and (text := claim_text(item)))


def _number(value: float) -> str:
    if 0 <= value < _FIRST_TOO_LARGE and value.is_integer():
        return str(int(value))
    return f"{value:f}"


def _json(value: Any) -> str:
    """Encode `value` as protobuf encodes a `google.protobuf.Value`, without blanks. The token's JSON limits depth."""
    if isinstance(value, str):
        return f'"{_ESCAPED.sub(_escape, value)}"'
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_json(name)}:{_json(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    number = float(value)
    short = f"{number:.15g}"
    return short if float(short) == number else f"{number:.17g}"


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    short = _SHORT_ESCAPES.get(character)
    if short is not None:
        return short
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
