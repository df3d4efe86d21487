"""The costliest requests that a client can make, against many rules, while others send calls.

The control shows that the rules are evaluated: the same calls with harmless values are allowed.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.attack.conftest import CHECK, Victim
from tests.fakes.snapshots import HATSHOP
from tests.support.check_requests import check_request
from tests.support.pki import ISSUER, jwks
from tests.support.service import RunningService
from zta_authz._proto.ext_authz_pb2 import CheckResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

HONEST_P99_SECONDS = 0.2
"""The proxy's usual timeout: a later answer is an outage."""
ATTACK_SECONDS = 3.0
RULES = 50
HUGE = 58_000

Calls = dict[str, tuple[str, list[tuple[str, bytes]], str]]
"""By name: the path, the headers, and the reason of the refusal, "" if allowed."""

ATTACKS: Calls = {
    "an encoded path": ("/" + "%20" * (HUGE // 3), [], "path_too_long"),
    "the longest encoded path": ("/" + "%20" * 2730, [], ""),
    "a path of many segments": ("/a" * 4096, [], ""),
    "an encoded query": ("/?" + "%20" * (HUGE // 3), [], ""),
    "many encoded parameters": ("/?" + "&".join(["%61" * 12 + "x"] * 900), [], ""),
    "stray escapes in parameters": ("/?" + "&".join(["%" * 36] * 900), [], ""),
    "many cookies": ("/", [("cookie", b"a=;" * (HUGE // 3))], "request_malformed"),
    "a header of blanks": ("/", [("x-a", b" " * HUGE)], ""),
    "a header's hundred lines": ("/", [("x-a", b" v ")] * 100, ""),
    "a list of addresses": ("/", [("x-forwarded-for", b"," * HUGE + b"192.0.2.1")], ""),
}
CONTROL: Calls = {"harmless": ("/a%20b?x=%20", [("x-a", b"v"), ("x-forwarded-for", b"192.0.2.1")], "")}


def policies() -> str:
    """DENY rules that inspect all of these and match none; their shared values defeat the index."""
    paths = [
        {
            "to": [
                {"operation": {"methods": ["GET"], "paths": [f"/admin{number}*", f"/{{*}}/{number}/{{**}}/x"]}},
                {"operation": {"methods": ["GET"], "paths": [f"*/secret{number}", f"/{{*}}/{{*}}/secret{number}"]}},
            ]
        }
        for number in range(RULES)
    ]
    names = ("x-a", ":path", "x-absent")
    headers = [
        {
            "to": [{"operation": {"methods": ["GET"], "notPaths": [f"/open{number}/*"]}}],
            "when": [
                {"key": "remote.ip", "notValues": [f"198.51.100.{number}"]},
                *({"key": f"request.headers[{name}]", "values": ["*", f"never{number}"]} for name in names),
            ],
        }
        for number in range(RULES)
    ]
    deny = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "many"},
        "spec": {"action": "DENY", "rules": [*paths, *headers]},
    }
    tokens = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "tokens"},
        "spec": {
            "jwtRules": [{"issuer": ISSUER, "jwks": jwks(), "fromParams": ["access_token"], "fromCookies": ["token"]}]
        },
    }
    return f"{json.dumps(deny)}\n---\n{json.dumps(tokens)}\n---\n{HATSHOP}"


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    directory = tmp_path_factory.mktemp("costly")
    (directory / "policies.yaml").write_text(policies())
    (directory / "settings.yaml").write_text(
        f'listen: ["unix:{directory}/authz.sock"]\n'
        f"policies: [{directory}/policies.yaml]\n"
        "workload: {labels: {app: hatshop}}\n"
        "peer: {trust_proxy: true}\n"
        "health: {listen: null}\n"
        f"audit: {{sink: file, path: {directory}/decisions.jsonl}}\n"
    )
    with RunningService(directory / "settings.yaml") as service:
        service.wait_for("serving")
        yield Victim(directory / "authz.sock", service.process.pid)


def attack(victim: Victim, calls: Calls) -> tuple[list[float], int]:
    """Send `calls` in turn for some seconds; return the honest latencies and the number of calls sent."""
    payloads = [
        (check_request(headers, path=path).SerializeToString(), reason) for path, headers, reason in calls.values()
    ]
    sent = 0
    with victim.watched() as latencies, grpc.insecure_channel(f"unix:{victim.path}") as channel:
        call = channel.unary_unary(CHECK, response_deserializer=CheckResponse.FromString)
        until = time.monotonic() + ATTACK_SECONDS
        while time.monotonic() < until or not sent:
            for payload, reason in payloads:
                assert call(payload, timeout=60).status.message == reason
                sent += 1
    return latencies, sent


def p99(latencies: list[float]) -> float:
    return sorted(latencies)[int(len(latencies) * 0.99)]


@pytest.mark.parametrize("calls", [CONTROL, ATTACKS], ids=["control", "attack"])
def test_no_request_is_so_costly_that_others_exceed_the_proxys_timeout(victim: Victim, calls: Calls) -> None:
    latencies, sent = attack(victim, calls)
    assert sent > 50, "a few requests used all the time"
    assert p99(latencies) < HONEST_P99_SECONDS
