"""Read `AuthorizationPolicy`: exactly Istio's shape (authorization_policy.proto); any deviation is a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault
from zta_authz.model.documents import Selector
from zta_authz.policy.documents.spec import DRY_RUN_ANNOTATION, FieldSpec, PolicySpec, RuleSpec, WhenSpec
from zta_authz.policy.yaml.fields import entries
from zta_authz.policy.yaml.nodes import Mapping, Node, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.policy.documents.spec import DocumentHeader, DocumentSet, Extras
    from zta_authz.policy.yaml.fields import Reader

    ReadExtras = Callable[[Reader, Mapping], Extras]

MAX_RULES: Final = 512
MAX_SERVICE_ACCOUNTS: Final = 16
RULE_FIELDS: Final = ("from", "to", "when")
TIME_FIELDS: Final = ("effectiveFrom", "expiresAt", "schedule")
RULE_EXTRAS: Final = ("name", "condition", "require", "response", *TIME_FIELDS)
_ACTIONS: Final = ("ALLOW", "DENY", "AUDIT", "CUSTOM")
# Texts that Go's strconv.ParseBool, and so Istio, reads as true and false.
_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_SPEC_FIELDS: Final = ("selector", "targetRef", "targetRefs", "action", "provider", "rules")


def _with_negations(*names: str) -> dict[str, tuple[str, bool]]:
    """Map each field and its `not…` form to (field, negated)."""
    plain = {name: (name, False) for name in names}
    return plain | {f"not{name[0].upper()}{name[1:]}": (name, True) for name in names}


_SOURCE_FIELDS: Final = _with_negations(
    "principals", "requestPrincipals", "namespaces", "serviceAccounts", "trustDomains", "ipBlocks", "remoteIpBlocks"
)
_OPERATION_FIELDS: Final = _with_negations("hosts", "ports", "methods", "paths")


def read_authorization_policy(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the policy to `documents`; for a policy that only Istio can enforce, add a warning instead."""
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "AuthorizationPolicy.spec", _SPEC_FIELDS)
    action = _action(reader, spec)
    selector = read_selector(header)
    provider = spec.get("provider")
    if provider is not None and action != "CUSTOM":
        reader.fault(provider, f"`provider` is for action CUSTOM, not {action}", "remove it")
    skipped = "action CUSTOM delegates the decision to another service" if action == "CUSTOM" else targets(spec)
    if skipped:
        at = reader.position(header.document)
        message = f"AuthorizationPolicy `{header.namespace}/{header.name}` is not enforced here: {skipped}"
        warnings.append(Fault(at.source, at.line, at.column, message, "leave it to Istio and remove it here"))
        return
    rules_node = spec.get("rules")
    rules = None if rules_node is None else read_rules(reader, rules_node)
    if action in ("DENY", "AUDIT") and without_rules(rules_node):
        reader.fault(spec, f"a policy with action {action} has no rules, so it would do nothing", "add `rules`")
    documents.policies.append(
        PolicySpec(
            "AuthorizationPolicy", header.name, header.namespace, action or "ALLOW", selector, rules,
            _dry_run(header, action, warnings), header.document, reader,
        )
    )  # fmt: skip


def _action(reader: Reader, spec: Mapping) -> str | None:
    node = spec.get("action")
    if node is None:
        return "ALLOW"
    action = reader.string(node, "action")
    if action is not None and action not in _ACTIONS:
        hint = f"write `{action.upper()}`" if action.upper() in _ACTIONS else f"one of {', '.join(_ACTIONS)}"
        reader.fault(node, f"unknown action `{action}`", hint)
        return None
    return action


def _dry_run(header: DocumentHeader, action: str | None, warnings: list[Fault]) -> bool:
    """Whether the policy is a dry run, as Istio's `isDryRun` (pilot/pkg/security/authz/builder) reads it."""
    value = header.annotations.get(DRY_RUN_ANNOTATION)
    if value is None:
        return False
    node = header.annotation(DRY_RUN_ANNOTATION)
    if value not in _TRUE | _FALSE:
        header.reader.fault(node, f"annotation `{DRY_RUN_ANNOTATION}` is `{value}`", 'write "true" or "false"')
    elif value in _TRUE and action == "AUDIT":
        at = header.reader.position(node)
        message = "a dry run of an AUDIT policy has no effect in Istio; here, too, its matches are only recorded"
        warnings.append(Fault(at.source, at.line, at.column, message, "remove the annotation: AUDIT never decides"))
    return value in _TRUE


def targets(spec: Mapping) -> str:
    """The reason why a document with target references is skipped, "" without any."""
    if spec.get("targetRefs") is not None or spec.get("targetRef") is not None:
        return "`targetRefs` attaches it to a gateway or waypoint"
    return ""


def read_selector(header: DocumentHeader) -> Selector:
    """Read `spec.selector.matchLabels`; without labels, every workload of the namespace is selected."""
    node = header.spec.get("selector")
    labels: dict[str, str] = {}
    if node is not None:
        selector = header.reader.mapping(node, "selector", ("matchLabels",))
        match = selector.get("matchLabels") if selector is not None else None
        if match is not None:
            labels = header.reader.string_map(match, "matchLabels")
            for key, value in labels.items():
                if not key or "*" in key or "*" in value:
                    header.reader.fault(match, f"label `{key}: {value}` can't be selected", "write it without `*`")
    return Selector(header.namespace, labels)


def read_rules(reader: Reader, node: Node, read_extras: ReadExtras | None = None) -> list[RuleSpec]:
    """Read `rules`; an empty list has no rules. `read_extras` reads the fields that Istio does not have."""
    nodes = getattr(node, "items", None)
    if isinstance(nodes, list) and not nodes:
        return []
    rules = [read_rule(reader, item, read_extras) for item in reader.items(node, "rules", "rules")]
    if len(rules) > MAX_RULES:
        reader.fault(node, f"{len(rules)} rules, more than the limit of {MAX_RULES} in one policy", "split the policy")
    return [rule for rule in rules if rule is not None]


def without_rules(node: Node | None) -> bool:
    """Whether `rules` is absent or an empty list; other invalid values are reported elsewhere."""
    return node is None or (isinstance(node, Sequence) and not node.items)


def read_rule(reader: Reader, node: Node, read_extras: ReadExtras | None) -> RuleSpec | None:
    """Read one rule with `from`, `to` and `when`; None, with a fault, if it is not a mapping."""
    known = RULE_FIELDS if read_extras is None else (*RULE_FIELDS, *RULE_EXTRAS)
    mapping = reader.mapping(node, "a rule", known)
    if mapping is None:
        return None
    rule = RuleSpec(mapping)
    if read_extras is not None:
        rule.extras = read_extras(reader, mapping)
    for name, value in entries(mapping):
        match name:
            case "from":
                rule.sources = _parties(reader, value, "from", "source", _SOURCE_FIELDS)
            case "to":
                rule.operations = _parties(reader, value, "to", "operation", _OPERATION_FIELDS)
            case "when":
                rule.when = read_conditions(reader, value)
            case _:
                pass  # an extra field, or already reported as unknown
    for source in rule.sources:
        _check_source(reader, mapping, source)
    return rule


def read_sources(reader: Reader, node: Node, section: str) -> list[list[FieldSpec]]:
    """Read a list of sources, as `from` has, for documents that are not policies."""
    sources = _parties(reader, node, section, "source", _SOURCE_FIELDS)
    for source in sources:
        _check_source(reader, node, source)
    return sources


def read_conditions(reader: Reader, node: Node) -> list[WhenSpec]:
    """Read a `when` section, for documents that are not policies."""
    return [when for item in reader.items(node, "when", "conditions") if (when := _when(reader, item))]


def read_operations(reader: Reader, node: Node) -> list[list[FieldSpec]]:
    """Read a `to` section, for documents that are not policies."""
    return _parties(reader, node, "to", "operation", _OPERATION_FIELDS)


def _parties(
    reader: Reader, node: Node, section: str, name: str, fields: dict[str, tuple[str, bool]]
) -> list[list[FieldSpec]]:
    parties = []
    for item in reader.items(node, section, f"`{name}` entries"):
        entry = reader.mapping(item, f"an entry of `{section}`", (name,))
        inner = None if entry is None else reader.required(entry, name, f"an entry of `{section}`")
        mapping = None if inner is None else reader.mapping(inner, name, fields)
        if mapping is None:
            continue
        if not mapping.entries:
            hint = f"name at least one of {', '.join(list(fields)[:3])}, …, or remove the entry"
            reader.fault(mapping, f"`{name}` is empty, so it would match everything", hint)
        specs = [
            FieldSpec(*fields[key], reader.strings(value, key)) for key, value in entries(mapping) if key in fields
        ]
        parties.append(specs)
    return parties


def _check_source(reader: Reader, node: Node, source: list[FieldSpec]) -> None:
    names = {spec.name for spec in source}
    if "serviceAccounts" in names and names & {"principals", "namespaces"}:
        message = "`serviceAccounts` can't be combined with `principals` or `namespaces`"
        reader.fault(source[0].values[0] if source[0].values else node, message, "use one of them in a source")
    for spec in source:
        if spec.name == "serviceAccounts" and len(spec.values) > MAX_SERVICE_ACCOUNTS:
            message = f"more than {MAX_SERVICE_ACCOUNTS} service accounts in one source"
            reader.fault(spec.values[0], message, "add another source")


def _when(reader: Reader, node: Node) -> WhenSpec | None:
    mapping = reader.mapping(node, "a condition", ("key", "values", "notValues"))
    key = None if mapping is None else reader.required(mapping, "key", "a condition")
    if mapping is None or key is None or reader.string(key, "key") is None or not isinstance(key, Scalar):
        return None
    values, not_values = mapping.get("values"), mapping.get("notValues")
    if values is None and not_values is None:
        reader.fault(mapping, f"condition on `{key.value}` has neither `values` nor `notValues`", "add one of them")
    return WhenSpec(
        key,
        [] if values is None else reader.strings(values, "values"),
        [] if not_values is None else reader.strings(not_values, "notValues"),
    )
