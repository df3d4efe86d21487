"""The administrator's HTTP API: what each call does, who makes it, and how refusals are answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.stores import FailingStore
from tests.support.operations_api import DB, LOGIN, OWN_USER, Api, bearer, running
from tests.support.pki import NOW
from tests.support.security_events import IDP
from zta_authz.administrator import problems, rest_api
from zta_authz.administrator.rest_api import TokenReply
from zta_authz.administrator.rest_routes import ROUTES
from zta_authz.administrator.store.port import StoreUnavailable
from zta_authz.administrator.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from zta_authz.administrator.operations import Origin

MARY = {"issuer": LOGIN, "subject": "mary", "spiffe_id": ""}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as made:
        yield made


async def test_a_request_is_asked_for_seen_and_approved(api: Api) -> None:
    request = await api.request(duration="2h")
    assert (request["state"], request["duration_seconds"], request["approvals_needed"]) == ("requested", 7200, 1)
    path = f"/access/requests/{request['id']}"
    seen = await api.get(path, person="mary")
    assert seen.fields == request
    answer = await api.post(
        f"{path}/approve",
        {"scope_sha256": request["scope_sha256"], "duration": "30m", "comment": "for the incident"},
        person="mary",
    )
    assert answer.status == 200
    approved = answer.fields
    assert (approved["state"], approved["duration_seconds"]) == ("approved", 1800)
    (approval,) = approved["approvals"]
    assert (approval["approver"], approval["comment"]) == (MARY, "for the incident")
    assert approval["at"].endswith("Z")
    grant = (await api.get(f"/access/grants/{approved['grant_id']}", person="dana")).fields
    assert (grant["entitlement"], grant["subject"]["subject"], grant["state"]) == (DB, "dana", "active")
    assert (grant["request_id"], grant["break_glass"], grant["review_due"]) == (request["id"], False, None)


async def test_a_request_is_denied_or_withdrawn(api: Api) -> None:
    first, second = await api.request(), await api.request()
    denied = await api.post(f"/access/requests/{first['id']}/deny", {"comment": "no"}, person="mary")
    withdrawn = await api.post(f"/access/requests/{second['id']}/withdraw", person="dana")
    assert [answer.fields["state"] for answer in (denied, withdrawn)] == ["denied", "withdrawn"]


async def test_an_emergency_is_reviewed_and_ended_by_its_holder_or_revoked(api: Api) -> None:
    fields = {"entitlement": DB, "duration": 600, "reason": "INC-9"}
    grant = (await api.post("/access/break-glass", fields, person="olga")).fields
    assert (grant["break_glass"], grant["review_due"] is None) == (True, False)
    path = f"/access/grants/{grant['id']}"
    assert (await api.post(f"{path}/review", {"comment": "fine"}, person="mary")).reason == (400, "invalid")
    assert (await api.post(f"{path}/end", {"reason": "done"}, person="dana")).reason == (403, "not_allowed")
    assert (await api.post(f"{path}/end", {"reason": "done"}, person="olga")).fields["state"] == "ended"
    reviewed = await api.post(f"{path}/review", {"comment": "fine"}, person="mary")
    assert reviewed.fields["review_due"] is None
    assert (await api.post(f"{path}/revoke", {"reason": "x"}, person="mary")).reason == (409, "already_decided")


async def test_a_grant_is_revoked(api: Api) -> None:
    fields = {"entitlement": DB, "duration": 600, "reason": "INC-9"}
    grant = (await api.post("/access/break-glass", fields, person="olga")).fields
    revoked = await api.post(f"/access/grants/{grant['id']}/revoke", {"reason": "over"})
    assert revoked.fields["state"] == "revoked"
    listed = await api.get("/access/grants?state=revoked")
    assert [item["id"] for item in listed.fields["grants"]] == [grant["id"]]


async def test_a_revocation_is_made_listed_and_lifted(api: Api) -> None:
    made = await api.post("/revocations", {"what": "subject", "value": "dana", "issuer": LOGIN, "reason": "INC-1"})
    assert made.status == 200, made.body
    assert (made.fields["what"], made.fields["until"], made.fields["before"]) == ("subject", None, None)
    assert made.fields["source"].startswith("operator spiffe://")
    listed = (await api.get("/revocations?limit=1")).fields
    assert listed["revocations"] == [made.fields]
    lifted = await api.post(f"/revocations/{made.fields['id']}/lift", {"reason": "found"})
    assert lifted.fields["id"] == made.fields["id"]
    assert (await api.get("/revocations")).fields == {"revocations": [], "next": ""}
    far = await api.post(
        "/revocations",
        {"what": "subject", "value": "dana", "issuer": LOGIN, "reason": "INC-1", "until": "2099-01-31T18:00:00Z"},
    )
    assert far.reason == (400, "invalid")


async def test_a_held_event_is_listed_and_released_or_discarded(api: Api) -> None:
    await api.hold("one")
    await api.hold("two")
    held = {event["jti"]: event for event in (await api.get("/signals")).fields["held"]}
    assert held["one"]["why"] == "tenant_wide"
    assert [(item["what"], item["value"]) for item in held["one"]["revocations"]] == [("issuer", IDP)]
    path = f"/signals/{held['one']['id']}"
    assert (await api.post(f"{path}/release", {"reason": ""})).reason == (400, "reason_required")
    assert (await api.post(f"{path}/release", {"reason": "breach"})).fields == held["one"]
    assert (await api.post(f"{path}/release", {"reason": "breach"})).reason == (404, "not_found")
    assert (await api.post(f"/signals/{held['two']['id']}/discard", {"reason": "a test"})).fields["jti"] == "two"
    assert (await api.get("/signals")).fields == {"held": [], "next": ""}
    revocations = (await api.get("/revocations")).fields["revocations"]
    assert [item["what"] for item in revocations] == ["issuer"]
    for wrong in ("x", "0" * 32, "..%2Frevocations"):
        assert (await api.post(f"/signals/{wrong}/discard", {"reason": "x"})).reason == (404, "not_found")
    assert (await api.call("GET", "/signals", person="dana", tcp=True)).reason == (403, "not_allowed")


async def test_lists_come_in_pages(api: Api) -> None:
    ids = sorted([(await api.request())["id"] for _ in range(5)])
    await api.post(f"/access/requests/{ids[0]}/withdraw", person="dana")
    after, pages = "", []
    while True:
        page = (await api.get(f"/access/requests?state=requested&limit=2&after={after}", person="mary")).fields
        pages.append([item["id"] for item in page["requests"]])
        after = page["next"]
        if not after:
            break
    assert [item for page in pages for item in page] == ids[1:]
    assert all(len(page) <= 2 for page in pages)


async def test_a_local_user_and_a_token_are_the_caller(api: Api) -> None:
    await api.get("/access/requests")
    await api.get("/access/requests", person="dana")
    identities = [decision.identity for _, decision, _ in api.sink.records]
    assert [identity.principal for identity in identities] == [OWN_USER, OWN_USER]
    assert identities[1].token is not None
    assert identities[1].token.names == (LOGIN, "dana")


async def test_over_tcp_without_tls_only_a_token_is_the_caller(api: Api) -> None:
    unknown = await api.call("GET", "/access/requests", tcp=True)
    known = await api.call("GET", "/access/requests", person="dana", tcp=True)
    other = await api.call("GET", "/revocations", person="dana", tcp=True)
    assert (unknown.status, known.status, other.reason) == (403, 200, (403, "not_allowed"))
    assert {decision.identity.principal for _, decision, _ in api.sink.records} == {""}


async def test_a_refusal_is_a_problem(api: Api) -> None:
    request = await api.request()
    path = f"/access/requests/{request['id']}/approve"
    answer = await api.post(path, {"scope_sha256": request["scope_sha256"]}, person="dana")
    assert answer.reason == (403, "own_request")
    assert answer.fields.keys() == {"type", "title", "status", "detail", "reason"}
    assert answer.fields["type"] == "urn:zta-authz:problem:own_request"
    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert answer.headers["Server"] == "zta-authz"


async def test_calls_are_counted_by_their_results(api: Api) -> None:
    await api.get("/access/requests", person="mary")
    await api.get("/access/requests", person="mary")
    await api.call("PUT", "/access/requests", person="mary")
    await api.get("/access/requests?limit=x", person="mary")
    counts = {"ok": 2, "method_not_allowed": 1, "malformed": 1}
    assert api.counts.calls == {("http", result): count for result, count in counts.items()}


REFUSED: dict[str, tuple[str, str, Any, str, tuple[int, str]]] = {
    "an unknown request": ("GET", f"/access/requests/{'0' * 16}", None, "mary", (404, "not_found")),
    "an ID that is none": ("GET", "/access/requests/..%2F..%2Frevocations", None, "mary", (404, "not_found")),
    "an unknown entitlement": (
        "POST", "/access/requests", {"entitlement": "a/b", "duration": "1h"}, "dana", (403, "not_eligible"),
    ),
    "another person": (
        "POST", "/access/requests", {"entitlement": DB, "duration": "1h", "reason": "INC-1"}, "mary", (403, "not_eligible"),
    ),
    "no reason": ("POST", "/access/requests", {"entitlement": DB, "duration": "1h"}, "dana", (400, "reason_required")),
    "too long": (
        "POST", "/access/requests", {"entitlement": DB, "duration": "5h", "reason": "INC-1"}, "dana", (400, "too_long"),
    ),
    "no duration": (
        "POST", "/access/requests", {"entitlement": DB, "duration": "1 h"}, "dana", (400, "malformed"),
    ),
    "a start that is no time": (
        "POST", "/access/requests", {"entitlement": DB, "duration": 60, "start": "soon"}, "dana", (400, "malformed"),
    ),
    "a start without an offset": (
        "POST", "/access/requests", {"entitlement": DB, "duration": 60, "start": "2027-01-31T18:00:00"}, "dana",
        (400, "malformed"),
    ),
    "another path": ("GET", "/access", None, "dana", (404, "no_such_path")),
    "the token endpoint, which is off": ("POST", "/token", b"a=b", "", (404, "no_such_path")),
    "another method": ("DELETE", "/access/requests", None, "dana", (405, "method_not_allowed")),
    "an unknown query": ("GET", "/access/requests?State=requested", None, "mary", (400, "malformed")),
    "a repeated query": ("GET", "/access/requests?limit=1&limit=2", None, "mary", (400, "malformed")),
    "no limit": ("GET", "/access/requests?limit=0", None, "mary", (400, "malformed")),
    "a large limit": ("GET", "/access/requests?limit=201", None, "mary", (400, "malformed")),
    "a limit in other digits": ("GET", "/access/requests?limit=%D9%A1", None, "mary", (400, "malformed")),
    "a page after what is no ID": ("GET", "/access/requests?after=..", None, "mary", (404, "not_found")),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
async def test_a_call_is_refused(api: Api, case: tuple[str, str, Any, str, tuple[int, str]]) -> None:
    method, path, fields, person, expected = case
    answer = await api.call(method, path, fields, person=person)
    assert answer.reason == expected


BODIES = {
    "no JSON": b"{",
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "a field too many": b'{"comment": "a", "approve": true}',
    "a field twice": b'{"comment": "a", "comment": "b"}',
    "a number": b'{"comment": 1}',
    "not a number": b'{"comment": NaN}',
    "half a character": b'{"comment": "\\ud800"}',
    "another encoding": '{"comment": "a"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"comment": "a"}',
    "deep": b'{"comment": ' + b"[" * 15_000 + b"]" * 15_000 + b"}",
    "a number with many digits": b'{"comment": ' + b"9" * 6000 + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_malformed_body_is_refused_and_changes_nothing(api: Api, body: bytes) -> None:
    request = await api.request()
    answer = await api.post(f"/access/requests/{request['id']}/deny", body, person="mary")
    assert answer.reason == (400, "malformed")
    assert (await api.get(f"/access/requests/{request['id']}", person="mary")).fields["state"] == "requested"


async def test_a_large_body_is_refused(api: Api) -> None:
    answer = await api.post("/access/requests", {"reason": "x" * 40_000}, person="dana")
    assert answer.reason == (413, "too_large")


async def test_a_body_that_does_not_arrive_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_api, "BODY_SECONDS", 0.05)
    head = b"POST /revocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    assert (await api.raw(head)).startswith(b"HTTP/1.1 400 ")


async def test_a_body_that_is_cut_off_is_no_failure_of_ours(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    head = b"POST /revocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    assert (await api.raw(head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n")).startswith(b"HTTP/1.0 400 ")
    reader, writer = await asyncio.open_unix_connection(api.http)
    writer.write(head + b"Content-Length: 9\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.sleep(0.05)
    assert await reader.read() == b""
    assert "an operation failed" not in caplog.text


async def test_a_store_that_fails_is_unavailable_and_says_when_to_call_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    store = await SqliteStore.open(str(tmp_path / "store.sqlite"), clock=lambda: NOW)
    await store.epoch()
    for error, certain in ((StoreUnavailable("disk of db7"), True), (StoreUnavailable("disk", uncertain=True), False)):
        failing: Any = FailingStore(store, 2, error)
        async with running(tmp_path, store=failing) as api:
            answer = await api.post(
                "/access/requests", {"entitlement": DB, "duration": 60, "reason": "INC-1"}, person="dana"
            )
        assert answer.reason == (503, "unavailable")
        assert answer.headers["Retry-After"] == "2"
        assert "db7" not in answer.fields["detail"]
        assert ("may have been made" in answer.fields["detail"]) is not certain
    assert "db7" in caplog.text
    await store.close()


async def test_an_unexpected_failure_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.sqlite"), clock=lambda: NOW)
    await store.epoch()
    failing: Any = FailingStore(store, 0, ValueError("s3cret"))
    async with running(tmp_path, store=failing) as api:
        answer = await api.get("/access/requests", person="mary")
    assert answer.reason == (500, "internal_error")
    assert b"s3cret" not in answer.body
    assert "ValueError" in caplog.text
    assert "s3cret" not in caplog.text
    await store.close()


async def test_a_decision_that_cannot_be_recorded_refuses_the_call(tmp_path: Path) -> None:
    async with running(tmp_path, keeps=False) as api:
        assert (await api.get("/access/requests", person="mary")).reason == (503, "unavailable")


async def test_an_operation_that_takes_too_long_ends(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "OPERATION_SECONDS", 0.0)
    answer = await api.get("/access/requests", person="mary")
    assert answer.reason == (503, "unavailable")
    assert "may have been made" in answer.fields["detail"]


async def test_calls_past_the_limit_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "MAX_RUNNING", 0)
    answer = await api.get("/access/requests", person="mary")
    assert answer.reason == (503, "overloaded")
    assert answer.headers["Retry-After"] == "2"


async def test_an_unauthenticated_caller_is_told_how_to_authenticate(api: Api) -> None:
    answer = await api.get("/access/requests", Authorization="Bearer a.b.c")
    assert answer.reason == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="zta-authz", error="invalid_token"'


async def test_a_caller_who_has_to_log_in_again_learns_how(api: Api) -> None:
    fields = {"entitlement": DB, "duration": 600, "reason": "INC-9"}
    old = bearer("olga", auth_time=int(NOW) - 3600)
    answer = await api.call("POST", "/access/break-glass", fields, tcp=True, Authorization=old)
    assert answer.reason == (401, "unauthenticated")
    assert answer.fields["detail"].startswith("step_up_required (decision ")
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer error="insufficient_user_authentication"')
    assert challenge.endswith('max_age="900"')
    assert (await api.call("POST", "/access/break-glass", fields, tcp=True, person="olga")).status == 200


class Exchange:
    """A token endpoint that returns what it got."""

    async def exchange(self, origin: Origin, form: Mapping[str, str]) -> TokenReply:
        if form.get("grant_type") == "none":
            return TokenReply(400, {"error": "unsupported_grant_type"})
        if form.get("grant_type") == "later":
            return TokenReply(503, {"error": "temporarily_unavailable"})
        return TokenReply(200, {"principal": origin.principal, "form": dict(form)})


async def test_the_token_endpoint_reads_forms(tmp_path: Path) -> None:
    form = "application/x-www-form-urlencoded"
    async with running(tmp_path, token=Exchange()) as api:
        given = await api.post("/token", b"grant_type=a&subject_token=x%2By", Content_Type=form)
        assert given.fields == {"principal": OWN_USER, "form": {"grant_type": "a", "subject_token": "x+y"}}
        assert given.headers["Cache-Control"] == "no-store"
        assert (await api.post("/token", b"grant_type=none", Content_Type=form)).status == 400
        later = await api.post("/token", b"grant_type=later", Content_Type=form)
        assert (later.status, later.headers["Retry-After"]) == (503, "2")
        assert (await api.post("/token", b"a=1&a=2", Content_Type=form)).reason == (400, "malformed")
        assert (await api.post("/token", b"&".join([b"a=1"] * 33), Content_Type=form)).reason == (400, "malformed")
        assert (await api.post("/token", b"a=%ff", Content_Type=form)).reason == (400, "malformed")
        assert (await api.post("/token", {"a": "b"})).reason == (415, "unsupported_media_type")
        assert (await api.call("GET", "/token?grant_type=a")).reason == (405, "method_not_allowed")
        assert (api.counts.calls["http", "ok"], api.counts.calls["http", "not_exchanged"]) == (1, 2)


def test_only_post_changes_anything() -> None:
    assert {(route.method, route.body is None) for route in ROUTES} == {("GET", True), ("POST", False)}
