"""Header names that the upstream believes us, and no client, to have written: what is taken out of each request.

CGI and its heirs (WSGI, Rack, PHP) give an application `HTTP_X_ZTA_PRINCIPAL` for `X-Zta-Principal`, `x_zta_principal`
and `x.zta.principal` alike, so names are compared as such applications read them.
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
    """The names of one snapshot; immutable.

    `listed` are removed from each request unless they are set, whether or not they were seen: the proxy may be told to
    show us only some headers. What was seen is removed in every spelling that folds to one of them, or to ours.
    """

    __slots__ = ("_folded", "_read", "_watched", "listed")

    def __init__(self, outputs: Iterable[str] = (), read: Iterable[str] = ()) -> None:
        """`outputs` are set by tokens and policies. `read` hold credentials: only their other spellings are removed."""
        lower = {name.lower() for name in outputs}
        self._folded: Final = frozenset(map(folded_name, lower))
        self._read: Final[dict[str, set[str]]] = {}
        for name in read:
            self._read.setdefault(folded_name(name), set()).add(name.lower())
        # Names without an odd character that must be looked at; all others are told by their characters.
        self._watched: Final = self._folded.union(name for name, as_read in self._read.items() if name not in as_read)
        own = (PRINCIPAL_HEADER, DECISION_ID_HEADER)
        self.listed: Final = tuple(removable(sorted({*own, *lower, *self._folded})))

    def spoofed(self, headers: Headers) -> tuple[str, ...]:
        """The names among `headers` that the upstream could take for one of these, or for one of ours."""
        names = headers.names()
        text = headers.listing()
        if not has_odd_names(text) and _OWN_MARK not in text and self._watched.isdisjoint(names):
            return ()  # the usual case, settled without looking at each name
        return tuple(name for name in names if self._is_guarded(name))

    def _is_guarded(self, name: str) -> bool:
        folded = folded_name(name)
        if folded.startswith(OWN_PREFIX) or folded in self._folded:
            return True
        as_read = self._read.get(folded)
        return as_read is not None and name not in as_read


OWN_NAMES: Final = GuardedNames()
"""Our own, where no policy or token sets any."""
