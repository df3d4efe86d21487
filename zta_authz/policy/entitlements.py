"""Compiled AccessEntitlement documents: who is eligible, who approves, and the grants that come as documents."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault
from zta_authz.policy.rules.require_grant import GrantClause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from zta_authz.model.access import EntitlementTerms, Grant, Subject
    from zta_authz.policy.documents.spec import DocumentSet, EntitlementSpec, PolicySpec
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.rule import Rule

_NONE: Final[tuple[Grant, ...]] = ()


class CompiledEntitlement:
    """One entitlement. Immutable once all documents are compiled.

    Each `may_...` asks about the caller of `inputs`, whatever the request is.
    """

    __slots__ = ("_approvers", "_emergency", "_grants", "_use", "_who", "digest", "name", "terms")

    def __init__(self, spec: EntitlementSpec, rules_of: Callable[[PolicySpec], tuple[Rule, ...]]) -> None:
        """`rules_of` compiles the rules of a policy."""
        self.name = spec.full_name
        self.digest = spec.digest
        self.terms: EntitlementTerms = spec.terms
        self._who, self._use = rules_of(spec.who), rules_of(spec.use)
        self._approvers = tuple(rules_of(group) for group in spec.approvers)
        self._emergency = () if spec.break_glass is None else rules_of(spec.break_glass)
        self._grants: dict[Subject, tuple[Grant, ...]] = {}

    def may_obtain(self, inputs: Inputs) -> bool:
        """Whether the caller could get a grant, by asking or in an emergency."""
        return self.may_request(inputs) or self.may_break_glass(inputs)

    def add_grant(self, grant: Grant) -> None:
        """Add a grant that comes as a document."""
        self._grants[grant.subject] = (*self._grants.get(grant.subject, ()), grant)

    def document_grants(self, subjects: Sequence[Subject]) -> Sequence[Grant]:
        """The grants of documents to any of `subjects`."""
        if not self._grants:
            return _NONE
        return [grant for subject in subjects for grant in self._grants.get(subject, ())]

    def permits_use(self, inputs: Inputs) -> bool:
        """Whether the caller is eligible now, and the request is one that the entitlement is for."""
        return _holds(self._use, inputs)

    def may_request(self, inputs: Inputs) -> bool:
        """Whether the caller is eligible."""
        return bool(self._approvers) and _holds(self._who, inputs)

    def may_break_glass(self, inputs: Inputs) -> bool:
        """Whether the caller is eligible, and may have access without approval."""
        return _holds(self._emergency, inputs) and _holds(self._who, inputs)

    def approver_groups(self, inputs: Inputs) -> tuple[int, ...]:
        """The groups, by their number in `terms.approvals`, for which the caller may approve."""
        return tuple(number for number, rules in enumerate(self._approvers) if _holds(rules, inputs))


def _holds(rules: tuple[Rule, ...], inputs: Inputs) -> bool:
    return any(rule.holds(inputs, False) for rule in rules)


def compile_entitlements(
    documents: DocumentSet, rules_of: Callable[[PolicySpec], tuple[Rule, ...]], root: str, faults: list[Fault]
) -> dict[str, CompiledEntitlement]:
    """Every entitlement by its full name, with the grants of documents.

    A grant of an unknown entitlement is a fault, and so is one of another namespace, unless it is in the `root`
    namespace: who may write a namespace's documents must not grant what another namespace guards.
    """
    compiled = {spec.full_name: CompiledEntitlement(spec, rules_of) for spec in documents.entitlements}
    for document in documents.grants:
        at, name = document.position, document.grant.entitlement
        entitlement = compiled.get(name)
        if document.namespace not in (name.partition("/")[0], root):
            message = f"a document of namespace `{document.namespace}` can't grant `{name}`"
            hint = f"put the AccessGrant into that namespace, or into `{root}`"
            faults.append(Fault(at.source, at.line, at.column, message, hint))
        elif entitlement is None:
            faults.append(_unknown(at.source, at.line, at.column, name, compiled))
        else:
            entitlement.add_grant(document.grant)
    return compiled


def bind_grant_clauses(
    rules: Iterable[Rule], entitlements: Mapping[str, CompiledEntitlement], faults: list[Fault]
) -> None:
    """Give each `require.grant` its entitlement. One that no document defines is a fault."""
    for rule in rules:
        clauses = []
        for clause in rule.clauses:
            if not isinstance(clause, GrantClause):
                clauses.append(clause)
                continue
            name = clause.written if "/" in clause.written else f"{rule.policy.order[0]}/{clause.written}"
            entitlement = entitlements.get(name)
            if entitlement is None:
                at = clause.position
                faults.append(_unknown(at.source, at.line, at.column, name, entitlements))
            clauses.append(replace(clause, entitlement=entitlement))
        rule.clauses = tuple(clauses)


def _unknown(source: str, line: int, column: int, name: str, known: Iterable[str]) -> Fault:
    near = get_close_matches(name, list(known), 1)
    hint = f"did you mean `{near[0]}`?" if near else "add an AccessEntitlement of that namespace and name"
    return Fault(source, line, column, f"there is no AccessEntitlement `{name}`", hint)
