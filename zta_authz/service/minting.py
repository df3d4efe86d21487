"""Build what mints tokens for applications, as the settings say, and keep its signing keys current."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.keys.signing_keys import SigningKeyFiles
from zta_authz.minting.minter import Minter

if TYPE_CHECKING:
    from zta_authz.minting.key_states import KeyRing
    from zta_authz.ports import Clock
    from zta_authz.settings import Settings


class Minting:
    """The minter of a decision point, with its keys. Does nothing if the settings name no issuer."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Load the keys. Raises `SettingsErrors` with their faults."""
        self._reload = settings.reload
        self._clock = clock
        self.minter: Minter | None = None
        self._files: SigningKeyFiles | None = None
        if settings.minting.issuer is not None and settings.minting.keys is not None:
            self.minter = Minter(settings.minting.issuer)
            self._files = SigningKeyFiles(settings.minting.keys, self._publish, clock)
            self._files.load()

    def _publish(self, ring: KeyRing) -> None:
        if self.minter is not None:
            self.minter.ring = ring

    def published(self) -> bytes | None:
        """The public keys as a JWKS document; None if nothing is minted."""
        return None if self.minter is None else self.minter.ring.published(self._clock())

    def ends(self) -> dict[str, float]:
        """When the last key stops signing (seconds since the epoch, 0 if none signs now), by issuer."""
        if self.minter is None:
            return {}
        ring = self.minter.ring
        return {self.minter.issuer: 0.0 if ring.current(self._clock()) is None else ring.last_signature()}

    def start(self) -> None:
        """Look for changed keys from now on."""
        if self._files is not None:
            self._files.start(self._reload.poll_seconds if self._reload.enabled else None)

    def ask(self) -> None:
        """Look for changed keys now."""
        if self._files is not None:
            self._files.ask()

    async def close(self) -> None:
        """Stop looking for changed keys."""
        if self._files is not None:
            await self._files.close()
