"""The listeners where decision points follow: Unix sockets for listed users, and TCP under mutual TLS."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import grpc

from zta_authz.administrator.follow_service import FOLLOW, SERVICE
from zta_authz.errors import Reason
from zta_authz.servers.group import ServerGroup
from zta_authz.servers.grpcio.server import GrpcServer
from zta_authz.servers.listeners import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from zta_authz.administrator.follow_service import FollowService
    from zta_authz.servers.grpcio.server import Stream
    from zta_authz.servers.listeners import SocketAccess
    from zta_authz.servers.svid_tls import SvidTls
    from zta_authz.servers.tls import MutualTls
    from zta_authz.settings.administrator_model import ViewsSettings

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 4096),  # a FollowRequest
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 8),
)
_LOG = logging.getLogger(__name__)


def views_servers(
    section: ViewsSettings, tls: MutualTls | SvidTls | None, access: SocketAccess, service: FollowService
) -> ServerGroup:
    """Build the servers of `section`. `tls` has our certificate; without it there are no TCP addresses."""
    endpoints = [Endpoint.parse(text) for text in section.listen]
    local = [endpoint for endpoint in endpoints if endpoint.is_unix]
    remote = [endpoint for endpoint in endpoints if not endpoint.is_unix]
    servers = []
    if local:
        users = frozenset(map(_user, section.peer_uids))
        follow = _only(users, service.follow) if users else service.follow
        name_user = _user if users else None
        streams = {SERVICE: {FOLLOW: follow}}
        servers.append(GrpcServer({}, local, access, streams=streams, name_user=name_user, options=_OPTIONS))
    if remote and tls is not None:
        allowed = tls.with_allowed(section.allowed_spiffe_ids)
        allowed.max_connection_age = 0.0  # a stream ends when its caller's certificate does
        streams = {SERVICE: {FOLLOW: service.follow}}
        servers.append(GrpcServer({}, remote, access, tls=allowed, streams=streams, options=_OPTIONS))
    return ServerGroup(servers)


def _user(uid: int) -> str:
    return f"uid {uid}"


def _only(users: frozenset[str], follow: Stream) -> Stream:
    """Return `follow` for `users`; others get PERMISSION_DENIED."""

    async def guarded(payload: bytes, context: Any, caller: str) -> AsyncGenerator[bytes, None]:
        if caller not in users:
            _LOG.warning("a follower was refused: its user is not in `administrator.views.peer_uids`")
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, Reason.CALLER_NOT_ALLOWED.value)
        async with aclosing(follow(payload, context, caller)) as updates:
            async for update in updates:
                yield update

    return guarded
