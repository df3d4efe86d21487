"""Prometheus metrics, in a registry of our own: nothing is registered by importing, and nothing of others is shown."""

from __future__ import annotations

import platform
from collections import Counter as Tally
from operator import itemgetter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from zta_authz.errors import ANSWERS, Reason
from zta_authz.model.decision import Verdict
from zta_authz.telemetry import names
from zta_authz.telemetry.collectors import Durations, Readings
from zta_authz.telemetry.policy_metrics import PolicyMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from zta_authz.model.stages import Stages
    from zta_authz.ports import CheckEvent
    from zta_authz.telemetry.push import MetricsPush

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
MAX_POLICIES = 200
"""Policies with series of their own: the first that decide. All others together are `OTHER_POLICIES`."""
OTHER_POLICIES = "other"
MAX_RULES = 500
"""Named rules with series of their own, as with policies."""
PUSHES_HELP = "Pushes of metrics that the collector took whole."
PUSH_FAILURES_HELP = "Pushes of metrics that the collector did not take, or not all of."
_KIND, _DURATION = itemgetter(0, 1, 2, 3), itemgetter(4)
STAGES = ("parse", "identity", "match", "answer")


class Metrics:
    """The service's metrics. Label children are made once: looking one up costs more than counting.

    Calls are noted as they come and counted many at a time: done after each call, in the middle of everything else,
    counting takes several times as long. All of it happens on one thread.
    """

    def __init__(self, version: str) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        decisions = Counter(names.DECISIONS, "Check calls answered.", ("verdict", "reason"), registry=registry)
        self._decisions = {
            (verdict, reason): decisions.labels(verdict.value, reason.value)
            for reason in Reason
            for verdict in (Verdict.DENY if reason in ANSWERS else Verdict.ALLOW,)
        }
        self._by_policy = Counter(
            names.POLICY_DECISIONS,
            "Check calls that a policy decided.",
            ("verdict", "reason", "policy"),
            registry=registry,
        )
        self._policies: set[str] = set()
        self._by_rule = Counter(
            names.RULE_DECISIONS,
            "Check calls that a rule with a name decided.",
            ("verdict", "reason", "policy", "rule"),
            registry=registry,
        )
        self._rules: set[tuple[str, str]] = set()
        self._calls: list[tuple[Verdict, Reason, str, str, int]] = []
        self._staged: list[tuple[Stages, int, int]] = []
        self._durations = Durations(names.CHECK_DURATION, "Time from a CheckRequest to its answer.", DURATION_BUCKETS)
        registry.register(self._durations)
        self._stages = Durations(
            names.STAGE_DURATION, "Time that a stage of a timed call took.", DURATION_BUCKETS, "stage", STAGES
        )
        registry.register(self._stages)
        self._readings = Readings()
        registry.register(self._readings)
        self._add_loads(registry)
        self._add_keys(registry)
        self._add_readiness(registry)
        self.policies = PolicyMetrics(registry)
        build = Info(names.BUILD, "What is running.", registry=registry)
        build.info({"version": version, "python": platform.python_version()})

    def _add_loads(self, registry: CollectorRegistry) -> None:
        """What became of the policies, and of checks that failed."""
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

    def _add_keys(self, registry: CollectorRegistry) -> None:
        """Keys of token issuers, trust bundles and our own certificate."""
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
        self._bundle_age = Gauge(
            names.BUNDLE_AGE, "Time since a trust domain's bundle was taken.", ("trust_domain",), registry=registry
        )
        self._own_expiry = Gauge(names.OWN_EXPIRY, "When our own certificate ends.", ("source",), registry=registry)

    def _add_readiness(self, registry: CollectorRegistry) -> None:
        """What keeps the service from being ready, and what it denies to everybody."""
        self._obstacles = Gauge(names.OBSTACLES, "What keeps the service from being ready.", registry=registry)
        self._denials = Gauge(
            names.BLANKET_DENIALS, "What is denied whatever else a request carries.", registry=registry
        )

    def count(self, event: CheckEvent) -> None:
        """Count one answered call and its time. A clock set back counts as no time."""
        decision, calls = event.decision, self._calls
        took = event.ended_ns - event.started_ns
        calls.append((decision.verdict, decision.reason, decision.policy, decision.rule_name, took))
        stages = event.stages
        if stages is not None:  # without the event, which keeps a whole request in memory that the next could use
            self._staged.append((stages, event.started_ns, event.ended_ns))
        if len(calls) >= FOLDED_CALLS:
            self._fold()

    def _fold(self) -> None:
        """Count what was noted."""
        calls, self._calls = self._calls, []
        for (verdict, reason, policy, rule), number in Tally(map(_KIND, calls)).items():
            child = self._decisions.get((verdict, reason))
            if child is not None:
                child.inc(number)
                if policy:
                    self._by_policy.labels(verdict.value, reason.value, self._policy(policy)).inc(number)
                if rule:
                    self._by_rule.labels(verdict.value, reason.value, *self._rule(policy, rule)).inc(number)
            if reason is Reason.INTERNAL_ERROR:
                self._internal_errors.inc(number)
        self._durations.add(map(_DURATION, calls))
        if self._staged:
            self._fold_stages()

    def _fold_stages(self) -> None:
        """Count the stages that each timed call went through."""
        staged, self._staged = self._staged, []
        times: dict[str, list[int]] = {stage: [] for stage in STAGES}
        for each in staged:
            for stage, begun, ended in _stages(*each):
                times[stage].append(ended - begun)
        for stage, nanoseconds in times.items():
            self._stages.add(nanoseconds, stage)

    def _policy(self, name: str) -> str:
        if name not in self._policies and len(self._policies) >= MAX_POLICIES:
            return OTHER_POLICIES
        self._policies.add(name)
        return name

    def _rule(self, policy: str, rule: str) -> tuple[str, str]:
        if (policy, rule) not in self._rules and len(self._rules) >= MAX_RULES:
            return OTHER_POLICIES, OTHER_POLICIES
        self._rules.add((policy, rule))
        return policy, rule

    def watch_audit(self, dropped: Callable[[], int], queued: Callable[[], int], unsampled: Callable[[], int]) -> None:
        """Show how the decision log keeps up: records it `dropped` since the start, and those that are `queued`.

        `unsampled` are the allows since the start that it left out because the settings say so.
        """
        self._readings.counter(names.AUDIT_DROPPED, "Decision records that could not be kept.", dropped)
        unsampled_help = "Allows that are not in the decision log because they were not sampled."
        self._readings.counter(names.AUDIT_UNSAMPLED, unsampled_help, unsampled)
        self._readings.gauge(names.AUDIT_QUEUE, "Decision records that wait to be written.", queued)

    def watch_audit_sink(self, failing: Callable[[], bool], oldest: Callable[[], float]) -> None:
        """Show whether the decision log can be written, and how many seconds the oldest unwritten record has waited."""
        failing_help = "1 while the decision log, or its checkpoints, can't be written."
        self._readings.gauge(names.AUDIT_FAILING, failing_help, failing)
        self._readings.gauge(names.AUDIT_OLDEST, "Age of the oldest decision record that is not written.", oldest)

    def watch_spans(
        self, exported: Callable[[], int], dropped: Callable[[], Mapping[str, int]], queued: Callable[[], int]
    ) -> None:
        """Show how exporting keeps up: spans `exported` and `dropped` (by cause) since the start, and `queued`."""
        self._readings.counter(names.SPANS_EXPORTED, "Spans that the collector took.", exported)
        self._readings.counters(names.SPANS_DROPPED, "Spans that never arrived.", "cause", dropped)
        self._readings.gauge(names.SPANS_QUEUE, "Spans that wait to be exported.", queued)

    def watch_push(self, push: MetricsPush) -> None:
        """Show how pushing metrics to a collector goes."""
        self._readings.counter(names.PUSHES, PUSHES_HELP, lambda: push.pushed)
        self._readings.counter(names.PUSH_FAILURES, PUSH_FAILURES_HELP, lambda: push.failed)

    def watch_caches(self, hits: Callable[[], Mapping[str, int]], misses: Callable[[], Mapping[str, int]]) -> None:
        """Show how often what was verified before was known again, by cache; a reload begins at 0."""
        self._readings.counters(names.CACHE_HITS, "Look-ups of verified identities that found one.", "cache", hits)
        self._readings.counters(names.CACHE_MISSES, "Look-ups of verified identities in vain.", "cache", misses)

    def watch_calls(self, unfinished: Callable[[], int], failed: Callable[[], int]) -> None:
        """Show how many calls wait for their answer, and how many since the start got none in time."""
        self._readings.gauge(names.CALLS_UNFINISHED, "Calls that came and are not yet answered.", unfinished)
        self._readings.counter(names.CALLS_FAILED, "Calls that were over before they were answered.", failed)

    def watch_deadlines(self, late: Callable[[], int]) -> None:
        """Show how many decisions since the start came too late for their callers."""
        self._readings.counter(names.LATE_ANSWERS, "Decisions that took until after the caller's deadline.", late)

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

    def show_outlook(self, obstacles: int, blanket_denials: int) -> None:
        """How many things keep the service from being ready, and how many deny requests whatever they carry."""
        self._obstacles.set(obstacles)
        self._denials.set(blanket_denials)

    def show_bundle_ages(self, ages: Mapping[str, float]) -> None:
        """How old the trust bundles in force are, in seconds by trust domain."""
        self._bundle_age.clear()
        for trust_domain, age in ages.items():
            self._bundle_age.labels(trust_domain).set(age)

    def _key_host(self, host: str) -> str:
        if host not in self._key_hosts and len(self._key_hosts) >= MAX_HOSTS:
            return OTHER_HOSTS
        self._key_hosts.add(host)
        return host

    def families(self) -> list[Metric]:
        """The metrics as they are now, to be sent elsewhere."""
        self._fold()
        return list(self.registry.collect())

    def render(self) -> bytes:
        """The metrics in Prometheus' text format, to be served as `CONTENT_TYPE`."""
        self._fold()
        return generate_latest(_Page(self.registry))


class _Page(Collector):
    """What a page shows of a registry: all but when each counter began, a series more for each that nothing reads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """The families, which are made anew each time."""
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def _stages(stages: Stages, started: int, ended: int) -> Iterator[tuple[str, int, int]]:
    """Name, begin and end of each stage that a timed call went through, in nanoseconds since the epoch."""
    if not stages.parsed:
        return
    yield "parse", started, stages.parsed
    if stages.decided:
        yield "identity", stages.parsed, stages.identified or stages.decided  # refused: that was the decision
        if stages.identified:
            yield "match", stages.identified, stages.decided
        yield "answer", stages.decided, ended
