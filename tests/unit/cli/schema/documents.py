"""Documents of every kind that use every field, as plain values, and what the service says about them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envoy.demo.certificates import CertificateAuthority
from tests.support.policies import faults
from zta_authz.cli.policy_tests import KIND as POLICY_TEST, _SuiteReader
from zta_authz.cli.request_files import read_request
from zta_authz.cli.schema.names import REQUEST
from zta_authz.policy.yaml.fields import Reader
from zta_authz.policy.yaml.nodes import read_documents

if TYPE_CHECKING:
    from zta_authz.errors import Fault

_NEGATED = {
    "principals": ["cluster.local/ns/shop/sa/a"],
    "requestPrincipals": ["https://issuer.example/*"],
    "namespaces": ["shop"],
    "trustDomains": ["cluster.local"],
    "ipBlocks": ["10.0.0.0/8"],
    "remoteIpBlocks": ["203.0.113.7"],
}
_OPERATION = {"hosts": ["shop.example"], "ports": ["8080"], "methods": ["GET"], "paths": ["/orders/{*}", "/a*"]}
_TIMES = {
    "effectiveFrom": "2026-01-31T18:00:00Z",
    "expiresAt": "2036-01-31T18:00:00+01:00",
    "schedule": {"timeZone": "UTC", "windows": [{"days": ["Mon", "Fri"], "from": "09:30", "to": "24:00"}]},
}
_REQUIRE = {
    "token": {"bound": True, "maxAge": "15m"},
    "authentication": {
        "acr": ["phr"], "acrAtLeast": 2, "amr": ["hwk"], "maxAge": "5m", "login": "https://login.example/?to={path}",
    },
    "device": {
        "osAtLeast": {"macOS": "26.1"}, "seenWithin": "24h", "managed": True, "encrypted": True, "compliant": False,
    },
    "network": {
        "countries": ["DE"], "notCountries": ["KP"], "asns": [64500], "corporate": True, "anonymous": False,
        "reputationAtLeast": 50,
    },
    "trust": {
        "level": "HIGH", "user": 80, "device": 60, "network": 50, "behavior": 40, "showComponents": True,
        "stepUp": {"acr": ["phr"], "maxAge": "5m", "login": "/login"},
    },
}  # fmt: skip
_METADATA = {
    "name": "all-fields", "namespace": "shop", "labels": {"app": "shop"}, "annotations": {"note": "x"},
    "generateName": "a", "uid": "u", "resourceVersion": "1", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
    "deletionTimestamp": None, "deletionGracePeriodSeconds": 0, "ownerReferences": [], "finalizers": [],
    "managedFields": [], "selfLink": "/a",
}  # fmt: skip
_SELECTOR = {"matchLabels": {"app": "shop"}}


def _opposite(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"


def _both(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {_opposite(name): value for name, value in fields.items()}


def _document(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    head = {"apiVersion": "zta.dev/v1", "kind": kind, "metadata": _METADATA}
    return {**head, "spec": spec, "status": {"anything": 1}}


_SET = [
    {"name": "x-user", "claim": "sub"},
    {"name": "x-country", "claim": ["address", "country"]},
    {"name": "x-team", "value": "a"},
]
_CLAIMS = [
    {"name": "tenant", "claim": ["org", "id"]},
    {"name": "team", "claim": "team"},
    {"name": "plan", "value": "a"},
]
_RULES: tuple[dict[str, Any], ...] = (
    {"from": [{"source": _both(_NEGATED)}]},
    {"from": [{"source": {"serviceAccounts": ["shop/a"], "notServiceAccounts": ["b"]}}]},
    {"to": [{"operation": _both(_OPERATION)}]},
    {"when": [{"key": "request.headers[x-team]", "values": ["a"], "notValues": ["b*"]}]},
    {"when": [{"key": "zta.device.compliant", "values": ["true"]}]},
    {"when": [{"key": "request.auth.claims[a][b]", "notValues": ["a"]}]},
    {"when": [{"key": "destination.port", "values": ["80"]}], "name": "staff", "condition": "request.method == 'GET'"},
    *({"require": {name: below}} for name, below in _REQUIRE.items()),
    {"response": {"headers": {"remove": ["x-debug"], "set": _SET}}},
    {"response": {"mint": {"audience": "orders", "header": "x-token", "lifetime": "30s", "claims": _CLAIMS}}},
    {"response": {"mint": {"audience": "orders", "kind": "transaction", "scope": "orders.read orders.write"}}},
    {"require": {"grant": "payments"}},
    _TIMES,
)


def _access_policies() -> list[dict[str, Any]]:
    deny = {
        "action": "DENY",
        "rules": [{"response": {"status": 451, "message": "no"}}, {}],
        "response": {
            "redirect": {"status": 303, "location": "https://login.example/"},
            "tokenDenials": ["*", "token_expired"],
        },
        **_TIMES,
    }
    allow = {"selector": _SELECTOR, "rules": [{}], "require": {"token": {"bound": True}}}
    specs = [deny, allow, {"rules": []}, {}, *({"action": "ALLOW", "rules": [rule]} for rule in _RULES)]
    return [_document("AccessPolicy", spec) for spec in specs]


@cache
def _certificate() -> str:
    return CertificateAuthority("a test's", "cluster.local").certificate.decode()


def _trust_bundles() -> list[dict[str, Any]]:
    bundle = {
        "trustDomain": "cluster.local",
        "x509Authorities": _certificate(),
        "x509Intermediates": _certificate(),
        "jwtAuthorities": {"keys": [_KEY]},
        "jwtSvidAudiences": ["hatshop"],
    }
    whole = {"trustDomain": "cluster.local", "spiffeBundle": {"keys": [_KEY | {"use": "jwt-svid"}]}}
    text = whole | {"spiffeBundle": json.dumps(whole["spiffeBundle"])}
    return [_document("TrustBundle", spec) for spec in (bundle, whole, text)]


_KEY = {
    "kty": "EC", "crv": "P-256", "kid": "a",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}  # fmt: skip
_ENTRY = {"effectiveFrom": "2026-01-31T18:00:00Z", "comment": "lost"}
_REVOCATIONS = {
    "comment": "for all",
    "tokens": [{"id": "a", "issuer": "https://i.example", **_ENTRY}],
    "keys": [{"id": "a", "issuer": "https://i.example", "before": "2026-01-31T18:00:00.5Z", **_ENTRY}],
    "subjects": [{"subject": "a", "issuer": "https://i.example", "before": "20260131T180000Z", **_ENTRY}],
    "certificates": [{"serial": "0A:0b", **_ENTRY}, {"sha256": "ab" * 32, **_ENTRY}],
    "spiffeIds": [
        {"id": "spiffe://cluster.local/ns/a", "before": "2026-01-31T18:00:00Z", **_ENTRY},
        {"prefix": "spiffe://cluster.local/ns/", **_ENTRY},
    ],
}
_ISSUER = {
    "issuer": "https://issuer.example", "maxTokenAge": "1h", "allowMissingExp": False, "requireBound": True,
    "requireKid": True, "algorithms": ["ES256", "HS256"], "types": ["at+jwt"], "audiences": ["a"],
    "acrLevels": {"phr": 2, "2": 0},
}  # fmt: skip
_API_KEYS = {
    "selector": _SELECTOR, "header": "x-key", "forward": True,
    "clients": [{"name": "report", "scopes": ["orders:read"], "keys": [
        {"hash": "sha256:" + "ab" * 32, "notBefore": "2026-01-31T18:00:00Z", "expiresAt": "2036-01-31T18:00:00Z",
         "comment": "old"},
        {"hash": "sha512:" + "AB" * 64},
    ]}],
}  # fmt: skip
_INVENTORY = {
    "selector": _SELECTOR,
    "source": {"file": "devices/list.csv", "format": "csv"},
    "id": "serial",
    "identify": {"certificate": "sha256", "certificateField": "fp", "tokenClaim": "device_id", "acceptUnbound": True},
    "fields": {"managed": "mdm", "os": ""},
    "times": {"posture": "at", "seen": "seen"},
    "maxAge": {"posture": "24h", "seen": "48h"},
    "graceAs": "compliant",
}
_SERIAL = {"certificate": "serial", "certificateField": "s", "certificateIssuer": "CN=CA", "serialFormat": "hex"}
_BY_SERIAL = {"source": {"file": "hosts.json", "format": "fleet"}, "identify": _SERIAL}
_CLASSES = {
    "selector": _SELECTOR,
    "rules": [{"class": "restricted", "to": [{"operation": _both(_OPERATION)}], "cost": 5}],
    "default": "internal",
    "demands": {
        "public": {"level": "LOW"}, "internal": {"user": 1, "device": 2, "network": 3, "behavior": 4},
        "confidential": {"level": "MEDIUM"}, "restricted": {"level": "HIGH", "device": 80},
    },
}  # fmt: skip


def _component(built_in: str) -> dict[str, Any]:
    signals = [
        {"name": built_in, "points": -30, "caps": "LOW"},
        {"name": "mine", "points": -1, "when": "request.method == 'DELETE'"},
        {"name": "new", "points": -5, "claimAge": {"claim": "account.created", "below": "720h"}},
        {"name": "violations", "points": -10, "most": -40, "count": {"claim": "violations"}},
    ]
    return {"weight": 25, "floor": 40, "signals": signals}


_WHO = [{"source": {"principals": ["*"]}}]
_ELIGIBLE = [{"key": "request.auth.claims[groups]", "values": ["developers"]}]
_ENTITLEMENT = {
    "who": _WHO,
    "when": _ELIGIBLE,
    "to": [{"operation": {"methods": ["GET"]}}],
    "maxDuration": "4h",
    "pendingFor": "24h",
    "reason": {"required": False, "pattern": "INC-[0-9]+"},
    "approvers": [{"from": _WHO, "when": _ELIGIBLE, "count": 2}],
    "breakGlass": {"who": _WHO, "when": _ELIGIBLE, "maxDuration": "30m", "reviewWithin": "24h"},
    "maxOpen": 5,
}
_GRANTABLE = json.dumps(
    {
        "apiVersion": "zta.dev/v1",
        "kind": "AccessEntitlement",
        "metadata": {"name": "payments", "namespace": "shop"},
        "spec": {"who": _WHO, "maxDuration": "1h", "approvers": [{"from": _WHO}]},
    }
)
_LAPTOPS = json.dumps(
    {
        "apiVersion": "zta.dev/v1",
        "kind": "DeviceInventory",
        "metadata": {"name": "laptops", "namespace": "shop"},
        "spec": {"source": {"file": "a"}, "id": "id", "identify": {"tokenClaim": "a"}},
    }
)
_UNTIL = {"until": "2036-01-31T18:00:00Z"}
_GRANTS = [
    {
        "entitlement": "payments",
        "subject": {"issuer": "https://i.example", "subject": "ann"},
        "from": "2026-01-31T18:00:00Z",
        "reason": "INC-1",
        **_UNTIL,
    },
    {"entitlement": "shop/payments", "subject": {"spiffeId": "spiffe://cluster.local/ns/a"}, **_UNTIL},
]
_EVENTS = {
    "session-revoked": "ignore", "token-claims-change": "revoke", "credential-change": {"revoke": ["update"]},
    "assurance-level-change": "trust", "device-compliance-change": "ignore", "risk-level-change": "ignore",
    "account-credential-change-required": "ignore", "account-purged": "ignore", "account-disabled": "ignore",
    "identifier-changed": "ignore", "identifier-recycled": "ignore", "credential-compromise": "ignore",
    "sessions-revoked": "revoke",
}  # fmt: skip
_SUBJECTS = {
    "iss_sub": "direct", "email": {"claim": "email"}, "session": {"claim": "sid"}, "device": {"inventory": "laptops"},
    "opaque": "session", "spiffeId": "direct",
}  # fmt: skip
_SIGNALS = [
    {
        "issuer": "https://idp.example", "jwksUri": "https://idp.example/jwks", "discovery": "https://idp.example/ssf",
        "audience": ["a"], "delivery": "poll", "endpoint": "https://idp.example/poll", "act": _EVENTS,
        "tokenIssuers": ["https://idp.example"], "subjects": _SUBJECTS, "maxSilence": "10m", "maxSubjects": 5,
        "maxTokenLife": "1h", "tenant": "t",
    },
    {
        "issuer": "https://idp.example", "audience": "a", "subjects": {"session": "none"},
        "act": {"credential-change": "ignore"},
    },
]  # fmt: skip
_MODEL = {
    "selector": _SELECTOR, "seedCompatible": False, "allowedCountries": ["DE"], "leastReputation": 50,
    "components": {
        "user": _component("noMfa"), "device": _component("unmanaged"),
        "network": _component("badReputation"), "behavior": _component("unusualTime"),
    },
    "levels": {"LOW": 40, "MEDIUM": 60, "HIGH": 80}, "sessions": {"LOW": "30m", "MEDIUM": "1h", "HIGH": "2h"},
    "reverify": "5m",
}  # fmt: skip
_ASSUMED = {"components": {name: {"assume": 50} for name in ("user", "device", "network", "behavior")}}
_REQUEST = {
    "method": "GET", "path": "", "host": "", "scheme": "https", "headers": {"x-a": "1", "x-b": ["1", ""]},
    "source": {"ip": "10.0.0.1", "port": 40000}, "destination": {"ip": "::1", "port": 0}, "sni": "a",
    "principal": "spiffe://cluster.local/ns/shop/sa/a",
    "claims": {"iss": "", "sub": "ann", "jti": "1", "iat": 1, "nbf": 0.5, "exp": 2, "aud": ["a"], "other": {"x": [1]}},
    "facts": {
        "network": {"country": "DE", "asn": 64500, "anonymous": False, "reputation": 90, "corporate": False},
        "trust": {"level": "LOW", "score": 70.5, "user": 1, "device": 2, "network": 3, "behavior": 4},
        "device": {"id": "a", "managed": True, "os": "macOS", "lastSeen": 1700000000, "compliant": 1},
        "signals": {"risk": "HIGH", "assurance": "NIST-AAL/nist-aal2"},
    },
    "caller": "spiffe://cluster.local/ns/shop/sa/proxy", "destinationPrincipal": "spiffe://cluster.local/ns/a/sa/b",
    "contextExtensions": {"a": ""}, "metadata": {"envoy.filters.http.x": {"a": [1]}},
}  # fmt: skip
_OPTIONS = {
    "semantics": "strict", "default_action": None, "workload": {"namespace": "shop", "labels": {"app": "shop"}},
    "root_namespace": "root", "peer": {"verify_certificate": "never"}, "client_address": {"xff_num_trusted_hops": 1},
    "paths": {"ambiguous": "reject"},
}  # fmt: skip
_SHARED = {
    "workloads": [{"principal": "spiffe://cluster.local/ns/a/sa/b", "namespace": "a", "labels": {"app": "b"}}],
    "gateways": [{"spiffe_id": "unix", "namespaces": ["a*"]}],
}


def _policy_tests() -> list[dict[str, Any]]:
    at, policy = "2027-01-31T18:00:00Z", {"policy": "shop/a", "rule": "staff"}
    tests = [
        {
            "name": "a",
            "request": {"method": "GET"},
            "at": at,
            "expect": {"verdict": "allow", "reason": "allow_policy", "mint": "orders", **policy},
        },
        {
            "name": "c",
            "request": {},
            "expect": {"trust": {"level": "LOW", "score": 70.5, "user": 1, "device": 2, "network": 3, "behavior": 4}},
        },
        {"name": "b", "request": {}, "expect": {"deny": "step_up_required", "acr": ["phr"], **policy, "rule": 0}},
    ]
    head = {"apiVersion": "zta.dev/v1", "kind": POLICY_TEST, "policies": ["policies"]}
    whole = {**head, "options": _OPTIONS, "at": at, "tests": tests}
    return [whole, {**head, "options": _SHARED, "tests": tests[-1:]}]


@cache
def _complete() -> dict[str, list[dict[str, Any]]]:
    return {
        "AccessPolicy": _access_policies(),
        "TrustBundle": _trust_bundles(),
        "RevocationList": [_document("RevocationList", _REVOCATIONS)],
        "IssuerPolicy": [_document("IssuerPolicy", _ISSUER)],
        "ApiKeySet": [_document("ApiKeySet", _API_KEYS)],
        "TrustModel": [_document("TrustModel", _MODEL), _document("TrustModel", _ASSUMED)],
        "DeviceInventory": [_document("DeviceInventory", spec) for spec in (_INVENTORY, _BY_SERIAL)],
        "ResourceClassification": [_document("ResourceClassification", _CLASSES)],
        "AccessEntitlement": [_document("AccessEntitlement", _ENTITLEMENT)],
        "AccessGrant": [_document("AccessGrant", spec) for spec in _GRANTS],
        "SignalSource": [_document("SignalSource", spec) for spec in _SIGNALS],
        POLICY_TEST: _policy_tests(),
        REQUEST: [_REQUEST, {"token": "a.b.c", "certificate": _certificate()}],
    }


def complete_documents(name: str) -> list[dict[str, Any]]:
    """Documents of this kind that the service accepts and that use every field together."""
    return _complete()[name]


def faults_of(name: str, document: Any, folder: Path = Path()) -> list[str]:
    """What the service reports about the document. `folder` has the policies of a PolicyTest."""
    text = json.dumps(document, ensure_ascii=False)
    if name not in (POLICY_TEST, REQUEST):
        beside = [made for word, made in (("rant", _GRANTABLE), ("laptops", _LAPTOPS)) if word in text]
        return faults(text, *beside)
    found: list[Fault] = []
    (node,) = read_documents("a.yaml", text, found) or [None]
    if node is not None and name == REQUEST:
        read_request(Reader("a.yaml", found), node, folder)
    elif node is not None:
        _SuiteReader(Reader("a.yaml", found), folder).read(node)
    return [str(fault) for fault in found]
