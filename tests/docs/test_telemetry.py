"""The documents list exactly the metrics, attributes and events that exist, with their types and labels."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from msgspec.structs import replace

from tests.support.check_requests import DECISION_ID, allow, attributes, deny
from tests.support.facts import FACTS
from tests.support.spans import RESOURCE, MemoryExporter
from zta_authz.administrator.metrics import AdministratorMetrics
from zta_authz.administrator.signals.intake import Result
from zta_authz.administrator.signals.service import SourceState
from zta_authz.administrator.webhooks.sender import Outcome, Receiver
from zta_authz.errors import Reason
from zta_authz.model.decision import Decision, Verdict
from zta_authz.model.request import RequestAttributes
from zta_authz.model.signal_documents import Delivery
from zta_authz.model.stages import Stages
from zta_authz.ports import CheckEvent, FollowingStatus
from zta_authz.telemetry import names
from zta_authz.telemetry.metrics import MAX_POLICIES, Metrics
from zta_authz.telemetry.observer import TelemetryObserver
from zta_authz.telemetry.spans import Spans

if TYPE_CHECKING:
    from zta_authz.telemetry.push import MetricsPush

DOCS = Path(__file__).resolve().parents[2] / "docs"


def rows(document: str) -> list[list[str]]:
    """The cells of each row of the tables whose first cell is code."""
    text = (DOCS / document).read_text(encoding="utf-8")
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"(?m)^\| `.*$", text)]


def code(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def staged() -> Stages:
    stages = Stages(lambda: 0, sampled=True)
    stages.parsed, stages.identified, stages.decided = 2, 3, 4
    stages.conditions = stages.conditions_ns = 1
    return stages


NAMED = Decision(Verdict.DENY, Reason.DENY_POLICY, "default/p", 0, rule_name="no-robots")
EVENTS = tuple(
    CheckEvent((), request, decision, DECISION_ID, 1, 5, staged())
    for request in (attributes(), RequestAttributes(method="BREW"))
    for decision in (
        allow(),
        deny(),
        NAMED,
        replace(allow(), facts=FACTS),
        Decision(Verdict.DENY, Reason.INTERNAL_ERROR),
    )
)


def full() -> Metrics:
    """The metrics of a service that exports every metric."""
    metrics = Metrics("1")
    observer = TelemetryObserver(metrics)
    for event in EVENTS:
        observer.observe(event)
    metrics.watch_audit(lambda: 1, lambda: 1, lambda: 1)
    metrics.watch_audit_sink(lambda: False, lambda: 0.0)
    metrics.watch_spans(lambda: 1, lambda: {"queue_full": 1, "export_failed": 1, "rate": 1}, lambda: 1)
    metrics.watch_caches(lambda: {"peers": 1}, lambda: {"peers": 1})
    metrics.watch_calls(lambda: 1, lambda: 1)
    metrics.watch_deadlines(lambda: 1)
    metrics.watch_push(cast("MetricsPush", SimpleNamespace(pushed=1, failed=1)))
    metrics.keys_fetched("a.example", "taken")
    metrics.show_keys({"a.example": 1.0}, 0)
    metrics.show_expiries({"a.example": 1.0}, {"files": 1.0})
    metrics.show_signing({"https://zta.example": 1.0})
    metrics.show_bundle_ages({"a.example": 1.0})
    metrics.network_data_loaded(True)
    metrics.show_network_data({"country": 1.0}, 1)
    metrics.show_fact_problems({("country", "stale"): 1})
    status = FollowingStatus("unix:/a", True, 1.0, False, 1, {"grant": 1})
    metrics.watch_following(lambda: status, lambda: 1.0)
    metrics.policies.faults("policies", 1)
    metrics.policies.disagreed("allow", "default/p")
    metrics.policies._table.info({"digest": "d"})
    metrics.render()
    return metrics


def administrator() -> AdministratorMetrics:
    """The metrics of an administrator that exports every metric."""
    metrics = AdministratorMetrics()
    metrics.keys = lambda: ["grant/1"]
    metrics.calls = lambda: {("http", "ok"): 1}
    metrics.signals.received("default/idp", "session-revoked", Result.ACCEPTED, 1.0)
    state = SourceState("default/idp", Delivery.POLL, "s", 1.0, 1.0, "", 600.0)
    metrics.signals.states = lambda: [state]
    metrics.signals.held = lambda: {"default/idp": 1}
    metrics.webhooks.count("hooks.example", Outcome.DELIVERED)
    receiver = Receiver("hooks.example", "https://hooks.example/", "secret", frozenset(), "c")
    metrics.webhooks.senders = [cast("Any", SimpleNamespace(receiver=receiver, failure="", waiting_since=None))]
    return metrics


def test_each_metric_is_documented_with_its_type_and_labels_and_no_other() -> None:
    suffix = {"counter": "_total", "info": "_info"}
    families = {
        family.name + suffix.get(family.type, ""): (
            "gauge" if family.type == "info" else family.type,
            tuple(sorted({label for sample in family.samples for label in sample.labels} - {"le"})),
        )
        for registry in (full().registry, administrator().registry)
        for family in registry.collect()
    }
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    items = re.findall(r"(?m)^- \*\*`(\w+)`\*\* \((\w+)[^;)]*(?:;([^)]*))?\):", text)
    written = {name: (kind, tuple(sorted(code(labels)))) for name, kind, labels in items}
    assert written == families


def test_each_metric_is_of_our_names() -> None:
    own_names = {value for name, value in vars(names).items() if name.isupper() and value.startswith("zta_")}
    shown = {family.name for family in full().registry.collect()}
    assert {name for name in shown if not name.startswith("process_")} == own_names - {names.INSTRUMENTATION}


def test_the_page_shows_what_the_process_takes_and_not_when_each_counter_began() -> None:
    series = {line.split("{")[0].split(" ")[0] for line in full().render().decode().splitlines() if line[0] != "#"}
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"} <= series
    assert not {name for name in series if name.endswith("_created")}


def exported() -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """The attributes of all spans with their types, and the events with their attributes."""
    exporter = MemoryExporter()
    spans = Spans(exporter, RESOURCE, 1.0, "1")
    for event in EVENTS:
        spans.record(event)
    spans.close()
    fields: dict[str, Any] = {}
    events: dict[str, tuple[str, ...]] = {}
    for span in exporter.get_finished_spans():
        fields.update(span.attributes or {})
        events.update({event.name: tuple(event.attributes or {}) for event in span.events})
    kinds = {"str": "string", "float": "double"}
    return {name: kinds.get(type(value).__name__, "int") for name, value in fields.items()}, events


def test_each_attribute_and_event_of_a_span_is_documented_and_no_other() -> None:
    attributes_told, events_told = exported()
    written = rows("traces.md")
    assert {code(row[0])[0]: row[1] for row in written if row[1] in ("string", "int", "double")} == attributes_told
    assert {
        code(row[0])[0]: code(row[2]) for row in written if row[1] not in ("string", "int", "double")
    } == events_told
    own_names = {value for name, value in vars(names).items() if name.isupper() and value.startswith("zta.")}
    assert own_names == {name for name in attributes_told | events_told if name.startswith("zta.")} | {names.DURATION}


def test_policies_past_the_limit_count_as_one() -> None:
    metrics = Metrics("1")
    observer = TelemetryObserver(metrics)
    for number in range(MAX_POLICIES + 5):
        decision = msgspec.structs.replace(allow(), policy=f"default/p{number}")
        observer.observe(CheckEvent((), None, decision, DECISION_ID, 0, 1))
    metrics.render()
    value = metrics.registry.get_sample_value
    labels = {"verdict": "allow", "reason": "allow_policy"}
    assert value("zta_policy_decisions_total", labels | {"policy": "other"}) == 5
    assert value("zta_policy_decisions_total", labels | {"policy": "default/p7"}) == 1


@pytest.mark.parametrize(("stage", "nanoseconds"), [("parse", 10), ("identity", 20), ("match", 30), ("answer", 40)])
def test_the_stages_of_a_timed_call_add_up_to_its_time(stage: str, nanoseconds: int) -> None:
    stages = Stages(lambda: 0)
    stages.parsed, stages.identified, stages.decided = 110, 130, 160
    metrics = Metrics("1")
    TelemetryObserver(metrics).observe(CheckEvent((), None, allow(), DECISION_ID, 100, 200, stages))
    metrics.render()
    value = metrics.registry.get_sample_value
    assert value("zta_stage_duration_seconds_sum", {"stage": stage}) == pytest.approx(nanoseconds * 1e-9)
    assert value("zta_stage_duration_seconds_count", {"stage": stage}) == 1
