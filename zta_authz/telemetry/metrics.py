"""Prometheus metrics in a separate registry, so importing registers nothing and other libraries' metrics stay out."""

from __future__ import annotations

import platform
from collections import Counter as Counts
from operator import itemgetter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from zta_authz.errors import DENIAL_RESPONSES, Reason
from zta_authz.model.decision import Verdict
from zta_authz.telemetry import names
from zta_authz.telemetry.collectors import CallbackMetrics, DurationHistogram
from zta_authz.telemetry.following_metrics import FollowingMetrics
from zta_authz.telemetry.policy_metrics import PolicyMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from zta_authz.model.stages import Stages
    from zta_authz.ports import FollowingStatus
    from zta_authz.telemetry.push import MetricsPush

CONTENT_TYPE = CONTENT_TYPE_LATEST
DURATION_BUCKETS = (
    *(0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0),
)
"""Seconds; 0.2 is Envoy's default timeout of a Check call."""
BATCH_CALLS = 512
"""Calls that are counted in one batch. Exposing metrics counts the remaining ones first."""
MAX_HOSTS = 100
OTHER_HOSTS = "other"
MAX_POLICIES = 200
"""Policies with their own series, in the order in which they first decide. The others share `OTHER_POLICIES`."""
OTHER_POLICIES = "other"
MAX_RULES = 500
"""Named rules with their own series, likewise."""
PUSHES_HELP = "Pushes of metrics that the collector accepted completely."
PUSH_FAILURES_HELP = "Pushes of metrics that the collector did not accept, or not completely."
_KIND, _DURATION = itemgetter(0, 1, 2, 3), itemgetter(4)
STAGES = ("parse", "identity", "match", "answer")


class Metrics:
    """The service's metrics, used by one thread.

    Label children are created once, because looking one up costs more than counting. The observer stores each answered
    call in `calls` (verdict, reason, policy, rule name, duration in ns) and, if its stages are timed, in `staged_calls`
    (stages, start, end). They are counted in batches, because counting after each call takes several times as long.
    """

    def __init__(self, version: str) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        decisions = Counter(names.DECISIONS, "Check calls answered.", ("verdict", "reason"), registry=registry)
        self._decisions = {
            (verdict, reason): decisions.labels(verdict.value, reason.value)
            for reason in Reason
            for verdict in (Verdict.DENY if reason in DENIAL_RESPONSES else Verdict.ALLOW,)
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
        self.calls: list[tuple[Verdict, Reason, str, str, int]] = []
        self.staged_calls: list[tuple[Stages, int, int]] = []
        self._durations = DurationHistogram(
            names.CHECK_DURATION, "Time from a CheckRequest to its answer.", DURATION_BUCKETS
        )
        registry.register(self._durations)
        self._stages = DurationHistogram(
            names.STAGE_DURATION, "Time that a stage of a timed call took.", DURATION_BUCKETS, "stage", STAGES
        )
        registry.register(self._stages)
        self._callbacks = CallbackMetrics()
        registry.register(self._callbacks)
        self._add_loads(registry)
        self._add_keys(registry)
        self._add_readiness(registry)
        self._add_facts(registry)
        self.policies = PolicyMetrics(registry)
        build = Info(names.BUILD, "What is running.", registry=registry)
        build.info({"version": version, "python": platform.python_version()})

    def _add_loads(self, registry: CollectorRegistry) -> None:
        """Add metrics of policy loads and of internal errors."""
        self._internal_errors = Counter(
            names.INTERNAL_ERRORS, "Check calls denied because deciding failed.", registry=registry
        )
        loads = Counter(names.POLICY_LOADS, "Attempts to load the policies.", ("result",), registry=registry)
        self._loads_taken, self._loads_refused = loads.labels("taken"), loads.labels("refused")
        self._reload_failed = Gauge(
            names.POLICY_RELOAD_FAILED,
            "1 while policies on disk are refused and older ones stay in force.",
            registry=registry,
        )
        self._loaded_at = Gauge(names.POLICY_LOADED_AT, "When the policies in force were loaded.", registry=registry)

    def _add_keys(self, registry: CollectorRegistry) -> None:
        """Add metrics of token issuers' keys, trust bundles and the service's certificate."""
        self._key_fetches = Counter(
            names.KEY_FETCHES, "Attempts to fetch keys of token issuers.", ("host", "outcome"), registry=registry
        )
        self._key_hosts: set[str] = set()
        self._key_age = Gauge(
            names.KEY_AGE, "Time since the oldest key set of a host was fetched.", ("host",), registry=registry
        )
        self._keys_missing = Gauge(
            names.KEYS_MISSING, "Issuers whose tokens are denied because their keys are missing.", registry=registry
        )
        self._bundle_expiry = Gauge(
            names.BUNDLE_EXPIRY,
            "When the first authority of a trust domain expires.",
            ("trust_domain",),
            registry=registry,
        )
        self._bundle_age = Gauge(
            names.BUNDLE_AGE, "Time since a trust domain's bundle was loaded.", ("trust_domain",), registry=registry
        )
        self._signing_end = Gauge(
            names.SIGNING_END, "When the last key for minted tokens stops signing.", ("issuer",), registry=registry
        )
        self._own_expiry = Gauge(
            names.OWN_EXPIRY, "When the service's certificate expires.", ("source",), registry=registry
        )

    def _add_readiness(self, registry: CollectorRegistry) -> None:
        """Add metrics of obstacles to readiness and of blanket denials."""
        self._obstacles = Gauge(names.OBSTACLES, "Reasons why the service is not ready.", registry=registry)
        self._denials = Gauge(
            names.BLANKET_DENIALS, "Reasons to deny requests whatever else they carry.", registry=registry
        )

    def _add_facts(self, registry: CollectorRegistry) -> None:
        """Add metrics of the data that facts come from."""
        loads = Counter(names.NETWORK_LOADS, "Loads of changed network data.", ("result",), registry=registry)
        self._network_loads = {True: loads.labels("taken"), False: loads.labels("refused")}
        self._network_age = Gauge(
            names.NETWORK_AGE, "Age of the network data in force, by source.", ("source",), registry=registry
        )
        self._fact_problems = Gauge(
            names.FACT_PROBLEMS,
            "Files of facts that are refused or too old.",
            ("source", "problem"),
            registry=registry,
        )
        self._network_entries = Gauge(
            names.NETWORK_ENTRIES, "Entries of the reputation lists in force.", registry=registry
        )

    def count_batch(self) -> None:
        """Count the stored calls."""
        calls = self.calls.copy()
        self.calls.clear()
        for (verdict, reason, policy, rule), number in Counts(map(_KIND, calls)).items():
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
        if self.staged_calls:
            self._count_stages()

    def _count_stages(self) -> None:
        """Count the stages of each timed call."""
        staged_calls = self.staged_calls.copy()
        self.staged_calls.clear()
        times: dict[str, list[int]] = {stage: [] for stage in STAGES}
        for call in staged_calls:
            for stage, begun, ended in _stages(*call):
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
        """Expose the state of the decision log: records `dropped` since the start, and records `queued` now.

        `unsampled` counts the allows since the start that the log's sampling left out.
        """
        self._callbacks.counter(names.AUDIT_DROPPED, "Decision records that were lost.", dropped)
        unsampled_help = "Allows that are not in the decision log because they were not sampled."
        self._callbacks.counter(names.AUDIT_UNSAMPLED, unsampled_help, unsampled)
        self._callbacks.gauge(names.AUDIT_QUEUE, "Decision records that wait to be written.", queued)

    def watch_audit_sink(self, failing: Callable[[], bool], oldest: Callable[[], float]) -> None:
        """Expose whether writing the decision log fails, and the age in seconds of the oldest unwritten record."""
        failing_help = "1 while the decision log, or its checkpoints, can't be written."
        self._callbacks.gauge(names.AUDIT_FAILING, failing_help, failing)
        self._callbacks.gauge(names.AUDIT_OLDEST, "Age of the oldest unwritten decision record.", oldest)

    def watch_spans(
        self, exported: Callable[[], int], dropped: Callable[[], Mapping[str, int]], queued: Callable[[], int]
    ) -> None:
        """Expose the spans `exported` and `dropped` (by cause) since the start, and those `queued` now."""
        self._callbacks.counter(names.SPANS_EXPORTED, "Spans that the collector accepted.", exported)
        self._callbacks.counters(names.SPANS_DROPPED, "Spans that were lost.", "cause", dropped)
        self._callbacks.gauge(names.SPANS_QUEUE, "Spans that wait to be exported.", queued)

    def watch_push(self, push: MetricsPush) -> None:
        """Expose the successes and failures of pushing metrics to a collector."""
        self._callbacks.counter(names.PUSHES, PUSHES_HELP, lambda: push.pushed)
        self._callbacks.counter(names.PUSH_FAILURES, PUSH_FAILURES_HELP, lambda: push.failed)

    def watch_caches(self, hits: Callable[[], Mapping[str, int]], misses: Callable[[], Mapping[str, int]]) -> None:
        """Expose the hits and misses of the identity caches, by cache. A reload resets them to 0."""
        self._callbacks.counters(names.CACHE_HITS, "Cache hits for verified identities.", "cache", hits)
        self._callbacks.counters(names.CACHE_MISSES, "Cache misses for verified identities.", "cache", misses)

    def watch_calls(self, unfinished: Callable[[], int], failed: Callable[[], int]) -> None:
        """Expose how many calls wait for their answer, and how many since the start ended without one."""
        self._callbacks.gauge(names.CALLS_UNFINISHED, "Calls that are not yet answered.", unfinished)
        self._callbacks.counter(names.CALLS_FAILED, "Calls that ended before they were answered.", failed)

    def watch_deadlines(self, late: Callable[[], int]) -> None:
        """Expose how many decisions since the start missed the caller's deadline."""
        self._callbacks.counter(names.LATE_ANSWERS, "Decisions that missed the caller's deadline.", late)

    def watch_following(self, status: Callable[[], FollowingStatus], uptime: Callable[[], float]) -> None:
        """Expose how the administrator is followed. `uptime` is the time in seconds since the start."""
        self.registry.register(FollowingMetrics(status, uptime))

    def watch_observer(self, errors: Callable[[], int]) -> None:
        """Expose how often telemetry itself failed since the start."""
        self._callbacks.counter(names.OBSERVER_ERRORS, "Answered calls that telemetry failed to record.", errors)

    def policies_taken(self, now: float) -> None:
        """Record that new policies are in force since `now`, in seconds since the epoch."""
        self._loads_taken.inc()
        self._reload_failed.set(0)
        self._loaded_at.set(now)

    def policies_kept(self) -> None:
        """Record that the policies on disk match those in force again."""
        self._reload_failed.set(0)

    def policies_refused(self) -> None:
        """Record that the policies on disk have faults and those in force stay."""
        self._loads_refused.inc()
        self._reload_failed.set(1)

    def keys_fetched(self, host: str, outcome: str) -> None:
        """Count a fetch of keys from `host`. `outcome` is from a closed list; hosts past `MAX_HOSTS` share a label."""
        self._key_fetches.labels(self._key_host(host), outcome).inc()

    def show_keys(self, ages: Mapping[str, float], missing: int) -> None:
        """Set the age of fetched keys in seconds by host, and the number of issuers without keys."""
        oldest: dict[str, float] = {}
        for host, age in ages.items():
            label = self._key_host(host)
            oldest[label] = max(oldest.get(label, 0.0), age)
        self._key_age.clear()
        for label, age in oldest.items():
            self._key_age.labels(label).set(age)
        self._keys_missing.set(missing)

    def show_expiries(self, bundles: Mapping[str, float], own: Mapping[str, float]) -> None:
        """Set the expiry of trust bundles (by trust domain) and own certificates (by source), in epoch seconds."""
        self._bundle_expiry.clear()
        for trust_domain, until in bundles.items():
            self._bundle_expiry.labels(trust_domain).set(until)
        self._own_expiry.clear()
        for source, until in own.items():
            self._own_expiry.labels(source).set(until)

    def show_signing(self, ends: Mapping[str, float]) -> None:
        """Set when the last signing key of an issuer stops signing, in epoch seconds; 0 if none signs."""
        self._signing_end.clear()
        for issuer, until in ends.items():
            self._signing_end.labels(issuer).set(until)

    def show_outlook(self, obstacles: int, blanket_denials: int) -> None:
        """Set the number of obstacles to readiness and of blanket denials."""
        self._obstacles.set(obstacles)
        self._denials.set(blanket_denials)

    def network_data_loaded(self, taken: bool) -> None:
        """Count a load of changed network data: `taken`, or refused because a file is invalid."""
        self._network_loads[taken].inc()

    def show_network_data(self, ages: Mapping[str, float], entries: int) -> None:
        """Set the age of network data in seconds by source, and the number of entries of all reputation lists."""
        self._network_entries.set(entries)
        self._network_age.clear()
        for source, age in ages.items():
            self._network_age.labels(source).set(age)

    def show_fact_problems(self, problems: Mapping[tuple[str, str], int]) -> None:
        """Set the number of files of facts with a problem, by source and problem."""
        self._fact_problems.clear()
        for (source, problem), count in problems.items():
            self._fact_problems.labels(source, problem).set(count)

    def show_bundle_ages(self, ages: Mapping[str, float]) -> None:
        """Set the age of the trust bundles in force, in seconds by trust domain."""
        self._bundle_age.clear()
        for trust_domain, age in ages.items():
            self._bundle_age.labels(trust_domain).set(age)

    def _key_host(self, host: str) -> str:
        if host not in self._key_hosts and len(self._key_hosts) >= MAX_HOSTS:
            return OTHER_HOSTS
        self._key_hosts.add(host)
        return host

    def families(self) -> list[Metric]:
        """Return the current metrics, for a push."""
        self.count_batch()
        return list(self.registry.collect())

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format, to be served as `CONTENT_TYPE`."""
        self.count_batch()
        return generate_latest(_Page(self.registry))


class _Page(Collector):
    """A registry's metrics without the `_created` series, which double the number of series and which nothing reads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield the families. The registry creates new ones for each collection, so they may be changed."""
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def _stages(stages: Stages, started: int, ended: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of each stage of a timed call, in nanoseconds since the epoch."""
    if not stages.parsed:
        return
    yield "parse", started, stages.parsed
    if stages.decided:
        yield (
            "identity",
            stages.parsed,
            stages.identified or stages.decided,
        )  # an identity that is refused is the decision
        if stages.identified:
            yield "match", stages.identified, stages.decided
        yield "answer", stages.decided, ended
