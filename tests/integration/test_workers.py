"""`workers: 2`: two processes and their supervisor, from the outside."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.test_serve import CHECK, Place, call, check, get
from tests.support.check_requests import check_request
from tests.support.service import RunningService
from zta_authz._proto.ext_authz_pb2 import CheckResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 20.0


class Workers(Place):
    """Settings of two workers with a port each shares."""

    def write_config(self, more: str = "workers: 2\n") -> None:
        super().write_config(more)

    def socket_of(self, number: int) -> str:
        return f"unix:{self.socket}.{number}"


@pytest.fixture(params=["grpcio", "fast"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Workers:
    made = Workers(tmp_path)
    made.write_config(f"workers: 2\nserver: {request.param}\nreload: {{poll_seconds: 0.1, debounce_seconds: 0}}\n")
    return made


@pytest.fixture
def one(tmp_path: Path) -> Workers:
    made = Workers(tmp_path)
    made.write_config("workers: 2\nserver: fast\ndrain_seconds: 2\nreload: {poll_seconds: 0.1, debounce_seconds: 0}\n")
    return made


@pytest.fixture
def service(one: Workers) -> Iterator[RunningService]:
    with RunningService(one.config) as running:
        yield running


def wait_until(reached: Callable[[], bool], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(target: str) -> bool:
    try:
        return check(target).status.code == 0
    except Exception:  # noqa: BLE001  gRPC's, whichever
        return False


def sample(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of this name that have these labels."""
    return sum(
        each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.name == name and labels.items() <= each.labels.items()
    )


def workers_of(health: str) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(get(health, "/readyz")[1])["workers"]
    return found


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_each_worker_has_a_socket_all_share_the_port_and_sigterm_leaves_nothing(place: Workers) -> None:
    with RunningService(place.config) as service:
        said = service.wait_for("all workers serve")
        assert len(said["listen"]) == 3
        assert {place.socket_of(1), place.socket_of(2)} < set(said["listen"])
        for target in said["listen"]:
            assert check(target).status.code == 0
            assert check(target, "DELETE").denied_response.status.code == 403
        assert get(said["health"], "/readyz")[0] == 200
        metrics = get(said["health"], "/metrics")[1]
        assert sample(metrics, "zta_decisions_total", verdict="allow") == 3
        assert sample(metrics, "zta_decisions_total", verdict="deny") == 3
        assert sample(metrics, "zta_workers") == 2
        service.signal(signal.SIGTERM)
        status, out, _ = service.wait()
    assert status == 0
    assert place.left() == set()
    assert sorted(json.loads(line)["verdict"] for line in out.splitlines()) == ["allow"] * 3 + ["deny"] * 3


def test_a_killed_worker_is_replaced_and_what_it_counted_stays_in_the_sums(
    one: Workers, service: RunningService
) -> None:
    said = service.wait_for("all workers serve")
    for _ in range(5):
        assert check(one.socket_of(1)).status.code == 0
    assert sample(get(said["health"], "/metrics")[1], "zta_decisions_total", verdict="allow") == 5
    os.kill(said["worker_pids"][0], signal.SIGKILL)
    assert answers(one.socket_of(2))
    ended = service.wait_for("a worker ended")
    assert (ended["worker"], ended["status"]) == (1, -signal.SIGKILL)
    wait_until(lambda: answers(one.socket_of(1)))
    metrics = get(said["health"], "/metrics")[1]
    assert sample(metrics, "zta_decisions_total", verdict="allow") == 7
    assert sample(metrics, "zta_worker_restarts_total") == 1
    service.signal(signal.SIGTERM)
    assert service.wait()[0] == 0


def test_all_workers_take_new_policies_on_sighup_and_by_themselves(one: Workers, service: RunningService) -> None:
    said = service.wait_for("all workers serve")
    before = {state["table_digest"] for state in workers_of(said["health"]).values()}
    text = (one.policies / "hatshop.yaml").read_text()
    one.write_policy(text + "\n# a comment changes the digest\n")
    service.signal(signal.SIGHUP)

    def taken() -> bool:
        digests = {state["table_digest"] for state in workers_of(said["health"]).values()}
        return len(digests) == 1 and digests != before

    wait_until(taken)


def test_a_rolling_restart_replaces_each_worker_while_the_other_one_answers(
    one: Workers, service: RunningService
) -> None:
    said = service.wait_for("all workers serve")
    service.signal(signal.SIGUSR2)
    unanswered = 0
    deadline = time.monotonic() + 2 * SECONDS
    while "all workers were replaced" not in service.logs():
        assert time.monotonic() < deadline
        unanswered += not (answers(one.socket_of(1)) or answers(one.socket_of(2)))
        time.sleep(0.05)
    assert unanswered == 0
    assert all(gone(pid) for pid in said["worker_pids"])
    assert answers(one.socket_of(1))
    assert answers(one.socket_of(2))
    assert sample(get(said["health"], "/metrics")[1], "zta_worker_restarts_total") == 0


def test_workers_end_when_their_supervisor_is_killed(one: Workers, service: RunningService) -> None:
    said = service.wait_for("all workers serve")
    service.signal(signal.SIGKILL)
    wait_until(lambda: all(gone(pid) for pid in said["worker_pids"]))
    with RunningService(one.config) as next_one:
        next_one.wait_for("all workers serve")


def test_what_keeps_workers_from_starting_is_said_once_and_ends_it_with_status_2(one: Workers) -> None:
    one.write_policy("kind: AuthorizationPolicy\nspec: [")
    with RunningService(one.config) as service:
        status, _, err = service.wait()
    assert status == 2
    assert len(re.findall(r"hatshop\.yaml:\d+:\d+", err)) == len(set(re.findall(r"hatshop\.yaml:\d+:\d+", err))) >= 1
    assert one.left() == set()


def test_a_second_service_on_the_same_port_is_refused(one: Workers, service: RunningService, tmp_path: Path) -> None:
    port = next(text for text in service.wait_for("all workers serve")["listen"] if not text.startswith("unix:"))
    other = tmp_path / "other.yaml"
    other.write_text(f'listen: ["{port}"]\npolicies: [{tmp_path}/none]\nworkers: 2\nhealth: {{listen: null}}\n')
    with RunningService(other) as second:
        status, _, err = second.wait()
    assert status == 2
    lines = err.splitlines()
    assert [line for line in lines if "cannot listen" in line], lines
    assert [line for line in lines if f"{tmp_path}/none: there is no such file" in line], lines


def test_a_call_that_no_worker_could_parse_is_denied_by_each(one: Workers, service: RunningService) -> None:
    service.wait_for("all workers serve")
    for number in (1, 2):
        answer = CheckResponse.FromString(
            call(one.socket_of(number), CHECK, b"\xff" + check_request().SerializeToString())
        )
        assert answer.status.code != 0
