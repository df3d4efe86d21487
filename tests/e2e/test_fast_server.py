"""The real Envoy with the fast server: the whole demo over both connections, and many connections."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from envoy.demo.authz_connection import Mtls
from envoy.demo.client import Request
from envoy.demo.row_runner import run_row
from envoy.demo.stack import StackOptions, running
from envoy.demo.story import STORY, Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envoy.demo.stack import Stack

FAST = {"server": "fast"}
ORDERS = Request(path="/orders")


@pytest.fixture(scope="module", params=[None, Mtls()], ids=["unix socket", "mutual TLS"])
def stack(
    request: pytest.FixtureRequest, envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The demo's stack on the fast server."""
    options = StackOptions(envoy=envoy_binary, mtls=request.param, settings=FAST)
    with running(tmp_path_factory.mktemp("stack"), options) as started:
        yield started


@pytest.mark.parametrize("row", [row for row in STORY if row.before is None], ids=lambda row: row.what)
def test_each_row_of_the_demo_has_the_expected_result(stack: Stack, row: Row) -> None:
    assert run_row(stack, row).faults == ()


def test_large_headers_are_decided_on(stack: Stack) -> None:
    large = Request(path="/orders", headers=tuple((f"x-{number}", "y" * 5000) for number in range(8)))
    assert stack.send("frontend", large).status == 200


def test_a_proxy_that_may_not_ask_denies_everything(envoy_binary: Path, tmp_path: Path) -> None:
    options = StackOptions(mtls=Mtls(proxy="frontend"), envoy=envoy_binary, settings=FAST)
    with running(tmp_path, options) as stack:
        assert stack.send("frontend", ORDERS).status == 503
        assert stack.upstream_requests() == 0


def test_connections_that_are_drained_for_their_age_cost_no_request(envoy_binary: Path, tmp_path: Path) -> None:
    settings = FAST | {"http2": {"max_age_seconds": 1.0}}
    with running(tmp_path, StackOptions(envoy=envoy_binary, settings=settings)) as stack:
        until = time.monotonic() + 6
        statuses = []
        while time.monotonic() < until:
            statuses.append(stack.send("frontend", ORDERS).status)
    assert set(statuses) == {200}


def test_a_service_that_stops_closes_the_door_and_one_that_starts_again_opens_it(
    envoy_binary: Path, tmp_path: Path
) -> None:
    with (
        running(tmp_path, StackOptions(envoy=envoy_binary, settings=FAST)) as stack,
        contextlib.ExitStack() as cleanup,
    ):
        assert stack.send("frontend", ORDERS).status == 200
        stack.authz.stop()
        assert stack.send("frontend", ORDERS).status == 503
        stack.start_authz(cleanup)
        until = time.monotonic() + 20
        while stack.send("frontend", ORDERS).status != 200:
            assert time.monotonic() < until, "the proxy never found it again"
            time.sleep(0.2)
