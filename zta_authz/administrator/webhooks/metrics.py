"""Metrics of webhooks: attempts by their outcome, the age of the oldest event that waits, and failures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from zta_authz.administrator.webhooks.sender import Outcome, Sender

ATTEMPTS: Final = "zta_webhook_attempts"
WAITING: Final = "zta_webhook_waiting_age_seconds"
FAILING: Final = "zta_webhook_failing"


class WebhookMetrics(Collector):
    """Counts attempts. `senders` are read at collection; receivers are named by their hosts."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self.senders: Sequence[Sender] = ()
        self._clock = clock
        self._attempts = Counter(ATTEMPTS, "Attempts to deliver an event.", ("webhook", "outcome"), registry=registry)
        registry.register(self)

    def count(self, webhook: str, outcome: Outcome) -> None:
        """Count one attempt."""
        self._attempts.labels(webhook, outcome).inc()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of each receiver."""
        now = self._clock()
        waiting = GaugeMetricFamily(WAITING, "Age of the oldest event that waits for a webhook.", labels=("webhook",))
        failing = GaugeMetricFamily(FAILING, "1 while events can't be delivered.", labels=("webhook",))
        for sender in self.senders:
            since = sender.waiting_since
            waiting.add_metric((sender.receiver.name,), 0.0 if since is None else max(0.0, now - since))
            failing.add_metric((sender.receiver.name,), float(bool(sender.failure)))
        yield from (waiting, failing)
