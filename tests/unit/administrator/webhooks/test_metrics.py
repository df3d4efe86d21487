"""The metrics of webhooks name receivers by their hosts, and only those that exist."""

from __future__ import annotations

from typing import Any, cast

from prometheus_client import CollectorRegistry, generate_latest

from zta_authz.administrator.webhooks.metrics import WebhookMetrics
from zta_authz.administrator.webhooks.sender import Outcome


class _Sender:
    def __init__(self, name: str, failure: str, since: float | None) -> None:
        self.receiver = type("Receiver", (), {"name": name})
        self.failure = failure
        self.waiting_since = since


def test_attempts_waiting_events_and_failures_are_shown_for_each_receiver() -> None:
    registry = CollectorRegistry()
    metrics = WebhookMetrics(registry, lambda: 1000.0)
    metrics.senders = cast("Any", (_Sender("a.example", "down", 940.0), _Sender("b.example", "", None)))
    metrics.count("a.example", Outcome.FAILED)
    metrics.count("a.example", Outcome.GIVEN_UP)
    text = generate_latest(registry).decode()
    for line in (
        'zta_webhook_attempts_total{outcome="failed",webhook="a.example"} 1.0',
        'zta_webhook_attempts_total{outcome="given_up",webhook="a.example"} 1.0',
        'zta_webhook_waiting_age_seconds{webhook="a.example"} 60.0',
        'zta_webhook_waiting_age_seconds{webhook="b.example"} 0.0',
        'zta_webhook_failing{webhook="a.example"} 1.0',
        'zta_webhook_failing{webhook="b.example"} 0.0',
    ):
        assert line in text
