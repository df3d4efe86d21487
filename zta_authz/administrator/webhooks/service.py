"""Builds webhooks from the settings and runs them. Each receiver has a sender and an HTTP client of its own."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from zta_authz.administrator.access_events import EventKind
from zta_authz.administrator.lease import Lease
from zta_authz.administrator.store.port import StoreError
from zta_authz.administrator.webhooks.sender import Receiver, Sender, read_secrets
from zta_authz.errors import Fault, SettingsErrors
from zta_authz.keys.addresses import AddressRules
from zta_authz.keys.http_client import HttpClient, checked_address, trusted_authorities
from zta_authz.keys.outcomes import FetchFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.administrator.store.port import Store
    from zta_authz.administrator.webhooks.metrics import WebhookMetrics
    from zta_authz.settings.model import JwksSettings
    from zta_authz.settings.webhooks_model import WebhookSettings

SETTING: Final = "administrator.webhooks"
_RETRY_SECONDS: Final = 1.0


class Webhooks:
    """All senders. Belongs to one event loop."""

    def __init__(self, store: Store, senders: Sequence[Sender]) -> None:
        self._store = store
        self._senders = tuple(senders)
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to send."""
        if self._senders:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(sender.run(self._wait), name="webhook") for sender in self._senders]
            self._tasks.append(loop.create_task(self._watch(), name="webhooks"))

    async def close(self) -> None:
        """Stop sending. What was not delivered is sent after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(sender.close() for sender in self._senders))

    async def _watch(self) -> None:
        """Wake the senders whenever the store has changed."""
        while True:
            try:
                async with aclosing(self._store.watch()) as revisions:
                    async for _ in revisions:
                        self._changed.set()
                        self._changed = asyncio.Event()
            except StoreError:  # the senders report it
                await asyncio.sleep(_RETRY_SECONDS)

    async def _wait(self, seconds: float) -> None:
        changed = self._changed
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return


def build_webhooks(
    settings: Sequence[WebhookSettings],
    jwks: JwksSettings,
    store: Store,
    *,
    epoch: Callable[[], str],
    holder: str,
    metrics: WebhookMetrics,
) -> Webhooks:
    """Return the webhooks of the settings. The caller starts them.

    `jwks` says which addresses may be connected to. `epoch` returns that of the store, once it is known. `holder` is
    the name of this replica.

    Raises:
        SettingsErrors: A kind of event does not exist, a secret can't be read, or an address is not permitted.
    """
    faults: list[Fault] = []
    receivers = _receivers(settings, faults)
    rules = AddressRules(jwks.allow_private_addresses, frozenset(jwks.private_hosts))
    for receiver in receivers:
        _check(receiver, rules, jwks, faults)
    if faults:
        raise SettingsErrors(faults)
    authorities = trusted_authorities(jwks.ca_file) if receivers and jwks.ca_file is not None else None
    senders = [
        Sender(
            receiver,
            store,
            HttpClient(rules, allow_http=jwks.allow_http, tls=authorities),
            Lease(store, f"lease/{receiver.cursor}", holder),
            epoch,
            metrics.count,
            time.time,
        )
        for receiver in receivers
    ]
    metrics.senders = senders
    return Webhooks(store, senders)


def _receivers(settings: Sequence[WebhookSettings], faults: list[Fault]) -> list[Receiver]:
    """The receivers. Those on one host have numbers in their names."""
    receivers: list[Receiver] = []
    hosts: dict[str, int] = {}
    for number, webhook in enumerate(settings):
        host = urlsplit(webhook.url).hostname or ""
        hosts[host] = hosts.get(host, 0) + 1
        name = host if hosts[host] == 1 else f"{host}#{hosts[host]}"
        for kind in webhook.kinds:
            if kind not in set(EventKind):
                hint = f"one of {', '.join(EventKind)}"
                faults.append(Fault(f"{SETTING}[{number}].kinds", 0, 0, f"`{kind[:64]}` is not a kind of event", hint))
        cursor = hashlib.sha256(webhook.url.encode()).hexdigest()[:32]
        receivers.append(Receiver(name, webhook.url, webhook.secret_file, frozenset(webhook.kinds), cursor))
    return receivers


def _check(receiver: Receiver, rules: AddressRules, jwks: JwksSettings, faults: list[Fault]) -> None:
    try:
        read_secrets(receiver.secret_file)
    except ValueError as error:
        faults.append(Fault(receiver.secret_file, 0, 0, str(error), f"write `whsec_` and base64, as in {_EXAMPLE}"))
    try:
        checked_address(receiver.url, rules, allow_http=jwks.allow_http)
    except FetchFailed as error:
        hint = "correct the URL, or permit its host in `jwks.private_hosts`"
        faults.append(Fault(SETTING, 0, 0, f"the webhook at {receiver.name}: {error.detail}", hint))


_EXAMPLE: Final = "`echo whsec_$(openssl rand -base64 32)`"
