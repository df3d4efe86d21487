"""The rule table: immutable, one view for each workload, an index over each view's rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zta_authz.policy.index import build_index
from zta_authz.policy.lookups import NO_RULE

if TYPE_CHECKING:
    from zta_authz.model.documents import Selector
    from zta_authz.model.options import Options, Workload
    from zta_authz.policy.inputs import Inputs
    from zta_authz.policy.lookups import Part
    from zta_authz.policy.rule import PolicyRef, Rule


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """One policy with its compiled rules; an ALLOW policy may have none."""

    ref: PolicyRef
    selector: Selector
    rules: tuple[Rule, ...]


class RuleIndex:
    """Rules of one action, in the order in which they are tried."""

    __slots__ = ("_root", "deny", "rules")

    def __init__(self, rules: list[Rule], *, deny: bool) -> None:
        self.rules = tuple(replace(rule, id=number) for number, rule in enumerate(rules))
        self.deny = deny
        self._root: Part | None = build_index(list(self.rules))

    def first(self, inputs: Inputs) -> Rule | None:
        """The first rule that holds; what can't be told counts as holding only for a DENY."""
        if self._root is None:
            return None
        found = self._root.first(inputs, self.deny, NO_RULE)
        return None if found == NO_RULE else self.rules[found]


class WorkloadView:
    """The rules that select one workload. `has_allow` also counts ALLOW policies without rules."""

    __slots__ = ("allow", "audit", "deny", "dry_run_allow", "dry_run_deny", "has_allow", "has_shadows")

    def __init__(self, policies: list[CompiledPolicy]) -> None:
        def index(action: str, dry_run: bool) -> RuleIndex:
            chosen = [p for p in policies if p.ref.action == action and p.ref.dry_run is dry_run]
            return RuleIndex([rule for p in chosen for rule in p.rules], deny=action == "DENY")

        self.deny = index("DENY", False)
        self.allow = index("ALLOW", False)
        self.audit = index("AUDIT", False)
        self.dry_run_deny = index("DENY", True)
        self.dry_run_allow = index("ALLOW", True)
        self.has_allow = any(p.ref.action == "ALLOW" and not p.ref.dry_run for p in policies)
        self.has_shadows = bool(self.audit.rules or self.dry_run_deny.rules or self.dry_run_allow.rules)


class RuleTable:
    """All policies. `default_view` is the view of the workload that the settings name."""

    __slots__ = ("default_view", "options", "policies")

    def __init__(self, policies: tuple[CompiledPolicy, ...], options: Options) -> None:
        self.policies = policies
        self.options = options
        self.default_view = self.view(options.workload)

    def view(self, workload: Workload) -> WorkloadView:
        """The policies that select `workload`, indexed. Costs time in proportion to them: keep it."""
        root = self.options.root_namespace
        return WorkloadView([p for p in self.policies if p.selector.selects(workload.namespace, workload.labels, root)])

    @property
    def rule_count(self) -> int:
        """Rules in all policies."""
        return sum(len(policy.rules) for policy in self.policies)
