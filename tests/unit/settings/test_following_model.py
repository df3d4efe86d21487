"""The address of the administrator that is followed."""

from __future__ import annotations

import pytest

from zta_authz.errors import SettingsErrors
from zta_authz.settings import load_settings
from zta_authz.settings.following_model import host_and_port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("administrator.zta.svc:9195", ("administrator.zta.svc", 9195)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
        ("localhost:9", ("127.0.0.1", 9)),
    ],
)
def test_an_address_is_a_host_name_or_an_ip_address_with_a_port(text: str, expected: tuple[str, int]) -> None:
    assert host_and_port(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:-1",
        "a:1x",
        "A:1",
        "1.2.3:4",
        "2001:db8::1:1",
        "http://a:1",
        "-a:1",
        "unix:a",
        "a b:1",
    ],
)
def test_another_address_is_a_fault(text: str) -> None:
    with pytest.raises(SettingsErrors) as caught:
        load_settings(None, {"ZTA_ADMINISTRATOR__FOLLOW": text})
    assert "for example `unix:/run/zta-authz/views.sock` or" in str(caught.value.faults[0])
