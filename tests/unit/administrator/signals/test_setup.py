"""From the settings to running signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from tests.unit.administrator.signals.test_intake import Seen
from zta_authz.administrator.signals.service import SourceOptions
from zta_authz.administrator.signals.setup import build_signals, server_tls, source_options
from zta_authz.administrator.signals.transmitter_client import Credentials
from zta_authz.errors import SettingsErrors
from zta_authz.settings.model import JwksSettings
from zta_authz.settings.signals_model import SignalSourceSettings, SignalsSettings

if TYPE_CHECKING:
    from pathlib import Path

    from zta_authz.administrator.store.port import Store

CLIENT = {"client_id": "zta", "client_secret_file": "/s", "token_endpoint": "https://idp.example.com/token"}


async def settle(_: Any) -> None:
    pass


async def test_the_listener_is_off_unless_the_settings_have_an_address(store: Store) -> None:
    given: dict[str, Any] = {"observer": Seen(), "digest": str, "settle": settle, "holder": "a"}
    service, push = build_signals(SignalsSettings(), JwksSettings(), store, **given)
    assert push is None
    await service.start([])
    await service.close()
    _, push = build_signals(SignalsSettings(listen="127.0.0.1:0"), JwksSettings(), store, **given)
    assert push is not None
    assert await push.start() > 0
    await push.stop()


def test_the_credentials_of_a_source_are_passed_on() -> None:
    made = source_options(SignalSourceSettings(**CLIENT, authorization_file="/a"))
    credentials = Credentials("", "zta", "/s", "https://idp.example.com/token")
    assert made == SourceOptions(credentials, "/a")
    assert made.manages
    assert not SourceOptions().manages


@pytest.mark.parametrize(
    "sources",
    [
        {"istio-system/idp": {"client_id": "zta"}},
        {"istio-system/idp": CLIENT | {"token_file": "/t"}},
        {"idp": {}},
        {"a/b/c": {}},
        {"istio-system/idp": {"token": "secret"}},
        {f"a/s{number}": {} for number in range(101)},
    ],
)
def test_settings_that_cannot_be_meant_are_faults(sources: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        SignalsSettings.model_validate({"sources": sources})
    assert "secret" not in str(caught.value).replace("client_secret_file", "")


def test_a_certificate_without_a_key_is_a_fault_and_never_plain_http(tmp_path: Path) -> None:
    assert server_tls(SignalsSettings()) is None
    for given in ({"cert_file": "/c"}, {"key_file": "/k"}, {"cert_file": str(tmp_path), "key_file": str(tmp_path)}):
        with pytest.raises(SettingsErrors, match="no certificate for the listener"):
            server_tls(SignalsSettings(**given))
