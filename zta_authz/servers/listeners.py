"""Where we listen: addresses, and the right to a Unix socket's path.

gRPC alone would take over a live path in silence, create the file with the process's umask, and on stopping unlink
whatever then stands at that path. So a `SocketClaim` holds a lock beside the path; the server binds a private name in
the same directory, readable by us alone; the file gets its group and mode there; and one `rename` puts it in place,
which also replaces a stale socket without a gap.
"""

from __future__ import annotations

import errno
import fcntl
import grp
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
"""Of a gRPC connection under mutual TLS. An SVID with the shortest usual life, a minute, is renewed when half of it is
left: whichever a proxy opens a connection with, it comes back with the next one before the first expires."""

_UNIX: Final = "unix:"
_PRIVATE_NAME_BYTES: Final = 6
_MAX_ID: Final = 2**32 - 2
_CONNECT_SECONDS: Final = 1.0
_HINTS: Final = {
    errno.EADDRINUSE: "stop what listens there, or choose another address",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose one that it has",
    errno.EACCES: "ports below 1024 need the capability NET_BIND_SERVICE: choose a higher one",
}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens: `path` of a Unix socket, else `host` and `port` (0: any free one)."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """`unix:/absolute/path`, `ADDRESS:PORT` or `[IPV6]:PORT`. Raises ValueError saying what is wrong."""
        return cls._unix(text[len(_UNIX) :]) if text.startswith(_UNIX) else cls._tcp(text)

    @classmethod
    def _unix(cls, path: str) -> Endpoint:
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        if not path.startswith("/") or path.endswith("/") or "\0" in path:
            raise ValueError("a Unix socket is written `unix:` and an absolute path, like `unix:/run/authz.sock`")
        directory, _, name = path.rpartition("/")
        longest = len(os.fsencode(directory)) + 1 + max(len(os.fsencode(name)), _PRIVATE_NAME_BYTES)
        if longest > MAX_UNIX_PATH_BYTES:
            raise ValueError(f"the path has {longest} bytes, a Unix socket's at most {MAX_UNIX_PATH_BYTES}")
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
            raise ValueError("what is before the port is not an IP address like 127.0.0.1, 0.0.0.0 or [::1]") from None
        if (address.version == 6) is not bracketed:
            raise ValueError("an IPv6 address stands in brackets, an IPv4 address does not: [::1]:9191, 127.0.0.1:9191")
        return cls(host=str(address), port=int(port))

    @property
    def is_unix(self) -> bool:
        """True for a Unix socket."""
        return bool(self.path)

    @property
    def is_local(self) -> bool:
        """True where only this machine (or pod) can connect: a Unix socket or a loopback address."""
        return self.is_unix or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.is_unix:
            return _UNIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SocketAccess:
    """Who may connect to the Unix sockets we create: file mode, and the group (name or number) or None for our own."""

    mode: int = 0o660
    group: str | None = None

    def group_id(self) -> int:
        """The group's number, -1 to keep our own. Raises ValueError for a name that this system does not know."""
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


def refuse(endpoint: Endpoint, message: str, hint: str = "") -> SettingsErrors:
    """The error for an address that we can't listen on."""
    return SettingsErrors([Fault(f"listener {endpoint}", 0, 0, message, hint)])


def probe_tcp(endpoint: Endpoint) -> None:
    """Raise `SettingsErrors` with the system's own reason if the address can't be bound (gRPC would not say)."""
    try:
        with bound_socket(endpoint.host, endpoint.port) as probe:
            probe.listen(1)
    except OSError as error:
        raise cannot_listen(endpoint, error) from error


def cannot_listen(endpoint: Endpoint, error: OSError) -> SettingsErrors:
    """The error for a TCP address that the system does not let us have."""
    hint = _HINTS.get(error.errno or 0, "choose another address")
    return refuse(endpoint, f"cannot listen: {error.strerror}", hint)


class SocketClaim:
    """The right to one Unix socket path, held by a lock file beside it until `release`.

    Use: `take`, let the server bind `private_path` under `umask_for_bind`, then `publish`; `release` at the end.
    """

    def __init__(self, endpoint: Endpoint, access: SocketAccess) -> None:
        self.endpoint = endpoint
        self._path = Path(endpoint.path)
        self._lock_path = Path(endpoint.path + ".lock")
        self._access = access
        self._lock = -1
        self._published: tuple[int, int] | None = None
        self.private_path = str(self._path.with_name("." + secrets.token_hex(3)[: _PRIVATE_NAME_BYTES - 1]))

    def take(self) -> None:
        """Take the lock and see that nobody listens on the path. Raises `SettingsErrors`; takes nothing then."""
        self._check_directory()
        self._warn_of_directory()
        self._lock = self._take_lock()
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
            raise refuse(
                self.endpoint, f"the directory {directory} does not exist", "create it, owned by our user"
            ) from None
        except OSError as error:
            hint = "let this service's user look into the directories above it"
            raise refuse(self.endpoint, f"the directory {directory} can't be seen: {error.strerror}", hint) from error
        if not is_directory:
            raise refuse(self.endpoint, f"{directory} is not a directory", "name a path in a directory")

    def _warn_of_directory(self) -> None:
        """Whoever can rename files beside the socket can take its place and answer for us."""
        directory = self._path.parent
        mode = os.stat(directory).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            what = "everybody can replace our socket: the directory %s is writable by all (mode %o); make it mode 0750"
            _LOG.warning(what, directory, stat.S_IMODE(mode))

    def _take_lock(self) -> int:
        while True:
            try:
                lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise self._no_lock_file(error) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock)
                raise self._not_locked(error) from error
            if _same_file(lock, self._lock_path):
                return lock
            os.close(lock)  # the former holder unlinked it between our open and our lock

    def _no_lock_file(self, error: OSError) -> SettingsErrors:
        path, why = self._lock_path, error.strerror
        if os.path.lexists(path):
            hint = "it is not ours: remove it, if no other server listens on this path"
            return refuse(self.endpoint, f"the lock file {path} can't be opened: {why}", hint)
        hint = "let this service's user write to the directory"
        if error.errno == errno.EROFS:
            hint = "mount something writable there, such as an emptyDir"
        return refuse(self.endpoint, f"the lock file {path} can't be created: {why}", hint)

    def _not_locked(self, error: OSError) -> SettingsErrors:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            hint = "stop it or let it drain, or listen on another path"
            return refuse(self.endpoint, f"another server holds this socket, by its lock file {self._lock_path}", hint)
        hint = "use a file system with locks, such as a tmpfs"
        return refuse(self.endpoint, f"the lock file {self._lock_path} can't be locked: {error.strerror}", hint)

    def _check_path(self) -> None:
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise refuse(self.endpoint, "a file that is not a socket stands there", "move it away")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_CONNECT_SECONDS)
            code = probe.connect_ex(str(self._path))
        if code in (errno.ECONNREFUSED, errno.ENOENT):
            return
        if code in (errno.EACCES, errno.EPERM):
            told = f"a socket of user {found.st_uid} stands there, and we may not ask whether anybody listens on it"
            raise refuse(self.endpoint, told, "remove it if nobody does, or listen on another path")
        raise refuse(self.endpoint, "another program listens on this socket", "stop it, or listen on another path")

    def publish(self) -> None:
        """Give the bound private file its group, mode and name, over a stale socket. Raises `SettingsErrors`."""
        group = self._access.group
        step, hint = f"be given to group {group}", "let this service's user be a member of `socket.group`"
        try:
            os.chown(self.private_path, -1, self._access.group_id())
            step, hint = f"have mode {self._access.mode:04o}", "use a file system with modes, such as a tmpfs"
            os.chmod(self.private_path, self._access.mode)
            made = os.lstat(self.private_path)
            step, hint = "be put in place", "what stands at this path? Move it away"
            os.rename(self.private_path, self._path)
        except OSError as error:
            raise refuse(self.endpoint, f"the socket can't {step}: {error.strerror}", hint) from error
        self._published = (made.st_dev, made.st_ino)

    def release(self) -> None:
        """Unlink the socket if it is still ours, and give the path free. May be called again."""
        with suppress(OSError):
            os.unlink(self.private_path)
        if self._published is not None:
            with suppress(OSError):
                found = os.lstat(self._path)
                if (found.st_dev, found.st_ino) == self._published:
                    os.unlink(self._path)
            self._published = None
        if self._lock >= 0:
            with suppress(OSError):
                os.unlink(self._lock_path)
            os.close(self._lock)
            self._lock = -1


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


class umask_for_bind:  # noqa: N801 - reads as the statement it is
    """While it lasts, files are made for our user alone. Process-wide: bind only, and before threads make files."""

    def __enter__(self) -> None:
        self._before = os.umask(0o177)

    def __exit__(self, *_: object) -> None:
        os.umask(self._before)
