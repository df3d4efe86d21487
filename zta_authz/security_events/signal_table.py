"""The signals in force as a decision point holds them: changed by the follower, read by decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.model.documents import Revoked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.model.signals import Signal, SignalKind, SourceState

_Key = tuple["SignalKind", Revoked, str, str]
_Scope = tuple["SignalKind", Revoked, str]


class SignalTable:
    """Signals by subject, and the sources that report them. It is changed in place, in the thread that decides.

    Without a word of the administrator for more than `max_age` seconds everything is stale. Results that were derived
    from the table while nothing was stale count as long as `version` is the same, until the next of the `stale_times`.
    """

    __slots__ = ("_by_id", "_heard_at", "_max_age", "_scopes", "_signals", "_sources", "sources_version", "version")

    def __init__(self, max_age: float) -> None:
        self.version = 0
        self.sources_version = 0
        self._max_age = max_age
        self._heard_at = float("-inf")
        self._signals: dict[_Key, tuple[Signal, ...]] = {}
        self._by_id: dict[str, _Key] = {}
        self._sources: dict[str, SourceState] = {}
        self._scopes: dict[_Scope, tuple[str, ...]] = {}

    def __len__(self) -> int:
        """How many items the table has: signals and sources."""
        return len(self._by_id) + len(self._sources)

    def confirm(self, now: float) -> None:
        """Note that the table was complete at `now`, in seconds since the epoch."""
        if now < self._heard_at:  # the clock was set back
            self._change_sources()
        self._heard_at = now

    def put(self, signal: Signal) -> None:
        """Add a signal, or replace the one of its ID."""
        self.remove(signal.id)
        key = (signal.kind, signal.what, signal.issuer, signal.subject)
        self._signals[key] = (*self._signals.get(key, ()), signal)
        self._by_id[signal.id] = key

    def remove(self, signal_id: str) -> None:
        """Remove a signal, if it exists."""
        self.version += 1
        key = self._by_id.pop(signal_id, None)
        if key is None:
            return
        left = tuple(signal for signal in self._signals[key] if signal.id != signal_id)
        if left:
            self._signals[key] = left
        else:
            del self._signals[key]

    def put_source(self, source: SourceState) -> None:
        """Add a source, or replace the one of its name. A source that was only heard again changes no kept result."""
        before = self._sources.get(source.name)
        self._sources[source.name] = source
        same = before is not None and source._replace(heard_at=before.heard_at) == before
        if before is None or not same or source.heard_at < before.heard_at:
            self._change_sources()
        if not same:
            self._index_sources()

    def remove_source(self, name: str) -> None:
        """Remove a source, if it exists. Its signals no longer count."""
        if self._sources.pop(name, None) is not None:
            self._change_sources()
            self._index_sources()

    def replace(self, other: SignalTable) -> None:
        """Use the signals and sources of `other`, which must not be used afterwards."""
        self._signals, self._by_id = other._signals, other._by_id
        self._sources, self._scopes = other._sources, other._scopes
        self._change_sources()

    def sources(self, kind: SignalKind, what: Revoked, name: str) -> tuple[SourceState, ...]:
        """See `SignalView`."""
        names = self._scopes.get((kind, what, name))
        return () if names is None else tuple([self._sources[name] for name in names])

    def find(self, kind: SignalKind, what: Revoked, issuer: str, subject: str) -> tuple[Signal, ...]:
        """See `SignalView`."""
        return self._signals.get((kind, what, issuer, subject), ())

    def is_stale(self, source: SourceState, now: float) -> bool:
        """See `SignalView`. A clock that was set back counts as well."""
        return self._is_silent(now) or not -source.max_silence <= now - source.heard_at <= source.max_silence

    def stale_times(self, source: SourceState, now: float) -> tuple[float, ...]:
        """See `SignalView`."""
        if self.is_stale(source, now):
            return (now,)
        heard, silence = source.heard_at, source.max_silence
        return heard - silence, heard + silence, self._heard_at - self._max_age, self._heard_at + self._max_age

    def _change_sources(self) -> None:
        self.version += 1
        self.sources_version += 1

    def _is_silent(self, now: float) -> bool:
        return not -self._max_age <= now - self._heard_at <= self._max_age

    def _index_sources(self) -> None:
        scopes: dict[_Scope, list[str]] = {}
        for source in self._sources.values():
            for scope in _scopes_of(source):
                scopes.setdefault(scope, []).append(source.name)
        self._scopes = {scope: tuple(names) for scope, names in scopes.items()}


def _scopes_of(source: SourceState) -> Iterator[_Scope]:
    for kind in source.kinds:
        for issuer in source.issuers:
            yield kind, Revoked.ISSUER, issuer
        if source.inventory:
            yield kind, Revoked.DEVICE, source.inventory
        if source.spiffe_ids:
            yield kind, Revoked.SPIFFE_ID, ""
