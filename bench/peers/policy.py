"""One policy set in four languages: read from the scenario's AuthorizationPolicies, written for each peer.

The translation covers what the scenario's documents use and no more: principals, methods, paths (exact, or a prefix
with `*`), request principals, and the one issuer of a RequestAuthentication.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FORMS: Final = ("rules", "list", "keyed")
"""How Rego may hold many rules: as Rego rules (which OPA indexes by the principal), as data that is scanned, or as data
that is looked up by the principal."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One AuthorizationPolicy of one rule. Principals have no `spiffe://`; `subject` is `issuer/sub`, "" for any."""

    principal: str
    deny: bool
    methods: tuple[str, ...]
    paths: tuple[str, ...]
    subject: str = ""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The rules, and the token issuer's name, audience and keys (a JWKS as JSON), "" without one."""

    rules: tuple[Rule, ...]
    issuer: str = ""
    audience: str = ""
    jwks: str = ""


def read(path: Path) -> PolicySet:
    """The policies of a file of JSON documents, as `bench.scenario` writes it."""
    documents: list[dict[str, Any]] = [json.loads(part) for part in path.read_text().split("\n---\n")]
    rules = tuple(_rule(document["spec"]) for document in documents if document["kind"] == "AuthorizationPolicy")
    for document in documents:
        if document["kind"] == "RequestAuthentication":
            (issuer,) = document["spec"]["jwtRules"]
            return PolicySet(rules, issuer["issuer"], issuer["audiences"][0], issuer["jwks"])
    return PolicySet(rules)


def _rule(spec: dict[str, Any]) -> Rule:
    (rule,) = spec["rules"]
    (source,) = rule["from"]
    (target,) = rule["to"]
    (principal,) = source["source"]["principals"]
    (subject,) = source["source"].get("requestPrincipals", [""])
    operation = target["operation"]
    return Rule(principal, spec["action"] == "DENY", tuple(operation["methods"]), tuple(operation["paths"]), subject)


def to_go(policies: PolicySet) -> str:
    """The rule file of `goauthz`, which knows no tokens."""
    return json.dumps(
        [
            {"principal": rule.principal, "deny": rule.deny, "methods": rule.methods, "paths": rule.paths}
            for rule in policies.rules
        ]
    )


_HEAD: Final = """package authz

default allow := false

allow if {
	not bad_token
	not denied
	allowed
}

http := input.attributes.request.http

path := split(http.path, "?")[0]

path_in(exact, _) if path in exact

path_in(_, prefixes) if {
	some prefix in prefixes
	startswith(path, prefix)
}

claims := payload if {
	token := trim_prefix(http.headers.authorization, "Bearer ")
	[valid, _, payload] := io.jwt.decode_verify(token, {
		"cert": data.jwt.jwks, "iss": data.jwt.issuer, "aud": data.jwt.audience, "alg": "RS256",
	})
	valid
}

subject := concat("/", [claims.iss, claims.sub])

bad_token if {
	data.jwt.issuer != ""
	http.headers.authorization
	not claims
}
"""

_SCAN: Final = """
denied if {
	some rule in %(candidates)s
	rule.deny
	matches(rule)
}

allowed if {
	some rule in %(candidates)s
	not rule.deny
	matches(rule)
}

matches(rule) if {
	rule.principal == input.attributes.source.principal
	http.method in rule.methods
	path_in(rule.exact, rule.prefixes)
	subject_is(rule.subject)
}

subject_is("") := true

subject_is(wanted) if wanted == subject
"""

_KEYED_CANDIDATES: Final = "data.rules[input.attributes.source.principal]"


def to_rego(policies: PolicySet, form: str) -> tuple[str, str]:
    """The Rego module and its data (JSON), in one of `FORMS`."""
    data: dict[str, Any] = {
        "jwt": {"issuer": policies.issuer, "audience": policies.audience, "jwks": policies.jwks},
    }
    if form == "rules":
        return _HEAD + "".join(map(_rego_rule, policies.rules)), json.dumps(data)
    rows = [_row(rule) for rule in policies.rules]
    if form == "list":
        return _HEAD + _SCAN % {"candidates": "data.rules"}, json.dumps(data | {"rules": rows})
    keyed: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        keyed.setdefault(row["principal"], []).append(row)
    return _HEAD + _SCAN % {"candidates": _KEYED_CANDIDATES}, json.dumps(data | {"rules": keyed})


def _row(rule: Rule) -> dict[str, Any]:
    return {
        "principal": f"spiffe://{rule.principal}",
        "deny": rule.deny,
        "methods": rule.methods,
        "exact": [path for path in rule.paths if not path.endswith("*")],
        "prefixes": [path[:-1] for path in rule.paths if path.endswith("*")],
        "subject": rule.subject,
    }


def _rego_rule(rule: Rule) -> str:
    row = {name: json.dumps(value) for name, value in _row(rule).items()}
    lines = [
        f"input.attributes.source.principal == {row['principal']}",
        f"http.method in {row['methods']}",
        f"path_in({row['exact']}, {row['prefixes']})",
    ]
    if rule.subject:
        lines.append(f"subject == {row['subject']}")
    return f"\n{'denied' if rule.deny else 'allowed'} if {{\n\t" + "\n\t".join(lines) + "\n}\n"


def to_rbac(policies: PolicySet, *, deny: bool) -> dict[str, Any]:
    """One of Envoy's two RBAC filters, as Istio would write them: first the DENY rules, then the ALLOW rules.

    Tokens are left out: they would be another filter's (`jwt_authn`) work.
    """
    chosen = [rule for rule in policies.rules if rule.deny == deny]
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {
            "action": "DENY" if deny else "ALLOW",
            "policies": {f"rule-{number}": _rbac_policy(rule) for number, rule in enumerate(chosen)},
        },
    }


def _rbac_policy(rule: Rule) -> dict[str, Any]:
    methods = [{"header": {"name": ":method", "string_match": {"exact": method}}} for method in rule.methods]
    paths = [{"url_path": {"path": _string_matcher(path)}} for path in rule.paths]
    return {
        "permissions": [{"and_rules": {"rules": [_any_of(methods), _any_of(paths)]}}],
        "principals": [{"authenticated": {"principal_name": {"exact": f"spiffe://{rule.principal}"}}}],
    }


def _any_of(rules: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"or_rules": {"rules": list(rules)}}


def _string_matcher(path: str) -> dict[str, str]:
    return {"prefix": path[:-1]} if path.endswith("*") else {"exact": path}
