"""Metrics: every answer is counted once, by verdict and reason."""

from __future__ import annotations

import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.check_requests import DECISION_ID, allow, attributes, deny
from zta_authz.errors import DENIAL_RESPONSES, Reason
from zta_authz.model.decision import Decision, Verdict
from zta_authz.model.stages import Stages
from zta_authz.ports import CheckEvent
from zta_authz.telemetry.metrics import BATCH_CALLS, MAX_HOSTS, MAX_RULES, STAGES, Metrics
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
    values = samples(observed(allow(), allow(), deny(), Decision(Verdict.DENY, Reason.INTERNAL_ERROR)))
    assert values["zta_decisions_total", (("reason", "allow_policy"), ("verdict", "allow"))] == 2
    assert values["zta_decisions_total", (("reason", "deny_policy"), ("verdict", "deny"))] == 1
    assert values["zta_internal_errors_total", ()] == 1


@pytest.mark.parametrize("calls", [BATCH_CALLS - 1, BATCH_CALLS, BATCH_CALLS + 1, 3 * BATCH_CALLS + 7])
def test_no_call_is_missing_whenever_metrics_are_rendered(calls: int) -> None:
    observer = build_observer()
    for number in range(calls):
        decision = allow() if number % 3 else deny()
        observer.observe(CheckEvent((), None, decision, DECISION_ID, 0, 1_000_000))
    for _ in range(2):
        values = samples(observer.metrics)
        allowed = values["zta_decisions_total", (("reason", "allow_policy"), ("verdict", "allow"))]
        denied = values["zta_decisions_total", (("reason", "deny_policy"), ("verdict", "deny"))]
        assert (allowed + denied, denied) == (calls, (calls + 2) // 3)
        assert values["zta_check_duration_seconds_count", ()] == calls
        assert values["zta_check_duration_seconds_sum", ()] == pytest.approx(calls / 1000)


@pytest.mark.parametrize("calls", [1, BATCH_CALLS + 1])
def test_every_stage_of_every_timed_call_is_counted_once(calls: int) -> None:
    observer = build_observer()
    for number in range(calls):
        stages = Stages(lambda: 0)
        stages.parsed, stages.identified, stages.decided = 1_000, 3_000, 6_000 if number % 2 else 0
        observer.observe(CheckEvent((), None, allow(), DECISION_ID, 0, 10_000, stages if number % 3 else None))
    timed = len([number for number in range(calls) if number % 3])
    decided = len([number for number in range(calls) if number % 3 and number % 2])
    values = samples(observer.metrics)
    counts = {stage: values["zta_stage_duration_seconds_count", (("stage", stage),)] for stage in STAGES}
    assert counts == {"parse": timed, "identity": decided, "match": decided, "answer": decided}
    assert values["zta_stage_duration_seconds_sum", (("stage", "answer"),)] == pytest.approx(decided * 4e-6)


def test_a_call_that_waits_to_be_counted_does_not_keep_its_request_alive() -> None:
    observer, request, stages = build_observer(), attributes(), Stages(lambda: 0)
    before = sys.getrefcount(request)
    observer.observe(CheckEvent((), request, allow(), DECISION_ID, 0, 1, stages))
    assert sys.getrefcount(request) == before


def test_failures_of_the_decision_log_and_of_telemetry_are_exposed() -> None:
    metrics = Metrics("1")
    metrics.watch_audit(dropped=lambda: 7, queued=lambda: 5, unsampled=lambda: 2)
    metrics.watch_audit_sink(failing=lambda: True, oldest=lambda: 12.5)
    metrics.watch_observer(errors=lambda: 3)
    values = samples(metrics)
    assert values["zta_audit_dropped_total", ()] == 7
    assert values["zta_audit_queue_records", ()] == 5
    assert values["zta_audit_unsampled_total", ()] == 2
    assert values["zta_audit_sink_failing", ()] == 1
    assert values["zta_audit_oldest_unwritten_seconds", ()] == 12.5
    assert values["zta_observer_errors_total", ()] == 3


def test_every_reason_has_its_series_from_the_start() -> None:
    reasons = {dict(labels)["reason"] for name, labels in samples(observed()) if name == "zta_decisions_total"}
    assert reasons == {reason.value for reason in Reason}
    allowing = {dict(labels)["reason"] for _, labels in samples(observed()) if ("verdict", "allow") in labels}
    assert allowing.isdisjoint(reason.value for reason in DENIAL_RESPONSES)


def test_the_duration_of_a_call_is_in_seconds_and_never_negative() -> None:
    values = samples(observed(allow(), milliseconds=2))
    assert values["zta_check_duration_seconds_sum", ()] == 0.002
    assert values["zta_check_duration_seconds_bucket", (("le", "0.001"),)] == 0
    assert values["zta_check_duration_seconds_bucket", (("le", "0.0025"),)] == 1
    assert samples(observed(allow(), milliseconds=-5))["zta_check_duration_seconds_sum", ()] == 0


def test_a_contradictory_decision_is_timed_but_has_no_series() -> None:
    values = samples(observed(Decision(Verdict.ALLOW, Reason.DENY_POLICY)))
    assert values["zta_check_duration_seconds_count", ()] == 1
    assert not [key for key, value in values.items() if key[0] == "zta_decisions_total" and value]


def test_refused_policies_are_exposed_until_the_next_valid_ones() -> None:
    metrics = Metrics("1")
    metrics.policies_taken(1000.0)
    metrics.policies_refused()
    assert samples(metrics)["zta_policy_reload_failed", ()] == 1
    assert samples(metrics)["zta_policy_loads_total", (("result", "refused"),)] == 1
    metrics.policies_taken(2000.0)
    assert samples(metrics)["zta_policy_reload_failed", ()] == 0
    assert samples(metrics)["zta_policy_loaded_timestamp_seconds", ()] == 2000


def test_key_fetches_are_counted_by_host_and_outcome_and_ages_exposed_by_host() -> None:
    metrics = Metrics("1")
    for outcome in ("taken", "timeout", "timeout"):
        metrics.keys_fetched("a.example", outcome)
    metrics.show_keys({"a.example": 7.0, "b.example": 8.0}, 3)
    metrics.show_keys({"a.example": 9.0}, 1)
    values = samples(metrics)
    assert values["zta_key_fetches_total", (("host", "a.example"), ("outcome", "timeout"))] == 2
    assert {key: value for key, value in values.items() if key[0] == "zta_key_age_seconds"} == {
        ("zta_key_age_seconds", (("host", "a.example"),)): 9
    }
    assert values["zta_keys_missing", ()] == 1


def test_key_hosts_past_the_limit_share_one_label() -> None:
    metrics = Metrics("1")
    ages = {f"{number}.example": float(number) for number in range(MAX_HOSTS + 50)}
    for host in ages:
        metrics.keys_fetched(host, "taken")
    metrics.show_keys(ages, 0)
    values = samples(metrics)
    hosts = {
        dict(labels)["host"] for name, labels in values if name in ("zta_key_fetches_total", "zta_key_age_seconds")
    }
    assert len(hosts) == MAX_HOSTS + 1
    assert values["zta_key_fetches_total", (("host", "other"), ("outcome", "taken"))] == 50
    assert values["zta_key_age_seconds", (("host", "other"),)] == MAX_HOSTS + 49


def test_the_expiry_of_bundles_and_certificates_is_exposed_while_they_exist() -> None:
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


def test_named_rules_are_counted_by_name_up_to_a_limit() -> None:
    values = samples(observed(by_name("a"), by_name("a"), by_name("b"), deny()))
    labels = (("policy", "default/p"), ("reason", "deny_policy"))
    assert values["zta_rule_decisions_total", (*labels, ("rule", "a"), ("verdict", "deny"))] == 2
    assert values["zta_rule_decisions_total", (*labels, ("rule", "b"), ("verdict", "deny"))] == 1
    assert sum(number for (name, _), number in values.items() if name == "zta_rule_decisions_total") == 3
    many = samples(observed(*(by_name(f"r{number}") for number in range(MAX_RULES + 20))))
    series = {labels: number for (name, labels), number in many.items() if name == "zta_rule_decisions_total"}
    assert len(series) == MAX_RULES + 1
    assert next(number for labels, number in series.items() if ("rule", "other") in labels) == 20
