"""The pages for kubelet, Prometheus and applications, which `http_listener` serves.

They are `/healthz`, `/readyz`, `/metrics`, `/version`, and `/.well-known/jwks.json` with the keys of minted tokens.

Anyone who reaches the listener may read them, so they contain nothing about policies, principals or requests. They
name only issuers, trust domains and workloads for which something is missing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import platform
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from zta_authz.admin.http_listener import Listener, Page, error_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.admin.state import ServiceState

FRESH_SECONDS: Final = 0.1
"""How long metrics are reused: rendering takes milliseconds, and anyone who reaches the listener can ask."""
MAX_ISSUERS: Final = 20
"""Names on the readiness page. The admin API has all of them."""

KEY_SET: Final = b"/.well-known/jwks.json"
KEY_SET_SECONDS: Final = 300
"""How long applications may cache the key set, less than a key should be published before it signs."""

_LOG = logging.getLogger(__name__)
_JSON: Final = "application/json"
_JWKS: Final = "application/jwk-set+json"  # RFC 7517 section 8.5.1


class HealthServer:
    """The pages and the listener that serves them.

    `metrics` returns the exposition and its content type. `key_set` returns the keys of minted tokens, None without.
    """

    def __init__(
        self,
        host: str,
        port: int,
        state: ServiceState,
        metrics: Callable[[], tuple[bytes, str]],
        key_set: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        self._state = state
        self._key_set = key_set
        self._metrics = metrics
        self.listener = Listener(host, port, self.answer)
        self._exposition: Page | None = None
        self._exposed_at = float("-inf")

    async def start(self) -> str:
        """Listen and return the address with its actual port. Raises `SettingsErrors` if it is unavailable."""
        return await self.listener.start()

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        await self.listener.stop()

    async def prepare(self, path: bytes) -> None:
        """Collect what the page for `path` needs from elsewhere, within a time limit and without raising."""

    async def answer(self, path: bytes) -> Page:
        """Answer a GET of `path`. Requests for metrics within `FRESH_SECONDS` get the same page."""
        if path != b"/metrics":
            await self.prepare(path)
            return self.page(path)
        exposition = self._fresh_exposition()
        if exposition is None:
            await self.prepare(path)
            exposition = self._fresh_exposition()  # another request may have rendered it meanwhile
        if exposition is None:
            exposition = self._exposition = self.page(path)
            self._exposed_at = asyncio.get_running_loop().time()
        return exposition

    def _fresh_exposition(self) -> Page | None:
        age = asyncio.get_running_loop().time() - self._exposed_at
        return self._exposition if age < FRESH_SECONDS else None

    def page(self, path: bytes) -> Page:
        """Return the page for a GET of `path`."""
        try:
            match path:
                case b"/healthz":
                    return self._liveness()
                case b"/readyz":
                    return self._readiness()
                case b"/metrics":
                    body, content_type = self._metrics()
                    return Page(HTTPStatus.OK, content_type, body)
                case _ if path == KEY_SET:
                    return key_set_page(self._key_set())
                case b"/version":
                    return Page(HTTPStatus.OK, _JSON, _to_json(self._version()))
        except Exception:  # noqa: BLE001 - a bug in a page must not break the connection
            _LOG.exception("a health page failed")
            return error_page(HTTPStatus.INTERNAL_SERVER_ERROR)
        return error_page(HTTPStatus.NOT_FOUND)

    def _liveness(self) -> Page:
        """Return status 200 with the body of `/readyz`."""
        try:
            detail = self._readiness().body
        except Exception:  # noqa: BLE001 - a failing page is no reason to restart the process
            _LOG.exception("can't determine readiness")
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


def key_set_page(keys: bytes | None) -> Page:
    """Return the page with the keys of minted tokens."""
    return error_page(HTTPStatus.NOT_FOUND) if keys is None else Page(HTTPStatus.OK, _JWKS, keys, KEY_SET_SECONDS)


def _to_json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
