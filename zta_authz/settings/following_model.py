"""Settings of following the administrator: its address, and mutual TLS to it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator

from zta_authz.servers.listeners import Endpoint
from zta_authz.settings.field_types import SpiffeIds
from zta_authz.settings.values import Section, Text, invalid

_FOLLOW_HINT: Final = "write for example `unix:/run/zta-authz/views.sock` or `administrator.zta.svc:9195`"
_LABEL: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")


def _followed(text: str) -> str:
    if text.startswith("unix:"):
        try:
            Endpoint.parse(text)
        except ValueError as error:
            raise invalid(str(error), _FOLLOW_HINT) from None
    else:
        host, port = host_and_port(text)
        if not host or not 0 < port < 65536:
            raise invalid("an administrator's address is `unix:/PATH`, `HOST:PORT` or `[IPV6]:PORT`", _FOLLOW_HINT)
    return text


def host_and_port(text: str) -> tuple[str, int]:
    """Split `HOST:PORT`; the host is "" if it is neither a name in lower case nor an IP address."""
    host, _, digits = text.rpartition(":")
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else 0
    try:
        return Endpoint.parse(text).host, port
    except ValueError:
        is_name = bool(host) and set(host) <= _LABEL and host[0].isalnum() and not host.replace(".", "").isdigit()
        return (host if is_name else ""), port


FollowedAddress = Annotated[str, AfterValidator(_followed)]


class FollowTlsSettings(Section):
    """Mutual TLS to the administrator: our certificate and key, and its authorities and SPIFFE IDs.

    The three files belong to `source: files`; with `workload_api` the Workload API and the trust bundles provide
    their contents.
    """

    source: Literal["files", "workload_api"] = "files"
    cert_file: Text | None = None
    key_file: Text | None = None
    ca_file: Text | None = None
    spiffe_ids: SpiffeIds = ()
