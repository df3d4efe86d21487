"""Istio documents to the Envoy filters that enforce them, written from Istio's pilot, as plain JSON.

This is the other reading of the policy language: it shares nothing with `zta_authz`, so that the two can disagree.
Sources: Istio `pilot/pkg/security/authz/{builder,model,matcher}`, `pilot/pkg/security/trustdomain/bundle.go` and
`pilot/pkg/security/authn/policy_applier.go`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

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
    permissions, principals = [], []
    for condition in rule.get("when") or []:
        into, make = _when(condition["key"], namespace, policies)
        clauses = principals if into == "ids" else permissions
        clauses += _clauses(make, condition.get("values"), condition.get("notValues"), into)
    sources = [entry["source"] for entry in rule.get("from") or []] or [{}]
    operations = [entry["operation"] for entry in rule.get("to") or []] or [{}]
    return {
        "permissions": [_all("rules", _operation(operation) + permissions) for operation in operations],
        "principals": [_all("ids", _source(source, namespace, policies) + principals) for source in sources],
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
            "principals": lambda values: _principals(values, policies),
            "requestPrincipals": _request_principals,
            "namespaces": _namespaces,
            "serviceAccounts": lambda values: _service_accounts(values, namespace),
            "trustDomains": lambda values: _trust_domains(values, policies),
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
        "source.namespace": ("ids", _namespaces),
        "source.principal": ("ids", lambda values: _principals(values, policies)),
        "source.serviceAccount": ("ids", lambda values: _service_accounts(values, namespace)),
        "source.trustDomain": ("ids", lambda values: _trust_domains(values, policies)),
        "request.auth.principal": ("ids", _request_principals),
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


def quote(text: str) -> str:
    """`text` as a regular expression that matches just it (Go's `regexp.QuoteMeta`)."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


def _regex(pattern: str) -> Json:
    return {"safe_regex": {"regex": pattern}}


def string(value: str) -> Json:
    """Istio's generic string match."""
    if value == "*":
        return _regex(".+")
    if value.startswith("*"):
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": value[:-1]}
    return {"exact": value}


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


def _authenticated(match: Json) -> Json:
    return {"authenticated": {"principal_name": match}}


def _principals(values: Sequence[str], policies: PolicySet) -> list[Json]:
    matches = []
    for value in migrated(values, [policies.trust_domain, *policies.trust_domain_aliases]):
        if value == "*":
            matches.append(_regex(".+"))
        elif value.startswith("*"):
            matches.append(_regex("spiffe://.*" + quote(value[1:])))
        elif value.endswith("*"):
            matches.append({"prefix": "spiffe://" + value[:-1]})
        else:
            matches.append({"exact": "spiffe://" + value})
    return [_authenticated(match) for match in matches]


def migrated(principals: Sequence[str], domains: list[str]) -> list[str]:
    """The principals with the trust domain's aliases (Istio's `ReplaceTrustDomainAliases`)."""
    result: list[str] = []
    for principal in principals:
        domain, *rest = principal.split("/")
        known = domain == "cluster.local" or any(_loosely(candidate, domain) for candidate in domains)
        if len(rest) != 4 or domain == "*" or not known:
            result.append(principal)
            continue
        replaced: list[str] = []
        for candidate in domains:
            kept = domain.startswith("*") and candidate.endswith(domain[1:])
            new = principal if kept else "/".join([candidate, *rest])
            if new not in replaced:
                replaced.append(new)
        result += replaced
    return result


def _loosely(domain: str, pattern: str) -> bool:
    """Istio's `stringMatch` of one trust domain with the one a principal names."""
    by_prefix = pattern.endswith("*") and domain.startswith(pattern[:-1])
    by_suffix = pattern.startswith("*") and domain.endswith(pattern[1:])
    return domain == pattern or domain == "*" or by_prefix or by_suffix or _listed(domain, pattern)


def _listed(domain: str, pattern: str) -> bool:
    """The mesh's own list may hold wildcards too."""
    by_prefix = domain.endswith("*") and pattern.startswith(domain[:-1])
    by_suffix = domain.startswith("*") and pattern.endswith(domain[1:])
    return by_prefix or by_suffix


def _namespaces(values: Sequence[str]) -> list[Json]:
    quoted = [".*".join(quote(part) for part in value.split("*")) for value in values]
    return [_authenticated(_regex(f".*/ns/{pattern}/.*")) for pattern in quoted]


def _service_accounts(values: Sequence[str], namespace: str) -> list[Json]:
    matches = []
    for value in values:
        space, slash, account = value.partition("/")
        if not slash:
            space, account = namespace, value
        matches.append(_regex(f"spiffe://.+/ns/{quote(space)}/(.+/|)sa/{quote(account)}(/.+)?"))
    return [_authenticated(match) for match in matches]


def _trust_domains(values: Sequence[str], policies: PolicySet) -> list[Json]:
    domains = [policies.trust_domain, *policies.trust_domain_aliases]
    expanded: list[str] = []
    for value in values:
        expanded += [name for name in (domains if value in domains else [value]) if name not in expanded]
    matches: list[Json] = []
    for value in expanded:
        if value == "*":
            matches.append({"prefix": "spiffe://"})
        elif "*" in value:
            pattern = "[^/]*".join(quote(part) for part in value.split("*"))
            matches.append(_regex(f"spiffe://{pattern}/.*"))
        else:
            matches.append({"prefix": f"spiffe://{value}/"})
    return [_authenticated(match) for match in matches]


def claim_path(brackets: str) -> list[str]:
    """`[a][b]` as its keys; malformed nesting is one key (Istio's `extractNameInNestedBrackets`)."""
    if re.fullmatch(r"(\[[^\[\]]*\])+", brackets):
        return re.findall(r"\[([^\[\]]*)\]", brackets)
    return [brackets[1:-1]]


def _metadata(filter_name: str, path: Sequence[str], value: Json) -> Json:
    return {"metadata": {"filter": filter_name, "path": [{"key": key} for key in path], "value": value}}


def _any_value(matches: list[Json]) -> Json:
    return matches[0] if len(matches) == 1 else {"or_match": {"value_matchers": matches}}


def _claim(path: Sequence[str], values: Sequence[str]) -> Json:
    value = _any_value([{"string_match": string(text)} for text in values])
    either = {"or_match": {"value_matchers": [{"list_match": {"one_of": value}}, value]}}
    return _metadata("envoy.filters.http.jwt_authn", ["payload", *path], either)


def _request_principals(values: Sequence[str]) -> list[Json]:
    matches = []
    for value in values:
        issuer, subject = request_principal(value)
        parts = [
            _metadata("envoy.filters.http.jwt_authn", ["payload", name], {"string_match": match})
            for name, match in (("iss", issuer), ("sub", subject))
        ]
        matches.append({"and_ids": {"ids": parts}})
    return matches


def request_principal(value: str) -> tuple[Json, Json]:
    """How `iss` and `sub` are matched for one request principal."""
    anything = _regex(".+")
    issuer, slash, subject = value.rpartition("/")
    if not slash:
        issuer, subject = value, ""
    if value == "*":
        return anything, anything
    if value.startswith("*"):
        if not slash:
            return anything, {"suffix": value[1:]}
        return (anything if issuer == "*" else {"suffix": issuer[1:]}), {"exact": subject}
    if value.endswith("*"):
        if not slash:
            return {"prefix": value[:-1]}, anything
        return {"exact": issuer}, (anything if subject == "*" else {"prefix": subject[:-1]})
    return {"exact": issuer}, {"exact": subject}


def _dynamic_metadata(filter_name: str, key: str, values: Sequence[str]) -> Json:
    matches: list[Json] = []
    for value in values:
        if value.startswith("[") and value.endswith("]"):
            matches.append({"list_match": {"one_of": {"string_match": string(value.strip("[]"))}}})
        else:
            matches.append({"string_match": string(value)})
    return _metadata(filter_name, [key], _any_value(matches))
