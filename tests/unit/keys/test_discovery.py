from __future__ import annotations

import json
from typing import Any

import pytest

from zta_authz.keys.discovery import jwks_url, metadata_url
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome

ISSUER = "https://login.example/tenant"


def metadata(**members: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": "https://login.example/keys"} | members).encode()


def test_the_metadata_url_is_the_issuer_without_its_final_slash_and_the_well_known_path() -> None:
    assert metadata_url("https://a.example") == "https://a.example/.well-known/openid-configuration"
    assert metadata_url("https://a.example/") == "https://a.example/.well-known/openid-configuration"
    assert metadata_url(ISSUER) == "https://login.example/tenant/.well-known/openid-configuration"


@pytest.mark.parametrize("issuer", ["accounts.example", "testing@example", "https://a.example?x", "https://a#b", ""])
def test_an_issuer_that_is_not_a_url_has_no_metadata(issuer: str) -> None:
    with pytest.raises(FetchFailed) as caught:
        metadata_url(issuer)
    assert caught.value.outcome is FetchOutcome.REFUSED_URL


def test_metadata_with_the_same_issuer_gives_the_address_of_the_keys() -> None:
    assert jwks_url(ISSUER, metadata()) == "https://login.example/keys"
    assert jwks_url(ISSUER, metadata(jwks_uri="https://keys.example/k")) == "https://keys.example/k"


@pytest.mark.parametrize("issuer", [ISSUER + "/", ISSUER.upper(), "http://login.example/tenant", "", None, [ISSUER]])
def test_metadata_of_another_issuer_is_refused(issuer: object) -> None:
    with pytest.raises(FetchFailed) as caught:
        jwks_url(ISSUER, metadata(issuer=issuer))
    assert caught.value.outcome is FetchOutcome.WRONG_ISSUER


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b'{"issuer":', metadata(jwks_uri=None), metadata(jwks_uri=7), metadata(jwks_uri="")]
)
def test_metadata_that_names_no_keys_is_refused(body: bytes) -> None:
    with pytest.raises(FetchFailed) as caught:
        jwks_url(ISSUER, body)
    assert caught.value.outcome is FetchOutcome.WRONG_CONTENT


@pytest.mark.parametrize("url", ["http://login.example/keys", "file:///etc/passwd", "//login.example/keys", "keys"])
def test_an_https_issuer_can_not_name_keys_without_https(url: str) -> None:
    with pytest.raises(FetchFailed) as caught:
        jwks_url(ISSUER, metadata(jwks_uri=url))
    assert caught.value.outcome is FetchOutcome.REFUSED_URL
