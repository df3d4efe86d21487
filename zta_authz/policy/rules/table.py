"""The rule table: immutable, one view for each workload, an index over each view's rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from zta_authz.model.pace import no_pause
from zta_authz.policy.rules.index import build_index
from zta_authz.policy.rules.lookups import NO_RULE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zta_authz.errors import Reason
    from zta_authz.model.documents import Selector
    from zta_authz.model.options import Options, Workload
    from zta_authz.model.pace import Pause
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.lookups import IndexNode
    from zta_authz.policy.rules.rule import PolicyRef, Rule


MAX_VIEWS: Final = 1024
_WorkloadKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """One policy with its compiled rules; an ALLOW policy may have none."""

    ref: PolicyRef
    selector: Selector
    rules: tuple[Rule, ...]


def _numbered(rules: list[Rule], pause: Pause) -> Iterator[Rule]:
    for number, rule in enumerate(rules):
        pause()
        yield replace(rule, id=number)


class RuleIndex:
    """Rules of one action, in the order in which they are tried."""

    __slots__ = ("_root", "deny", "rules")

    def __init__(self, rules: list[Rule], *, deny: bool, pause: Pause = no_pause) -> None:
        self.rules = tuple(_numbered(rules, pause))
        self.deny = deny
        self._root: IndexNode | None = build_index(list(self.rules), pause)

    def first(self, inputs: Inputs) -> Rule | None:
        """The first rule that holds; what can't be told counts as holding only for a DENY."""
        if self._root is None:
            return None
        found = self._root.first(inputs, self.deny, NO_RULE)
        return None if found == NO_RULE else self.rules[found]


def _answers(rules: tuple[Rule, ...], pause: Pause) -> Mapping[Reason, RuleIndex]:
    """By reason the rules that answer for it. Reasons with the same rules share an index."""
    answering = [rule for rule in rules if rule.response is not None and rule.response.token_denials]
    indexes: dict[tuple[int, ...], RuleIndex] = {}
    found: dict[Reason, RuleIndex] = {}
    for reason in {reason for rule in answering if rule.response for reason in rule.response.token_denials}:
        chosen = [rule for rule in answering if rule.response and reason in rule.response.token_denials]
        key = tuple(rule.id for rule in chosen)
        if key not in indexes:
            indexes[key] = RuleIndex(chosen, deny=True, pause=pause)
        found[reason] = indexes[key]
    return found


class WorkloadView:
    """The rules that select one workload. `has_allow` also counts ALLOW policies without rules.

    `shadows` are the rules that never decide: of AUDIT and, each apart, of policies in dry run. `answers` has the DENY
    rules whose answer requests get that are denied for their token, by the reason.
    """

    __slots__ = ("allow", "answers", "deny", "has_allow", "has_shadows", "shadows")

    def __init__(self, policies: list[CompiledPolicy], pause: Pause = no_pause) -> None:
        def index(action: str, dry_run: bool) -> RuleIndex:
            chosen = [p for p in policies if p.ref.action == action and p.ref.dry_run is dry_run]
            return RuleIndex([rule for p in chosen for rule in p.rules], deny=action == "DENY", pause=pause)

        self.deny = index("DENY", False)
        self.allow = index("ALLOW", False)
        never = (index("AUDIT", False), *(index(action, True) for action in ("AUDIT", "DENY", "ALLOW")))
        self.shadows = tuple(each for each in never if each.rules)
        self.has_allow = any(p.ref.action == "ALLOW" and not p.ref.dry_run for p in policies)
        self.answers = _answers(self.deny.rules, pause)
        self.has_shadows = bool(self.shadows)


class RuleTable:
    """All policies. `default_view` is the view of the workload that the settings name.

    Views of other workloads are made on first use and kept, `MAX_VIEWS` of them before all are made anew; workloads
    that the same policies select share one. `output_headers` are those that any policy may set upstream.
    """

    __slots__ = ("_shared", "_views", "default_view", "options", "output_headers", "policies")

    def __init__(self, policies: tuple[CompiledPolicy, ...], options: Options, pause: Pause = no_pause) -> None:
        self.policies = policies
        self.options = options
        self.output_headers = frozenset(
            header.name
            for policy in policies
            if policy.ref.action == "ALLOW" and not policy.ref.dry_run
            for rule in policy.rules
            if rule.response is not None
            for header in rule.response.headers
        )
        self._views: dict[_WorkloadKey, WorkloadView] = {}
        self._shared: dict[tuple[int, ...], WorkloadView] = {}
        self.default_view = self.view(options.workload, pause)
        for named in options.workloads:
            self.view(named.workload, pause)

    def view(self, workload: Workload, pause: Pause = no_pause) -> WorkloadView:
        """The policies that select `workload`, indexed: kept from the last time, or made now."""
        key = (workload.namespace, tuple(sorted(workload.labels.items())))
        view = self._views.get(key)
        return self._make_view(key, workload, pause) if view is None else view

    def idle(self) -> list[CompiledPolicy]:
        """Policies that select no workload of the settings, and so decide nothing. Asked once the table is made.

        None where gateways may name any workload.
        """
        if self.options.gateways:
            return []
        selected = {number for chosen in self._shared for number in chosen}
        return [policy for number, policy in enumerate(self.policies) if number not in selected]

    def make_views_of(self, other: RuleTable, pause: Pause = no_pause) -> None:
        """Make the views that `other` has, so that the first request of each workload need not wait for its view."""
        for namespace, labels in list(other._views):
            self.view(replace(self.options.workload, namespace=namespace, labels=dict(labels)), pause)

    def _make_view(self, key: _WorkloadKey, workload: Workload, pause: Pause) -> WorkloadView:
        """Only whole dictionaries and single items are replaced here, because `explain` may ask from another thread."""
        root = self.options.root_namespace
        chosen = tuple(
            number
            for number, policy in enumerate(self.policies)
            if policy.selector.selects(workload.namespace, workload.labels, root)
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
        """Rules in all policies."""
        return sum(len(policy.rules) for policy in self.policies)
