"""Build the reception of signals from the settings."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from zta_authz.administrator.signals.intake import Intake
from zta_authz.administrator.signals.receiver import PushReceiver
from zta_authz.administrator.signals.service import SignalService, SourceOptions
from zta_authz.administrator.signals.transmitter_client import Credentials
from zta_authz.errors import Fault, SettingsErrors
from zta_authz.keys.addresses import AddressRules
from zta_authz.keys.http_client import HttpClient, trusted_authorities
from zta_authz.keys.jwks import JwksLoader
from zta_authz.keys.refresh_schedule import Timing
from zta_authz.keys.refresher import JwksRefresher
from zta_authz.servers.listeners import Endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from zta_authz.administrator.signals.intake import SignalsObserver
    from zta_authz.administrator.store.port import Committed, Store
    from zta_authz.settings.model import JwksSettings
    from zta_authz.settings.signals_model import SignalSourceSettings, SignalsSettings

UNKNOWN_KEY_SECONDS: Final = 5.0
"""The least time between two fetches of keys that SETs with an unknown key cause."""


def build_signals(
    settings: SignalsSettings,
    jwks: JwksSettings,
    store: Store,
    *,
    observer: SignalsObserver,
    digest: Callable[[], str],
    settle: Callable[[Committed], Awaitable[None]],
    holder: str,
    published: Callable[[], int] = int,
) -> tuple[SignalService, PushReceiver | None]:
    """Return the service, and the listener for pushed events if the settings have one. The caller starts both.

    `jwks` says which addresses may be connected to. The other arguments are those of `Intake`.

    Raises:
        SettingsErrors: A file of TLS can't be read.
    """
    authorities = None if jwks.ca_file is None else trusted_authorities(jwks.ca_file)

    def client() -> HttpClient:
        rules = AddressRules(jwks.allow_private_addresses, frozenset(jwks.private_hosts))
        return HttpClient(rules, allow_http=jwks.allow_http, tls=authorities)

    push = None
    if settings.listen is not None:
        endpoint = Endpoint.parse(settings.listen)
        push = PushReceiver(endpoint.host, endpoint.port, server_tls(settings))
    intake = Intake(store, observer=observer, digest=digest, settle=settle, holder=holder, published=published)
    keys = JwksRefresher(JwksLoader(client()), Timing(unknown_kid=UNKNOWN_KEY_SECONDS))
    options = {name: source_options(source) for name, source in settings.sources.items()}
    service = SignalService(intake, store, client(), keys, options, push=push, push_url=settings.url or "")
    return service, push


def source_options(settings: SignalSourceSettings) -> SourceOptions:
    """Return the options of one source."""
    credentials = Credentials(
        token_file=settings.token_file or "",
        client_id=settings.client_id or "",
        client_secret_file=settings.client_secret_file or "",
        token_endpoint=settings.token_endpoint or "",
        scope=settings.scope,
    )
    return SourceOptions(credentials, settings.authorization_file or "")


def server_tls(settings: SignalsSettings) -> ssl.SSLContext | None:
    """The TLS of the listener, None for plain HTTP behind a proxy. Raises `SettingsErrors`."""
    if settings.cert_file is None and settings.key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if settings.cert_file is None or settings.key_file is None:
            raise OSError(0, "one of `cert_file` and `key_file` is missing")
        context.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:  # includes ssl.SSLError
        message = f"no certificate for the listener of signals: {error.strerror}"
        raise SettingsErrors([Fault("signals", 0, 0, message, "correct `cert_file` and `key_file`")]) from error
    return context
