"""HTTP/1.1 for kubelet and Prometheus: `/healthz`, `/readyz`, `/metrics`, `/version`; one request a connection.

Small on purpose: it reads one bounded request head within a bounded time, ignores any body, answers and closes. It
says nothing of policies, principals or requests, because anybody who reaches it may ask; only issuers, trust domains
and workloads for which something is missing are named.
"""

from __future__ import annotations

import asyncio
import json
import logging
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault, SettingsErrors

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.admin.state import ServiceState

MAX_HEAD_BYTES: Final = 8 * 1024
HEAD_SECONDS: Final = 1.0
"""For the whole head of the request."""
TIMEOUT_SECONDS: Final = 5.0
"""For everything, from accepting the connection to its end."""
LINGER_SECONDS: Final = 0.5
MAX_READS: Final = 16
MAX_CONNECTIONS: Final = 64
MAX_ISSUERS: Final = 20
"""Names in the readiness page; the admin API has them all."""

_LOG = logging.getLogger(__name__)
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


class HealthServer:
    """The HTTP listener. `metrics` gives the exposition and its content type."""

    def __init__(self, host: str, port: int, state: ServiceState, metrics: Callable[[], tuple[bytes, str]]) -> None:
        self._host = host
        self._port = port
        self._state = state
        self._metrics = metrics
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._waiting: dict[asyncio.Task[None], None] = {}
        """Connections that have not sent a full head, the oldest first."""
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen; the address, with the port that was chosen. Raises `SettingsErrors` if it is taken."""
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=MAX_HEAD_BYTES)
        except OSError as error:
            place = f"listener {self._host}:{self._port}"
            fault = Fault(place, 0, 0, f"cannot listen: {error.strerror}", "choose another address in `health.listen`")
            raise SettingsErrors([fault]) from error
        port = self._server.sockets[0].getsockname()[1]
        return f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        for writer in self._connections.values():
            writer.close()  # whoever still reads from it then sees its end
        if self._connections:
            await asyncio.wait(self._connections, timeout=TIMEOUT_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or not self._make_room():
            writer.close()
            return
        self._connections[task] = writer
        self._waiting[task] = None
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                async with asyncio.timeout(HEAD_SECONDS):
                    page, with_body = await self._answer(reader)
                self._waiting.pop(task, None)
                writer.write(_encode(page, with_body=with_body))
                await writer.drain()
                if page.status >= HTTPStatus.BAD_REQUEST:
                    await _read_rest(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass  # gone or too slow
        finally:
            self._connections.pop(task, None)
            self._waiting.pop(task, None)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _make_room(self) -> bool:
        """True where one more connection may be served: those that say nothing must not keep the kubelet out."""
        if len(self._connections) < MAX_CONNECTIONS:
            return True
        oldest = next(iter(self._waiting), None)
        if oldest is None:
            return False
        del self._waiting[oldest]
        self._connections.pop(oldest).transport.abort()
        return True

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Page, bool]:
        """The page, and whether its body is wanted."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), True
        parts = head.split(b"\r\n", 1)[0].split(b" ")
        if len(parts) != 3 or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            return _error(HTTPStatus.BAD_REQUEST), True
        method, target, _ = parts
        if method not in (b"GET", b"HEAD"):
            return _error(HTTPStatus.METHOD_NOT_ALLOWED), True
        return self.page(target.partition(b"?")[0]), method == b"GET"

    def page(self, path: bytes) -> Page:
        """The answer to a GET of `path`."""
        try:
            match path:
                case b"/healthz":
                    return self._liveness()
                case b"/readyz":
                    return self._readiness()
                case b"/metrics":
                    body, content_type = self._metrics()
                    return Page(HTTPStatus.OK, content_type, body)
                case b"/version":
                    return Page(HTTPStatus.OK, _JSON, _to_json(self._version()))
        except Exception:  # noqa: BLE001 - a bug in a page is an answer, not a lost connection
            _LOG.exception("a health page failed")
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR)
        return _error(HTTPStatus.NOT_FOUND)

    def _liveness(self) -> Page:
        """200 as long as anything is answered at all, with what `/readyz` says."""
        try:
            detail = self._readiness().body
        except Exception:  # noqa: BLE001 - a process is not restarted because a page about it fails
            _LOG.exception("readiness could not be told")
            detail = _to_json({})
        return Page(HTTPStatus.OK, _JSON, detail)

    def _version(self) -> dict[str, object]:
        state = self._state
        uptime = max(0.0, round(state.now - state.started_at, 3))
        return {"version": state.version, "python": platform.python_version(), "uptime_seconds": uptime}

    def _readiness(self) -> Page:
        state, snapshot = self._state, self._state.snapshot
        detail = {
            "ready": state.ready,
            "obstacles": state.obstacles(),
            "blanket_denials": state.blanket_denials(),
            "phase": state.phase.value,
            "table_digest": snapshot.digest if snapshot is not None else "",
            "table_age_seconds": max(0.0, round(state.now - state.loaded_at, 3)) if snapshot is not None else None,
            "policy_reload_failed": bool(state.load_errors),
            "load_errors": len(state.load_errors),
            "warnings": len(snapshot.warnings) if snapshot is not None else 0,
            "issuers_without_keys": state.issuers_without_keys()[:MAX_ISSUERS],
            "audit": asdict(state.audit()),
        }
        status = HTTPStatus.OK if state.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Page(status, _JSON, _to_json(detail))


async def _read_rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what else the client sends, up to a bound: closing on unread bytes would reset the answer away."""
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            for _ in range(MAX_READS):
                if not await reader.read(MAX_HEAD_BYTES):
                    return


def _to_json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _error(status: HTTPStatus) -> Page:
    return Page(status, _TEXT, f"{status.phrase}\n".encode())


def _encode(page: Page, *, with_body: bool) -> bytes:
    allow = "Allow: GET, HEAD\r\n" if page.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"{allow}"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (page.body if with_body else b"")
