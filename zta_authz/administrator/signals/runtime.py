"""One source at run time: its document, its keys and its stream, and the reception of its SETs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from zta_authz.administrator.signals.intake import NotNow, StreamFacts
from zta_authz.authn.keys import KeySlot
from zta_authz.model.signal_documents import EventKind
from zta_authz.security_events.set_verifier import SetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.administrator.signals.intake import Intake, Receipt
    from zta_authz.administrator.signals.transmitters import Metadata, Stream
    from zta_authz.model.signal_documents import SignalSource

KEYS_SECONDS: Final = 10.0
"""Time limit for one fetch of keys."""
NEW_KEY_SECONDS: Final = 8.0
"""How long a SET waits for the key that it names."""
_STEP_SECONDS: Final = 0.05


class NoKeys(NotNow):
    """The keys of the source can't be fetched at the moment, so the SET can't be verified."""


class SourceRuntime:
    """What is known of one source now. `slot` is filled in the background.

    `fetched_at` returns when the keys were last fetched with success, on any clock; None if never.

    `verified_at` is when a verification event last came that this administrator had asked for, and `heard_at` when any
    SET last came; both in seconds since the epoch, None if never.
    """

    def __init__(self, source: SignalSource, intake: Intake, clock: Callable[[], float] = time.time) -> None:
        self.source = source
        self.slot = KeySlot(source.issuer, source.jwks_uri, fetched=True, timeout_seconds=KEYS_SECONDS)
        self.metadata: Metadata | None = None
        self.stream: Stream | None = None
        self.heard_at: float | None = None
        self.verified_at: float | None = None
        self.failure = ""
        self.fetched_at: Callable[[], float | None] = _never
        self._intake = intake
        self._clock = clock
        self._states: set[str] = set()

    @property
    def facts(self) -> StreamFacts:
        """The accepted audiences: those of the document, and the stream's own."""
        own = () if self.stream is None else self.stream.audiences
        critical = () if self.metadata is None else self.metadata.critical
        return StreamFacts((*self.source.audiences, *own), critical)

    def expect(self, state: str) -> None:
        """Remember the `state` of a verification that is asked for. Earlier ones stay valid until one comes."""
        if len(self._states) >= 16:
            self._states.clear()
        self._states.add(state)

    async def receive(self, data: bytes) -> Receipt:
        """Take in one SET, and fetch the keys first if it names one that is not known.

        Raises:
            SetError: The SET is not valid.
            NotNow: The SET can't be taken in at the moment; `NoKeys` if the keys can't be fetched.
        """
        try:
            receipt = await self._intake.receive(data, self.source, self.facts, self.slot.current)
        except SetError as error:
            if not error.key_unknown:
                raise
            await self._fetch_keys()
            receipt = await self._intake.receive(data, self.source, self.facts, self.slot.current)
        self.heard_at = self._clock()
        event = receipt.event
        if event is not None and event.kind is EventKind.VERIFICATION and event.values.get("state") in self._states:
            self._states.clear()
            self.verified_at = self.heard_at
        return receipt

    async def _fetch_keys(self) -> None:
        """Ask for the keys again, and wait for them. Raises `NoKeys` if they can't be fetched."""
        keys, fetched_at = self.slot.current, self.fetched_at()
        self.slot.key_unknown()
        for _ in range(int(NEW_KEY_SECONDS / _STEP_SECONDS)):
            if self.slot.current is not keys or self.fetched_at() != fetched_at:
                return
            await asyncio.sleep(_STEP_SECONDS)
        raise NoKeys("a SET names a key that is not known, and the keys can't be fetched")


def _never() -> float | None:
    return None
