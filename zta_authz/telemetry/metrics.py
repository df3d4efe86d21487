"""Prometheus metrics, in a registry of our own: nothing is registered by importing, and nothing of others is shown."""

from __future__ import annotations

import platform
from collections import Counter as Tally
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from zta_authz.errors import ANSWERS, Reason
from zta_authz.model.decision import Verdict
from zta_authz.telemetry import names
from zta_authz.telemetry.collectors import Durations, Readings
from zta_authz.telemetry.policy_metrics import PolicyMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zta_authz.ports import CheckEvent

CONTENT_TYPE = CONTENT_TYPE_LATEST
DURATION_BUCKETS = (
    *(0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0),
)
"""Seconds; 0.2 is Envoy's default timeout of a Check call."""
FOLDED_CALLS = 512
"""Calls that are counted at a time; none is missing from what is shown."""
MAX_HOSTS = 100
OTHER_HOSTS = "other"


class Metrics:
    """The service's metrics. Label children are made once: looking one up costs more than counting.

    Calls are noted as they come and counted many at a time: done after each call, in the middle of everything else,
    counting takes several times as long. All of it happens on one thread.
    """

    def __init__(self, version: str) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        decisions = Counter(names.DECISIONS, "Check calls answered.", ("verdict", "reason"), registry=registry)
        self._decisions = {
            (verdict, reason): decisions.labels(verdict.value, reason.value)
            for reason in Reason
            for verdict in (Verdict.DENY if reason in ANSWERS else Verdict.ALLOW,)
        }
        self._calls: list[tuple[Verdict, Reason, int]] = []
        self._durations = Durations(names.CHECK_DURATION, "Time from a CheckRequest to its answer.", DURATION_BUCKETS)
        registry.register(self._durations)
        self._readings = Readings()
        registry.register(self._readings)
        self._internal_errors = Counter(
            names.INTERNAL_ERRORS, "Check calls denied because deciding failed.", registry=registry
        )
        loads = Counter(names.POLICY_LOADS, "Attempts to load the policies.", ("result",), registry=registry)
        self._loads_taken, self._loads_refused = loads.labels("taken"), loads.labels("refused")
        self._reload_failed = Gauge(
            names.POLICY_RELOAD_FAILED,
            "1 while policies on disk are refused and older ones in force.",
            registry=registry,
        )
        self._loaded_at = Gauge(names.POLICY_LOADED_AT, "When the policies in force were taken.", registry=registry)
        self._key_fetches = Counter(
            names.KEY_FETCHES, "Attempts to fetch keys of token issuers.", ("host", "outcome"), registry=registry
        )
        self._key_hosts: set[str] = set()
        self._key_age = Gauge(
            names.KEY_AGE, "Time since the oldest key set of a host was fetched.", ("host",), registry=registry
        )
        self._keys_missing = Gauge(
            names.KEYS_MISSING, "Issuers whose tokens are denied for want of keys.", registry=registry
        )
        self._bundle_expiry = Gauge(
            names.BUNDLE_EXPIRY, "When a trust domain's first authority ends.", ("trust_domain",), registry=registry
        )
        self._own_expiry = Gauge(names.OWN_EXPIRY, "When our own certificate ends.", ("source",), registry=registry)
        self.policies = PolicyMetrics(registry)
        build = Info(names.BUILD, "What is running.", registry=registry)
        build.info({"version": version, "python": platform.python_version()})

    def count(self, event: CheckEvent) -> None:
        """Count one answered call and its time. A clock set back counts as no time."""
        decision, calls = event.decision, self._calls
        calls.append((decision.verdict, decision.reason, event.ended_ns - event.started_ns))
        if len(calls) >= FOLDED_CALLS:
            self._fold()

    def _fold(self) -> None:
        """Count what was noted."""
        calls, self._calls = self._calls, []
        for (verdict, reason), number in Tally((verdict, reason) for verdict, reason, _ in calls).items():
            child = self._decisions.get((verdict, reason))
            if child is not None:
                child.inc(number)
            if reason is Reason.INTERNAL_ERROR:
                self._internal_errors.inc(number)
        self._durations.add(nanoseconds for _, _, nanoseconds in calls)

    def watch_audit(self, dropped: Callable[[], int], queued: Callable[[], int]) -> None:
        """Show how the decision log keeps up: records it `dropped` since the start, and those that are `queued`."""
        self._readings.counter(names.AUDIT_DROPPED, "Decision records that could not be kept.", dropped)
        self._readings.gauge(names.AUDIT_QUEUE, "Decision records that wait to be written.", queued)

    def watch_observer(self, errors: Callable[[], int]) -> None:
        """Show how often telemetry itself failed since the start."""
        self._readings.counter(names.OBSERVER_ERRORS, "Answered calls that telemetry failed to take.", errors)

    def policies_taken(self, now: float) -> None:
        """New policies are in force since `now`, seconds since the epoch."""
        self._loads_taken.inc()
        self._reload_failed.set(0)
        self._loaded_at.set(now)

    def policies_kept(self) -> None:
        """The policies on disk are again those in force."""
        self._reload_failed.set(0)

    def policies_refused(self) -> None:
        """The policies on disk have faults; those in force stay."""
        self._loads_refused.inc()
        self._reload_failed.set(1)

    def keys_fetched(self, host: str, outcome: str) -> None:
        """A fetch of keys from `host` ended. `outcome` is of a closed list; hosts past `MAX_HOSTS` count as one."""
        self._key_fetches.labels(self._key_host(host), outcome).inc()

    def show_keys(self, ages: Mapping[str, float], missing: int) -> None:
        """What to say of fetched keys from now on: their age in seconds by host, and how many issuers have none."""
        oldest: dict[str, float] = {}
        for host, age in ages.items():
            label = self._key_host(host)
            oldest[label] = max(oldest.get(label, 0.0), age)
        self._key_age.clear()
        for label, age in oldest.items():
            self._key_age.labels(label).set(age)
        self._keys_missing.set(missing)

    def show_expiries(self, bundles: Mapping[str, float], own: Mapping[str, float]) -> None:
        """When trust bundles (by trust domain) and our own certificates (by source) end, seconds since the epoch."""
        self._bundle_expiry.clear()
        for trust_domain, until in bundles.items():
            self._bundle_expiry.labels(trust_domain).set(until)
        self._own_expiry.clear()
        for source, until in own.items():
            self._own_expiry.labels(source).set(until)

    def _key_host(self, host: str) -> str:
        if host not in self._key_hosts and len(self._key_hosts) >= MAX_HOSTS:
            return OTHER_HOSTS
        self._key_hosts.add(host)
        return host

    def render(self) -> bytes:
        """The metrics in Prometheus' text format, to be served as `CONTENT_TYPE`."""
        self._fold()
        return generate_latest(self.registry)
