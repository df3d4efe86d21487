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
    bind_error,
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
    claim.acquire()
    with umask_for_bind():
        listen(claim.private_path, bound)
    claim.publish()
    return claim


def refusal(claim: SocketClaim) -> str:
    with pytest.raises(SettingsErrors) as caught:
        claim.acquire()
    return str(caught.value)


def mode_of(path: Path | str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(str(path)) == 0


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o700, False), (0o770, False), (0o777, True), (0o1777, False), (0o702, True)]
)
def test_a_directory_that_all_users_can_write_logs_a_warning(
    tmp_path: Path, mode: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(mode)
    claim = claim_of(directory / "authz.sock")
    with caplog.at_level(logging.WARNING):
        claim.acquire()
    claim.release()
    assert ("any user can replace the socket" in caplog.text) is warned


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_published_socket_has_the_requested_mode(path: Path, bound: list[socket.socket], mode: int) -> None:
    published(path, bound, mode)
    assert mode_of(path) == mode
    assert connects(path)


def test_before_publication_only_our_user_can_connect_to_the_socket(path: Path, bound: list[socket.socket]) -> None:
    claim = claim_of(path, 0o666)
    claim.acquire()
    with umask_for_bind():
        listen(claim.private_path, bound)
    assert mode_of(claim.private_path) == 0o600
    assert not path.exists()


def test_the_umask_is_restored_after_binding() -> None:
    before = os.umask(0o022)
    try:
        with umask_for_bind():
            pass
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_a_group_is_given_by_number(path: Path, bound: list[socket.socket]) -> None:
    claim = claim_of(path, group=str(os.getgid()))
    claim.acquire()
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


def test_a_path_where_another_program_listens_is_refused(path: Path, bound: list[socket.socket]) -> None:
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


def test_a_lock_file_left_by_a_killed_server_does_not_matter(path: Path, bound: list[socket.socket]) -> None:
    (path.parent / "authz.sock.lock").touch()
    published(path, bound)
    assert connects(path)


def test_a_file_that_is_not_a_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    assert "not a socket" in refusal(claim_of(path))
    assert path.read_text() == "precious"


def test_the_error_names_a_missing_directory(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    assert f"the directory {missing} does not exist" in refusal(claim_of(missing / "authz.sock"))


def test_a_lock_file_that_is_a_symlink_is_not_followed(path: Path) -> None:
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


def test_the_error_names_a_path_that_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is not a directory" in refusal(claim_of(tmp_path / "file" / "authz.sock"))
    assert "can't be accessed: Not a directory" in refusal(claim_of(tmp_path / "file" / "below" / "authz.sock"))


def test_the_error_names_a_lock_file_that_can_not_be_opened(path: Path) -> None:
    lock = path.parent / "authz.sock.lock"
    lock.mkdir()
    message = refusal(claim_of(path))
    assert f"the lock file {lock} can't be opened: Is a directory; remove it, unless another server" in message
    lock.rmdir()
    for number, hint in ((errno.EACCES, "let this service's user write"), (errno.EROFS, "mount something writable")):
        error = claim_of(path)._lock_open_error(OSError(number, os.strerror(number)))
        assert f"can't be created: {os.strerror(number)}; {hint}" in str(error)


def test_a_file_system_without_locks_is_not_reported_as_another_server(path: Path) -> None:
    message = str(claim_of(path)._lock_error(OSError(errno.ENOLCK, "No locks available")))
    assert "can't be locked: No locks available; use a file system with locks" in message
    assert "another server" not in message


@pytest.fixture
def others(bound: list[socket.socket]) -> Iterator[Path]:
    """A path in a directory of another user."""
    assert bound == []  # closed after the directory is gone
    directory = Path(tempfile.mkdtemp())
    os.chown(directory, 12345, -1)
    yield directory / "authz.sock"
    shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes two users")
def test_a_socket_that_we_may_not_connect_to_is_not_reported_as_in_use(
    others: Path, bound: list[socket.socket]
) -> None:
    path = others
    listen(str(path), bound)
    path.chmod(0o600)
    os.seteuid(12345)
    try:
        message = refusal(claim_of(path))
    finally:
        os.seteuid(0)
    assert "the socket there belongs to user 0, and this service may not connect to it" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="takes two users")
def test_the_error_names_a_group_that_we_are_not_a_member_of(others: Path, bound: list[socket.socket]) -> None:
    os.seteuid(12345)
    try:
        claim = claim_of(others, group="1")
        claim.acquire()
        listen(claim.private_path, bound)
        with pytest.raises(SettingsErrors, match="the socket can't be given to group 1: Operation not permitted; let"):
            claim.publish()
        claim.release()
    finally:
        os.seteuid(0)


def test_the_error_reports_a_directory_at_the_socket_path(path: Path, bound: list[socket.socket]) -> None:
    claim = claim_of(path)
    claim.acquire()
    listen(claim.private_path, bound)
    path.mkdir()
    with pytest.raises(SettingsErrors, match="the socket can't be put in place: Is a directory; move away"):
        claim.publish()
    claim.release()


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EADDRINUSE, "stop the program that listens there"),
        (errno.EADDRNOTAVAIL, "choose one that it has"),
        (errno.EACCES, "below 1024"),
        (errno.ENOBUFS, "choose another address"),
    ],
)
def test_a_bind_error_says_what_to_do(number: int, hint: str) -> None:
    assert hint in str(bind_error(Endpoint(host="127.0.0.1", port=1), OSError(number, os.strerror(number))))
