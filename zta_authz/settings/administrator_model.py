"""Settings about the administrator: the one that a decision point follows, and how `zta-authz administer` runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from zta_authz.settings.audit_model import CheckpointSettings
from zta_authz.settings.field_types import Address, SpiffeIds
from zta_authz.settings.following_model import FollowedAddress, FollowTlsSettings
from zta_authz.settings.signals_model import SignalsSettings
from zta_authz.settings.values import Section, Text, distinct
from zta_authz.settings.webhooks_model import Webhooks

_MIB = 1024 * 1024


class StoreSettings(Section):
    """Where the administrator keeps its state. Several administrators share one Valkey or Redis.

    `url` is `sqlite:///PATH`, `valkey://HOST:PORT`, `valkeys://HOST:PORT` (TLS) or `unix:///PATH`. It has no
    credentials: they are in `password_file`, or in `ZTA_STORE_USERNAME` and `ZTA_STORE_PASSWORD`.
    """

    url: Text = "sqlite:////var/lib/zta-authz/administrator.sqlite"
    password_file: Text | None = None
    ca_file: Text | None = None
    cert_file: Text | None = None
    key_file: Text | None = None


class AccessLogSettings(Section):
    """The access log: every change of access, hash-chained. It is rotated at `max_bytes`."""

    path: Text = "/var/lib/zta-authz/access.jsonl"
    max_bytes: Annotated[int, Field(ge=4096, le=1024 * 1024 * _MIB)] = 100 * _MIB
    max_files: Annotated[int, Field(ge=1, le=10_000)] = 100
    checkpoint: CheckpointSettings | None = None


class ViewsSettings(Section):
    """Where decision points follow the administrator, and which ones may.

    A TCP address uses the certificate of `tls`, and the SPIFFE IDs of `allowed_spiffe_ids`. Processes of `peer_uids`
    may use a Unix socket; without a list, its mode and group alone protect it.
    """

    listen: Annotated[tuple[Address, ...], Field(max_length=16), AfterValidator(distinct)] = (
        "unix:/run/zta-authz/views.sock",
    )
    allowed_spiffe_ids: SpiffeIds = ()
    peer_uids: Annotated[tuple[Annotated[int, Field(ge=0, le=2**32 - 2)], ...], Field(max_length=64)] = ()


class OperationsSettings(Section):
    """Where people and programs ask for access, approve and revoke: addresses of the HTTP and of the gRPC API.

    On a Unix socket the caller is the local user. A TCP address uses the certificate of `tls`: the caller is a client
    certificate, or over HTTP also a token alone. On a loopback address without `tls`, a token alone is the caller.
    """

    http: Annotated[tuple[Address, ...], Field(max_length=16), AfterValidator(distinct)] = ()
    grpc: Annotated[tuple[Address, ...], Field(max_length=16), AfterValidator(distinct)] = ()


class AdministratorSettings(Section):
    """The administrator that `zta-authz serve` follows, and how `zta-authz administer` runs.

    Grants count for `max_age_seconds` after a decision point last heard from the administrator. With `embedded`,
    `zta-authz serve` starts an administrator beside itself, with the same settings file.
    """

    follow: FollowedAddress | None = None
    tls: FollowTlsSettings | None = None
    max_age_seconds: Annotated[float, Field(ge=30, le=7 * 24 * 3600, allow_inf_nan=False)] = 600.0
    embedded: bool = False
    store: StoreSettings = StoreSettings()
    access_log: AccessLogSettings = AccessLogSettings()
    views: ViewsSettings = ViewsSettings()
    operations: OperationsSettings = OperationsSettings()
    signals: SignalsSettings = SignalsSettings()
    webhooks: Webhooks = ()

    @property
    def followed(self) -> str | None:
        """The address that a decision point follows, None for none."""
        return self.follow or (self.views.listen[0] if self.embedded and self.views.listen else None)
