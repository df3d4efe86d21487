"""The states of signing keys, as a function of time: next, current, retiring, retired.

A key is published before it signs, because applications cache key sets. It stays published after it has signed, until
its last token has expired everywhere. Replicas with the same keys and roughly equal clocks agree without messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from zta_authz.model.minting import MAX_LIFETIME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.minting.signer import SigningKey

OVERLAP: Final = MAX_LIFETIME + 60.0
"""How long a key is published after it has signed (seconds): the longest life, and a minute for clocks."""
PUBLISH_AHEAD: Final = 600.0
"""How long a key should be published before it signs (seconds): Envoy's `jwt_authn` keeps a key set for 10 minutes."""


class KeyState(StrEnum):
    """The state of a signing key."""

    NEXT = "next"  # published, signs later
    CURRENT = "current"  # signs
    RETIRING = "retiring"  # published, signs no more
    RETIRED = "retired"  # not published


@dataclass(frozen=True, slots=True)
class ScheduledKey:
    """A key, and when it may sign: from `sign_from` until before `sign_until` (seconds since the epoch)."""

    key: SigningKey
    sign_from: float = -inf
    sign_until: float = inf

    def may_sign(self, now: float) -> bool:
        """Whether the key may sign at `now`."""
        return self.sign_from <= now < self.sign_until


class KeyRing:
    """All signing keys. The one that signs is, of those that may, the one that began last."""

    __slots__ = ("_current", "_ends", "_since", "_until", "keys")

    def __init__(self, keys: Iterable[ScheduledKey] = ()) -> None:
        """Hold `keys`, no two of which begin at the same time."""
        self.keys: Final = tuple(sorted(keys, key=lambda key: key.sign_from))
        self._ends: Final = tuple(_signs_until(key, self.keys[number + 1 :]) for number, key in enumerate(self.keys))
        self._current: SigningKey | None = None
        self._since, self._until = inf, -inf

    def current(self, now: float) -> SigningKey | None:
        """The key that signs at `now`, None if there is none."""
        if not self._since <= now < self._until:
            times = [time for key in self.keys for time in (key.sign_from, key.sign_until)]
            self._since = max((time for time in times if time <= now), default=-inf)
            self._until = min((time for time in times if time > now), default=inf)
            signing = [key.key for key in self.keys if key.may_sign(now)]
            self._current = signing[-1] if signing else None
        return self._current

    def states(self, now: float) -> dict[str, KeyState]:
        """The state of each key at `now`, by its ID."""
        current = self.current(now)
        states: dict[str, KeyState] = {}
        for key, end in zip(self.keys, self._ends, strict=True):
            if key.key is current:
                state = KeyState.CURRENT
            elif now < end:
                state = KeyState.NEXT
            else:
                state = KeyState.RETIRING if now < end + OVERLAP else KeyState.RETIRED
            states[key.key.key_id] = state
        return states

    def last_signature(self) -> float:
        """When the last of the keys stops to sign (seconds since the epoch), infinity if one never does."""
        return max((key.sign_until for key in self.keys), default=-inf)

    def published(self, now: float) -> bytes:
        """The public keys to publish at `now`, as a JWKS document (RFC 7517)."""
        states = self.states(now)
        keys = [dict(key.key.jwk) for key in self.keys if states[key.key.key_id] is not KeyState.RETIRED]
        return msgspec.json.encode({"keys": keys})


def _signs_until(key: ScheduledKey, later: tuple[ScheduledKey, ...]) -> float:
    """When `key` signs for the last time, given the keys that begin later."""
    end = key.sign_until
    while (covering := next((other for other in later if other.sign_from < end <= other.sign_until), None)) is not None:
        end = covering.sign_from
    return end
