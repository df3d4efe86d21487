"""Checks of settings that depend on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.servers.listeners import Endpoint
from zta_authz.settings.audit import audit_inconsistencies
from zta_authz.settings.following import follow_inconsistencies, operations_inconsistencies, views_inconsistencies
from zta_authz.settings.inconsistency import Inconsistency
from zta_authz.settings.otlp import otlp_inconsistencies
from zta_authz.settings.trust import trust_inconsistencies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.settings.environment import Path
    from zta_authz.settings.model import Settings

_TRANSPORT: Final[tuple[Path, ...]] = (("server",), ("reflection",))


def inconsistencies(settings: Settings) -> Iterator[Inconsistency]:
    """Yield everything that is inconsistent."""
    yield from _plain_listeners(settings)
    yield from _callers(settings)
    yield from _server(settings)
    yield from _peer_users(settings)
    yield from _http2(settings)
    yield from _admin(settings)
    yield from _workloads(settings)
    yield from _jwks(settings)
    yield from _workers(settings)
    section = settings.administrator
    yield from follow_inconsistencies(section.followed, section.tls, settings.workload_api.socket)
    yield from views_inconsistencies(section.views, has_tls=settings.tls is not None)
    yield from operations_inconsistencies(section.operations, has_tls=settings.tls is not None)
    yield from _minting(settings)
    yield from trust_inconsistencies(settings)
    yield from audit_inconsistencies(settings)
    yield from otlp_inconsistencies(settings)


def _minting(settings: Settings) -> Iterator[Inconsistency]:
    issuer, keys = settings.minting.issuer, settings.minting.keys
    if (issuer is None) is not (keys is None):
        name, missing = ("issuer", "keys") if keys is None else ("keys", "issuer")
        message = f"`{name}` is set without `{missing}`"
        yield Inconsistency(("minting", missing), message, f"set both, or remove `{name}`", (("minting",),))


def _plain_listeners(settings: Settings) -> Iterator[Inconsistency]:
    if settings.tls is not None or settings.insecure:
        return
    for index, endpoint in enumerate(settings.endpoints()):
        if not endpoint.is_local:
            yield Inconsistency(
                ("listen", index),
                "this plain TCP listener is reachable from other machines and accepts calls from anybody",
                "set `tls`, listen on a Unix socket or 127.0.0.1, or set `insecure: true`",
                (("listen",), ("tls",), ("insecure",)),
            )


def _callers(settings: Settings) -> Iterator[Inconsistency]:
    if settings.tls is None:
        return
    serves_tcp = any(not endpoint.is_unix for endpoint in settings.endpoints())
    if serves_tcp and not settings.tls.allowed_spiffe_ids:
        yield Inconsistency(
            ("tls", "allowed_spiffe_ids"),
            "no caller is allowed on the TCP listeners",
            "list the SPIFFE IDs of the proxies that may call",
            (("listen",), ("tls",)),
        )
    if not serves_tcp and settings.tls.allowed_spiffe_ids:
        yield Inconsistency(
            ("tls", "allowed_spiffe_ids"),
            "this list applies to TCP listeners only, and `listen` has none",
            "add a TCP address to `listen`, or rely on `socket.mode`, `socket.group` and `socket.peer_uids`",
            (("listen",), ("tls",)),
        )


def _server(settings: Settings) -> Iterator[Inconsistency]:
    if settings.server == "fast" and settings.reflection:
        yield Inconsistency(
            ("reflection",),
            "server `fast` does not support reflection",
            "remove it, or write `server: grpcio`",
            _TRANSPORT,
        )


def _peer_users(settings: Settings) -> Iterator[Inconsistency]:
    if not settings.socket.peer_uids:
        return
    if settings.transport == "grpcio":
        cause = "" if settings.server == "grpcio" else ", which `reflection: true` chooses,"
        yield Inconsistency(
            ("socket", "peer_uids"),
            f"server `grpcio`{cause} can't identify the user at the other end of a Unix socket",
            "write `server: fast` without `reflection`, or rely on `socket.mode` and `socket.group`",
            (("socket",), *_TRANSPORT),
        )
    if not any(endpoint.is_unix for endpoint in settings.endpoints()):
        yield Inconsistency(
            ("socket", "peer_uids"),
            "users are identified on Unix sockets only, and `listen` has none",
            "add a Unix socket to `listen`, or remove the list",
            (("socket",), ("listen",)),
        )


def _http2(settings: Settings) -> Iterator[Inconsistency]:
    http2, defaults = settings.http2, type(settings.http2)()
    for name in ("max_buffered_bytes", "max_unsent_bytes"):
        if getattr(http2, name) < http2.max_message_bytes:
            yield Inconsistency(
                ("http2", name),
                f"is less than `max_message_bytes`, {http2.max_message_bytes}",
                "set it to at least as many bytes",
                (("http2",),),
            )
    if settings.transport != "grpcio":
        return
    for name in type(http2).model_fields:
        if getattr(http2, name) != getattr(defaults, name):
            yield Inconsistency(
                ("http2", name),
                "server `grpcio` does not support this limit",
                "remove it, or write `server: fast` without `reflection`",
                (("http2",), *_TRANSPORT),
            )


def _workloads(settings: Settings) -> Iterator[Inconsistency]:
    seen: set[str] = set()
    for index, named in enumerate(settings.workloads):
        if named.principal in seen:
            path: Path = ("workloads", index, "principal")
            yield Inconsistency(path, "two workloads have this principal", "remove one of the two", (("workloads",),))
        seen.add(named.principal)


def _jwks(settings: Settings) -> Iterator[Inconsistency]:
    jwks = settings.jwks
    if not jwks.min_refresh_seconds <= jwks.refresh_seconds <= jwks.max_refresh_seconds:
        yield Inconsistency(
            ("jwks", "refresh_seconds"),
            "must be between `min_refresh_seconds` and `max_refresh_seconds`",
            "change one of the three",
            (("jwks",),),
        )


def _workers(settings: Settings) -> Iterator[Inconsistency]:
    if settings.workers == 1:
        return
    addresses: list[tuple[Path, str]] = [(("listen", index), text) for index, text in enumerate(settings.listen)]
    if settings.admin.listen is not None:
        addresses.append((("admin", "listen"), settings.admin.listen))
        if not Endpoint.parse(settings.admin.listen).is_unix:
            yield Inconsistency(
                ("admin", "listen"),
                "several workers can't be distinguished on one TCP port",
                "use a Unix socket: each worker gets one, with its number appended to the name",
                (("admin",), ("workers",)),
            )
    for path, text in addresses:
        try:
            Endpoint.parse(f"{text}.{settings.workers}" if Endpoint.parse(text).is_unix else text)
        except ValueError as error:
            hint = "each worker's number is appended to the socket's name: use a shorter path"
            yield Inconsistency(path, str(error), hint, ((path[0],), ("workers",)))


def _admin(settings: Settings) -> Iterator[Inconsistency]:
    depends: tuple[Path, ...] = (("admin",), ("tls",), ("listen",))
    endpoint = None if settings.admin.listen is None else Endpoint.parse(settings.admin.listen)
    if settings.admin.allowed_spiffe_ids and (endpoint is None or endpoint.is_unix):
        yield Inconsistency(
            ("admin", "allowed_spiffe_ids"),
            "this list applies to a TCP listener only, and `admin.listen` is not a TCP address",
            "set `admin.listen` to a TCP address, or remove the list: `socket.mode` protects a Unix socket",
            depends,
        )
    if endpoint is None:
        return
    if settings.admin.listen in settings.listen and (endpoint.is_unix or endpoint.port):
        yield Inconsistency(
            ("admin", "listen"), "this address already serves proxies", "use a separate address", depends
        )
    if endpoint.is_unix:
        return
    if settings.tls is None:
        yield Inconsistency(
            ("admin", "listen"),
            "the admin API over TCP needs mutual TLS",
            "set `tls`, or listen on a Unix socket",
            depends,
        )
    if not settings.admin.allowed_spiffe_ids:
        yield Inconsistency(
            ("admin", "allowed_spiffe_ids"),
            "no caller is allowed on the admin listener",
            "list SPIFFE IDs in `allowed_spiffe_ids`",
            depends,
        )
