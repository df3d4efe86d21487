"""Texts to Envoy's string and metadata matchers, as Istio's `authz/matcher` writes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Json = dict[str, Any]


def quote(text: str) -> str:
    """`text` as a regular expression that matches just it (Go's `regexp.QuoteMeta`)."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


def regex(pattern: str) -> Json:
    return {"safe_regex": {"regex": pattern}}


def string(value: str) -> Json:
    """Istio's generic string match."""
    if value == "*":
        return regex(".+")
    if value.startswith("*"):
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": value[:-1]}
    return {"exact": value}


def metadata(filter_name: str, path: Sequence[str], value: Json) -> Json:
    return {"metadata": {"filter": filter_name, "path": [{"key": key} for key in path], "value": value}}
