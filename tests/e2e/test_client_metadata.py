"""What Envoy copies of a client's request into the metadata of its call makes no call fail, on either server.

Envoy is told to let everybody in where the call fails, so that a failure shows as an answer of the upstream.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from envoy.demo.client import Request, tls_context
from envoy.demo.processes import wait_until
from envoy.demo.stack import Stack, StackOptions, running
from tests.support.collector import Collector
from tests.support.h2_client import status_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARENT = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
MAX_HEADERS_KIB = 8192
LONGEST_IN_HTTP2 = 50_000
PATIENCE = "10s"  # Envoy takes a retry policy's longest back-off for the time that one try may take


class OpenStack(Stack):
    """Envoy lets requests through where its call fails, and takes long headers."""

    def write_bootstrap(self) -> Path:
        file = super().write_bootstrap()
        config = json.loads(file.read_text(), object_hook=_opened)
        file.write_text(json.dumps(config))
        return file


def _opened(fields: dict[str, Any]) -> dict[str, Any]:
    if "http_filters" in fields:
        fields["max_request_headers_kb"] = MAX_HEADERS_KIB
    if "failure_mode_allow" in fields or str(fields.get("@type", "")).endswith(".ExtAuthz"):
        fields["failure_mode_allow"] = True
    if "max_interval" in fields:
        fields["max_interval"] = PATIENCE
    return fields


@pytest.fixture(scope="module", params=["grpcio", "fast"])
def stack(
    request: pytest.FixtureRequest, envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    with Collector() as collector:
        tracing = {"otlp": {"endpoint": collector.endpoint}, "sample_ratio": 1.0}
        settings = {"server": request.param, "tracing": tracing}
        patient = timedelta(seconds=10)  # else a busy machine would look like a failure
        options = StackOptions(
            envoy=envoy_binary, collector_port=collector.port, settings=settings, authz_timeout=patient
        )
        with running(tmp_path_factory.mktemp("stack"), options, kind=OpenStack) as started:
            yield started


def asked(stack: Stack, path: str, *headers: tuple[str, str]) -> int:
    """The answer's status: over HTTP/2, where values stay as they are, but for those that are too long for it."""
    if sum(len(value) for _, value in headers) > LONGEST_IN_HTTP2:
        return stack.send("frontend", Request(path=path, headers=headers)).status
    layout = stack.layout
    context = tls_context(layout.ca, (layout.certificate("frontend"), layout.key("frontend")))
    context.set_alpn_protocols(["h2"])
    return status_of(stack.port, context, path, headers)


STATES = {
    "one that is sound": "a=b",
    "blanks before it": " a=b",
    "a tab after it": "a=b\t",
    "nothing but blanks": " \t ",
    "bytes that are no ASCII": "a=\xe9\xff",
    "members that are none": ",,;;==",
    "as much as Envoy takes of everybody": "a=" + "b" * 58_000,
    "as much in symbols with long codes": "a=" + "\xfe" * 58_000,
    "as much as an operator may let through": "a=" + "b" * 1_500_000,
}
MANY = [("tracestate", f"k{number}={'v' * 400}") for number in range(90)]


def verdict(stack: Stack, path: str) -> str:
    """What was recorded of the one request for `path`."""

    def records() -> list[dict[str, Any]]:
        lines = stack.decisions.read_text().rpartition("\n")[0].splitlines()
        return [record for record in map(json.loads, lines) if record.get("path") == path]

    wait_until(lambda: bool(records()), stack.authz)
    [record] = records()
    return str(record["verdict"])


def assert_decided_as_ever(stack: Stack, headers: list[tuple[str, str]]) -> None:
    denied, allowed = f"/admin/{uuid4().hex}", f"/orders/{uuid4().hex}"
    assert asked(stack, denied, *headers) == 403
    assert verdict(stack, denied) == "deny"
    asked(stack, allowed, *headers)  # the demo's upstream may find them too long
    assert verdict(stack, allowed) == "allow"


@pytest.mark.parametrize("name", [*STATES, "many of them"])
def test_a_call_is_decided_and_recorded_whatever_the_client_says_of_traces(stack: Stack, name: str) -> None:
    states = MANY if name == "many of them" else [("tracestate", STATES[name])]
    assert_decided_as_ever(stack, [PARENT, *states])


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "nonsense"), ("tracestate", " a=b")],
        [("traceparent", " ".join(["00"] * 9000))],
        [PARENT, PARENT, ("tracestate", " a=b")],
        [PARENT, ("baggage", " " + "k=v," * 10_000)],
        [PARENT, ("x-request-id", " " + "x" * 50_000), ("x-b3-traceid", " 1"), ("uber-trace-id", "1:2:3:4\t")],
    ],
    ids=["no parent", "a long parent", "two parents", "baggage", "what other tracers copy"],
)
def test_copied_trace_headers_do_not_change_the_decision(stack: Stack, headers: list[tuple[str, str]]) -> None:
    assert_decided_as_ever(stack, headers)


def test_a_request_that_is_too_large_to_be_read_is_denied_and_recorded(stack: Stack) -> None:
    """Its headers make a CheckRequest past the bound, of which nothing is read; nor is its path, then."""
    before = stack.decisions.read_text().count('"request_too_large"')
    assert asked(stack, "/orders", PARENT, ("tracestate", "a=" + "b" * 5_000_000)) == 413
    wait_until(lambda: stack.decisions.read_text().count('"request_too_large"') == before + 1, stack.authz)


def test_the_measure_is_sound(envoy_binary: Path, tmp_path: Path) -> None:
    """Where a call does fail, this Envoy lets through what is denied otherwise."""
    with running(tmp_path, StackOptions(envoy=envoy_binary), kind=OpenStack) as stack:
        assert asked(stack, "/admin/users") == 403
        stack.authz.stop()
        assert asked(stack, "/admin/users") == 200
