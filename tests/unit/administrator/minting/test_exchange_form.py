"""Forms of a token exchange: what is read, and the error of each that is refused."""

from __future__ import annotations

import pytest

from zta_authz.administrator.minting.exchange_form import (
    ACCESS_TOKEN,
    GRANT_TYPE,
    JWT,
    MAX_SCOPE,
    MAX_TARGET,
    TRANSACTION_TOKEN,
    ExchangeError,
    ExchangeRefused,
    read_exchange,
)
from zta_authz.model.minting import TokenKind

FORM = {
    "grant_type": GRANT_TYPE,
    "subject_token": "aa.bb.cc",
    "subject_token_type": ACCESS_TOKEN,
    "audience": "payments.shop",
}


def test_the_least_form_asks_for_all_that_the_rule_gives() -> None:
    wanted = read_exchange(FORM)
    assert (wanted.subject_token, wanted.audience, wanted.scope, wanted.kind) == (
        "aa.bb.cc",
        "payments.shop",
        None,
        None,
    )
    assert "aa.bb.cc" not in repr(wanted)


@pytest.mark.parametrize(
    ("requested", "kind"),
    [(JWT, TokenKind.SESSION), (ACCESS_TOKEN, TokenKind.SESSION), (TRANSACTION_TOKEN, TokenKind.TRANSACTION)],
)
def test_every_field_is_read_and_unknown_ones_are_ignored(requested: str, kind: TokenKind) -> None:
    more = {"scope": "a b", "requested_token_type": requested, "client_id": "x", "subject_token_type": JWT}
    wanted = read_exchange({**FORM, **more})
    assert (wanted.scope, wanted.kind) == ("a b", kind)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"grant_type": "client_credentials"}, ExchangeError.UNSUPPORTED_GRANT_TYPE),
        ({"grant_type": None}, ExchangeError.UNSUPPORTED_GRANT_TYPE),
        ({"subject_token": None}, ExchangeError.INVALID_REQUEST),
        ({"subject_token": "aa.bb"}, ExchangeError.INVALID_REQUEST),
        ({"subject_token": "aa.bb.cc dd.ee.ff"}, ExchangeError.INVALID_REQUEST),
        ({"subject_token": "aa.bb.cc\r\nx: y"}, ExchangeError.INVALID_REQUEST),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, ExchangeError.INVALID_REQUEST),
        ({"audience": None}, ExchangeError.INVALID_REQUEST),
        ({"audience": "a b"}, ExchangeError.INVALID_REQUEST),
        ({"audience": "a\r\nb"}, ExchangeError.INVALID_REQUEST),
        ({"audience": "caf\u00e9"}, ExchangeError.INVALID_REQUEST),
        ({"audience": "a" * (MAX_TARGET + 1)}, ExchangeError.INVALID_REQUEST),
        ({"resource": "https://payments"}, ExchangeError.INVALID_REQUEST),
        ({"actor_token": "aa.bb.cc"}, ExchangeError.INVALID_REQUEST),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, ExchangeError.INVALID_REQUEST),
        ({"scope": ""}, ExchangeError.INVALID_SCOPE),
        ({"scope": "a  b"}, ExchangeError.INVALID_SCOPE),
        ({"scope": 'a"b'}, ExchangeError.INVALID_SCOPE),
        ({"scope": "a" * (MAX_SCOPE + 1)}, ExchangeError.INVALID_SCOPE),
    ],
)
def test_each_other_form_is_refused_with_its_error(changed: dict[str, str | None], error: ExchangeError) -> None:
    form = {name: value for name, value in {**FORM, **changed}.items() if value is not None}
    with pytest.raises(ExchangeRefused) as caught:
        read_exchange(form)
    assert caught.value.error is error
    assert all(
        character.isascii() and character not in '"\\' for character in str(caught.value)
    )  # RFC 6749 section 5.2
