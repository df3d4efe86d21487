"""A URL names a store, and never its credentials."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.pki import pem, private_key, root
from tests.support.redis_server import RedisServer
from zta_authz.administrator.store.open import StoreFiles, open_store, parse_address
from zta_authz.administrator.store.port import Change, StoreUnavailable
from zta_authz.administrator.store.sqlite import SqliteStore
from zta_authz.errors import FaultsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zta_authz.administrator.store.port import Store


def test_a_url_names_a_file() -> None:
    address = parse_address("sqlite:///var/lib/zta/a%20b.sqlite")
    assert address.sqlite_path == "/var/lib/zta/a b.sqlite"
    assert not address.shared


@pytest.mark.parametrize("scheme", ["valkey", "redis", "valkeys", "rediss"])
def test_a_url_names_a_server(scheme: str) -> None:
    address = parse_address(f"{scheme}://store.example:7000/3")
    assert address.server is not None
    assert (address.server.host, address.server.port, address.server.database) == ("store.example", 7000, 3)
    assert address.tls == (scheme in {"valkeys", "rediss"})
    assert address.shared


def test_the_port_and_the_database_of_a_server_have_defaults() -> None:
    server = parse_address("valkey://[::1]").server
    assert server is not None
    assert (server.host, server.port, server.database) == ("::1", 6379, 0)


def test_a_url_names_a_unix_socket() -> None:
    server = parse_address("unix:///run/valkey.sock?db=2").server
    assert server is not None
    assert (server.path, server.database) == ("/run/valkey.sock", 2)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "scheme"),
        ("postgres://h", "scheme"),
        ("/var/lib/store", "scheme"),
        ("sqlite://var/lib/store", "absolute path"),
        ("sqlite:store.db", "absolute path"),
        ("sqlite:///", "absolute path"),
        ("sqlite:///a%00b", "absolute path"),
        ("unix://socket", "absolute path"),
        ("valkey://", "no host"),
        ("valkey:///3", "no host"),
        ("valkey://h:99999", "not valid"),
        ("valkey://[::1", "not valid"),
        ("valkey://h/x", "not a number"),
        ("valkey://h/-1", "not a number"),
        ("valkey://h?ssl_cert_reqs=none", "not known"),
        ("valkey://h?db=1", "not known"),
        ("unix:///s?db=x", "not a number"),
        ("unix:///s?password=x", "not known"),
        ("sqlite:///s?mode=memory", "not known"),
        ("valkey://h#x", "not known"),
    ],
)
def test_another_url_is_a_fault(url: str, message: str) -> None:
    with pytest.raises(FaultsError, match=message):
        parse_address(url)


@pytest.mark.parametrize("url", ["valkey://:hunter2@h", "redis://user:hunter2@h:1/2", "valkeys://hunter2@h"])
def test_credentials_in_a_url_are_a_fault_that_does_not_repeat_them(url: str) -> None:
    with pytest.raises(FaultsError, match="credentials") as caught:
        parse_address(url)
    assert "hunter2" not in str(caught.value)


async def test_a_file_is_opened(tmp_path: Path) -> None:
    store = await open_store(parse_address(f"sqlite://{tmp_path}/store.sqlite"))
    assert isinstance(store, SqliteStore)
    await store.close()


async def test_a_server_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="can't be reached"):
        await open_store(parse_address(f"unix://{tmp_path}/none"))


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", b"\xff", b"x" * 5000])
async def test_a_file_without_a_password_is_a_fault(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(content)
    with pytest.raises(FaultsError, match="password") as caught:
        await open_store(parse_address("valkey://h"), files=StoreFiles(password=str(tmp_path / "password")))
    assert "xxx" not in str(caught.value)


async def test_missing_files_are_faults(tmp_path: Path) -> None:
    for url, files in (
        ("valkey://h", StoreFiles(password=str(tmp_path / "none"))),
        ("valkeys://h", StoreFiles(ca=str(tmp_path / "none"))),
        ("valkeys://h", StoreFiles(certificate=str(tmp_path / "none"))),
    ):
        with pytest.raises(FaultsError, match="none"):
            await open_store(parse_address(url), files=files)


@pytest.fixture
def guarded(redis_program: str) -> Iterator[RedisServer]:
    server = RedisServer(
        redis_program, "--user", "zta", "on", ">hunter2", "~{zta}*", "+@all", "--user", "default", "off"
    )
    server.start()
    yield server
    server.close()


async def test_credentials_come_from_a_file_or_the_environment(guarded: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    address, user = parse_address(f"unix://{guarded.socket}"), {"ZTA_STORE_USERNAME": "zta"}
    for files, environment in (
        (StoreFiles(password=str(tmp_path / "password")), user),
        (StoreFiles(), user | {"ZTA_STORE_PASSWORD": "hunter2"}),
    ):
        store = await open_store(address, files=files, environment=environment)
        await store.epoch()
        await store.commit(Change(put={"a": b"1"}))
        await store.close()


async def test_wrong_credentials_are_refused_and_not_repeated(
    guarded: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    address = parse_address(f"unix://{guarded.socket}")
    for environment in ({}, {"ZTA_STORE_USERNAME": "zta", "ZTA_STORE_PASSWORD": "secret-guess"}):
        with pytest.raises(StoreUnavailable) as caught:
            await open_store(address, environment=environment)
        assert "secret-guess" not in f"{caught.value!r} {address!r} {caplog.text}"


async def test_a_server_that_may_evict_is_refused(redis_program: str) -> None:
    server = RedisServer(redis_program, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    server.start()
    try:
        with pytest.raises(StoreUnavailable, match="noeviction"):
            await open_store(parse_address(f"unix://{server.socket}"))
    finally:
        server.close()


async def test_a_server_that_loses_the_newest_changes_is_named(
    redis_program: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(redis_program, "--appendfsync", "everysec")
    server.start()
    try:
        store = await open_store(parse_address(f"unix://{server.socket}"))
        await store.close()
    finally:
        server.close()
    assert "appendfsync always" in caplog.text


class TlsPlace:
    """A server with TLS that demands a client certificate, and the files for it."""

    def __init__(self, program: str, directory: Path, *, host: str) -> None:
        now = time.time()
        lifetime = {"not_before": now - 3600, "not_after": now + 3600}
        authority = root("store", not_before=now - 7200, not_after=now + 7200)
        stranger = root("stranger", not_before=now - 7200, not_after=now + 7200)
        for name, dns in (("server", host), ("client", "administrator")):
            key = private_key("P-256", hash(name))
            certificate = authority.issue(uris=(), dns=(dns,), key=key, **lifetime)
            (directory / f"{name}.pem").write_text(pem(certificate))
            (directory / f"{name}.key").write_bytes(
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
        (directory / "ca.pem").write_text(authority.pem)
        (directory / "stranger.pem").write_text(stranger.pem)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.directory = directory
        self.server = RedisServer(
            program, "--tls-port", str(self.port), "--bind", "127.0.0.1", "--tls-cert-file", str(directory / "server.pem"),
            "--tls-key-file", str(directory / "server.key"), "--tls-ca-cert-file", str(directory / "ca.pem"),
        )  # fmt: skip

    async def open(self, *, ca: str = "ca.pem", certificate: str = "client.pem") -> Store:
        files = StoreFiles(
            ca=ca and str(self.directory / ca),
            certificate=certificate and str(self.directory / certificate),
            key=str(self.directory / "client.key"),
        )
        return await open_store(parse_address(f"valkeys://localhost:{self.port}"), files=files)


async def test_tls_verifies_both_sides(redis_program: str, tmp_path: Path) -> None:
    place = TlsPlace(redis_program, tmp_path, host="localhost")
    place.server.start()
    try:
        store = await place.open()
        await store.epoch()
        await store.commit(Change(put={"a": b"1"}))
        await store.close()
        for changed in ({"ca": "stranger.pem"}, {"ca": ""}, {"certificate": ""}):
            with pytest.raises(StoreUnavailable):
                await place.open(**changed)
    finally:
        place.server.close()


async def test_tls_refuses_a_certificate_of_another_host(redis_program: str, tmp_path: Path) -> None:
    place = TlsPlace(redis_program, tmp_path, host="elsewhere.example")
    place.server.start()
    try:
        with pytest.raises(StoreUnavailable):
            await place.open()
    finally:
        place.server.close()
