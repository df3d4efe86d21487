"""Shadow policies: they decide the same requests as the policies in force and are compared, but never answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from zta_authz.model.facts import NO_FACTS
from zta_authz.pdp.shadow import decide_again, disagreement
from zta_authz.policy_sources.files import SnapshotHolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.errors import Fault
    from zta_authz.model.decision import Decision, Disagreement
    from zta_authz.model.facts import FactViews
    from zta_authz.model.request import RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot

SET: Final = "shadow_policies"
LOGGED_POLICIES: Final = 100
"""Logged disagreements, one per verdict and policy since the set was loaded. Metrics count all of them."""

_LOG = logging.getLogger(__name__)


class ShadowMetrics(Protocol):
    """Counts the shadow policies' decisions."""

    def shadow_asked(self) -> None:
        """Count a request that was put to the shadow policies."""
        ...

    def shadow_failed(self) -> None:
        """Count a request that the shadow policies failed to decide."""
        ...

    def disagreed(self, verdict: str, policy: str) -> None:
        """Count a request that the shadow policies decide differently: `verdict`, by `policy`."""
        ...

    def faults(self, policies: str, count: int) -> None:
        """Set the number of faults of the policy set `policies` on disk."""
        ...


class ShadowPolicies:
    """The shadow policies in use, none before the first set is loaded. Call all methods in the event loop's thread."""

    def __init__(self, metrics: ShadowMetrics) -> None:
        self._holder = SnapshotHolder()
        self._metrics = metrics
        self._logged: set[tuple[str, str]] = set()

    def current(self) -> Snapshot | None:
        """Return the set in use, None before the first is loaded."""
        return self._holder.current()

    def apply(self, snapshot: Snapshot) -> None:
        """Use `snapshot` from now on."""
        self._holder.publish(snapshot)
        self._logged.clear()
        self._metrics.faults(SET, 0)

    def on_refused(self, faults: Sequence[Fault]) -> None:
        """Record the faults of a refused set. The set before it stays in use."""
        self._metrics.faults(SET, len(faults))

    def on_unchanged(self) -> None:
        """Record that the files match the set in use."""
        self._metrics.faults(SET, 0)

    def compare(
        self,
        request: RequestAttributes,
        decision: Decision,
        now: float,
        caller: str = "",
        views: FactViews = NO_FACTS,
    ) -> Decision:
        """Return `decision`, with the shadow policies' decision added if it differs. Does not raise."""
        shadow = self._holder.current()
        if shadow is None:
            return decision
        try:
            other = decide_again(shadow, decision, request, now, caller, views)
            if other is None:
                return decision
            self._metrics.shadow_asked()
            difference = disagreement(decision, other)
            if difference is None:
                return decision
            self._report(difference)
            return msgspec.structs.replace(decision, disagreement=difference)
        except Exception:  # noqa: BLE001  the decision must stand
            self._metrics.shadow_failed()
            return decision

    def _report(self, other: Disagreement) -> None:
        self._metrics.disagreed(other.verdict.value, other.policy)
        key = (other.verdict.value, other.policy)
        if key in self._logged or len(self._logged) >= LOGGED_POLICIES:
            return
        self._logged.add(key)
        details = {"verdict": other.verdict.value, "reason": other.reason.value, "policy": other.policy}
        _LOG.warning("shadow policies disagree", extra={**details, "rule": other.rule, "rule_name": other.rule_name})
