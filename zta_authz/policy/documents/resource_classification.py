"""Reading `zta.dev/v1` ResourceClassification: how sensitive resources are, and what each class demands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault
from zta_authz.model.trust import CLASSES
from zta_authz.policy.documents.authorization_policy import MAX_RULES, read_operations, read_selector
from zta_authz.policy.documents.spec import ClassificationSpec, ClassRule, PolicySpec, RuleSpec
from zta_authz.policy.rules.require_trust import read_demand
from zta_authz.policy.yaml.nodes import Mapping as MappingNode
from zta_authz.policy.yaml.values import whole_number

if TYPE_CHECKING:
    from zta_authz.model.trust import TrustDemand
    from zta_authz.policy.documents.spec import DocumentHeader, DocumentSet
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Mapping, Node

MAX_COST: Final = 1_000_000
_SPEC_FIELDS: Final = ("selector", "rules", "default", "demands")
_RULE_FIELDS: Final = ("class", "to", "cost")


def read_resource_classification(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the classification to `documents`."""
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "ResourceClassification.spec", _SPEC_FIELDS)
    rules: list[RuleSpec] = []
    given: list[ClassRule] = []
    node = spec.get("rules")
    items = [] if node is None else reader.items(node, "rules", "rules")
    if node is not None and len(items) > MAX_RULES:
        reader.fault(node, f"{len(items)} rules, more than the limit of {MAX_RULES}", "split the document by workload")
    for item in items:
        _read_rule(reader, item, rules, given)
    default_node = reader.required(spec, "default", "ResourceClassification.spec")
    default = "" if default_node is None else _class(reader, default_node, "default")
    policy = PolicySpec(
        "ResourceClassification", header.name, header.namespace, "ALLOW", read_selector(header), rules, False,
        header.document, reader,
    )  # fmt: skip
    demands = _demands(reader, spec)
    _warn_of_idle_demands(reader, spec, {*(one.class_name for one in given), default}, warnings)
    documents.classifications.append(ClassificationSpec(policy, given, default or CLASSES[-1], demands))


def _warn_of_idle_demands(reader: Reader, spec: Mapping, classes: set[str], warnings: list[Fault]) -> None:
    """Add a warning for each demand on a class that nothing in the document gives."""
    node = spec.get("demands")
    for name, (key, _) in (node.entries if isinstance(node, MappingNode) else {}).items():
        if name in CLASSES and name not in classes:
            at = reader.position(key)
            message = f"`demands.{name}` has no effect: no rule of this document gives the class `{name}`"
            warnings.append(Fault(at.source, at.line, at.column, message, "add a rule for it, or remove the demand"))


def _read_rule(reader: Reader, node: Node, rules: list[RuleSpec], given: list[ClassRule]) -> None:
    rule = reader.mapping(node, "a rule", _RULE_FIELDS)
    if rule is None:
        return
    class_node = reader.required(rule, "class", "a rule")
    to = reader.required(rule, "to", "a rule")
    name = "" if class_node is None else _class(reader, class_node, "class")
    cost = whole_number(reader, rule, "cost", 1, 0, MAX_COST)
    if to is not None:
        rules.append(RuleSpec(rule, operations=read_operations(reader, to)))
        given.append(ClassRule(name or CLASSES[-1], cost))


def _class(reader: Reader, node: Node, name: str) -> str:
    """One of `CLASSES`; "", and a fault, for anything else."""
    text = reader.string(node, name)
    if text is None or text in CLASSES:
        return text or ""
    hint = f"write `{text.lower()}`" if text.lower() in CLASSES else f"one of {', '.join(CLASSES)}"
    reader.fault(node, f"`{text[:80]}` is not a class", hint)
    return ""


def _demands(reader: Reader, spec: Mapping) -> dict[str, TrustDemand]:
    node = spec.get("demands")
    written = None if node is None else reader.mapping(node, "demands", CLASSES)
    if written is None:
        return {}
    demands = {
        name: read_demand(reader, below, f"demands.{name}")
        for name in CLASSES
        if (below := written.get(name)) is not None
    }
    return {name: demand for name, demand in demands.items() if demand is not None}
