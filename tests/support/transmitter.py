"""A transmitter of security events on loopback: metadata, keys, tokens, one stream, push and poll (SSF 1.0)."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession, web

from tests.support.pki import jwks
from tests.support.security_events import SIGNER, claims, signed
from zta_authz.model.signal_documents import SSF

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ISSUER_PATH = "/realms/shop"
TOKEN = "transmitter-token"


class Transmitter:
    """One stream at most. `unacknowledged` are the SETs by their `jti`, in the order in which they came."""

    def __init__(self) -> None:
        self.port = 0
        self.stream: dict[str, Any] | None = None
        self.unacknowledged: dict[str, str] = {}
        self.errors: dict[str, Any] = {}
        self.calls: list[str] = []
        self.polls: list[dict[str, Any]] = []
        self.failing = 0
        self.accepts_new = True
        self.verifies = True
        self.metadata: dict[str, Any] = {}
        self.token = TOKEN
        self.signer = SIGNER

    @property
    def issuer(self) -> str:
        """The `iss`, whose path metadata are found by insertion."""
        return f"http://127.0.0.1:{self.port}{ISSUER_PATH}"

    def queue(self, **changed: Any) -> str:
        """Queue a SET for the stream's audience. Returns its `jti`."""
        alice = {"format": "iss_sub", "iss": self.issuer, "sub": "alice"}
        payload = claims(**({"iss": self.issuer, "aud": "client/stream-1", "sub_id": alice} | changed))
        self.unacknowledged[payload["jti"]] = signed(payload, {"kid": self.signer.kid}, self.signer).decode()
        return str(payload["jti"])

    async def push(self, jti: str) -> int:
        """Push one queued SET as the stream says, and drop it if it is acknowledged. Returns the status."""
        assert self.stream is not None
        delivery = self.stream["delivery"]
        headers = {"Content-Type": "application/secevent+jwt", "Authorization": delivery["authorization_header"]}
        async with (
            ClientSession() as session,
            session.post(delivery["endpoint_url"], data=self.unacknowledged[jti], headers=headers) as response,
        ):
            if response.status == 202:
                del self.unacknowledged[jti]
            return response.status

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.path}")
        if self.failing:
            self.failing -= 1
            return web.Response(status=500)
        handler = getattr(self, f"_{request.method.lower()}_{request.match_info['name'].replace('-', '_')}", None)
        if handler is None:
            return web.Response(status=404)
        authorized = request.headers.get("Authorization") == f"Bearer {self.token}"
        if request.match_info["name"] in ("stream", "verify", "poll") and not authorized:
            return web.Response(status=401)
        response: web.StreamResponse = await handler(request)
        return response

    async def _describe(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.path}")
        return web.json_response(
            {
                "issuer": self.issuer,
                "jwks_uri": self._url("/t/keys"),
                "configuration_endpoint": self._url("/t/stream"),
                "verification_endpoint": self._url("/t/verify"),
                "critical_subject_members": ["user"],
            }
            | self.metadata
        )

    async def _get_keys(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text=jwks([self.signer]))

    async def _post_token(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        if form.get("grant_type") != "client_credentials" or not request.headers["Authorization"].startswith("Basic "):
            return web.Response(status=400)
        return web.json_response({"access_token": self.token, "expires_in": 300})

    async def _post_stream(self, request: web.Request) -> web.StreamResponse:
        if not self.accepts_new or self.stream is not None:
            return web.Response(status=409)
        self._configure(await request.json())
        return web.json_response(self.stream, status=201)

    async def _patch_stream(self, request: web.Request) -> web.StreamResponse:
        self._configure(await request.json())
        return web.json_response(self.stream)

    async def _get_stream(self, request: web.Request) -> web.StreamResponse:
        if self.stream is None or request.query.get("stream_id", "stream-1") != "stream-1":
            return web.Response(status=404)
        return web.json_response(self.stream)

    async def _delete_stream(self, _: web.Request) -> web.StreamResponse:
        self.stream = None
        return web.Response(status=204)

    async def _post_verify(self, request: web.Request) -> web.StreamResponse:
        content = await request.json()
        if self.verifies:
            jti = self.queue(sub_id={"format": "opaque", "id": "stream-1"}, events={SSF + "verification": {"state": content["state"]}})  # fmt: skip
            if self.stream and "authorization_header" in self.stream["delivery"]:
                asyncio.get_running_loop().create_task(self.push(jti))
        return web.Response(status=204) if self.verifies else web.Response(status=429, headers={"Retry-After": "2"})

    async def _post_poll(self, request: web.Request) -> web.StreamResponse:
        content = await request.json()
        self.polls.append(content)
        for jti in content.get("ack", []):
            self.unacknowledged.pop(jti, None)
        for jti, error in content.get("setErrs", {}).items():
            self.errors[jti] = error
            self.unacknowledged.pop(jti, None)
        sets = dict(list(self.unacknowledged.items())[: content["maxEvents"]])
        return web.json_response({"sets": sets, "moreAvailable": len(sets) < len(self.unacknowledged)})

    def _configure(self, content: dict[str, Any]) -> None:
        delivery = dict(content["delivery"])
        if delivery["method"] == "urn:ietf:rfc:8936":
            delivery["endpoint_url"] = self._url("/t/poll")
        self.stream = {
            "stream_id": "stream-1",
            "iss": self.issuer,
            "aud": "client/stream-1",
            "delivery": delivery,
            "events_requested": content["events_requested"],
            "events_delivered": content["events_requested"],
            "min_verification_interval": 0,
        }


@asynccontextmanager
async def transmitter() -> AsyncIterator[Transmitter]:
    """A transmitter in this loop."""
    made = Transmitter()
    application = web.Application()
    application.router.add_get(f"/.well-known/ssf-configuration{ISSUER_PATH}", made._describe)
    application.router.add_route("*", "/t/{name}", made._handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


def body(value: Any) -> bytes:
    """JSON."""
    return json.dumps(value).encode()
