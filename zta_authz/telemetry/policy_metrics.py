"""Metrics of the policies in force and of the shadow policies, in the registry of `Metrics`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Info

from zta_authz.telemetry import names

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from zta_authz.pdp.snapshot import Snapshot

MAX_POLICIES: Final = 200
"""Policies with their own label. Further ones share `OTHER_POLICIES`."""
OTHER_POLICIES: Final = "other"
NO_POLICY: Final = "none"


class PolicyMetrics:
    """The policies in force, the faults on disk, and the disagreements of the shadow policies."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._table = Info(names.POLICY_TABLE, "The policies in force, by digest.", registry=registry)
        self._sources = Gauge(names.POLICY_SOURCES, "Files of the policies in force.", registry=registry)
        self._rules = Gauge(names.POLICY_RULES, "Rules in force.", registry=registry)
        self._faults = Gauge(names.POLICY_FAULTS, "Faults of the policies on disk.", ("set",), registry=registry)
        self._shadow_errors = Counter(
            names.SHADOW_ERRORS, "Requests that the shadow policies failed to decide.", registry=registry
        )
        self._shadow_asked = Counter(
            names.SHADOW_REQUESTS, "Requests that were put to the shadow policies.", registry=registry
        )
        self._disagreements = Counter(
            names.SHADOW_DISAGREEMENTS,
            "Requests that the shadow policies decide differently, by their verdict and the policy that decides.",
            ("verdict", "policy"),
            registry=registry,
        )
        self._policies: set[str] = set()

    def in_force(self, snapshot: Snapshot) -> None:
        """Record that `snapshot` is in force now."""
        self._table.info({"digest": snapshot.digest})
        self._sources.set(len(snapshot.sources))
        self._rules.set(snapshot.table.rule_count)

    def faults(self, policies: str, count: int) -> None:
        """Set the number of faults of the policy set `policies` on disk."""
        self._faults.labels(policies).set(count)

    def shadow_asked(self) -> None:
        """Count a request that was put to the shadow policies."""
        self._shadow_asked.inc()

    def shadow_failed(self) -> None:
        """Count a request that the shadow policies failed to decide."""
        self._shadow_errors.inc()

    def disagreed(self, verdict: str, policy: str) -> None:
        """Count a request that the shadow policies decide differently: `verdict`, by `policy` ("" for none)."""
        label = policy or NO_POLICY
        if label not in self._policies and len(self._policies) >= MAX_POLICIES:
            label = OTHER_POLICIES
        else:
            self._policies.add(label)
        self._disagreements.labels(verdict, label).inc()
