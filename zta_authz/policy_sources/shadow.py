"""The policies beside those in force: asked about the same requests, told of, never answering."""

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
"""Disagreements in the log, each the first of its verdict and policy since the set was taken; metrics have them all."""

_LOG = logging.getLogger(__name__)


class ShadowMetrics(Protocol):
    """What counts."""

    def shadow_asked(self) -> None:
        """The shadow policies were asked about one request."""
        ...

    def shadow_failed(self) -> None:
        """Asking them failed."""
        ...

    def disagreed(self, verdict: str, policy: str) -> None:
        """They say `verdict` by `policy`, and those in force the contrary."""
        ...

    def faults(self, policies: str, count: int) -> None:
        """The set called `policies` has `count` faults on disk."""
        ...


class ShadowPolicies:
    """Nothing is asked before the first set is taken. All methods are for the event loop's thread."""

    def __init__(self, metrics: ShadowMetrics) -> None:
        self._holder = SnapshotHolder()
        self._metrics = metrics
        self._logged: set[tuple[str, str]] = set()

    def current(self) -> Snapshot | None:
        """The set that is asked, None before the first was taken."""
        return self._holder.current()

    def take(self, snapshot: Snapshot) -> None:
        """Ask `snapshot` from now on."""
        self._holder.publish(snapshot)
        self._logged.clear()
        self._metrics.faults(SET, 0)

    def refuse(self, faults: Sequence[Fault]) -> None:
        """A set with `faults` is not asked; the one before, if any, still is."""
        self._metrics.faults(SET, len(faults))

    def keep(self) -> None:
        """What is on disk is what is asked."""
        self._metrics.faults(SET, 0)

    def compare(
        self,
        request: RequestAttributes,
        decision: Decision,
        now: float,
        caller: str = "",
        views: FactViews = NO_FACTS,
    ) -> Decision:
        """`decision`, with what these policies say of it where that is something else. Raises nothing."""
        shadow = self._holder.current()
        if shadow is None:
            return decision
        try:
            other = decide_again(shadow, decision, request, now, caller, views)
            if other is None:
                return decision
            self._metrics.shadow_asked()
            found = disagreement(decision, other)
            if found is None:
                return decision
            self._tell(found)
            return msgspec.structs.replace(decision, disagreement=found)
        except Exception:  # noqa: BLE001  whatever it is, the decision stands
            self._metrics.shadow_failed()
            return decision

    def _tell(self, found: Disagreement) -> None:
        self._metrics.disagreed(found.verdict.value, found.policy)
        which = (found.verdict.value, found.policy)
        if which in self._logged or len(self._logged) >= LOGGED_POLICIES:
            return
        self._logged.add(which)
        details = {"verdict": found.verdict.value, "reason": found.reason.value, "policy": found.policy}
        _LOG.warning("shadow policies disagree", extra={**details, "rule": found.rule, "rule_name": found.rule_name})
