"""Addresses to listen on, and exclusive use of a Unix socket's path.

gRPC alone would silently take over a path that is in use, create the file with the process's umask, and when it stops
unlink whatever is at the path by then. So a `SocketClaim` holds a lock file beside the path. The server binds a private
name in the same directory, accessible to this user only. The file gets its group and mode there, and one `rename` puts
it in place, which also replaces a stale socket without a gap.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import hashlib
import ipaddress
import logging
import os
import secrets
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.sockets import bound_socket

MAX_UNIX_PATH_BYTES: Final = 107
"""`sun_path` of unix(7) has 108 bytes, the last of them NUL."""
MAX_CONNECTION_AGE_SECONDS: Final = 20.0
"""The maximum age of a gRPC connection under mutual TLS.

The shortest-lived SVIDs in common use last a minute and are renewed at half their life. With this age a proxy opens a
new connection with the renewed SVID before the old one expires.
"""

_UNIX: Final = "unix:"
_PRIVATE_NAME_BYTES: Final = 6
_MAX_ID: Final = 2**32 - 2
_CONNECT_SECONDS: Final = 1.0
_HINTS: Final = {
    errno.EADDRINUSE: "stop the program that listens there, or choose another address",
    errno.EADDRNOTAVAIL: "this machine does not have the address: choose one that it has",
    errno.EACCES: "ports below 1024 need the capability NET_BIND_SERVICE: choose a higher one",
}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address to listen on: the `path` of a Unix socket, or `host` and `port` (0: any free port)."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Parse `unix:/absolute/path`, `ADDRESS:PORT` or `[IPV6]:PORT`. Raises ValueError saying what is wrong."""
        return cls._unix(text[len(_UNIX) :]) if text.startswith(_UNIX) else cls._tcp(text)

    @classmethod
    def _unix(cls, path: str) -> Endpoint:
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        if not path.startswith("/") or path.endswith("/") or "\0" in path:
            raise ValueError("a Unix socket is written `unix:` and an absolute path, like `unix:/run/authz.sock`")
        directory, _, name = path.rpartition("/")
        longest = len(os.fsencode(directory)) + 1 + max(len(os.fsencode(name)), _PRIVATE_NAME_BYTES)
        if longest > MAX_UNIX_PATH_BYTES:
            raise ValueError(f"the path has {longest} bytes; a Unix socket's path has at most {MAX_UNIX_PATH_BYTES}")
        return cls(path=path)

    @classmethod
    def _tcp(cls, text: str) -> Endpoint:
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError("an address is `unix:/path`, `ADDRESS:PORT` or `[IPV6]:PORT`, the port 0 to 65535")
        bracketed = host.startswith("[") and host.endswith("]")
        try:
            address = ipaddress.ip_address(host[1:-1] if bracketed else "127.0.0.1" if host == "localhost" else host)
        except ValueError:
            raise ValueError("the part before the port is not an IP address like 127.0.0.1, 0.0.0.0 or [::1]") from None
        if (address.version == 6) is not bracketed:
            raise ValueError(
                "write an IPv6 address in brackets and an IPv4 address without: [::1]:9191, 127.0.0.1:9191"
            )
        return cls(host=str(address), port=int(port))

    @property
    def is_unix(self) -> bool:
        """True for a Unix socket."""
        return bool(self.path)

    @property
    def is_local(self) -> bool:
        """True if only this machine (or pod) can connect: a Unix socket or a loopback address."""
        return self.is_unix or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.is_unix:
            return _UNIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SocketAccess:
    """Who may connect to the Unix sockets that we create: file mode, and group (name or number; None: our own)."""

    mode: int = 0o660
    group: str | None = None

    def group_id(self) -> int:
        """Return the group's number, or -1 to keep our own. Raises ValueError for an unknown name."""
        if self.group is None:
            return -1
        if self.group.isascii() and self.group.isdigit():
            if int(self.group) > _MAX_ID:
                raise ValueError(f"a group's number is at most {_MAX_ID}")
            return int(self.group)
        try:
            return grp.getgrnam(self.group).gr_gid
        except KeyError:
            raise ValueError("no such group on this system; write a group's name or number") from None


def listener_error(endpoint: Endpoint, message: str, hint: str = "") -> SettingsErrors:
    """Build the error for an address that we can't listen on."""
    return SettingsErrors([Fault(f"listener {endpoint}", 0, 0, message, hint)])


def probe_tcp(endpoint: Endpoint) -> None:
    """Raise `SettingsErrors` with the system's reason if the address can't be bound; gRPC reports no reason."""
    try:
        with bound_socket(endpoint.host, endpoint.port) as probe:
            probe.listen(1)
    except OSError as error:
        raise bind_error(endpoint, error) from error


def bind_error(endpoint: Endpoint, error: OSError) -> SettingsErrors:
    """Build the error for a TCP address that the system refuses to bind."""
    hint = _HINTS.get(error.errno or 0, "choose another address")
    return listener_error(endpoint, f"cannot listen: {error.strerror}", hint)


class SocketClaim:
    """Exclusive use of one Unix socket path, held by a lock file beside it until `release`.

    Call `acquire`, let the server bind `private_path` under `umask_for_bind`, then call `publish`; call `release`
    at the end.
    """

    def __init__(self, endpoint: Endpoint, access: SocketAccess) -> None:
        self.endpoint = endpoint
        self._path = Path(endpoint.path)
        self._lock_path = Path(endpoint.path + ".lock")
        self._access = access
        self._lock = -1
        self._published: tuple[int, int] | None = None
        self.private_path = str(self._path.with_name("." + secrets.token_hex(3)[: _PRIVATE_NAME_BYTES - 1]))
        self.inner_path = str(self._path.with_name("." + _name_of(self._path)[: _PRIVATE_NAME_BYTES - 1]))
        """A path for a socket behind this one. It is always the same, so that a crash leaves one file at most."""

    def acquire(self) -> None:
        """Take the lock and check that no program listens on the path. Raises `SettingsErrors`, holding nothing."""
        self._check_directory()
        self._warn_if_writable_by_all()
        self._lock = self._acquire_lock()
        try:
            self._check_path()
        except SettingsErrors:
            self.release()
            raise

    def _check_directory(self) -> None:
        directory = self._path.parent
        try:
            is_directory = stat.S_ISDIR(os.stat(directory).st_mode)
        except FileNotFoundError:
            raise listener_error(
                self.endpoint, f"the directory {directory} does not exist", "create it, owned by this service's user"
            ) from None
        except OSError as error:
            hint = "let this service's user search the directories above it"
            raise listener_error(
                self.endpoint, f"the directory {directory} can't be accessed: {error.strerror}", hint
            ) from error
        if not is_directory:
            raise listener_error(self.endpoint, f"{directory} is not a directory", "name a path in a directory")

    def _warn_if_writable_by_all(self) -> None:
        """Warn if other users could replace the socket with their own and answer in our place."""
        directory = self._path.parent
        mode = os.stat(directory).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            _LOG.warning(
                "any user can replace the socket: the directory %s is writable by all (mode %o); make it mode 0750",
                directory,
                stat.S_IMODE(mode),
            )

    def _acquire_lock(self) -> int:
        while True:
            try:
                lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise self._lock_open_error(error) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock)
                raise self._lock_error(error) from error
            if _same_file(lock, self._lock_path):
                return lock
            os.close(lock)  # the previous holder unlinked it between our open and our lock

    def _lock_open_error(self, error: OSError) -> SettingsErrors:
        path, why = self._lock_path, error.strerror
        if os.path.lexists(path):
            hint = "remove it, unless another server listens on this path"
            return listener_error(self.endpoint, f"the lock file {path} can't be opened: {why}", hint)
        hint = "let this service's user write to the directory"
        if error.errno == errno.EROFS:
            hint = "mount something writable there, such as an emptyDir"
        return listener_error(self.endpoint, f"the lock file {path} can't be created: {why}", hint)

    def _lock_error(self, error: OSError) -> SettingsErrors:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            hint = "stop it or let it drain, or listen on another path"
            return listener_error(
                self.endpoint, f"another server holds this socket, by its lock file {self._lock_path}", hint
            )
        hint = "use a file system with locks, such as a tmpfs"
        return listener_error(self.endpoint, f"the lock file {self._lock_path} can't be locked: {error.strerror}", hint)

    def _check_path(self) -> None:
        try:
            existing = os.lstat(self._path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(existing.st_mode):
            raise listener_error(self.endpoint, "there is a file at this path that is not a socket", "move it away")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_CONNECT_SECONDS)
            code = probe.connect_ex(str(self._path))
        if code in (errno.ECONNREFUSED, errno.ENOENT):
            return
        if code in (errno.EACCES, errno.EPERM):
            message = f"the socket there belongs to user {existing.st_uid}, and this service may not connect to it"
            raise listener_error(self.endpoint, message, "remove it if no server listens on it, or choose another path")
        raise listener_error(
            self.endpoint, "another program listens on this socket", "stop it, or listen on another path"
        )

    def publish(self) -> None:
        """Give the bound file its group and mode and rename it into place. Raises `SettingsErrors`."""
        group = self._access.group
        step, hint = f"be given to group {group}", "let this service's user be a member of `socket.group`"
        try:
            os.chown(self.private_path, -1, self._access.group_id())
            step, hint = f"have mode {self._access.mode:04o}", "use a file system with modes, such as a tmpfs"
            os.chmod(self.private_path, self._access.mode)
            bound = os.lstat(self.private_path)
            step, hint = "be put in place", "move away whatever is at this path"
            os.rename(self.private_path, self._path)
        except OSError as error:
            raise listener_error(self.endpoint, f"the socket can't {step}: {error.strerror}", hint) from error
        self._published = (bound.st_dev, bound.st_ino)

    def release(self) -> None:
        """Unlink the socket if it is still ours, and release the path. Can be called again."""
        for path in (self.private_path, self.inner_path):
            with suppress(OSError):
                os.unlink(path)
        if self._published is not None:
            with suppress(OSError):
                current = os.lstat(self._path)
                if (current.st_dev, current.st_ino) == self._published:
                    os.unlink(self._path)
            self._published = None
        if self._lock >= 0:
            with suppress(OSError):
                os.unlink(self._lock_path)
            os.close(self._lock)
            self._lock = -1


def bound_unix_socket(path: str, endpoint: Endpoint) -> socket.socket:
    """Return a socket bound to `path`, for `endpoint`. Use it under `umask_for_bind`. Raises `SettingsErrors`."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
    except OSError as error:
        bound.close()
        hint = "check that the directory is writable"
        raise listener_error(endpoint, f"cannot listen: {error.strerror}", hint) from error
    return bound


def _name_of(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.name)).hexdigest()


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        linked = os.lstat(path)
    except FileNotFoundError:
        return False
    locked = os.fstat(descriptor)
    return (linked.st_dev, linked.st_ino) == (locked.st_dev, locked.st_ino)


class umask_for_bind:  # noqa: N801 - reads as the statement it is
    """Context in which new files are accessible to our user only.

    The umask is process-wide: use it around `bind` only, before threads create files.
    """

    def __enter__(self) -> None:
        self._before = os.umask(0o177)

    def __exit__(self, *_: object) -> None:
        os.umask(self._before)
