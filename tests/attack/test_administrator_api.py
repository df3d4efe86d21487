"""Attacks on the administrator's API: forged callers, other sites, links in mails, smuggled requests, and floods."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.support.operations_api import DB, LOGIN, WORKLOAD, Api, bearer, running
from zta_authz.administrator import http_listener
from zta_authz.administrator.grpc_api import SERVICE
from zta_authz.administrator.rest_routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

JSON = "application/json"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as made:
        yield made


async def state(api: Api, request: dict[str, Any]) -> str:
    """The state of a request now."""
    text: str = (await api.get(f"/access/requests/{request['id']}", person="mary")).fields["state"]
    return text


# Links: whoever opens one, and whatever it says, sees the request at most


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE"])
async def test_only_post_approves(api: Api, method: str) -> None:
    request = await api.request()
    query = f"?scope_sha256={request['scope_sha256']}&_method=POST&action=approve"
    answer = await api.call(
        method, f"/access/requests/{request['id']}/approve{query}", person="mary", X_HTTP_Method_Override="POST",
    )  # fmt: skip
    assert answer.status == 405
    assert answer.headers["Allow"] == "POST"
    assert await state(api, request) == "requested"


async def test_a_link_to_a_request_shows_it_and_changes_nothing(api: Api) -> None:
    request = await api.request()
    revision = (await api.store.head()).revision
    for route in ROUTES:
        if route.method == "GET":
            assert (await api.get(route.path.replace("{id}", request["id"]), person="mary")).status in (200, 404)
    assert (await api.store.head()).revision == revision


async def test_an_approval_of_what_the_approver_did_not_see_is_refused(api: Api) -> None:
    request = await api.request()
    for digest in ("", "0" * 64, request["scope_sha256"].upper()):
        answer = await api.post(f"/access/requests/{request['id']}/approve", {"scope_sha256": digest}, person="mary")
        assert answer.reason == (409, "scope_changed")


# Other sites: what a browser sends for them, or without being asked


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "text/plain; application/json", "application/jsonx", "application/json-patch+json"])  # fmt: skip
async def test_what_a_form_can_send_is_refused(api: Api, content_type: str) -> None:
    request = await api.request()
    body = json.dumps({"scope_sha256": request["scope_sha256"]}).encode()
    answer = await api.post(f"/access/requests/{request['id']}/approve", body, person="mary", Content_Type=content_type)
    assert answer.reason == (415, "unsupported_media_type")
    assert await state(api, request) == "requested"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://administrator"},  # the right name, over another protocol
        {"Origin": "http://administrator.evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": ""},
    ],
)
async def test_a_page_of_another_site_is_refused(api: Api, headers: dict[str, str]) -> None:
    request = await api.request()
    fields = {"scope_sha256": request["scope_sha256"]}
    answer = await api.post(f"/access/requests/{request['id']}/approve", fields, person="mary", **headers)
    assert answer.reason == (403, "cross_site")
    assert await state(api, request) == "requested"


async def test_no_answer_permits_another_site_to_read_or_to_send(api: Api) -> None:
    preflight = await api.call(
        "OPTIONS", "/access/requests", Origin="http://administrator", Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="content-type,authorization",
    )  # fmt: skip
    assert preflight.status == 405
    answers = [preflight, await api.get("/access/requests", person="mary", Origin="http://administrator")]
    assert answers[1].status == 200
    for answer in answers:
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert "Set-Cookie" not in answer.headers
        assert answer.headers["Cache-Control"] == "no-store"


async def test_a_cookie_is_no_credential(api: Api) -> None:
    token = bearer("mary")
    answer = await api.call("GET", "/access/requests", tcp=True, Cookie=f"authorization={token}; token={token[7:]}")
    assert answer.reason == (403, "not_allowed")


# Forged callers


FORGED = {
    "X-Forwarded-Client-Cert": f"URI={WORKLOAD}",
    "X-Forwarded-Authorization": bearer("mary"),
    "X-Original-Authorization": bearer("mary"),
    "X-Spiffe-Id": WORKLOAD,
    "X-Remote-User": "root",
    "X-Peer-Uid": "0",
}


@pytest.mark.parametrize("name", FORGED)
async def test_no_other_header_names_the_caller(api: Api, name: str) -> None:
    answer = await api.call("GET", "/revocations", tcp=True, **{name: FORGED[name]})
    assert answer.reason == (403, "not_allowed")
    async with grpc.aio.insecure_channel(api.grpc_tcp) as channel:
        revocations, metadata = channel.unary_unary(f"/{SERVICE}/ListRevocations"), [(name.lower(), FORGED[name])]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await revocations(b"", metadata=metadata, timeout=10)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("claims", [{"exp": 1}, {"aud": "hatshop"}, {"iss": "https://evil.example"}, {"sub": None}])
async def test_a_token_that_is_not_for_the_administrator_is_no_caller(api: Api, claims: dict[str, Any]) -> None:
    answer = await api.get("/access/requests", Authorization=bearer("mary", **claims))
    assert answer.status in (401, 403)


async def test_two_tokens_are_refused(api: Api) -> None:
    head = "GET /access/requests HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    one, two = (f"Authorization: {bearer(name)}\r\n" for name in ("dana", "mary"))
    answer = await api.raw((head + one + two + "\r\n").encode())
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_nobody_approves_for_themselves_by_spelling_their_name_otherwise(api: Api) -> None:
    request = await api.request()
    path, fields = f"/access/requests/{request['id']}/approve", {"scope_sha256": request["scope_sha256"]}
    for subject in ("dana", "Dana", "dana ", "dana\u200b", "DANA"):
        answer = await api.post(path, fields, Authorization=bearer(subject))
        assert answer.status in (401, 403)
    assert await state(api, request) == "requested"


# Bytes


PIPELINED = b"POST /access/requests/%s/approve HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
SMUGGLED = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 90\r\n\r\n{}",
    "a length and chunks": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an obfuscated encoding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a length with a sign": b"Content-Length: +2\r\n\r\n{}",
    "a length with a space": b"Content-Length : 2\r\n\r\n{}",
    "a header with NUL": b"Content-Length: 2\r\nX: \x00\r\n\r\n{}",
}


@pytest.mark.parametrize("rest", SMUGGLED.values(), ids=SMUGGLED)
async def test_a_request_that_two_servers_read_differently_ends_the_connection(api: Api, rest: bytes) -> None:
    request = await api.request()
    approve = json.dumps({"scope_sha256": request["scope_sha256"]}).encode()
    token = f"Authorization: {bearer('mary')}\r\n".encode()
    head = PIPELINED % request["id"].encode()
    second = head + token + b"Content-Length: %d\r\n\r\n" % len(approve) + approve
    answer = await api.raw(head + rest + second)
    assert answer.count(b"HTTP/1.") == 1
    assert b" 400 " in answer.splitlines()[0]
    assert await state(api, request) == "requested"


@pytest.mark.parametrize("line", [b"GET /access/requests HTTP/0.9", b"GET http://[ HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"GET * HTTP/1.1", b"GET \xff HTTP/1.1", b"GET /%ff%00 HTTP/1.1", b"GET //access/requests HTTP/1.1", b"GET /access/requests/../requests HTTP/1.1"])  # fmt: skip
async def test_an_odd_target_is_refused(api: Api, line: bytes) -> None:
    answer = await api.raw(line + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
    status = answer.split(b" ", 2)[1:2]
    assert status in ([b"400"], [b"404"], [b"405"], [b"200"])
    assert b"Traceback" not in answer
    if status == [b"200"]:
        assert line.startswith(b"GET /access/requests/../requests")


async def test_an_upgrade_is_not_made(api: Api) -> None:
    head = b"GET /access/requests HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: "
    for protocol in (b"h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", b"websocket\r\nSec-WebSocket-Key: eA=="):
        answer = await api.raw(head + protocol + b"\r\n\r\n")
        assert b" 101 " not in answer.splitlines()[0]


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "a" * 16, "0" * 15, "0" * 17, "\u0660" * 16, "0" * 16 + "%00", "0" * 15 + "G", "0" * 8000]
)
async def test_an_id_in_a_path_is_an_id_or_nothing(api: Api, name: str) -> None:
    answer = await api.post(f"/access/requests/{name}/approve", {"scope_sha256": ""}, person="mary")
    assert answer.status in (400, 404)
    assert not [request for request, *_ in api.sink.records if request is not None and "%" in request.path]


TEXTS = ["\x00", "a\nb", "\x1b[2J", "x" * 501, "\u202e", "<script>", "\ud800"]


@pytest.mark.parametrize("text", TEXTS)
async def test_a_text_is_a_short_line(api: Api, text: str) -> None:
    request = await api.request()
    answer = await api.post(f"/access/requests/{request['id']}/deny", {"comment": text}, person="mary")
    if text == "<script>":  # JSON here, no HTML
        assert (answer.status, answer.headers["Content-Type"]) == (200, JSON)
    else:
        assert answer.status == 400
        assert await state(api, request) == "requested"


async def test_a_flood_of_one_user_does_not_keep_others_out(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_listener, "MAX_CONNECTIONS", 20)
    idle = [await asyncio.open_unix_connection(api.http) for _ in range(60)]
    assert (await api.get("/access/requests", person="mary")).status == 200
    for _, writer in idle:
        writer.close()


async def test_calls_at_once_are_bounded_and_the_rest_succeeds_later(api: Api) -> None:
    calls = [api.get("/access/requests", person="mary") for _ in range(100)]
    statuses = {answer.status for answer in await asyncio.gather(*calls)}
    assert statuses <= {200, 503}
    assert (await api.get("/access/requests", person="mary")).status == 200


async def test_revocations_reach_operators_too_and_refusals_are_recorded(api: Api) -> None:
    await api.call("GET", "/revocations", tcp=True, person="dana")
    request, decision, _ = api.sink.records[-1]
    assert request is not None
    assert (request.path, decision.allowed) == ("/revocations", False)
    assert DB not in str(request)
    assert LOGIN in str(decision.identity)
