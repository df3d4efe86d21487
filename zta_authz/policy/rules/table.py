"""The rule table: immutable, with a view per workload and indexes over each view's rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from zta_authz.model.pace import no_pause
from zta_authz.policy.rules.index import index_rules
from zta_authz.policy.rules.require_authentication import AuthenticationClause
from zta_authz.policy.rules.require_grant import GrantClause
from zta_authz.policy.rules.require_trust import TrustClause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.errors import Reason
    from zta_authz.model.documents import Selector
    from zta_authz.model.options import Options, Workload
    from zta_authz.model.pace import Pause
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.rule import PolicyRef, Rule, RuleIndex


MAX_VIEWS: Final = 1024
_WorkloadKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """One policy with its compiled rules; an ALLOW policy may have none."""

    ref: PolicyRef
    selector: Selector
    rules: tuple[Rule, ...]


def _token_denials(rules: tuple[Rule, ...], pause: Pause) -> Mapping[Reason, RuleIndex]:
    """Index by reason the rules whose `tokenDenials` has it. Reasons with the same rules share an index."""
    answering = [rule for rule in rules if rule.response is not None and rule.response.token_denials]
    indexes: dict[tuple[int, ...], RuleIndex] = {}
    index_by_reason: dict[Reason, RuleIndex] = {}
    for reason in {reason for rule in answering if rule.response for reason in rule.response.token_denials}:
        chosen = [rule for rule in answering if rule.response and reason in rule.response.token_denials]
        key = tuple(rule.id for rule in chosen)
        if key not in indexes:
            indexes[key] = index_rules(chosen, deny=True, pause=pause)
        index_by_reason[reason] = indexes[key]
    return index_by_reason


@dataclass(frozen=True, slots=True)
class RemediableRules:
    """The ALLOW rules with clauses that a caller can come to satisfy: by another login, by more trust, or by a grant.

    `others` index these rules without those clauses; `clauses` are the removed ones by the rule's id.
    """

    others: RuleIndex
    clauses: tuple[tuple[Clause, ...], ...]


_REMEDIABLE: Final = (AuthenticationClause, TrustClause, GrantClause)


def _remediable(rules: tuple[Rule, ...], pause: Pause) -> RemediableRules | None:
    chosen = [rule for rule in rules if any(isinstance(clause, _REMEDIABLE) for clause in rule.clauses)]
    if not chosen:
        return None
    removed = tuple(tuple(c for c in rule.clauses if isinstance(c, _REMEDIABLE)) for rule in chosen)
    kept = (tuple(c for c in rule.clauses if not isinstance(c, _REMEDIABLE)) for rule in chosen)
    others = [replace(rule, clauses=clauses) for rule, clauses in zip(chosen, kept, strict=True)]
    return RemediableRules(index_rules(others, deny=False, pause=pause), removed)


class WorkloadView:
    """The rules of the policies that select one workload. `has_allow` also counts ALLOW policies without rules.

    `shadows` index the rules that never decide: those of AUDIT policies and, per action, of policies in dry run.
    `token_denials` index, by reason, the DENY rules that give the response to a request denied for its token.
    `remediable` are the ALLOW rules that a caller may come to satisfy, None without any.
    """

    __slots__ = ("allow", "deny", "has_allow", "has_shadows", "remediable", "shadows", "token_denials")

    def __init__(self, policies: list[CompiledPolicy], pause: Pause = no_pause) -> None:
        def index(action: str, dry_run: bool) -> RuleIndex:
            chosen = [p for p in policies if p.ref.action == action and p.ref.dry_run is dry_run]
            return index_rules([rule for p in chosen for rule in p.rules], deny=action == "DENY", pause=pause)

        self.deny = index("DENY", False)
        self.allow = index("ALLOW", False)
        indexes = (index("AUDIT", False), *(index(action, True) for action in ("AUDIT", "DENY", "ALLOW")))
        self.shadows = tuple(rule_index for rule_index in indexes if rule_index.rules)
        self.has_allow = any(p.ref.action == "ALLOW" and not p.ref.dry_run for p in policies)
        self.token_denials = _token_denials(self.deny.rules, pause)
        self.has_shadows = bool(self.shadows)
        self.remediable = _remediable(self.allow.rules, pause)


class RuleTable:
    """All policies. `default_view` is the view of the settings' workload.

    Views of other workloads are made on first use. All of them are dropped when there are `MAX_VIEWS`. Workloads that
    the same policies select share a view. `output_headers` are the headers that any policy may set upstream.
    """

    __slots__ = ("_shared", "_views", "default_view", "options", "output_headers", "policies")

    def __init__(self, policies: tuple[CompiledPolicy, ...], options: Options, pause: Pause = no_pause) -> None:
        self.policies = policies
        self.options = options
        self.output_headers = frozenset(
            header
            for policy in policies
            if policy.ref.action == "ALLOW" and not policy.ref.dry_run
            for rule in policy.rules
            if rule.response is not None
            for header in rule.response.output_headers
        )
        self._views: dict[_WorkloadKey, WorkloadView] = {}
        self._shared: dict[tuple[int, ...], WorkloadView] = {}
        self.default_view = self.view(options.workload, pause)
        for named in options.workloads:
            self.view(named.workload, pause)

    def view(self, workload: Workload, pause: Pause = no_pause) -> WorkloadView:
        """The view of `workload`, made on first use."""
        key = (workload.namespace, tuple(sorted(workload.labels.items())))
        view = self._views.get(key)
        return self._make_view(key, workload, pause) if view is None else view

    def unselected_policies(self) -> list[CompiledPolicy]:
        """Policies that select no workload of the settings, so that they decide nothing. Call when the table is new.

        Empty if gateways may name any workload.
        """
        if self.options.gateways:
            return []
        selected = {number for chosen in self._shared for number in chosen}
        return [policy for number, policy in enumerate(self.policies) if number not in selected]

    def make_views_of(self, other: RuleTable, pause: Pause = no_pause) -> None:
        """Make the views that `other` has, so that no request waits for the view of its workload."""
        for namespace, labels in list(other._views):
            self.view(replace(self.options.workload, namespace=namespace, labels=dict(labels)), pause)

    def _make_view(self, key: _WorkloadKey, workload: Workload, pause: Pause) -> WorkloadView:
        # `explain` may run in another thread, so this replaces only whole dictionaries or single items.
        root = self.options.root_namespace
        chosen = tuple(
            number
            for number, policy in enumerate(self.policies)
            if policy.selector.selects(workload.namespace, workload.labels, root)
            and (policy.selector.labels or policy.ref.action != "ALLOW" or not self.options.allow_by_selector)
        )
        if len(self._views) >= MAX_VIEWS:
            self._views, self._shared = {}, {}
        view = self._shared.get(chosen)
        if view is None:
            view = self._shared[chosen] = WorkloadView([self.policies[number] for number in chosen], pause)
        self._views[key] = view
        return view

    @property
    def rule_count(self) -> int:
        """The number of rules in all policies."""
        return sum(len(policy.rules) for policy in self.policies)
