"""Headers as they can be sent: what an allow changes on the request in fact, whatever policies and tokens ask for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zta_authz.model.claims import is_header_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zta_authz.model.decision import Response
    from zta_authz.model.identity import Changes

PRINCIPAL_HEADER = "x-zta-principal"

_PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789-:\n"
_FOLDED = re.compile(r"[^a-z0-9]")
_FOLDS = bytes(octet if chr(octet) in "abcdefghijklmnopqrstuvwxyz0123456789" else ord("-") for octet in range(256))
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, token: no pseudo header is one
_UNTOUCHABLE = frozenset({"host"})  # rules have matched it; Envoy refuses to remove it

_OURS_ON_DENIALS = frozenset(
    (
        "content-type", "content-encoding", "content-length", "content-md5", "content-range",  # the body is ours
        "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",  # the proxy's
        "server",  # which Envoy writes over
    )
)  # fmt: skip
_GRPC = "grpc-"  # `grpc-status: 0` would tell a caller that was refused that its call went well


def folded_name(name: str) -> str:
    """The form in which header names are compared: CGI, WSGI and PHP upstreams read all but letters and digits as one.

    Source: RFC 3875 section 4.1.18 for `-`; servers and languages do the same with `_`, `.` and the rest.
    """
    lower = name.lower()
    if lower.isascii():  # all that a proxy sends; a name may have tens of thousands of characters
        return lower.encode().translate(_FOLDS).decode()
    return _FOLDED.sub("-", lower)


def has_odd_names(listing: str) -> bool:
    """Whether a name in `listing`, a line each in lower case, has characters that `folded_name` may change."""
    return bool(listing.encode("utf-8", "surrogatepass").translate(None, _PLAIN))


def is_ours_on_denials(name: str) -> bool:
    """Whether a denial's header `name`, in lower case, is not a policy's to set: it says what the body is."""
    return name in _OURS_ON_DENIALS or name.startswith(_GRPC)


def sendable(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Headers that may be set, names in lower case; what could break or split a message is left out."""
    for name, value in headers:
        lower = name.lower()
        if _NAME.fullmatch(lower) and lower not in _UNTOUCHABLE and is_header_value(value):
            yield lower, value


def removable(names: Iterable[str]) -> dict[str, None]:
    """Names in lower case that Envoy lets us remove, once each, in order."""
    lower = (name.lower() for name in names)
    return {name: None for name in lower if _NAME.fullmatch(name) and name not in _UNTOUCHABLE}


def set_upstream(changes: Changes, response: Response) -> dict[str, str]:
    """What tokens and the policy set on the request, the policy's word last; who calls is nobody's to set."""
    found = dict(sendable(changes.set_headers + response.set_headers))
    found.pop(PRINCIPAL_HEADER, None)
    return found


def removed_upstream(changes: Changes, response: Response) -> tuple[str, ...]:
    """Names that token and policy have removed, and those that could not be set: the client's must not pass in."""
    asked = changes.set_headers + response.set_headers
    return (*changes.remove_headers, *response.remove_headers, *(name for name, _ in asked))
