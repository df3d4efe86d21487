"""Attacks on just-in-time access, revocations and their operators, over real processes: an administrator and a service.

People have tokens of one issuer. Dana may ask, Mary and Max approve, Olga revokes. Mallory has what she could steal.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import grpc
import pytest

from tests.support.check_requests import check_request
from tests.support.pki import Signer, jwks
from tests.support.service import RunningService, run_cli
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.administrator.grants import MAX_ASKED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LOGIN: Final = "https://login.example"
KEY: Final = Signer(kid="login", number=2001)
CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
POLICIES: Final = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people, namespace: istio-system}}
spec:
  jwtRules: [{{issuer: "{LOGIN}", audiences: [shop], jwks: '{jwks([KEY])}'}}]
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: operators, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{app: zta-admin}}}}
  rules:
  - from: [{{source: {{requestPrincipals: ["{LOGIN}/*"]}}}}]
    to: [{{operation: {{paths: ["/access/*"]}}}}]
  - from: [{{source: {{requestPrincipals: ["{LOGIN}/olga"]}}}}]
    to: [{{operation: {{paths: ["/revocations*"]}}}}]
---
apiVersion: zta.dev/v1
kind: AccessEntitlement
metadata: {{name: db, namespace: default}}
spec:
  who: [{{source: {{requestPrincipals: ["{LOGIN}/dana*"]}}}}]
  maxDuration: 4h
  maxOpen: 20
  approvers: [{{from: [{{source: {{requestPrincipals: ["{LOGIN}/mary", "{LOGIN}/max", "{LOGIN}/dana*"]}}}}]}}]
---
apiVersion: zta.dev/v1
kind: AccessEntitlement
metadata: {{name: vault, namespace: default}}
spec:
  who: [{{source: {{requestPrincipals: ["{LOGIN}/dana*"]}}}}]
  maxDuration: 4h
  approvers: [{{from: [{{source: {{requestPrincipals: ["{LOGIN}/mary", "{LOGIN}/max"]}}}}], count: 2}}]
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: db, namespace: default}}
spec: {{rules: [{{require: {{grant: db}}}}]}}
"""
_numbers = itertools.count(1)


def bearer(subject: str, **claims: Any) -> str:
    """The `authorization` header of a person who has just logged in."""
    now = int(time.time())
    base = {"iss": LOGIN, "sub": subject, "aud": "shop", "iat": now - 1, "nbf": now - 1, "exp": now + 600}
    return "Bearer " + KEY.token(**(base | claims))


@dataclass
class Answer:
    """An HTTP answer of the administrator."""

    status: int
    fields: Any

    @property
    def reason(self) -> tuple[int, str]:
        """The status and the reason of a problem."""
        return self.status, self.fields["reason"]


class Plant:
    """The two processes of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "settings.yaml"
        (directory / "policies").mkdir()
        (directory / "policies" / "all.yaml").write_text(POLICIES)
        self.config.write_text(
            f'listen: ["unix:{directory}/authz.sock"]\n'
            f"policies: [{directory}/policies]\n"
            "peer: {trust_proxy: true, verify_certificate: never}\n"
            'health: {listen: "127.0.0.1:0"}\n'
            f"audit: {{sink: file, path: {directory}/decisions.jsonl}}\n"
            "administrator:\n"
            f'  follow: "unix:{directory}/views.sock"\n'
            f'  store: {{url: "sqlite:///{directory}/store.sqlite"}}\n'
            f"  access_log: {{path: {directory}/access.jsonl}}\n"
            f'  views: {{listen: ["unix:{directory}/views.sock"]}}\n'
            f'  operations: {{http: ["unix:{directory}/http.sock"]}}\n'
        )
        self.administrators = directory / "administrator.yaml"
        self.administrators.write_text(self.config.read_text().replace("/decisions.jsonl", "/operators.jsonl"))
        self.service = RunningService(self.config)
        self.administrator = RunningService(self.administrators, command="administer")

    def wait(self) -> None:
        """Wait until both processes are ready."""
        self.administrator.wait_for("administering")
        self.service.wait_for("ready again")

    def kill_and_start(self) -> None:
        """Kill the administrator as a lost machine would, and start another."""
        self.administrator.process.kill()
        self.administrator.wait()
        self.administrator = RunningService(self.administrators, command="administer")

    async def call(
        self, method: str, path: str, fields: Any = None, *, token: str = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Call the administrator. `path` is sent as it is."""
        given = {"Authorization": token} if token else {}
        if method == "POST":
            given["Content-Type"] = "application/json"
        body = fields if fields is None or isinstance(fields, bytes) else json.dumps(fields).encode()
        connector = aiohttp.UnixConnector(str(self.directory / "http.sock"))
        url = aiohttp.client.URL(f"http://administrator{path}", encoded=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, url, data=body, headers={**given, **(headers or {})}) as got,
        ):
            text = await got.text()
            return Answer(got.status, json.loads(text) if text else None)

    async def post(self, path: str, fields: Any = None, *, token: str) -> Answer:
        """Call the administrator by POST."""
        return await self.call("POST", path, {} if fields is None else fields, token=token)

    async def request(self, subject: str, entitlement: str = "default/db", **changed: Any) -> dict[str, Any]:
        """A person asks for an hour."""
        fields = {"entitlement": entitlement, "duration": "1h", "reason": "INC-1"} | changed
        answer = await self.post("/access/requests", fields, token=bearer(subject))
        assert answer.status == 200, answer
        request: dict[str, Any] = answer.fields
        return request

    async def approve(self, request: Mapping[str, Any], token: str) -> Answer:
        """Somebody approves a request as it is."""
        path = f"/access/requests/{request['id']}/approve"
        return await self.post(path, {"scope_sha256": request["scope_sha256"]}, token=token)

    async def granted(self, subject: str) -> dict[str, Any]:
        """A person asks, and Mary approves."""
        answer = await self.approve(await self.request(subject), bearer("mary"))
        assert answer.fields["state"] == "approved", answer
        approved: dict[str, Any] = answer.fields
        return approved

    async def revoke(self, what: str, value: str, **more: Any) -> dict[str, Any]:
        """Olga revokes something."""
        fields = {"what": what, "value": value, "issuer": LOGIN, "reason": "INC-2"} | more
        answer = await self.post("/revocations", fields, token=bearer("olga"))
        assert answer.status == 200, answer
        revocation: dict[str, Any] = answer.fields
        return revocation

    async def check(self, token: str) -> str:
        """What the decision point says: "" for an allow, else the reason."""
        message = check_request([("authorization", token.encode())])
        async with grpc.aio.insecure_channel(f"unix:{self.directory}/authz.sock") as channel:
            payload = await channel.unary_unary(CHECK)(message.SerializeToString(), timeout=5)
        response = CheckResponse.FromString(payload)
        return "" if response.status.code == 0 else response.status.message

    async def comes_to(self, token: str, expected: str, seconds: float = 1.0) -> None:
        """The decision point says `expected` within a second."""
        deadline = time.monotonic() + seconds
        while (answer := await self.check(token)) != expected:
            assert time.monotonic() < deadline, answer
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Stop both processes."""
        for running in (self.service, self.administrator):
            running.__exit__()


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    made = Plant(tmp_path_factory.mktemp("plant"))
    try:
        made.wait()
        yield made
    finally:
        made.close()


@pytest.fixture
def dana() -> str:
    """A person of the test's own."""
    return f"dana-{next(_numbers)}"


async def test_a_stolen_session_ends_everywhere_and_the_person_goes_on_with_a_new_one(plant: Plant, dana: str) -> None:
    stolen, new = bearer(dana, sid=f"{dana}-old"), bearer(dana, sid=f"{dana}-new")
    await plant.granted(dana)
    await plant.comes_to(stolen, "")
    revoked = await plant.revoke("session", f"{dana}-old")
    await plant.comes_to(stolen, "token_revoked")
    other = await plant.request(f"dana-{next(_numbers)}")
    assert (await plant.approve(other, stolen)).reason == (401, "unauthenticated")
    assert await plant.check(new) == ""
    assert (await plant.approve(other, new)).fields["state"] == "approved"
    lifted = await plant.post(f"/revocations/{revoked['id']}/lift", {"reason": "a mistake"}, token=bearer("olga"))
    assert lifted.status == 200
    await plant.comes_to(stolen, "")


async def test_logins_before_a_theft_are_refused_and_later_ones_are_not(plant: Plant, dana: str) -> None:
    now = time.time()
    before, after = bearer(dana, iat=int(now) - 60), bearer(dana, iat=int(now) + 1)
    await plant.granted(dana)
    await plant.comes_to(before, "")
    await plant.revoke("subject", dana, before=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))
    await plant.comes_to(before, "token_revoked")
    assert await plant.check(after) == ""


async def test_a_revoked_person_neither_uses_a_grant_nor_gets_one_nor_decides(plant: Plant, dana: str) -> None:
    approved = await plant.granted(dana)
    waiting = await plant.request(f"dana-{next(_numbers)}")
    await plant.comes_to(bearer(dana), "")
    await plant.revoke("subject", dana)
    await plant.comes_to(bearer(dana), "token_revoked")
    for answer in (
        await plant.post("/access/requests", {"entitlement": "default/db", "duration": 600}, token=bearer(dana)),
        await plant.approve(waiting, bearer(dana)),
        await plant.post(f"/access/grants/{approved['grant_id']}/end", token=bearer(dana)),
        await plant.call("GET", "/access/requests", token=bearer(dana)),
    ):
        assert answer.reason == (401, "unauthenticated")


async def test_only_those_whom_a_policy_names_revoke_and_lift(plant: Plant, dana: str) -> None:
    fields = {"what": "subject", "value": "olga", "issuer": LOGIN, "reason": "INC-3"}
    assert (await plant.post("/revocations", fields, token=bearer(dana))).reason == (403, "not_allowed")
    assert (await plant.post("/revocations", fields, token="")).reason[0] in (401, 403)
    revoked = await plant.revoke("session", f"{dana}-x")
    path = f"/revocations/{revoked['id']}/lift"
    assert (await plant.post(path, {"reason": "x"}, token=bearer(dana, sid=f"{dana}-x"))).status in (401, 403)
    assert (await plant.post(path, {"reason": "x"}, token=bearer("mary"))).reason == (403, "not_allowed")
    assert (await plant.call("GET", "/revocations", token=bearer("mary"))).reason == (403, "not_allowed")


async def test_a_token_that_is_not_the_persons_own_is_no_second_person(plant: Plant, dana: str) -> None:
    """Dana is an approver too, so that only the rule of four eyes is in her way."""
    request = await plant.request(dana)
    for token in (
        bearer(dana),
        bearer(dana, sid="another session", jti="another", email="mary@example.com"),
        bearer(dana, name="mary", preferred_username="mary", act={"sub": "mary"}, groups=["approvers"]),
    ):
        assert (await plant.approve(request, token)).reason == (403, "own_request")
    assert (await plant.approve(request, bearer(f"{dana}x"))).status == 200, "somebody else may"


async def test_forged_and_foreign_tokens_are_no_approver(plant: Plant, dana: str) -> None:
    request = await plant.request(dana)
    now = int(time.time())
    other = Signer(kid="login", number=2002)
    valid = {"iss": LOGIN, "sub": "mary", "aud": "shop", "iat": now, "nbf": now - 1, "exp": now + 600}
    for token in (
        "Bearer " + other.token(**valid),
        "Bearer " + KEY.token({"alg": "none"}, **valid),
        "Bearer " + KEY.token({"kid": "../login"}, **valid),
        bearer("mary", exp=now - 3600),
        bearer("mary", nbf=now + 3600),
        bearer("mary", aud="zta-other"),
        bearer("mary", iss="https://login.example/"),
        bearer("Mary"),
        bearer("mary\u200b"),
        "Basic bWFyeTpwYXNzd29yZA==",
        "Bearer ",
    ):
        assert (await plant.approve(request, token)).status in (401, 403), token
    state = await plant.call("GET", f"/access/requests/{request['id']}", token=bearer("mary"))
    assert (state.fields["state"], state.fields["approvals"]) == ("requested", [])


async def test_one_approver_many_times_at_once_is_one_approval(plant: Plant, dana: str) -> None:
    request = await plant.request(dana, "default/vault")
    tokens = [bearer("mary", jti=f"t{number}", sid=f"s{number}") for number in range(16)]
    answers = await asyncio.gather(*(plant.approve(request, token) for token in tokens))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 15
    state = await plant.call("GET", f"/access/requests/{request['id']}", token=bearer("mary"))
    assert (state.fields["state"], len(state.fields["approvals"])) == ("requested", 1)
    both = await asyncio.gather(*(plant.approve(request, bearer("max")) for _ in range(8)))
    assert sum(answer.status == 200 for answer in both) == 1
    grants = await plant.call("GET", "/access/grants?limit=200", token=bearer("mary"))
    assert sum(grant["request_id"] == request["id"] for grant in grants.fields["grants"]) == 1


async def test_nothing_is_decided_by_a_link_a_form_or_another_site(plant: Plant, dana: str) -> None:
    request = await plant.request(dana)
    path = f"/access/requests/{request['id']}/approve"
    token, scope = bearer("mary"), request["scope_sha256"]
    body = json.dumps({"scope_sha256": scope}).encode()
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = await plant.call(method, f"{path}?scope_sha256={scope}", token=token)
        assert answer.status in (404, 405), method
    for headers in (
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"X-HTTP-Method-Override": "POST", "Content-Type": "multipart/form-data"},
    ):
        assert (await plant.call("POST", path, body, token=token, headers=headers)).status in (400, 403, 415), headers
    state = await plant.call("GET", f"/access/requests/{request['id']}", token=token)
    assert (state.fields["state"], state.fields["approvals"]) == ("requested", [])


async def test_no_header_and_no_field_names_the_caller(plant: Plant, dana: str) -> None:
    request = await plant.request(dana)
    path, body = f"/access/requests/{request['id']}/approve", {"scope_sha256": request["scope_sha256"]}
    spiffe = "spiffe://cluster.local/ns/default/sa/mary"
    for headers in (
        {"X-Forwarded-Client-Cert": f"URI={spiffe}"},
        {"X-Forwarded-User": "mary", "X-Remote-User": "mary", "X-Auth-Request-User": "mary"},
        {"X-Forwarded-Authorization": bearer("mary")},
        {"Cookie": "authorization=" + bearer("mary")},
    ):
        assert (await plant.call("POST", path, body, headers=headers)).status in (401, 403), headers
        assert (await plant.call("POST", path, body, token=bearer(dana), headers=headers)).status == 403, headers
    forged = {**body, "approver": {"issuer": LOGIN, "subject": "mary"}}
    assert (await plant.call("POST", path, forged, token=bearer(dana))).status == 400
    assert (await plant.call("POST", path, body, token=bearer("mary, " + dana))).status == 403


async def test_a_path_that_policies_and_the_router_could_read_in_two_ways_does_nothing(plant: Plant, dana: str) -> None:
    approved = await plant.granted(dana)
    grant, revoked = approved["grant_id"], await plant.revoke("session", f"{dana}-x")
    for path in (
        f"/access/../revocations/{revoked['id']}/lift",
        f"/access/%2e%2e/revocations/{revoked['id']}/lift",
        f"/access/..%2frevocations%2f{revoked['id']}%2flift",
        f"//revocations/{revoked['id']}/lift",
        f"/access/requests/..;/../../revocations/{revoked['id']}/lift",
        f"/access/grants/{grant}%2Frevoke",
        f"/access/grants/{grant}/revoke/",
        f"/access/grants/{grant.upper()}/revoke" if grant != grant.upper() else "/access/grants//revoke",
        f"/access/grants/{grant}%00/revoke",
        f"/access/grants/{grant}%0a/revoke",
        f"/ACCESS/grants/{grant}/revoke",
    ):
        answer = await plant.call("POST", path, {"reason": "x"}, token=bearer("mary"))
        assert answer.status in (400, 403, 404, 405), path
    assert await plant.check(bearer(dana)) == ""
    listed = await plant.call("GET", "/revocations?limit=200", token=bearer("olga"))
    assert revoked["id"] in {item["id"] for item in listed.fields["revocations"]}


@pytest.mark.parametrize(
    "reason",
    ["\x1b[2J\x1b[1;1HINC-1 approved", "INC-1\nINC-2", "INC-1\u202e txt.exe", "\ud800", "x" * 501, "\x00", "\x9b31m"],
)
async def test_a_reason_that_could_deceive_an_approver_is_refused(plant: Plant, dana: str, reason: str) -> None:
    fields = {"entitlement": "default/db", "duration": 600, "reason": reason}
    assert (await plant.post("/access/requests", fields, token=bearer(dana))).status == 400
    revocation = {"what": "session", "value": "s", "issuer": LOGIN, "reason": reason}
    assert (await plant.post("/revocations", revocation, token=bearer("olga"))).status == 400


@pytest.mark.parametrize("duration", [0, -1, 59, 1e308, 10**400, "4h1s", "999999h", "1h\n", None, True, [3600], "∞"])
async def test_a_duration_that_is_none_is_refused(plant: Plant, dana: str, duration: Any) -> None:
    fields = {"entitlement": "default/db", "duration": duration, "reason": "INC-1"}
    assert (await plant.post("/access/requests", fields, token=bearer(dana))).status == 400


async def test_asking_and_withdrawing_without_end_is_bounded_for_one_person_only(plant: Plant, dana: str) -> None:
    token = bearer(dana)
    statuses = []
    for _ in range(MAX_ASKED + 5):
        fields = {"entitlement": "default/db", "duration": 600, "reason": "INC-1"}
        answer = await plant.post("/access/requests", fields, token=token)
        statuses.append(answer.status)
        if answer.status == 200:
            await plant.post(f"/access/requests/{answer.fields['id']}/withdraw", token=token)
    assert statuses.count(200) <= MAX_ASKED
    assert statuses[-1] == 409
    await plant.request(f"dana-{next(_numbers)}")


async def test_a_killed_administrator_gives_nobody_access_and_takes_back_nothing(plant: Plant, dana: str) -> None:
    thief, holder = f"dana-{next(_numbers)}", bearer(dana)
    await plant.granted(dana)
    await plant.granted(thief)
    await plant.revoke("subject", thief)
    await plant.comes_to(bearer(thief), "token_revoked")
    await plant.comes_to(holder, "")
    await asyncio.to_thread(plant.kill_and_start)
    assert await plant.check(bearer(thief)) == "token_revoked"
    assert await plant.check(holder) == ""
    await asyncio.to_thread(plant.administrator.wait_for, "administering")
    request = await plant.request(f"dana-{next(_numbers)}")
    assert (await plant.approve(request, bearer(thief))).reason == (401, "unauthenticated"), "at once after the start"
    later = f"dana-{next(_numbers)}"
    await plant.granted(later)
    await plant.comes_to(bearer(later), "", seconds=15.0)  # it follows the new one
    assert await plant.check(bearer(thief)) == "token_revoked"
    assert await plant.check(holder) == ""


async def test_every_decision_of_these_attacks_is_explained_by_both_logs(plant: Plant, dana: str) -> None:
    await plant.granted(dana)
    await plant.comes_to(bearer(dana), "")
    directory = plant.directory
    access = [json.loads(line) for line in (directory / "access.jsonl").read_text().splitlines()]
    known = {event["object"]["id"] for event in access if event.get("kind", "").startswith("revocation.")}
    records = [json.loads(line) for line in (directory / "decisions.jsonl").read_text().splitlines()]
    denied = [record for record in records if record.get("reason") == "token_revoked"]
    assert {record["revocation"] for record in denied} <= known
    for log in ("decisions.jsonl", "operators.jsonl"):
        arguments = ("audit", "verify", f"{directory}/{log}", "--access-log", f"{directory}/access.jsonl")
        verified = await asyncio.to_thread(run_cli, *arguments)
        assert verified.returncode == 0, verified.stdout + verified.stderr
