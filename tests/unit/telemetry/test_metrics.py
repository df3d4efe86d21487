"""Metrics: each answer is counted once, under its verdict and reason."""

from __future__ import annotations

import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.check_requests import DECISION_ID, allow, attributes, deny
from zta_authz.errors import ANSWERS, Reason
from zta_authz.model.decision import Decision, Verdict
from zta_authz.model.stages import Stages
from zta_authz.ports import CheckEvent
from zta_authz.telemetry.metrics import FOLDED_CALLS, MAX_HOSTS, MAX_RULES, STAGES, Metrics
from zta_authz.telemetry.observer import TelemetryObserver, build_observer


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def observed(*decisions: Decision, milliseconds: int = 1) -> Metrics:
    observer = build_observer()
    for decision in decisions:
        observer.observe(CheckEvent((), None, decision, DECISION_ID, 0, milliseconds * 1_000_000))
    return observer.metrics


def test_decisions_are_counted_by_verdict_and_reason() -> None:
    found = samples(observed(allow(), allow(), deny(), Decision(Verdict.DENY, Reason.INTERNAL_ERROR)))
    assert found["zta_decisions_total", (("reason", "allow_policy"), ("verdict", "allow"))] == 2
    assert found["zta_decisions_total", (("reason", "deny_policy"), ("verdict", "deny"))] == 1
    assert found["zta_internal_errors_total", ()] == 1


@pytest.mark.parametrize("calls", [FOLDED_CALLS - 1, FOLDED_CALLS, FOLDED_CALLS + 1, 3 * FOLDED_CALLS + 7])
def test_no_call_is_missing_whenever_one_looks(calls: int) -> None:
    observer = build_observer()
    for number in range(calls):
        decision = allow() if number % 3 else deny()
        observer.observe(CheckEvent((), None, decision, DECISION_ID, 0, 1_000_000))
    for _ in range(2):
        found = samples(observer.metrics)
        allowed = found["zta_decisions_total", (("reason", "allow_policy"), ("verdict", "allow"))]
        denied = found["zta_decisions_total", (("reason", "deny_policy"), ("verdict", "deny"))]
        assert (allowed + denied, denied) == (calls, (calls + 2) // 3)
        assert found["zta_check_duration_seconds_count", ()] == calls
        assert found["zta_check_duration_seconds_sum", ()] == pytest.approx(calls / 1000)


@pytest.mark.parametrize("calls", [1, FOLDED_CALLS + 1])
def test_each_stage_of_each_timed_call_is_counted_once(calls: int) -> None:
    observer = build_observer()
    for number in range(calls):
        stages = Stages(lambda: 0)
        stages.parsed, stages.identified, stages.decided = 1_000, 3_000, 6_000 if number % 2 else 0
        observer.observe(CheckEvent((), None, allow(), DECISION_ID, 0, 10_000, stages if number % 3 else None))
    timed = len([each for each in range(calls) if each % 3])
    decided = len([each for each in range(calls) if each % 3 and each % 2])
    found = samples(observer.metrics)
    counts = {stage: found["zta_stage_duration_seconds_count", (("stage", stage),)] for stage in STAGES}
    assert counts == {"parse": timed, "identity": decided, "match": decided, "answer": decided}
    assert found["zta_stage_duration_seconds_sum", (("stage", "answer"),)] == pytest.approx(decided * 4e-6)


def test_no_call_that_waits_to_be_counted_keeps_its_request_alive() -> None:
    observer, request, stages = build_observer(), attributes(), Stages(lambda: 0)
    before = sys.getrefcount(request)
    observer.observe(CheckEvent((), request, allow(), DECISION_ID, 0, 1, stages))
    assert sys.getrefcount(request) == before


def test_the_decision_logs_and_telemetrys_own_troubles_show() -> None:
    metrics = Metrics("1")
    metrics.watch_audit(dropped=lambda: 7, queued=lambda: 5, unsampled=lambda: 2)
    metrics.watch_audit_sink(failing=lambda: True, oldest=lambda: 12.5)
    metrics.watch_observer(errors=lambda: 3)
    found = samples(metrics)
    assert found["zta_audit_dropped_total", ()] == 7
    assert found["zta_audit_queue_records", ()] == 5
    assert found["zta_audit_unsampled_total", ()] == 2
    assert found["zta_audit_sink_failing", ()] == 1
    assert found["zta_audit_oldest_unwritten_seconds", ()] == 12.5
    assert found["zta_observer_errors_total", ()] == 3


def test_each_reason_has_its_series_from_the_start() -> None:
    reasons = {dict(labels)["reason"] for name, labels in samples(observed()) if name == "zta_decisions_total"}
    assert reasons == {reason.value for reason in Reason}
    allowing = {dict(labels)["reason"] for _, labels in samples(observed()) if ("verdict", "allow") in labels}
    assert allowing.isdisjoint(reason.value for reason in ANSWERS)


def test_the_time_of_a_call_is_in_seconds_and_never_negative() -> None:
    found = samples(observed(allow(), milliseconds=2))
    assert found["zta_check_duration_seconds_sum", ()] == 0.002
    assert found["zta_check_duration_seconds_bucket", (("le", "0.001"),)] == 0
    assert found["zta_check_duration_seconds_bucket", (("le", "0.0025"),)] == 1
    assert samples(observed(allow(), milliseconds=-5))["zta_check_duration_seconds_sum", ()] == 0


def test_a_contradictory_decision_is_timed_without_a_series_of_its_own() -> None:
    found = samples(observed(Decision(Verdict.ALLOW, Reason.DENY_POLICY)))
    assert found["zta_check_duration_seconds_count", ()] == 1
    assert not [key for key, value in found.items() if key[0] == "zta_decisions_total" and value]


def test_refused_policies_show_until_the_next_good_ones() -> None:
    metrics = Metrics("1")
    metrics.policies_taken(1000.0)
    metrics.policies_refused()
    assert samples(metrics)["zta_policy_reload_failed", ()] == 1
    assert samples(metrics)["zta_policy_loads_total", (("result", "refused"),)] == 1
    metrics.policies_taken(2000.0)
    assert samples(metrics)["zta_policy_reload_failed", ()] == 0
    assert samples(metrics)["zta_policy_loaded_timestamp_seconds", ()] == 2000


def test_fetches_of_keys_are_counted_by_host_and_outcome_and_ages_told_by_host() -> None:
    metrics = Metrics("1")
    for outcome in ("taken", "timeout", "timeout"):
        metrics.keys_fetched("a.example", outcome)
    metrics.show_keys({"a.example": 7.0, "b.example": 8.0}, 3)
    metrics.show_keys({"a.example": 9.0}, 1)
    found = samples(metrics)
    assert found["zta_key_fetches_total", (("host", "a.example"), ("outcome", "timeout"))] == 2
    assert {key: value for key, value in found.items() if key[0] == "zta_key_age_seconds"} == {
        ("zta_key_age_seconds", (("host", "a.example"),)): 9
    }
    assert found["zta_keys_missing", ()] == 1


def test_many_hosts_of_keys_count_as_one_past_the_limit() -> None:
    metrics = Metrics("1")
    ages = {f"{number}.example": float(number) for number in range(MAX_HOSTS + 50)}
    for host in ages:
        metrics.keys_fetched(host, "taken")
    metrics.show_keys(ages, 0)
    found = samples(metrics)
    hosts = {dict(labels)["host"] for name, labels in found if name in ("zta_key_fetches_total", "zta_key_age_seconds")}
    assert len(hosts) == MAX_HOSTS + 1
    assert found["zta_key_fetches_total", (("host", "other"), ("outcome", "taken"))] == 50
    assert found["zta_key_age_seconds", (("host", "other"),)] == MAX_HOSTS + 49


def test_ends_of_bundles_and_certificates_are_told_while_there_is_one() -> None:
    metrics = Metrics("1")
    metrics.show_expiries({"a.example": 7.0, "b.example": 8.0}, {"files": 5.0})
    metrics.show_expiries({"a.example": 9.0}, {})
    expiries = {key: value for key, value in samples(metrics).items() if "_expiry_" in key[0]}
    assert expiries == {("zta_trust_bundle_expiry_timestamp_seconds", (("trust_domain", "a.example"),)): 9}


def test_two_observers_do_not_share_a_registry() -> None:
    first, second = TelemetryObserver(Metrics("1")), TelemetryObserver(Metrics("2"))
    assert first.metrics.registry is not second.metrics.registry
    assert 'version="2"' in second.metrics.render().decode()


def by_name(name: str) -> Decision:
    return Decision(Verdict.DENY, Reason.DENY_POLICY, "default/p", 0, rule_name=name)


def test_rules_with_names_are_counted_by_them_up_to_a_bound() -> None:
    found = samples(observed(by_name("a"), by_name("a"), by_name("b"), deny()))
    labels = (("policy", "default/p"), ("reason", "deny_policy"))
    assert found["zta_rule_decisions_total", (*labels, ("rule", "a"), ("verdict", "deny"))] == 2
    assert found["zta_rule_decisions_total", (*labels, ("rule", "b"), ("verdict", "deny"))] == 1
    assert sum(number for (name, _), number in found.items() if name == "zta_rule_decisions_total") == 3
    many = samples(observed(*(by_name(f"r{number}") for number in range(MAX_RULES + 20))))
    series = {labels: number for (name, labels), number in many.items() if name == "zta_rule_decisions_total"}
    assert len(series) == MAX_RULES + 1
    assert next(number for labels, number in series.items() if ("rule", "other") in labels) == 20
