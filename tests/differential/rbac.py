"""Istio documents to the Envoy filters that enforce them, written from Istio's pilot, as plain JSON.

This is the other reading of the policy language: it shares nothing with `zta_authz`, so that the two can disagree.
Sources: Istio `pilot/pkg/security/authz/{builder,model,matcher}`, `pilot/pkg/security/trustdomain/bundle.go` and
`pilot/pkg/security/authn/policy_applier.go`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from tests.differential.identities import namespaces, principals, request_principals, service_accounts, trust_domains
from tests.differential.matchers import metadata, string

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.differential.case import Document, PolicySet

Json = dict[str, Any]
_ROOT_NAMESPACE = "istio-system"
_RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_TEMPLATE = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
_NEVER: Json = {
    "permissions": [{"not_rule": {"any": True}}],
    "principals": [{"not_id": {"any": True}}],
}


def selected(policies: PolicySet, kind: str) -> list[Document]:
    """The documents of `kind` that are in force for the set's workload."""
    chosen = []
    for document in policies.documents:
        if document["kind"] != kind:
            continue
        labels = (document.get("spec") or {}).get("selector", {}).get("matchLabels", {})
        in_scope = document["metadata"]["namespace"] in (policies.namespace, _ROOT_NAMESPACE)
        if in_scope and all(policies.labels.get(name) == value for name, value in labels.items()):
            chosen.append(document)
    return chosen


def rbac_filters(policies: PolicySet) -> list[Json]:
    """The RBAC filters for AUDIT, DENY and ALLOW, in Istio's order; none for an action without policies."""
    documents = selected(policies, "AuthorizationPolicy")
    filters = []
    for action, engine in (("AUDIT", "LOG"), ("DENY", "DENY"), ("ALLOW", "ALLOW")):
        chosen = [d for d in documents if (d.get("spec") or {}).get("action", "ALLOW") == action]
        if not chosen:
            continue
        config: Json = {"@type": _RBAC}
        for field, dry_run in (("rules", False), ("shadow_rules", True)):
            some = [d for d in chosen if _is_dry_run(d) is dry_run]
            if some:
                config[field] = {"action": engine, "policies": _policies(some, policies)}
        filters.append({"name": "envoy.filters.http.rbac", "typed_config": config})
    return filters


def _is_dry_run(document: Document) -> bool:
    value = document["metadata"].get("annotations", {}).get("istio.io/dry-run", "false")
    return value in ("1", "t", "T", "TRUE", "true", "True")


def _policies(documents: Iterable[Document], policies: PolicySet) -> Json:
    result: Json = {}
    for document in documents:
        namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
        rules = (document.get("spec") or {}).get("rules") or []
        for number, rule in enumerate(rules):
            result[f"ns[{namespace}]-policy[{name}]-rule[{number}]"] = _rule(rule, namespace, policies)
        if not rules:
            result[f"ns[{namespace}]-policy[{name}]-rule[0]"] = _NEVER
    return result


def _rule(rule: Json, namespace: str, policies: PolicySet) -> Json:
    permissions: list[Json] = []
    callers: list[Json] = []
    for condition in rule.get("when") or []:
        into, make = _when(condition["key"], namespace, policies)
        clauses = callers if into == "ids" else permissions
        clauses += _clauses(make, condition.get("values"), condition.get("notValues"), into)
    sources = [entry["source"] for entry in rule.get("from") or []] or [{}]
    operations = [entry["operation"] for entry in rule.get("to") or []] or [{}]
    return {
        "permissions": [_all("rules", _operation(operation) + permissions) for operation in operations],
        "principals": [_all("ids", _source(source, namespace, policies) + callers) for source in sources],
    }


def _all(into: str, clauses: list[Json]) -> Json:
    return {f"and_{into}": {into: clauses or [{"any": True}]}}


def _clauses(make: Callable[[Sequence[str]], list[Json]], values: Any, not_values: Any, into: str) -> list[Json]:
    clauses: list[Json] = []
    if values:
        clauses.append({f"or_{into}": {into: make(values)}})
    if not_values:
        negated = "not_id" if into == "ids" else "not_rule"
        clauses.append({negated: {f"or_{into}": {into: make(not_values)}}})
    return clauses


def _fields(entry: Json, makers: dict[str, Callable[[Sequence[str]], list[Json]]], into: str) -> list[Json]:
    clauses: list[Json] = []
    for name, make in makers.items():
        negated = f"not{name[0].upper()}{name[1:]}"
        clauses += _clauses(make, entry.get(name), entry.get(negated), into)
    return clauses


def _source(source: Json, namespace: str, policies: PolicySet) -> list[Json]:
    return _fields(
        source,
        {
            "principals": lambda values: principals(values, policies),
            "requestPrincipals": request_principals,
            "namespaces": namespaces,
            "serviceAccounts": lambda values: service_accounts(values, namespace),
            "trustDomains": lambda values: trust_domains(values, policies),
            "ipBlocks": lambda values: [{"direct_remote_ip": _cidr(value)} for value in values],
            "remoteIpBlocks": lambda values: [{"remote_ip": _cidr(value)} for value in values],
        },
        "ids",
    )


def _operation(operation: Json) -> list[Json]:
    return _fields(
        operation,
        {
            "hosts": lambda values: [{"header": header(":authority", value, ignore_case=True)} for value in values],
            "ports": lambda values: [{"destination_port": int(value)} for value in values],
            "methods": lambda values: [{"header": header(":method", value)} for value in values],
            "paths": lambda values: [_path(value) for value in values],
        },
        "rules",
    )


def _when(key: str, namespace: str, policies: PolicySet) -> tuple[str, Callable[[Sequence[str]], list[Json]]]:
    simple: dict[str, tuple[str, Callable[[Sequence[str]], list[Json]]]] = {
        "source.ip": ("ids", lambda values: [{"direct_remote_ip": _cidr(value)} for value in values]),
        "remote.ip": ("ids", lambda values: [{"remote_ip": _cidr(value)} for value in values]),
        "source.namespace": ("ids", namespaces),
        "source.principal": ("ids", lambda values: principals(values, policies)),
        "source.serviceAccount": ("ids", lambda values: service_accounts(values, namespace)),
        "source.trustDomain": ("ids", lambda values: trust_domains(values, policies)),
        "request.auth.principal": ("ids", request_principals),
        "request.auth.audiences": ("ids", lambda values: [_claim(["aud"], values)]),
        "request.auth.presenter": ("ids", lambda values: [_claim(["azp"], values)]),
        "destination.ip": ("rules", lambda values: [{"destination_ip": _cidr(value)} for value in values]),
        "destination.port": ("rules", lambda values: [{"destination_port": int(value)} for value in values]),
        "connection.sni": ("rules", lambda values: [{"requested_server_name": string(value)} for value in values]),
    }
    if key in simple:
        return simple[key]
    name = key[key.index("[") + 1 : -1]
    if key.startswith("request.headers["):
        return "ids", lambda values: [{"header": header(name, value)} for value in values]
    if key.startswith("request.auth.claims["):
        path = claim_path(key.removeprefix("request.auth.claims"))
        return "ids", lambda values: [_claim(path, values)]
    if key.startswith("experimental.envoy.filters."):
        filter_name = key[len("experimental.") : key.index("[")]
        return "rules", lambda values: [_dynamic_metadata(filter_name, name, values)]
    raise ValueError(f"unknown key {key}")


def header(name: str, value: str, *, ignore_case: bool = False) -> Json:
    """A header matcher; `*` asks only that the header is there."""
    if value == "*":
        return {"name": name, "present_match": True}
    match = string(value)
    if ignore_case:
        match["ignore_case"] = True
    return {"name": name, "string_match": match}


def _path(value: str) -> Json:
    if "{*}" in value or "{**}" in value:
        template = value.replace("{*}", "*").replace("{**}", "**")
        matcher = {"name": "uri-template", "typed_config": {"@type": _TEMPLATE, "path_template": template}}
        return {"uri_template": matcher}
    return {"url_path": {"path": string(value)}}


def _cidr(value: str) -> Json:
    address, _, length = value.partition("/")
    bits = int(length) if length else ipaddress.ip_address(address).max_prefixlen
    return {"address_prefix": address, "prefix_len": bits}


def claim_path(brackets: str) -> list[str]:
    """`[a][b]` as its keys; malformed nesting is one key (Istio's `extractNameInNestedBrackets`)."""
    if re.fullmatch(r"(\[[^\[\]]*\])+", brackets):
        return re.findall(r"\[([^\[\]]*)\]", brackets)
    return [brackets[1:-1]]


def _any_value(matches: list[Json]) -> Json:
    return matches[0] if len(matches) == 1 else {"or_match": {"value_matchers": matches}}


def _claim(path: Sequence[str], values: Sequence[str]) -> Json:
    value = _any_value([{"string_match": string(text)} for text in values])
    either = {"or_match": {"value_matchers": [{"list_match": {"one_of": value}}, value]}}
    return metadata("envoy.filters.http.jwt_authn", ["payload", *path], either)


def _dynamic_metadata(filter_name: str, key: str, values: Sequence[str]) -> Json:
    matches: list[Json] = []
    for value in values:
        if value.startswith("[") and value.endswith("]"):
            matches.append({"list_match": {"one_of": {"string_match": string(value.strip("[]"))}}})
        else:
            matches.append({"string_match": string(value)})
    return metadata(filter_name, [key], _any_value(matches))
