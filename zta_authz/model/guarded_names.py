"""Headers that only zta-authz may set: they are removed from each request, so that no client can forge them.

CGI, WSGI, Rack and PHP give an application `HTTP_X_ZTA_PRINCIPAL` for `X-Zta-Principal`, `x_zta_principal` and
`x.zta.principal` alike, so names are compared as such applications read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.model.changed_headers import PRINCIPAL_HEADER, folded_name, has_odd_names, removable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.model.request import Headers

DECISION_ID_HEADER: Final = "x-zta-decision-id"
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
        text, watched = headers.listing(), self._watched
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
