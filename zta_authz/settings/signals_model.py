"""Settings of signals (SSF 1.0): where pushed security events arrive, and the credentials for each transmitter.

Secrets are in files, which are read again when they are used.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from zta_authz.settings.field_types import HttpsUrl, TcpAddress
from zta_authz.settings.values import Section, Text, invalid

MAX_SOURCES = 100


class SignalSourceSettings(Section):
    """How to authenticate to one transmitter, and the file with the `Authorization` header that it pushes with.

    Either `token_file` has a bearer token, or `client_id`, `client_secret_file` and `token_endpoint` get one.
    """

    token_file: Text | None = None
    client_id: Text | None = None
    client_secret_file: Text | None = None
    token_endpoint: Text | None = None
    scope: Text = "ssf.read ssf.manage"
    authorization_file: Text | None = None


def _complete(sources: dict[str, SignalSourceSettings]) -> dict[str, SignalSourceSettings]:
    for source in sources.values():
        client = (source.client_id, source.client_secret_file, source.token_endpoint)
        if any(client) and not all(client):
            hint = "set `client_id`, `client_secret_file` and `token_endpoint`"
            raise invalid("client credentials are not complete", hint)
        if source.token_file and source.client_id:
            raise invalid("a source has a token and client credentials", "remove `token_file` or `client_id`")
    return sources


class SignalsSettings(Section):
    """Security events of other systems. `sources` are by the `namespace/name` of their SignalSource.

    `listen` receives pushed events, over TLS with `cert_file` and `key_file`; `url` is the public URL of that listener,
    to which the transmitters add `/signals/NAMESPACE/NAME`.
    """

    listen: TcpAddress | None = None
    url: HttpsUrl | None = None
    cert_file: Text | None = None
    key_file: Text | None = None
    sources: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[a-z0-9.-]+$")], SignalSourceSettings],
        Field(max_length=MAX_SOURCES),
        AfterValidator(_complete),
    ] = Field(default_factory=dict)
