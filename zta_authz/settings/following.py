"""Checks of the settings of following the administrator that depend on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.model.spiffe import SpiffeId
from zta_authz.servers.listeners import Endpoint
from zta_authz.settings.inconsistency import Inconsistency

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.settings.administrator_model import OperationsSettings, ViewsSettings
    from zta_authz.settings.environment import Path
    from zta_authz.settings.following_model import FollowTlsSettings

_FILES: Final = ("cert_file", "key_file", "ca_file")
_SECTION: Final = "administrator"


def follow_inconsistencies(
    follow: str | None, tls: FollowTlsSettings | None, agent: str | None
) -> Iterator[Inconsistency]:
    """Yield inconsistencies of what `serve` follows. `agent` is the Workload API's socket."""
    depends: tuple[Path, ...] = ((_SECTION, "follow"), (_SECTION, "tls"))
    over_tcp = follow is not None and not follow.startswith("unix:")
    if tls is None:
        if over_tcp:
            message = "following over TCP needs mutual TLS: who can change the view can grant access"
            yield Inconsistency((_SECTION, "follow"), message, "set `administrator.tls`, or use a Unix socket", depends)
        return
    if not over_tcp:
        message = "this section applies to a TCP address only, and `administrator.follow` is none"
        yield Inconsistency((_SECTION, "tls"), message, "remove it, or write `follow: HOST:PORT`", depends)
    yield from _identity(tls, agent, (*depends, ("workload_api",)))


def views_inconsistencies(views: ViewsSettings, *, has_tls: bool) -> Iterator[Inconsistency]:
    """Yield inconsistencies of where decision points follow. `has_tls`: the section `tls` is there."""
    path: Path = (_SECTION, "views")
    depends: tuple[Path, ...] = (path, ("tls",))
    unix = {text: Endpoint.parse(text).is_unix for text in views.listen}
    for index, text in enumerate(views.listen):
        if not unix[text] and not has_tls:
            message = "decision points can follow over TCP only with mutual TLS"
            yield Inconsistency((*path, "listen", index), message, "set `tls`, or listen on a Unix socket", depends)
    if not all(unix.values()) and not views.allowed_spiffe_ids:
        hint = "list the SPIFFE IDs of the decision points"
        yield Inconsistency((*path, "allowed_spiffe_ids"), "no decision point may follow over TCP", hint, depends)
    if all(unix.values()) and views.allowed_spiffe_ids:
        hint = "add a TCP address to `listen`, or remove the list: `peer_uids` is for Unix sockets"
        message = "this list applies to TCP addresses only, and `listen` has none"
        yield Inconsistency((*path, "allowed_spiffe_ids"), message, hint, depends)
    if not any(unix.values()) and views.peer_uids:
        hint = "add a Unix socket to `listen`, or remove the list"
        message = "users are identified on Unix sockets only, and `listen` has none"
        yield Inconsistency((*path, "peer_uids"), message, hint, depends)


def operations_inconsistencies(operations: OperationsSettings, *, has_tls: bool) -> Iterator[Inconsistency]:
    """Yield addresses of the operations to which tokens would be sent in plaintext over a network."""
    for name in ("http", "grpc"):
        for index, text in enumerate(getattr(operations, name)):
            if not has_tls and not Endpoint.parse(text).is_local:
                path: Path = (_SECTION, "operations")
                message = "other machines could read the tokens of callers on the way"
                hint = "set `tls`, or listen on a Unix socket or a loopback address"
                yield Inconsistency((*path, name, index), message, hint, (path, ("tls",)))


def _identity(tls: FollowTlsSettings, agent: str | None, depends: tuple[Path, ...]) -> Iterator[Inconsistency]:
    path: Path = (_SECTION, "tls")
    for name in _FILES:
        is_set = getattr(tls, name) is not None
        if tls.source == "files" and not is_set:
            yield Inconsistency((*path, name), "this field is required", "add it, or `source: workload_api`", depends)
        elif tls.source != "files" and is_set:
            hint = "remove it, or write `source: files`"
            yield Inconsistency((*path, name), "is provided by the Workload API", hint, depends)
    if tls.source != "files" and agent is None:
        hint = "set `workload_api.socket`, or the variable SPIFFE_ENDPOINT_SOCKET"
        yield Inconsistency((*path, "source"), "the Workload API's socket is not set", hint, depends)
    if not tls.spiffe_ids:
        hint = "list the SPIFFE IDs of the administrator"
        yield Inconsistency((*path, "spiffe_ids"), "no administrator is accepted", hint, depends)
    elif len({SpiffeId.parse(text).trust_domain.name for text in tls.spiffe_ids}) > 1:
        message = "these SPIFFE IDs are of several trust domains, whose authorities could stand in for each other"
        yield Inconsistency((*path, "spiffe_ids"), message, "list SPIFFE IDs of one trust domain", depends)
