"""Read optional fields to plain values: each function returns the value or its default, and reports faults."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

from zta_authz.policy.yaml.header_names import read_changed_header
from zta_authz.policy.yaml.nodes import Scalar

if TYPE_CHECKING:
    from enum import StrEnum

    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Mapping, Node

_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)")
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def optional_text(reader: Reader, node: Mapping, field: str) -> str | None:
    """A non-empty string; None if absent."""
    value = node.get(field)
    return None if value is None else reader.string(value, field)


def texts(reader: Reader, node: Mapping, field: str) -> tuple[str, ...]:
    """A non-empty list of strings; () if absent."""
    value = node.get(field)
    return () if value is None else tuple(item.value for item in reader.strings(value, field))


def word(reader: Reader, node: Mapping, field: str, words: type[StrEnum], default: str) -> str:
    """One of the words of an enumeration; `default` if absent."""
    value = node.get(field)
    text = None if value is None else reader.string(value, field)
    if value is None or text is None:
        return default
    known = [str(word) for word in words]
    if text not in known:
        reader.fault(value, f"`{text[:80]}` is not a `{field}`", f"one of {', '.join(known)}")
        return default or known[0]
    return text


def flag(reader: Reader, node: Mapping, field: str) -> bool:
    """`true` or `false`; false if absent."""
    value = node.get(field)
    return False if value is None else bool(reader.boolean(value, field))


def moment(reader: Reader, node: Mapping, field: str, default: float) -> float:
    """An RFC 3339 time with its offset, in seconds since the epoch."""
    value = node.get(field)
    if value is None:
        return default
    time = time_of(value.value if isinstance(value, Scalar) else "")
    if time is None:
        hint = "write it like 2027-01-31T18:00:00Z, with `Z` or an offset"
        reader.fault(value, f"`{field}` is not a time with its offset (RFC 3339)", hint)
        return 0.0
    return time


def time_of(text: str) -> float | None:
    """Seconds since the epoch for an RFC 3339 time with its offset; None for anything else."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None or "T" not in text else time.timestamp()


def header_name(reader: Reader, node: Mapping, field: str) -> str:
    """The name of a header that a policy may set, in lower case; "" if absent."""
    value = node.get(field)
    return "" if value is None else read_changed_header(reader, value, field) or ""


def duration(
    reader: Reader, node: Mapping, field: str, default: float, longest: float = 3600.0, least: float = 0.001
) -> float:
    """A duration as Kubernetes writes it (`5s`, `1m30s`, `250ms`), in seconds: from `least` to `longest`."""
    value = node.get(field)
    text = None if value is None else reader.string(value, field)
    if value is None or text is None:
        return default
    seconds = duration_of(text)
    if seconds is None or not least <= seconds <= longest:
        most = f"{longest / 3600:.0f}h" if longest >= _UNITS["h"] else f"{longest / 60:.0f}m"
        least_text, example = ("1ms", "5s") if least < _UNITS["m"] else (f"{least / 60:.0f}m", "1h30m")
        message = f"`{field}` is `{text[:80]}`, not a duration from {least_text} to {most}"
        reader.fault(value, message, f"write it like `{example}`")
        return default
    return seconds


def whole_seconds(reader: Reader, node: Mapping, field: str, default: int, longest: float = 3600.0) -> int:
    """A duration of whole seconds, from 1 second to `longest`."""
    seconds = duration(reader, node, field, default, longest)
    value = node.get(field)
    if value is not None and (seconds < 1 or seconds % 1):
        reader.fault(value, f"`{field}` is not a whole number of seconds", "write it like `5m`")
    return int(seconds)


def duration_of(text: str) -> float | None:
    """The seconds of a duration such as `1m30s`; None for anything else."""
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def integer(node: Node, digits: int = 9) -> int | None:
    """The integer of at most `digits` digits in a plain scalar; None for anything else."""
    if not isinstance(node, Scalar) or not node.plain or not _INTEGER.fullmatch(node.value):
        return None
    return int(node.value) if len(node.value.lstrip("-")) <= digits else None


def whole_number(reader: Reader, node: Mapping, field: str, default: int, least: int, most: int) -> int:
    """A whole number from `least` to `most`."""
    value = node.get(field)
    if value is None:
        return default
    number = integer(value)
    if number is None or not least <= number <= most:
        hint = "write it without quotes" if number is None else f"write a number from {least} to {most}"
        reader.fault(value, f"`{field}` is not a whole number from {least} to {most}", hint)
        return default
    return number


def claim_path(reader: Reader, node: Node) -> tuple[str, ...] | None:
    """A claim's name, or a list of names for a nested claim."""
    if isinstance(node, Scalar):
        name = reader.string(node, "claim")
        return None if name is None else (name,)
    return tuple(item.value for item in reader.strings(node, "claim")) or None


def one_line(reader: Reader, node: Node, name: str, limit: int) -> str | None:
    """A text of at most `limit` printable characters; None, with a fault, for anything else."""
    text = reader.string(node, name)
    if text is not None and (len(text) > limit or not text.isprintable()):
        reader.fault(node, f"`{name}` must be one line of at most {limit} printable characters", "shorten it")
        return None
    return text
