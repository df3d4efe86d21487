"""RequestAuthentication documents to Envoy's jwt_authn filter, as Istio's pilot writes it, as plain JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.differential.rbac import selected

if TYPE_CHECKING:
    from tests.differential.case import PolicySet

Json = dict[str, Any]


def jwt_filters(policies: PolicySet) -> list[Json]:
    """The jwt_authn filter for the set's workload; none without rules."""
    rules = [
        rule
        for document in selected(policies, "RequestAuthentication")
        for rule in (document.get("spec") or {}).get("jwtRules") or []
    ]
    if not rules:
        return []
    rules.sort(key=lambda rule: str(rule.get("issuer", "")))
    names = [f"origins-{number}" for number in range(len(rules))]
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {name: _provider(rule) for name, rule in zip(names, rules, strict=True)},
        "rules": [{"match": {"prefix": "/"}, "requires": _requirement(rules, names)}],
        "bypass_cors_preflight": True,
    }
    return [{"name": "envoy.filters.http.jwt_authn", "typed_config": config}]


def _requirement(rules: list[Json], names: list[str]) -> Json:
    """What Istio asks of a request, as its pilot writes it.

    With one rule {P, or missing}; with more {P1, P2 .., AND of {P1 or missing, P2 or missing ..}}: one valid token is
    enough, no invalid one alone is. Once a rule has `presence: REQUIRED`, the AND alone, in which it stands bare.
    """
    required = [rule.get("presence") == "REQUIRED" for rule in rules]
    providers: list[Json] = [{"provider_name": name} for name in names]
    each = [
        provider if bare else {"requires_any": {"requirements": [provider, {"allow_missing": {}}]}}
        for provider, bare in zip(providers, required, strict=True)
    ]
    if len(each) == 1:
        return each[0]
    everything: Json = {"requires_all": {"requirements": each}}
    return everything if any(required) else {"requires_any": {"requirements": [*providers, everything]}}


def _provider(rule: Json) -> Json:
    provider: Json = {
        "issuer": rule.get("issuer", ""),
        "audiences": rule.get("audiences", []),
        "forward": rule.get("forwardOriginalToken", False),
        "forward_payload_header": rule.get("outputPayloadToHeader", ""),
        "payload_in_metadata": "payload",
        "normalize_payload_in_metadata": {
            "space_delimited_claims": sorted({"permission", "scope", *rule.get("spaceDelimitedClaims", [])})
        },
        "local_jwks": {"inline_string": rule["jwks"]},
        "from_params": rule.get("fromParams", []),
        "from_cookies": rule.get("fromCookies", []),
    }
    provider["claim_to_headers"] = [
        {"header_name": entry["header"], "claim_name": entry["claim"]} for entry in rule.get("outputClaimToHeaders", [])
    ]
    provider["from_headers"] = [
        {"name": entry["name"], "value_prefix": entry.get("prefix", "")} for entry in rule.get("fromHeaders", [])
    ]
    return provider
