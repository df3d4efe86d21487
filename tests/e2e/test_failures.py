"""When zta-authz is gone, stopped or slow, the real Envoy denies; when it is back, requests pass again."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envoy.demo.client import Request
from envoy.demo.processes import Child, wait_until
from envoy.demo.stack import StackOptions, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envoy.demo.stack import Stack

ORDERS = Request(path="/orders")
SHIPPED_TIMEOUT = timedelta(milliseconds=200)
RECORDER = Path(__file__).parent / "recorder.py"


@pytest.fixture
def stack(envoy_binary: Path, tmp_path: Path) -> Iterator[Stack]:
    """A stack of each test's own, with the timeout of the shipped configurations."""
    with running(tmp_path, StackOptions(authz_timeout=SHIPPED_TIMEOUT, envoy=envoy_binary)) as started:
        yield started


def _allowed(stack: Stack) -> bool:
    return stack.send("frontend", ORDERS).status == 200


def _assert_outage(stack: Stack) -> None:
    before = stack.upstream_requests()
    answer = stack.send("frontend", ORDERS)
    assert answer.status == 503
    assert "x-zta-decision-id" not in answer.headers
    assert stack.upstream_requests() == before


def test_a_stopped_sidecar_denies_everything_until_it_is_back(stack: Stack) -> None:
    wait_until(lambda: _allowed(stack), stack.envoy.child)
    stack.authz.stop()
    assert stack.authz.exit_status == 0
    _assert_outage(stack)
    _assert_outage(stack)
    with contextlib.ExitStack() as cleanup:
        stack.start_authz(cleanup)
        wait_until(lambda: _allowed(stack), stack.envoy.child)


def test_a_killed_sidecar_leaves_a_socket_that_the_next_one_takes_over(stack: Stack) -> None:
    stack.authz.signal(signal.SIGKILL)
    stack.authz.stop()
    _assert_outage(stack)
    with contextlib.ExitStack() as cleanup:
        stack.start_authz(cleanup)
        wait_until(lambda: _allowed(stack), stack.envoy.child)


def test_a_sidecar_that_hangs_denies_within_the_timeout(stack: Stack) -> None:
    wait_until(lambda: _allowed(stack), stack.envoy.child)
    stack.authz.signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        _assert_outage(stack)
        assert time.monotonic() - started < 5.0
    finally:
        stack.authz.signal(signal.SIGCONT)
    wait_until(lambda: _allowed(stack), stack.envoy.child)


def test_an_answer_that_comes_too_late_is_a_denial_even_if_it_allows(envoy_binary: Path, tmp_path: Path) -> None:
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    slow = (sys.executable, str(RECORDER), "{socket}", str(recorded), "1.0")
    options = StackOptions(authz_command=slow, authz_timeout=SHIPPED_TIMEOUT, envoy=envoy_binary)
    with running(tmp_path / "stack", options) as stack:
        _assert_outage(stack)
    assert list(recorded.iterdir())


def test_a_second_zta_authz_on_a_socket_in_use_is_refused_and_harms_nobody(stack: Stack, tmp_path: Path) -> None:
    config = stack.layout.root / "zta-authz.yaml"
    log = tmp_path / "second.log"
    command = [sys.executable, "-m", "zta_authz", "serve", "--config", str(config)]
    second = Child("second zta-authz", command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while second.exit_status is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert second.exit_status not in {None, 0}
    finally:
        second.stop()
    wait_until(lambda: _allowed(stack), stack.envoy.child)
