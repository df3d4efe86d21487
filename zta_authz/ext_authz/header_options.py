"""Headers in the two kinds of CheckResponse."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz._proto.ext_authz_pb2 import DeniedHttpResponse, OkHttpResponse


def set_headers(where: OkHttpResponse | DeniedHttpResponse, headers: Iterable[tuple[str, str]]) -> None:
    """Add headers that replace those of the same name."""
    for name, value in headers:
        option = where.headers.add()
        option.header.key = name
        option.header.value = value
        option.append.value = False
        option.append.SetInParent()
