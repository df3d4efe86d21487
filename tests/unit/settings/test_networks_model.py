"""`networks`: what the settings give, and what is refused."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from zta_authz.errors import SettingsErrors
from zta_authz.facts.networks import ListSource, NetworkSources
from zta_authz.settings.load import load_settings

if TYPE_CHECKING:
    from pathlib import Path


def settings(tmp_path: Path, text: str) -> NetworkSources:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return load_settings(str(file), {}).networks.sources()


def test_without_the_section_nothing_is_configured(tmp_path: Path) -> None:
    assert settings(tmp_path, "{}").configured is False


def test_every_source_is_named(tmp_path: Path) -> None:
    text = """
networks:
  country: /c
  asn: /a
  anonymous: /n
  reputation: [{file: /r, score: 20, max_age_seconds: 3600}, {file: /s}]
  corporate: [10.0.0.0/8, "2001:db8::/32"]
  max_age_seconds: 86400
"""
    assert settings(tmp_path, text) == NetworkSources(
        "/c",
        "/a",
        "/n",
        (ListSource("/r", 20, 3600.0), ListSource("/s", 0, 604800.0)),
        (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")),
        86400.0,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("networks: {corporate: [10.0.0.1/8]}", "is not a network"),
        ("networks: {corporate: [office]}", "is not a network"),
        ("networks: {reputation: [{score: 1}]}", "file"),
        ("networks: {reputation: [{file: /r, score: 101}]}", "100"),
        ("networks: {max_age_seconds: 1}", "60"),
        ("networks: {city: /c}", "unknown field `city`"),
    ],
)
def test_what_cannot_be_meant_is_a_fault(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsErrors, match=message):
        settings(tmp_path, text)
