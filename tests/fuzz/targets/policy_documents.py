"""Any text gives a Snapshot, or DocumentErrors whose faults all say where and what, and nothing else, in bounded time.

A text of Istio's own AuthorizationPolicies that loads decides requests aimed at it like the reference evaluator. A trust
model that loads assesses every request, and never better where a fact is unknown.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import material
from tests.fuzz.target import Target, as_written, assert_telling, text_of
from tests.fuzz.targets.check_request import RULES
from tests.property import reference_evaluator
from tests.property.fact_invariants import decided, inputs_of
from tests.property.fact_shapes import FactShapes
from tests.property.policy_shapes import Draft, Shapes
from zta_authz.errors import DocumentErrors
from zta_authz.model.options import Options, Workload
from zta_authz.pdp.decide import combine
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot
from zta_authz.policy.rules.inputs import Inputs

INVARIANT = (
    "any text gives a Snapshot or DocumentErrors whose faults all have a source and a message, in bounded time, and what "
    "loads decides like the reference evaluator"
)
_EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "policies"
_REQUESTS = 3
_ISTIO = ("security.istio.io/v1", "security.istio.io/v1beta1")
_WORKLOAD = Workload(labels={"app": "web"})
READINGS = (Options(workload=_WORKLOAD), replace(Options.istio(), workload=_WORKLOAD))


def check(data: bytes) -> None:
    """Load the text in both readings."""
    text = text_of(data)
    for options in READINGS:
        try:
            snapshot = compile_snapshot([SourceText("fuzz.yaml", text)], options)
        except DocumentErrors as error:
            assert_telling(error.faults)
            return
        for warning in snapshot.warnings:
            assert warning.source
            assert warning.message
        if snapshot.models.select(_WORKLOAD).trust is not None:
            assess(snapshot, Random(zlib.crc32(data)))
        documents = comparable(text)
        if documents is not None:
            compare(snapshot, documents, Random(zlib.crc32(data)))


def assess(snapshot: Snapshot, random: Random) -> None:
    """A trust model that somebody wrote gives scores and levels in range, and no better ones for an unknown fact."""
    state = FactShapes(random).state()
    before = inputs_of(snapshot, state).facts.trust
    assert before is not None
    assert 0 <= before.score <= 10000
    for other in state.losing():
        if other.claims == state.claims:  # a condition of a model may count on a claim that is missing
            after = inputs_of(snapshot, other).facts.trust
            assert after is not None
            assert (after.score, after.level) <= (before.score, before.level)
            assert after.level <= before.level
    decided(snapshot, state)


def compare(snapshot: Snapshot, documents: list[dict[str, Any]], random: Random) -> None:
    """Requests aimed at the rules are decided as by the reference evaluator."""
    shapes = Shapes(random, strict=snapshot.options.strict)
    rules = [rule for document in documents for rule in document["spec"].get("rules", ())]
    for _ in range(_REQUESTS):
        draft = _aimed(shapes, rules)
        case = reference_evaluator.Case(draft.request(), draft.identity(), snapshot.options)
        inputs = Inputs(case.request, case.identity, case.options)
        decision = combine(snapshot.table.default_view, inputs, default_allow=case.options.default_allow)
        found = (decision.policy, decision.rule) if decision.policy else None
        expected = reference_evaluator.decide(documents, case)
        assert (str(decision.verdict), found) == expected, f"{decision} instead of {expected} for {draft}"


def _aimed(shapes: Shapes, rules: list[dict[str, Any]]) -> Draft:
    try:
        return shapes.aimed(rules)
    except (ValueError, AssertionError, KeyError):  # a value that no request can be made of
        return shapes.draft()


def comparable(text: str) -> list[dict[str, Any]] | None:
    """The documents as another reader of YAML gives them, None where the reference evaluator does not know their fields."""
    documents = [document for document in as_written(text) if document != ""]
    return documents if all(_is_plain(document) for document in documents) else None


def _is_plain(document: Any) -> bool:
    if not isinstance(document, dict) or document.get("apiVersion") not in _ISTIO:
        return False
    spec, metadata = document.get("spec"), document.get("metadata")
    if document.get("kind") != "AuthorizationPolicy" or not isinstance(spec, dict) or not isinstance(metadata, dict):
        return False
    selector = spec.get("selector", {})
    labels = selector.get("matchLabels", {}) if isinstance(selector, dict) else None
    rules = spec.get("rules", [])
    known = set(spec) <= {"selector", "action", "rules"} and isinstance(metadata.get("annotations", {}), dict)
    return known and isinstance(labels, dict) and isinstance(rules, list) and all(map(_is_plain_rule, rules))


def _is_plain_rule(rule: Any) -> bool:
    return isinstance(rule, dict) and all(isinstance(section, list) for section in rule.values())


_ACCESS = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: access}
spec:
  action: ALLOW
  effectiveFrom: 2026-01-01T00:00:00Z
  response: {headers: {set: [{name: x-team, value: a}, {name: x-who, claim: [realm, name]}], remove: [x-debug]}}
  rules:
  - from: [{source: {principals: ["*"]}}]
    require: {token: {bound: true, maxAge: 15m}}
    condition: >-
      request.method == "GET" && claims.level >= 3 && claims.groups.exists(g, g == 'finance')
    schedule: {timeZone: Europe/Berlin, windows: [{days: [Mon, Fri], from: "08:00", to: "18:00"}]}
    response: {status: 403, message: "no"}
"""
_LISTS = """
apiVersion: zta.dev/v1
kind: RevocationList
metadata: {name: incident}
spec:
  tokens: [{id: 0b1c7a, issuer: "https://issuer.example"}]
  keys: [{id: key-7, issuer: "https://issuer.example", before: 2026-03-01T00:00:00Z}]
  certificates: [{serial: "4a:01:7f"}]
  spiffeIds: [{prefix: spiffe://cluster.local/ns/abandoned/}]
---
apiVersion: zta.dev/v1
kind: IssuerPolicy
metadata: {name: issuer}
spec: {issuer: "https://issuer.example", maxTokenAge: 1h, requireKid: true, algorithms: [ES256]}
"""
_TOKENS = f"""
apiVersion: v1
kind: List
items:
- apiVersion: security.istio.io/v1
  kind: RequestAuthentication
  metadata: {{name: jwt}}
  spec:
    jwtRules:
    - {{issuer: "{material.ISSUER}", audiences: [hatshop], jwks: '{material.jwks()}', fromCookies: [c]}}
    - {{issuer: b, jwksUri: "https://b.example/keys", forwardOriginalToken: true}}
- apiVersion: zta.dev/v1
  kind: TrustBundle
  metadata: {{name: local}}
  spec: {{trustDomain: cluster.local, x509Authorities: {json.dumps(material.trust_bundle())}}}
"""
_MODELS = """
apiVersion: zta.dev/v1
kind: TrustModel
metadata: {name: model}
spec:
  allowedCountries: [DE, FR]
  levels: {LOW: 40, MEDIUM: 60, HIGH: 85}
  sessions: {LOW: 10m}
  components:
    user:
      weight: 40
      floor: 60
      signals:
      - {name: noMfa, points: -50, caps: MEDIUM}
      - {name: newAccount, claimAge: {claim: account_created_at, below: 720h}, points: -20}
      - {name: strikes, count: {claim: risk.strikes}, points: -10, most: -30}
      - {name: contractor, when: 'claims.employment == "contractor" || device.fields.os != "macOS"', points: -15}
    behavior: {assume: 70}
---
apiVersion: zta.dev/v1
kind: ResourceClassification
metadata: {name: classes}
spec:
  default: internal
  rules:
  - {class: public, to: [{operation: {methods: [GET], paths: ["/catalog/*"], notHosts: [vault.example]}}]}
  - {class: restricted, cost: 10, to: [{operation: {paths: ["/refunds/{*}"], ports: ["443"]}}]}
  demands: {restricted: {level: HIGH, device: 80}}
---
apiVersion: zta.dev/v1
kind: DeviceInventory
metadata: {name: fleet}
spec:
  source: {file: devices.jsonl, format: jsonl}
  id: serial
  identify: {certificate: spiffeId, certificateField: spiffe_id, tokenClaim: device_id}
  fields: {managed: mdm.enrolled, os: os.name}
  times: {posture: checked_at, seen: last_seen}
  maxAge: {posture: 24h, seen: 168h}
  graceAs: unknown
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: facts}
spec:
  rules:
  - require:
      device: {managed: true, osAtLeast: {macOS: "26.1"}, seenWithin: 24h}
      network: {countries: [DE], notCountries: [KP], asns: [64500], anonymous: false, reputationAtLeast: 50}
      trust: {level: HIGH, user: 90, stepUp: {acr: [phr], maxAge: 10m, login: "/login?to={path}"}, showComponents: true}
      authentication: {acr: [phr], acrAtLeast: 2, amr: [hwk], maxAge: 5m}
    when: [{key: zta.remote.country, values: [DE]}, {key: zta.device.managed, notValues: ["false"]}, {key: zta.trust.level, values: [HIGH]}]
    condition: remote.reputation > 50 && trust.score >= 60.0 && resource.class != 'restricted'
"""
_CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: policies}
data:
  a.yaml: |
    apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: a, annotations: {istio.io/dry-run: "true"}}
    spec: {action: DENY, rules: [{}]}
"""


def seeds() -> dict[str, bytes]:
    """Documents of every kind, the examples that users are given, and texts made to use up time or memory."""
    random = Random("seeds")
    shapes = Shapes(random, strict=True)
    drawn = {f"drawn-{n}": json.dumps(shapes.documents(6)[0]) for n in range(6)}
    aliases = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
    )
    stars = "(a*)*" * 300
    many = ", ".join(f'"/{n}/{{**}}/x"' for n in range(400))
    texts = {
        **drawn,
        **{path.stem: path.read_text() for path in _EXAMPLES.glob("*.yaml")},
        "rules": RULES,
        "access": _ACCESS,
        "lists": _LISTS,
        "tokens": _TOKENS,
        "config-map": _CONFIG_MAP,
        "models": _MODELS,
        "many-signals": _MODELS.replace("      signals:\n", "      signals:\n" + "".join(f"      - {{name: s{n}, when: 'claims.a{n}.exists(x, x == 1)', points: -1}}\n" for n in range(28))),
        "many-classes": _MODELS.replace("  rules:\n  - {class", "  rules:\n" + "".join(f"  - {{class: public, to: [{{operation: {{paths: ['/{n}/{{**}}/x']}}}}]}}\n" for n in range(150)) + "  - {class"),
        "aliases": aliases,
        "nested": "[" * 5000,
        "nested-keys": "{? " * 2000,
        "many-anchors": "\n".join(f"- &a{n} x" for n in range(1500)),
        "long-key": f"? {'k' * 12000}\n: v",
        "many-paths": RULES.replace('"/admin", ', many + ", "),
        "stars": RULES.replace("/vault/{**}", "/{*}" * 300 + "/{**}"),
        "claims": RULES.replace("claims[groups]", "claims" + "[a]" * 2000),
        "conditions": _ACCESS.replace("request.method ==", "(" * 2000 + "request.method =="),
        "matches": _ACCESS.replace('request.method == "GET"', f'request.path.matches("{stars}b")'),
        "digits": RULES.replace("192.0.2.0/24", "9" * 10000),
        "big-number": f"a: {'9' * 10000}",
        "empty": "",
    }  # fmt: skip
    return {name: text.encode() for name, text in texts.items()}


WORDS = (
    b"AuthorizationPolicy", b"AccessPolicy", b"RevocationList", b"IssuerPolicy", b"TrustBundle", b"notPaths", b"notValues",
    b"principals", b"requestPrincipals", b"serviceAccounts", b"remoteIpBlocks", b"trustDomains", b"hosts", b"ports",
    b"TrustModel", b"ResourceClassification", b"DeviceInventory", b"seedCompatible: true", b"weight: 0", b"floor", b"caps: DENY", b"claimAge",
    b"acrLevels", b"demands", b"device.fields", b"zta.device.x", b"request.headers[x-a]", b"request.auth.claims[a][b]", b"source.ip", b"destination.port", b"connection.sni",
    b"experimental.envoy.filters.f[k]", b"{*}", b"{**}", b"*", b"spiffe://", b"selector", b"matchLabels", b"action",
    b"DENY", b"AUDIT", b"&a ", b"*a", b"<<: ", b"!!binary ", b"---\n", b"? ", b"|\n", b'"\\u0000"', b"\xef\xbb\xbf", b"~",
    b"condition", b"schedule", b"timezone", b"require", b"cluster.local/ns/foo/sa/bar", b"::/0", b"true", b"%{",
)  # fmt: skip

TARGET = Target("policy_documents", INVARIANT, check, seeds, WORDS)
