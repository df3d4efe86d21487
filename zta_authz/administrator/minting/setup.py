"""Builds the administrator's part of minting, as the settings say: its keys, the token exchange, and their events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zta_authz.administrator.minting.key_events import KeyEvents
from zta_authz.administrator.minting.token_exchange import LABELS, TokenExchange
from zta_authz.administrator.operator_authorization import OperatorAuthorization
from zta_authz.administrator.policies import OperatorPolicies
from zta_authz.service.minting import Minting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from zta_authz.administrator.store.port import Committed, Store
    from zta_authz.authn.revocation import DynamicRevocations
    from zta_authz.ports import AuditSink
    from zta_authz.settings import Settings


class AdministratorMinting:
    """The keys, and the policies by which tokens are exchanged. Does nothing if the settings name no issuer."""

    def __init__(self, settings: Settings, revocations: DynamicRevocations) -> None:
        """Load keys and policies. Raises `FaultsError`."""
        self._keys = Minting(settings, time.time)
        self._policies: OperatorPolicies | None = None
        if self._keys.minter is not None and settings.administrator.operations.http:
            self._policies = OperatorPolicies(settings, revocations, _nothing, LABELS)

    def published(self) -> bytes | None:
        """The public keys as a JWKS document; None if nothing is minted."""
        return self._keys.published()

    async def start(self) -> None:
        """Keep keys and policies up to date."""
        self._keys.start()
        if self._policies is not None:
            await self._policies.start()

    def exchange(
        self,
        audit: AuditSink,
        store: Store,
        settle: Callable[[Committed], Awaitable[None]],
        log_failure: Callable[[], str],
    ) -> TokenExchange | None:
        """The token endpoint; None if nothing is minted or HTTP is off."""
        if self._keys.minter is None or self._policies is None:
            return None
        authorization = OperatorAuthorization(self._policies.snapshots, audit, time.time)
        return TokenExchange(authorization, self._keys.minter, store, settle, log_failure)

    def key_events(self, store: Store) -> KeyEvents | None:
        """What records changes of the keys; None if nothing is minted."""
        minter = self._keys.minter
        return None if minter is None else KeyEvents(store, lambda: minter.ring, minter.issuer, time.time)

    def reload(self) -> None:
        """Read keys and policies again soon."""
        self._keys.ask()
        if self._policies is not None:
            self._policies.reload()

    async def close(self) -> None:
        """Stop looking for changes."""
        await self._keys.close()
        if self._policies is not None:
            await self._policies.close()


def _nothing() -> None:
    pass
