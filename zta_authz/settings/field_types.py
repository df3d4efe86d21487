"""Types of single settings: addresses, names, identifiers and durations, each with its check."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from zta_authz.model.options import UNIX_CALLER
from zta_authz.model.spiffe import SpiffeId, TrustDomain
from zta_authz.servers.listeners import Endpoint, SocketAccess
from zta_authz.settings.values import distinct, invalid

_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-:")


def _endpoint(text: str) -> str:
    try:
        Endpoint.parse(text)
    except ValueError as error:
        raise invalid(str(error), "write for example `unix:/run/zta-authz/authz.sock` or `127.0.0.1:9191`") from None
    return text


def _tcp(text: str) -> str:
    if Endpoint.parse(_endpoint(text)).is_unix:
        raise invalid("this listener is for TCP", "write an address and a port, like `0.0.0.0:9192`")
    return text


def _unix(text: str) -> str:
    if not text.startswith("unix:") or not Endpoint.parse(_endpoint(text)).is_unix:
        raise invalid("the Workload API uses a Unix socket", "write for example `unix:/run/spire/agent.sock`")
    return text


def _https(text: str) -> str:
    valid = False
    with suppress(ValueError):  # unclosed brackets, an invalid port
        parts = urlsplit(text)
        plain = parts.username is None and not parts.fragment and parts.port != 0
        valid = parts.scheme == "https" and bool(parts.hostname) and plain
    if not valid or not text.isprintable() or " " in text:
        raise invalid(
            "a bundle endpoint is an https URL without user information",
            "write for example `https://spire.example/bundle`",
        )
    return text


def _trust_domain(text: str) -> str:
    try:
        TrustDomain.parse(text)
    except ValueError as error:
        raise invalid(str(error), "write for example `cluster.local`") from None
    return text


def _spiffe_id(text: str) -> str:
    try:
        SpiffeId.parse(text)
    except ValueError as error:
        raise invalid(str(error), "write for example `spiffe://cluster.local/ns/default/sa/envoy`") from None
    return text


def _caller(text: str) -> str:
    return text if text == UNIX_CALLER else _spiffe_id(text)


def _mode(text: str) -> str:
    if not (3 <= len(text) <= 4 and all(digit in "01234567" for digit in text) and int(text, 8) <= 0o777):
        raise invalid("a file mode has three octal digits, optionally after a 0", 'write for example "0660"')
    if int(text, 8) & 0o600 != 0o600:
        raise invalid("the service's own user needs to read and write the socket", 'write for example "0660"')
    return text


def _group(text: str) -> str:
    try:
        SocketAccess(group=text).group_id()
    except ValueError as error:
        raise invalid(str(error), "or leave it out to keep the service's own group") from None
    return text


def _host_name(text: str) -> str:
    if not text or not set(text) <= _HOST_CHARACTERS or text.startswith(".") or text.endswith("."):
        raise invalid("not a host name", "write it in lower case and without a port, like `login.auth.svc`")
    return text


Address = Annotated[str, AfterValidator(_endpoint)]
TcpAddress = Annotated[str, AfterValidator(_tcp)]
TrustDomainName = Annotated[str, AfterValidator(_trust_domain)]
SpiffeIds = Annotated[tuple[Annotated[str, AfterValidator(_spiffe_id)], ...], AfterValidator(distinct)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
AgeSeconds = Annotated[float, Field(ge=0, le=7 * 24 * 3600, allow_inf_nan=False)]
LongSeconds = Annotated[float, Field(ge=1, le=7 * 24 * 3600, allow_inf_nan=False)]
HostName = Annotated[str, AfterValidator(_host_name)]
UnixAddress = Annotated[str, AfterValidator(_unix)]
HttpsUrl = Annotated[str, AfterValidator(_https)]
SpiffeIdText = Annotated[str, AfterValidator(_spiffe_id)]
Caller = Annotated[str, AfterValidator(_caller)]
FileMode = Annotated[str, AfterValidator(_mode)]
GroupName = Annotated[str, AfterValidator(_group)]
