"""A receiver of webhooks on loopback. It verifies signatures as the Standard Webhooks specification says."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

SECRET = b"a secret of 24 bytes or more"
SECRET_LINE = "whsec_" + base64.b64encode(SECRET).decode()


class WebhookReceiver:
    """`answers` are the statuses of the next requests, then 204. `accepted` are the IDs that it has answered so."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self.accepted: list[str] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.raw: list[tuple[dict[str, str], bytes]] = []
        self.elsewhere = 0
        self.silent = False

    @property
    def url(self) -> str:
        """Where to send."""
        return f"http://127.0.0.1:{self.port}/hooks/a-secret-in-the-path"

    @property
    def kinds(self) -> list[str]:
        """The kinds of the requests that came."""
        return [body["type"] for _, body in self.requests]

    async def _handle(self, request: web.Request) -> web.Response:
        if request.path != "/hooks/a-secret-in-the-path":
            self.elsewhere += 1
            return web.Response(status=204)
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.raw.append((headers, body))
        self.requests.append((headers["webhook-id"], json.loads(body)))
        if self.silent:
            await asyncio.sleep(3600)
        status = self.answers.pop(0) if self.answers else 204
        if status == 204:
            self.accepted.append(headers["webhook-id"])
        return web.Response(status=status, headers=self.headers)


def verifies(headers: dict[str, str], body: bytes, secret: bytes = SECRET) -> bool:
    """Whether one of the signatures is that of `secret`, and the time is about now."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return fresh and expected in headers["webhook-signature"].split(" ")


@asynccontextmanager
async def webhook_receiver(port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[WebhookReceiver]:
    """Run a receiver. With `tls`, its URL has to be made by the caller."""
    receiver = WebhookReceiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver._handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()
