"""Signatures are those of the Standard Webhooks specification; secrets are long enough and quoted nowhere."""

from __future__ import annotations

import base64

import pytest

from zta_authz.administrator.webhooks.signing import parse_secrets, signature_header

# The example of the specification's reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_signature_is_that_of_the_specification() -> None:
    assert signature_header(parse_secrets(SECRET), MESSAGE_ID, TIMESTAMP, BODY) == SIGNATURE


def test_two_secrets_sign_while_one_replaces_the_other() -> None:
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    first, second = signature_header(parse_secrets(f"{other}\n\n{SECRET}\n"), MESSAGE_ID, TIMESTAMP, BODY).split(" ")
    assert second == SIGNATURE
    assert first != second


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "plain text",
        "whsec_",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whsec_" + base64.b64encode(b"x" * 24).decode()[:-1],
        base64.b64encode(b"x" * 32).decode(),
        "whsk_" + base64.b64encode(b"x" * 32).decode(),
        f"{SECRET} {SECRET}",
        f"{SECRET}\n{SECRET}\n{SECRET}",
    ],
)
def test_what_is_no_secret_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="secret") as refused:
        parse_secrets(text)
    assert not text.strip() or text.strip() not in str(refused.value).replace("`whsec_`", "")
