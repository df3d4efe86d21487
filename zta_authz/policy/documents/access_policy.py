"""Read `zta.dev/v1` AccessPolicy: the shape of Istio's AuthorizationPolicy, with more fields.

A rule may have `name` and `condition` (CEL). The policy or a rule may have `require`, `response`, `effectiveFrom`,
`expiresAt` and `schedule`. A rule's `response` replaces its policy's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zta_authz.policy.documents.authorization_policy import TIME_FIELDS, read_rules, read_selector, without_rules
from zta_authz.policy.documents.spec import Extras, PolicySpec
from zta_authz.policy.rules.require import read_require
from zta_authz.policy.rules.response_template import read_response
from zta_authz.policy.rules.schedule import read_times
from zta_authz.policy.yaml.nodes import Mapping, Scalar

if TYPE_CHECKING:
    from zta_authz.errors import Fault
    from zta_authz.policy.documents.spec import DocumentHeader, DocumentSet, RuleSpec
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node

_SPEC_FIELDS: Final = ("selector", "action", "rules", "response", "require", *TIME_FIELDS)
ACTIONS: Final = ("ALLOW", "DENY", "AUDIT")
RULE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")


def read_access_policy(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the policy to `documents`."""
    del warnings
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "AccessPolicy.spec", _SPEC_FIELDS)
    action = _action(reader, spec)
    rules_node = spec.get("rules")

    def extras(reader: Reader, node: Mapping) -> Extras:
        return _extras(reader, node, action)

    rules = None if rules_node is None else read_rules(reader, rules_node, extras)
    _check_names(reader, rules or [])
    if without_rules(rules_node):
        _check_without_rules(reader, spec, action)
    elif rules and (shared := spec.get("response")) is not None and all(_has_response(rule) for rule in rules):
        hint = "remove it: the rules' own `response` is used"
        reader.fault(shared, "every rule has its own `response`, so the policy's would do nothing", hint)
    documents.policies.append(
        PolicySpec(
            "AccessPolicy", header.name, header.namespace, action or "ALLOW", read_selector(header), rules, False,
            header.document, reader, extras(reader, spec),
        )
    )  # fmt: skip


def _check_names(reader: Reader, rules: list[RuleSpec]) -> None:
    """Report duplicate rule names."""
    first: dict[str, int] = {}
    for rule in rules:
        name = rule.extras.name if rule.extras is not None else ""
        if name in first:
            message = f"duplicate rule name `{name}` (first at line {first[name]})"
            reader.fault(rule.node, message, "give each rule of a policy a different name")
        elif name:
            first[name] = reader.position(rule.node).line


def _has_response(rule: RuleSpec) -> bool:
    return rule.extras is not None and rule.extras.response is not None


def _action(reader: Reader, spec: Mapping) -> str:
    """The action, ALLOW by default; "", with a fault, if it is invalid."""
    node = spec.get("action")
    if node is None:
        return "ALLOW"
    action = reader.string(node, "action")
    if action is None or action in ACTIONS:
        return action or ""
    hint = f"write `{action.upper()}`" if action.upper() in ACTIONS else f"one of {', '.join(ACTIONS)}"
    reader.fault(node, f"unknown action `{action}`", hint)
    return ""


def _check_without_rules(reader: Reader, spec: Mapping, action: str) -> None:
    """Report fields that a policy without rules never uses."""
    if action in ("DENY", "AUDIT"):
        reader.fault(spec, f"a policy with action {action} has no rules, so it would do nothing", "add `rules`")
    elif action == "ALLOW":
        for name in ("response", "require", *TIME_FIELDS):
            if (node := spec.get(name)) is not None:
                reader.fault(
                    node, f"the policy has no rules, so `{name}` would do nothing", "add `rules`, or remove it"
                )


def _rule_name(reader: Reader, node: Node | None) -> str:
    """A rule's name; "" if absent, or, with a fault, if it is invalid."""
    name = None if node is None else reader.string(node, "name")
    if node is None or name is None:
        return ""
    if not RULE_NAME.fullmatch(name):
        hint = "start with a letter; letters, digits, `-`, `_` and `.` may follow, at most 63 characters"
        reader.fault(node, f"`{name[:80]}` is not a rule name", hint)
        return ""
    return name


def _extras(reader: Reader, node: Mapping, action: str) -> Extras:
    """Read the fields of a policy or rule that Istio does not have."""
    extras = Extras(times=read_times(reader, node))
    condition, response, require = node.get("condition"), node.get("response"), node.get("require")
    extras.name = _rule_name(reader, node.get("name"))
    if condition is not None and reader.string(condition, "condition") and isinstance(condition, Scalar):
        extras.condition = condition
    if response is not None:
        extras.response = read_response(reader, response, action)
    if require is not None:
        extras.require = read_require(reader, require)
        if action == "DENY":
            hint = "put it into the ALLOW policy, or deny by a `condition`"
            reader.fault(require, "a DENY policy would not deny callers that fail `require`", hint)
    return extras
