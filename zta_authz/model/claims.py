"""How a token's claim becomes text in a header: one table for `outputClaimToHeaders` and for headers of policies.

It is Envoy's (its `jwt_authn` filter, measured with Envoy 1.40), and docs/policies.md has it:

    text                  itself; none where it is empty
    true, false           `true`, `false`
    number                as a double: whole from 0 to below 2**64 as digits, else with six digits behind a point
    list, object          base64 of its JSON, as protobuf writes JSON; an object's members are sorted by name
    null, absent          none

Envoy writes the members of an object in random order, which JSON gives no meaning. A text with a control character
other than a tab (`is_header_value`) is what rules compare, as in Envoy, and is never sent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

_SENDABLE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]*")  # RFC 9110 section 5.5, what UTF-8 can encode
_FIRST_TOO_LARGE: Final = 2.0**64
_ESCAPED = re.compile(
    r"[\x00-\x1f\"\\<>\x7f-\x9f\xad\u0600-\u0603\u06dd\u070f\u17b4\u17b5\u200b-\u200f\u2028-\u202e\u2060-\u2064"
    r"\u206a-\u206f\ufeff\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
_SHORT_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\f": "\\f", "\b": "\\b", "\\": "\\\\"}


def is_header_value(text: str) -> bool:
    """True where `text` can be sent as a header's value: no control character, encodable."""
    return _SENDABLE.fullmatch(text) is not None


def claim_at(claims: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The claim that the names in `path` lead to, each into a nested object; None where there is none."""
    value: Any = claims
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def claim_text(value: Any) -> str:
    """A claim's value (as JSON is read) as a header's value, sendable or not; "" where it has none."""
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
    """The texts of what is no string: of a claim's value or, where it is a list, of what is in it."""
    items = value if isinstance(value, list) else (value,)
    return tuple(text for item in items if not isinstance(item, str) and (text := claim_text(item)))


def _number(value: float) -> str:
    if 0 <= value < _FIRST_TOO_LARGE and value.is_integer():
        return str(int(value))
    return f"{value:f}"


def _json(value: Any) -> str:
    """`value` as protobuf writes a `google.protobuf.Value`, without blanks; as deep as the token's JSON was."""
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
