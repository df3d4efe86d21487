"""Metrics of the rules in force and of those beside them, in the registry of `Metrics`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Info

from zta_authz.telemetry import names

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from zta_authz.pdp.snapshot import Snapshot

MAX_POLICIES: Final = 200
"""Policies that have a label of their own; those past them count as one."""
OTHER_POLICIES: Final = "other"
NO_POLICY: Final = "none"


class PolicyMetrics:
    """What is in force, what was refused, and where the shadow policies disagree."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._table = Info(names.POLICY_TABLE, "The policies in force, by digest.", registry=registry)
        self._sources = Gauge(names.POLICY_SOURCES, "Files of the policies in force.", registry=registry)
        self._rules = Gauge(names.POLICY_RULES, "Rules in force.", registry=registry)
        self._faults = Gauge(names.POLICY_FAULTS, "Faults of the policies on disk.", ("set",), registry=registry)
        self._shadow_errors = Counter(
            names.SHADOW_ERRORS, "Requests that the shadow policies could not be asked about.", registry=registry
        )
        self._shadow_asked = Counter(
            names.SHADOW_REQUESTS, "Requests that the shadow policies were asked about.", registry=registry
        )
        self._disagreements = Counter(
            names.SHADOW_DISAGREEMENTS,
            "Requests that the shadow policies decide otherwise, by what they say and the policy that says it.",
            ("verdict", "policy"),
            registry=registry,
        )
        self._policies: set[str] = set()

    def in_force(self, snapshot: Snapshot) -> None:
        """`snapshot` is in force from now on."""
        self._table.info({"digest": snapshot.digest})
        self._sources.set(len(snapshot.sources))
        self._rules.set(snapshot.table.rule_count)

    def faults(self, policies: str, count: int) -> None:
        """The set called `policies` has `count` faults on disk; those in force stay as long as there are any."""
        self._faults.labels(policies).set(count)

    def shadow_asked(self) -> None:
        """The shadow policies were asked about one request."""
        self._shadow_asked.inc()

    def shadow_failed(self) -> None:
        """Asking them failed."""
        self._shadow_errors.inc()

    def disagreed(self, verdict: str, policy: str) -> None:
        """They say `verdict` by `policy` ("" where none decides), and those in force the contrary."""
        label = policy or NO_POLICY
        if label not in self._policies and len(self._policies) >= MAX_POLICIES:
            label = OTHER_POLICIES
        else:
            self._policies.add(label)
        self._disagreements.labels(verdict, label).inc()
