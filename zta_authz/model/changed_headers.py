"""Header changes of an allow: those that Envoy can apply safely, and the guarded names that no client may send.

CGI, WSGI, Rack and PHP give an application `HTTP_X_ZTA_PRINCIPAL` for `X-Zta-Principal`, `x_zta_principal` and
`x.zta.principal` alike, so guarded names are compared as such applications read them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zta_authz.model.claims import is_header_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zta_authz.model.decision import Response
    from zta_authz.model.identity import Changes
    from zta_authz.model.request import Headers

PRINCIPAL_HEADER = "x-zta-principal"
TRUST_HEADERS: Final = ("x-zta-trust-level", "x-zta-trust-score", "x-zta-session-expires")
"""Set on allowed requests of a workload with a trust model; the time is in seconds since the epoch."""

_PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789-:\n"
_FOLDED = re.compile(r"[^a-z0-9]")
_FOLDS = bytes(octet if chr(octet) in "abcdefghijklmnopqrstuvwxyz0123456789" else ord("-") for octet in range(256))
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, token: excludes pseudo-headers
_UNTOUCHABLE = frozenset({"host"})  # rules have already matched it, and Envoy refuses to remove it

_RESERVED_ON_DENIALS = frozenset(
    (
        "content-type", "content-encoding", "content-length", "content-md5", "content-range",  # of our body
        "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",  # hop by hop
        "server",  # Envoy overwrites it
    )
)  # fmt: skip
_GRPC = "grpc-"  # `grpc-status: 0` would report success to a refused caller


def folded_name(name: str) -> str:
    """Fold a header name for comparison: CGI, WSGI and PHP read all characters but letters and digits as one.

    Source: RFC 3875 section 4.1.18 for `-`; servers and languages do the same with `_`, `.` and the rest.
    """
    lower = name.lower()
    if lower.isascii():  # always, from a proxy; fast, because a name may have tens of thousands of characters
        return lower.encode().translate(_FOLDS).decode()
    return _FOLDED.sub("-", lower)


def has_odd_names(listing: str) -> bool:
    """Whether a name in `listing` (lower case, one a line) has characters that `folded_name` may change."""
    return bool(listing.encode("utf-8", "surrogatepass").translate(None, _PLAIN))


def is_reserved_on_denials(name: str) -> bool:
    """Whether a policy may not set the header `name` (lower case) on a denial."""
    return name in _RESERVED_ON_DENIALS or name.startswith(_GRPC)


def sendable(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the headers that may be set, names in lower case, without those that could break or split a message."""
    for name, value in headers:
        lower = name.lower()
        if _NAME.fullmatch(lower) and lower not in _UNTOUCHABLE and is_header_value(value):
            yield lower, value


def removable(names: Iterable[str]) -> dict[str, None]:
    """The names that Envoy can remove, in lower case, in order, without repeats."""
    lower = (name.lower() for name in names)
    return {name: None for name in lower if _NAME.fullmatch(name) and name not in _UNTOUCHABLE}


def set_upstream(changes: Changes, response: Response) -> dict[str, str]:
    """The headers that tokens and the policy set on the request. The policy wins; neither sets the principal header."""
    headers = dict(sendable(changes.set_headers + response.set_headers))
    headers.pop(PRINCIPAL_HEADER, None)
    return headers


def removed_upstream(changes: Changes, response: Response) -> tuple[str, ...]:
    """The headers to remove, and those to be set: if setting one fails, the client's value must not pass."""
    requested = changes.set_headers + response.set_headers
    return (*changes.remove_headers, *response.remove_headers, *(name for name, _ in requested))


DECISION_ID_HEADER: Final = "x-zta-decision-id"
REQUEST_ACCESS_HEADER: Final = "zta-request-access"
OWN_PREFIX: Final = "x-zta-"
_OWN_MARK: Final = "zta"


class GuardedNames:
    """The guarded names of one snapshot; immutable.

    `listed` are removed from each request unless they are set, whether or not the request shows them: the proxy may
    be configured to send only some headers. Of the headers in the request, every spelling that folds to a guarded name
    is removed.
    """

    __slots__ = ("_folded", "_read", "_watched", "listed")

    def __init__(self, outputs: Iterable[str] = (), read: Iterable[str] = ()) -> None:
        """Guard `outputs`, set by tokens and policies, and other spellings of `read`, which carry credentials."""
        lower = {name.lower() for name in outputs}
        self._folded: Final = frozenset(map(folded_name, lower))
        self._read: Final[dict[str, set[str]]] = {}
        for name in read:
            self._read.setdefault(folded_name(name), set()).add(name.lower())
        # Guarded names in plain characters; `has_odd_names` detects all others.
        self._watched: Final = self._folded.union(name for name, as_read in self._read.items() if name not in as_read)
        own = (PRINCIPAL_HEADER, DECISION_ID_HEADER)
        self.listed: Final = tuple(removable(sorted({*own, *lower, *self._folded})))

    def spoofed(self, headers: Headers) -> tuple[str, ...]:
        """The names in `headers` that the upstream could take for a guarded one."""
        text, watched = headers.listing, self._watched
        if not has_odd_names(text) and _OWN_MARK not in text and (not watched or watched.isdisjoint(headers.names())):
            return ()  # the usual case, without a look at each name
        return tuple(name for name in headers.names() if self._is_guarded(name))

    def _is_guarded(self, name: str) -> bool:
        folded = folded_name(name)
        if folded.startswith(OWN_PREFIX) or folded in self._folded:
            return True
        as_read = self._read.get(folded)
        return as_read is not None and name not in as_read


OWN_NAMES: Final = GuardedNames()
"""The names of zta-authz itself, for when no policy or token sets headers."""
