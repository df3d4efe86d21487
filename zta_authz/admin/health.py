"""The pages for kubelet and Prometheus: `/healthz`, `/readyz`, `/metrics`, `/version`; `http` serves them.

They say nothing of policies, principals or requests, because anybody who reaches the listener may ask; only issuers,
trust domains and workloads for which something is missing are named.
"""

from __future__ import annotations

import asyncio
import json
import logging
import platform
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from zta_authz.admin.http import Listener, Page, error_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.admin.state import ServiceState

FRESH_SECONDS: Final = 0.1
"""Making metrics costs some milliseconds, and anybody who reaches the listener may ask for them."""
MAX_ISSUERS: Final = 20
"""Names in the readiness page; the admin API has them all."""

_LOG = logging.getLogger(__name__)
_JSON: Final = "application/json"


class HealthServer:
    """The pages, and the listener that gives them. `metrics` gives the exposition and its content type."""

    def __init__(self, host: str, port: int, state: ServiceState, metrics: Callable[[], tuple[bytes, str]]) -> None:
        self._state = state
        self._metrics = metrics
        self.listener = Listener(host, port, self.answer)
        self._exposition: Page | None = None
        self._exposed_at = float("-inf")

    async def start(self) -> str:
        """Listen; the address, with the port that was chosen. Raises `SettingsErrors` if it can't be had."""
        return await self.listener.start()

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        await self.listener.stop()

    async def prepare(self, path: bytes) -> None:
        """Learn what the page for `path` says of others. Waits for a bounded time, and does not raise."""

    async def answer(self, path: bytes) -> Page:
        """The answer to a GET of `path`. What is asked for within `FRESH_SECONDS` gets the same metrics."""
        if path != b"/metrics":
            await self.prepare(path)
            return self.page(path)
        exposition = self._fresh_exposition()
        if exposition is None:
            await self.prepare(path)
            exposition = self._fresh_exposition()  # of all who waited, one makes it
        if exposition is None:
            exposition = self._exposition = self.page(path)
            self._exposed_at = asyncio.get_running_loop().time()
        return exposition

    def _fresh_exposition(self) -> Page | None:
        age = asyncio.get_running_loop().time() - self._exposed_at
        return self._exposition if age < FRESH_SECONDS else None

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
            return error_page(HTTPStatus.INTERNAL_SERVER_ERROR)
        return error_page(HTTPStatus.NOT_FOUND)

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


def _to_json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
