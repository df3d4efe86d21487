from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from zta_authz.errors import SettingsErrors
from zta_authz.servers.listeners import (
    Endpoint,
    SocketAccess,
    SocketClaim,
    cannot_listen,
    probe_tcp,
    umask_for_bind,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "authz.sock"


@pytest.fixture
def bound() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for each in sockets:
        each.close()


def claim_of(path: Path, mode: int = 0o660, group: str | None = None) -> SocketClaim:
    return SocketClaim(Endpoint(path=str(path)), SocketAccess(mode, group))


def listen(path: str, bound: list[socket.socket]) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.append(server)
    server.bind(path)
    server.listen(1)
    return server


def published(path: Path, bound: list[socket.socket], mode: int = 0o660) -> SocketClaim:
    claim = claim_of(path, mode)
    claim.take()
    with umask_for_bind():
        listen(claim.private_path, bound)
    claim.publish()
    return claim


def refusal(claim: SocketClaim) -> str:
    with pytest.raises(SettingsErrors) as caught:
        claim.take()
    return str(caught.value)


def mode_of(path: Path | str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(str(path)) == 0


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o700, False), (0o770, False), (0o777, True), (0o1777, False), (0o702, True)]
)
def test_a_directory_where_anybody_can_replace_the_socket_is_warned_of(
    tmp_path: Path, mode: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(mode)
    claim = claim_of(directory / "authz.sock")
    with caplog.at_level(logging.WARNING):
        claim.take()
    claim.release()
    assert ("everybody can replace our socket" in caplog.text) is warned


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_published_socket_has_the_mode_that_was_asked_for(path: Path, bound: list[socket.socket], mode: int) -> None:
    published(path, bound, mode)
    assert mode_of(path) == mode
    assert connects(path)


def test_before_it_is_published_only_our_user_can_reach_the_socket(path: Path, bound: list[socket.socket]) -> None:
    claim = claim_of(path, 0o666)
    claim.take()
    with umask_for_bind():
        listen(claim.private_path, bound)
    assert mode_of(claim.private_path) == 0o600
    assert not path.exists()


def test_the_umask_is_what_it_was_after_binding() -> None:
    before = os.umask(0o022)
    try:
        with umask_for_bind():
            pass
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_a_group_is_given_by_number(path: Path, bound: list[socket.socket]) -> None:
    claim = claim_of(path, group=str(os.getgid()))
    claim.take()
    listen(claim.private_path, bound)
    claim.publish()
    assert os.lstat(path).st_gid == os.getgid()


def test_a_path_that_another_claim_holds_is_refused(path: Path, bound: list[socket.socket]) -> None:
    published(path, bound)
    assert "another server holds this socket" in refusal(claim_of(path))
    assert connects(path)


def test_a_path_is_free_again_after_release(path: Path, bound: list[socket.socket]) -> None:
    published(path, bound).release()
    assert list(path.parent.iterdir()) == []
    published(path, bound)
    assert connects(path)


def test_a_path_where_somebody_else_listens_is_refused(path: Path, bound: list[socket.socket]) -> None:
    listen(str(path), bound)
    assert "another program listens on this socket" in refusal(claim_of(path))
    assert connects(path)


def test_a_refused_claim_leaves_no_lock(path: Path, bound: list[socket.socket]) -> None:
    listen(str(path), bound)
    refusal(claim_of(path))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_stale_socket_is_replaced(path: Path, bound: list[socket.socket]) -> None:
    listen(str(path), bound).close()
    assert not connects(path)
    published(path, bound)
    assert connects(path)


def test_a_lock_that_a_killed_server_left_is_no_obstacle(path: Path, bound: list[socket.socket]) -> None:
    (path.parent / "authz.sock.lock").touch()
    published(path, bound)
    assert connects(path)


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    assert "not a socket" in refusal(claim_of(path))
    assert path.read_text() == "precious"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    assert f"the directory {missing} does not exist" in refusal(claim_of(missing / "authz.sock"))


def test_a_lock_that_is_a_link_is_not_followed(path: Path) -> None:
    target = path.parent / "target"
    (path.parent / "authz.sock.lock").symlink_to(target)
    assert "lock file" in refusal(claim_of(path))
    assert not target.exists()


def test_release_leaves_a_socket_that_is_not_ours(path: Path, bound: list[socket.socket]) -> None:
    claim = published(path, bound)
    path.unlink()
    listen(str(path), bound)
    claim.release()
    assert connects(path)


def test_release_may_be_called_again(path: Path, bound: list[socket.socket]) -> None:
    claim = published(path, bound)
    claim.release()
    claim.release()
    assert not path.exists()


def test_a_tcp_port_in_use_is_refused_with_the_systems_reason() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(SettingsErrors, match=rf"127\.0\.0\.1:{port}: cannot listen: Address already in use"):
            probe_tcp(Endpoint(host="127.0.0.1", port=port))
    probe_tcp(Endpoint(host="127.0.0.1", port=0))


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("unix:/a", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
    ],
)
def test_only_unix_sockets_and_loopback_are_local(text: str, local: bool) -> None:
    assert Endpoint.parse(text).is_local is local


def test_a_directory_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is not a directory" in refusal(claim_of(tmp_path / "file" / "authz.sock"))
    assert "can't be seen: Not a directory" in refusal(claim_of(tmp_path / "file" / "below" / "authz.sock"))


def test_a_lock_file_that_is_not_ours_is_told_from_a_directory_that_is_not(path: Path) -> None:
    lock = path.parent / "authz.sock.lock"
    lock.mkdir()
    told = refusal(claim_of(path))
    assert f"the lock file {lock} can't be opened: Is a directory; it is not ours: remove it" in told
    lock.rmdir()
    for number, hint in ((errno.EACCES, "let this service's user write"), (errno.EROFS, "mount something writable")):
        error = claim_of(path)._no_lock_file(OSError(number, os.strerror(number)))
        assert f"can't be created: {os.strerror(number)}; {hint}" in str(error)


def test_a_file_system_without_locks_is_not_taken_for_another_server(path: Path) -> None:
    told = str(claim_of(path)._not_locked(OSError(errno.ENOLCK, "No locks available")))
    assert "can't be locked: No locks available; use a file system with locks" in told
    assert "another server" not in told


@pytest.fixture
def others(bound: list[socket.socket]) -> Iterator[Path]:
    """A path in a directory of another user."""
    assert bound == []  # closed after the directory is gone
    directory = Path(tempfile.mkdtemp())
    os.chown(directory, 12345, -1)
    yield directory / "authz.sock"
    shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes two users")
def test_a_socket_that_we_may_not_ask_is_not_said_to_be_listened_on(others: Path, bound: list[socket.socket]) -> None:
    path = others
    listen(str(path), bound)
    path.chmod(0o600)
    os.seteuid(12345)
    try:
        told = refusal(claim_of(path))
    finally:
        os.seteuid(0)
    assert "a socket of user 0 stands there, and we may not ask whether anybody listens on it" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="takes two users")
def test_a_group_that_we_are_no_member_of_is_named(others: Path, bound: list[socket.socket]) -> None:
    os.seteuid(12345)
    try:
        claim = claim_of(others, group="1")
        claim.take()
        listen(claim.private_path, bound)
        with pytest.raises(SettingsErrors, match="the socket can't be given to group 1: Operation not permitted; let"):
            claim.publish()
        claim.release()
    finally:
        os.seteuid(0)


def test_a_path_where_a_directory_came_to_stand_is_said_to_be_that(path: Path, bound: list[socket.socket]) -> None:
    claim = claim_of(path)
    claim.take()
    listen(claim.private_path, bound)
    path.mkdir()
    with pytest.raises(SettingsErrors, match="the socket can't be put in place: Is a directory; what stands at"):
        claim.publish()
    claim.release()


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EADDRINUSE, "stop what listens there"),
        (errno.EADDRNOTAVAIL, "no such address"),
        (errno.EACCES, "below 1024"),
        (errno.ENOBUFS, "choose another address"),
    ],
)
def test_why_an_address_can_not_be_had_comes_with_what_to_do(number: int, hint: str) -> None:
    assert hint in str(cannot_listen(Endpoint(host="127.0.0.1", port=1), OSError(number, os.strerror(number))))
