"""Decision points follow over Unix sockets as listed users, and over TCP as listed SPIFFE IDs; others get nothing."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.support.stores import SqlitePlace
from tests.unit.administrator.test_follow_service import following as following_over, grant, until
from tests.unit.following.test_connection import POINT, Pair, following
from zta_authz._proto.administrator_pb2 import ViewUpdate
from zta_authz.administrator.follow_service import FollowService
from zta_authz.administrator.store.port import Change
from zta_authz.administrator.view import PublishedView
from zta_authz.administrator.views_servers import views_servers
from zta_authz.following.client import METHOD
from zta_authz.servers.listeners import SocketAccess
from zta_authz.settings.administrator_model import ViewsSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from zta_authz.servers.tls import MutualTls


@asynccontextmanager
async def serving(directory: Path, section: ViewsSettings, tls: MutualTls | None = None) -> AsyncIterator[int]:
    """Serve the view of a store with one grant; the value is the TCP port, 0 without one."""
    store = await SqlitePlace(directory).open()
    await store.epoch()
    await store.commit(Change(put=grant("a")))
    view = PublishedView(store)
    await view.start()
    servers = views_servers(section, tls, SocketAccess(), FollowService(view, 0.1))
    addresses = await servers.start()
    try:
        yield max(address.port for address in addresses)
    finally:
        await servers.stop(0)
        await view.close()
        await store.close()


async def status(path: Path) -> grpc.StatusCode:
    """What a follower at a Unix socket gets."""
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        stream = channel.unary_stream(METHOD, response_deserializer=ViewUpdate.FromString)(b"", timeout=5)
        try:
            await stream.read()
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("uids", "expected"),
    [
        ((), grpc.StatusCode.OK),
        ((os.geteuid(),), grpc.StatusCode.OK),
        ((os.geteuid() + 1,), grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_users_that_are_not_listed_are_refused(
    tmp_path: Path, uids: tuple[int, ...], expected: grpc.StatusCode
) -> None:
    path = tmp_path / "views.sock"
    async with serving(tmp_path, ViewsSettings(listen=(f"unix:{path}",), peer_uids=uids)):
        assert await status(path) is expected


async def test_a_unix_socket_and_a_tcp_address_serve_the_same_view(tmp_path: Path) -> None:
    pair, path = Pair(tmp_path), tmp_path / "views.sock"
    section = ViewsSettings(listen=(f"unix:{path}", "127.0.0.1:0"), allowed_spiffe_ids=(POINT,))
    tls = pair.administrator.mutual_tls()  # allows nobody by itself
    async with (
        serving(tmp_path, section, tls) as port,
        following(port, pair.tls()) as (remote, _),
        following_over(path) as (local, _),
    ):
        await until(lambda: remote.is_complete and local.is_complete)
        assert (len(remote.grants), len(local.grants)) == (1, 1)


async def test_a_spiffe_id_that_is_not_listed_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = Pair(tmp_path)
    section = ViewsSettings(listen=("127.0.0.1:0",), allowed_spiffe_ids=("spiffe://cluster.local/other",))
    async with serving(tmp_path, section, pair.server_tls()) as port, following(port, pair.tls()) as (views, _):
        await until(lambda: "PERMISSION_DENIED" in caplog.text)
        assert not views.is_complete
