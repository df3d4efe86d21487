"""The metrics of signals, and that the page lists them all."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from zta_authz.administrator.signals.intake import Result
from zta_authz.administrator.signals.metrics import SignalMetrics
from zta_authz.administrator.signals.service import SourceState
from zta_authz.model.signal_documents import Delivery

PAGE = Path(__file__).resolve().parents[4] / "docs" / "signals.md"
NAME = "istio-system/idp"


def test_events_are_counted_and_sources_age() -> None:
    registry = CollectorRegistry()
    metrics = SignalMetrics(registry, lambda: 1000.0)
    metrics.states = lambda: [
        SourceState(NAME, Delivery.POLL, "s", 990.0, 940.0, "", 10.0),
        SourceState("istio-system/silent", Delivery.POLL, "", None, None, "can't connect", 600.0),
        SourceState("istio-system/quiet", Delivery.PUSH, "", 989.0, None, "", 10.0),
    ]
    metrics.held = lambda: {NAME: 3}
    metrics.received(NAME, "session-revoked", Result.ACCEPTED, 3.0)
    metrics.received(NAME, "", Result.REFUSED, None)
    text = generate_latest(registry).decode()
    for line in (
        f'zta_signal_events_total{{outcome="accepted",source="{NAME}",type="session-revoked"}} 1.0',
        f'zta_signal_events_total{{outcome="refused",source="{NAME}",type=""}} 1.0',
        f'zta_signal_lag_seconds_bucket{{le="5.0",source="{NAME}"}} 1.0',
        f'zta_signal_source_heard_age_seconds{{source="{NAME}"}} 10.0',
        f'zta_signal_source_verified_age_seconds{{source="{NAME}"}} 60.0',
        'zta_signal_source_failing{source="istio-system/silent"} 1.0',
        f'zta_signal_source_stale{{source="{NAME}"}} 0.0',
        'zta_signal_source_stale{source="istio-system/silent"} 1.0',
        'zta_signal_source_stale{source="istio-system/quiet"} 1.0',
        f'zta_signal_events_held{{source="{NAME}"}} 3.0',
    ):
        assert line in text
    assert 'zta_signal_source_heard_age_seconds{source="istio-system/silent"}' not in text


def test_the_page_lists_each_metric_and_outcome() -> None:
    registry = CollectorRegistry()
    SignalMetrics(registry)
    suffix = {"counter": "_total"}
    names = {family.name + suffix.get(family.type, "") for family in registry.collect()}
    text = PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"`(zta_signal_\w+)`", text)) == names
    assert [result for result in Result if f"`{result}`" not in text] == []
