"""Compile policy specs to the rule table. All faults of all policies are reported."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from zta_authz.errors import Fault, quoted
from zta_authz.model.pace import no_pause
from zta_authz.policy.cel.condition import Condition, ConditionError
from zta_authz.policy.rules.clause_factory import ClauseFactory
from zta_authz.policy.rules.extra_clauses import ConditionClause, TimeClause
from zta_authz.policy.rules.require_authentication import NO_LEVELS, AuthenticationClause
from zta_authz.policy.rules.rule import PolicyRef, Rule
from zta_authz.policy.rules.table import CompiledPolicy, RuleTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zta_authz.model.options import Options
    from zta_authz.model.pace import Pause
    from zta_authz.policy.documents.spec import Extras, FieldSpec, PolicySpec, RuleSpec, WhenSpec
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Scalar

_OWN_KINDS = frozenset(("AccessPolicy", "AccessEntitlement"))
"""Kinds whose `when` has keys that Istio does not have."""
_ANONYMOUS_FIELDS = frozenset(("principals", "namespaces", "serviceAccounts", "trustDomains", "requestPrincipals"))


class TableCompiler:
    """Compiles policies one by one and builds the table of all."""

    def __init__(self, options: Options, warnings: list[Fault], pause: Pause = no_pause) -> None:
        workload = options.workload
        self._options = options
        self._factory = ClauseFactory((workload.trust_domain, *workload.trust_domain_aliases), strict=options.strict)
        self._warnings = warnings
        self._pause = pause
        self._compiled: list[CompiledPolicy] = []

    def add(self, spec: PolicySpec) -> None:
        """Compile one policy. Errors become faults of its reader."""
        self._compiled.append(self._policy(spec))

    def rules_of(self, spec: PolicySpec) -> tuple[Rule, ...]:
        """Compile the rules of a document that decides nothing. Errors become faults of its reader."""
        return self._policy(spec).rules

    @property
    def rules(self) -> Iterator[Rule]:
        """The rules of every policy so far."""
        return (rule for policy in self._compiled for rule in policy.rules)

    def table(self, acr_levels: Mapping[str, Mapping[str, int]] = NO_LEVELS) -> RuleTable:
        """The table of all policies, in order of `namespace/name`. Don't use it if there were faults.

        `acr_levels` are the levels of `acr` values by issuer, for rules with `acrAtLeast`.
        """
        for policy in self._compiled:
            for rule in policy.rules:
                if any(isinstance(clause, AuthenticationClause) for clause in rule.clauses):
                    self._use_levels(policy.ref.position.source, rule, acr_levels)
        return RuleTable(tuple(sorted(self._compiled, key=lambda policy: policy.ref.order)), self._options, self._pause)

    def _use_levels(self, source: str, rule: Rule, levels: Mapping[str, Mapping[str, int]]) -> None:
        """Give the rule's clauses the levels, and warn of levels and values that no issuer has."""
        known = {name: level for by_name in levels.values() for name, level in by_name.items()}
        clauses: list[Clause] = []
        for clause in rule.clauses:
            if not isinstance(clause, AuthenticationClause):
                clauses.append(clause)
                continue
            clauses.append(replace(clause, levels=levels))
            reachable = [max(by_name.values()) for by_name in levels.values() if by_name]
            if clause.at_least is not None and max(reachable, default=-1) < clause.at_least:
                message = (
                    f"`acrAtLeast: {clause.at_least}`: no IssuerPolicy gives an `acr` that level, so nothing matches"
                )
                hint = f"add `acrLevels`, like `{{phr: {clause.at_least}}}`, to the IssuerPolicy of the tokens' issuer"
                self._warnings.append(Fault(source, rule.line, 1, message, hint))
            for acr in clause.acr if known else ():
                if acr not in known:
                    near = get_close_matches(acr, known, 1)
                    hint = f"did you mean `{near[0]}`?" if near else f"values with a level: {quoted(sorted(known))}"
                    message = f"no IssuerPolicy lists `{acr}` of `require.authentication.acr` in `acrLevels`"
                    self._warnings.append(Fault(source, rule.line, 1, message, hint))
        rule.clauses = tuple(clauses)

    def _policy(self, spec: PolicySpec) -> CompiledPolicy:
        ref = PolicyRef(
            spec.full_name,
            (spec.namespace, spec.name, spec.kind),
            spec.action,
            spec.reader.position(spec.node),
            spec.dry_run,
        )
        rules = [self._rule(spec, ref, number, rule) for number, rule in enumerate(spec.rules or ())]
        return CompiledPolicy(ref, spec.selector, tuple(rules))

    def _rule(self, spec: PolicySpec, ref: PolicyRef, number: int, rule: RuleSpec) -> Rule:
        self._pause()
        clauses: list[Clause] = []
        groups = []
        for section in (rule.sources, rule.operations):
            alternatives = tuple(tuple(self._fields(spec, party)) for party in section)
            if len(alternatives) == 1:
                clauses += alternatives[0]
            elif alternatives:
                groups.append(alternatives)
        for when in rule.when:
            clauses += self._when(spec, when)
        if spec.action == "ALLOW":
            self._warn_of_anonymous(spec, rule)
        extras = [extras for extras in (rule.extras, spec.extras) if extras is not None]
        for extra in extras:
            clauses += self._extras(spec, extra)
        response = next((extra.response for extra in extras if extra.response is not None), None)
        clauses.sort(key=lambda clause: clause.cost)
        name = rule.extras.name if rule.extras is not None else ""
        line = spec.reader.position(rule.node).line
        return Rule(ref, number, line, tuple(clauses), tuple(groups), response, name=name)

    def _when(self, spec: PolicySpec, when: WhenSpec) -> list[Clause]:
        sides = [(values, negated) for values, negated in ((when.values, False), (when.not_values, True)) if values]
        if spec.kind in _OWN_KINDS and when.key.value.startswith("zta."):
            clauses = [self._factory.own_condition(spec.reader, when.key, *side) for side in sides]
        else:
            clauses = [self._factory.condition(spec.reader, when.key, *side, spec.namespace) for side in sides]
        return [clause for clause in clauses if clause is not None]

    def _extras(self, spec: PolicySpec, extras: Extras) -> list[Clause]:
        clauses: list[Clause] = []
        if extras.times is not None:
            clauses.append(TimeClause(extras.times))
        clauses += extras.require
        if extras.condition is not None:
            clause = self._condition(spec.reader, extras.condition)
            if clause is not None:
                clauses.append(clause)
        return clauses

    def _condition(self, reader: Reader, node: Scalar) -> Clause | None:
        try:
            clause: Clause = self._factory.intern(
                (ConditionClause, node.value), lambda: ConditionClause(Condition(node.value))
            )
        except ConditionError as error:
            reader.fault(node, f"condition, line {error.line} column {error.column}: {error}", error.hint)
            return None
        return clause

    def _fields(self, spec: PolicySpec, party: list[FieldSpec]) -> list[Clause]:
        clauses = [
            self._factory.field(
                spec.reader,
                field.name,
                field.negated,
                field.values,
                spec.namespace,
                wide=(spec.action == "DENY") is not field.negated,
            )
            for field in party
            if field.values
        ]
        return sorted((clause for clause in clauses if clause is not None), key=lambda clause: clause.cost)

    def _warn_of_anonymous(self, spec: PolicySpec, rule: RuleSpec) -> None:
        """`not…` on an identity is met by a caller who has none: say so where nothing else asks for one."""
        for source in rule.sources:
            fields = [field for field in source if field.name in _ANONYMOUS_FIELDS]
            if fields and all(field.negated for field in fields):
                at = spec.reader.position(fields[0].values[0] if fields[0].values else rule.node)
                label = f"not{fields[0].name[0].upper()}{fields[0].name[1:]}"
                message = f"`{label}` alone admits callers without any identity (policy `{spec.full_name}`)"
                hint = 'add `principals: ["*"]` (or `requestPrincipals: ["*"]`) beside it'
                self._warnings.append(Fault(at.source, at.line, at.column, message, hint))
