"""Documents about credentials: their content, and every fault at its position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.policies import faults, request, snapshot
from zta_authz.model.identity import ApiClient, Identity
from zta_authz.model.request import NO_EVIDENCE
from zta_authz.pdp.decide import combine
from zta_authz.pdp.explain import explain
from zta_authz.policy.documents.reader import read_all
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.errors import Fault
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.documents.spec import DocumentSet
    from zta_authz.policy.rules.clauses import Clause

ISSUER = "apiVersion: zta.dev/v1\nkind: IssuerPolicy\nmetadata: {name: i}\nspec:\n"


def documents(text: str) -> DocumentSet:
    reported: list[Fault] = []
    read = read_all([("a.yaml", text)], "default", reported, reported, lambda _: None)
    assert reported == []
    return read


def test_every_limit_of_an_issuer_is_read() -> None:
    spec = """
  issuer: https://i
  maxTokenAge: 1h30m
  allowMissingExp: true
  requireBound: true
  requireKid: true
  algorithms: [ES256, HS512]
  types: [at+jwt]
"""
    [policy] = documents(ISSUER + spec).issuer_policies
    assert (policy.issuer, policy.max_token_age, policy.allow_missing_exp) == ("https://i", 5400.0, True)
    assert (policy.require_bound, policy.require_kid) == (True, True)
    assert (policy.algorithms, policy.types) == (("ES256", "HS512"), ("at+jwt",))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("  issuer: i\n", "5:3: the policy sets no limit"),
        ("  requireKid: true\n", "IssuerPolicy.spec has no `issuer`"),
        ("  issuer: ''\n  requireKid: true\n", "`issuer` is empty"),
        ("  issuer: i\n  algorithms: [none]\n", "`none` is not an accepted algorithm"),
        ("  issuer: i\n  algorithms: []\n", "`algorithms` is an empty list"),
        ("  issuer: i\n  maxTokenAge: 9000h\n", "not a duration from 1ms to 8784h"),
        ("  issuer: i\n  requireBound: 'true'\n", "`requireBound`"),
        ("  issuer: i\n  maxAge: 1h\n", "unknown field `maxAge`"),
    ],
)
def test_an_invalid_limit_is_a_fault(spec: str, message: str) -> None:
    assert message in "\n".join(faults(ISSUER + spec))


KEYS = "apiVersion: zta.dev/v1\nkind: ApiKeySet\nmetadata: {name: k, namespace: shop}\nspec:\n"
HASH = "sha256:" + "ab" * 32


def test_every_part_of_a_key_set_is_read() -> None:
    spec = f"""
  selector: {{matchLabels: {{app: orders}}}}
  header: X-Partner
  forward: true
  clients:
  - name: acme
    scopes: [a, b]
    keys: [{{hash: "{HASH}", comment: old, notBefore: 1970-01-01T00:00:10Z, expiresAt: 1970-01-01T00:00:20Z}}]
  - {{name: other, keys: [{{hash: "sha512:{"CD" * 64}"}}]}}
"""
    [key_set] = documents(KEYS + spec).api_keys
    assert (key_set.namespace, key_set.name, key_set.header, key_set.forward) == ("shop", "k", "x-partner", True)
    assert key_set.selector.labels == {"app": "orders"}
    acme, other = key_set.clients
    assert (acme.name, acme.scopes) == ("acme", ("a", "b"))
    [key] = acme.keys
    assert (key.digest, key.not_before, key.expires) == (b"\xab" * 32, 10.0, 20.0)
    assert (other.scopes, other.keys[0].digest) == ((), b"\xcd" * 64)


def one_key(**changed: str) -> str:
    fields = {"hash": f'"{HASH}"'} | changed
    return f"  clients: [{{name: a, keys: [{{{', '.join(f'{name}: {value}' for name, value in fields.items())}}}]}}]\n"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("  header: x\n", "ApiKeySet.spec has no `clients`"),
        ("  clients: []\n", "`clients` is an empty list"),
        ("  clients: [{keys: []}]\n", "a client has no `name`"),
        ("  clients: [{name: a}]\n", "a client has no `keys`"),
        ("  clients: [{name: a, keys: []}]\n", "`keys` is an empty list"),
        ("  clients: [{name: a, keys: [{}]}]\n", "a key has no `hash`"),
        (one_key(hash='"secret"'), "`hash` is not `sha256:` and 64 hex digits"),
        (one_key(hash=f'"md5:{"a" * 32}"'), "`hash` is not `sha256:` and 64 hex digits"),
        (one_key(hash=f'"sha512:{"a" * 64}"'), "`hash` is not `sha256:` and 64 hex digits"),
        (one_key(hash='"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"'), "an empty text"),
        (one_key(expiresAt="soon"), "`expiresAt` is not a time"),
        (one_key(notBefore="2026-01-01T00:00:00Z", expiresAt="2026-01-01T00:00:00Z"), "is not after `notBefore`"),
        (one_key() + "  header: authorization\n", "keys can't be read from the header `authorization`"),
        (one_key() + "  header: 'a b'\n", "`header` is not a header name"),
        (one_key().replace("keys:", "scopes: [a b], keys:"), "scope `a b` contains a blank"),
        (
            f"  clients: [{{name: a, keys: [{{hash: '{HASH}'}}]}}, {{name: a, keys: [{{hash: '{HASH[:-1]}0'}}]}}]\n",
            "duplicate client",
        ),
        (
            f"  clients: [{{name: a, keys: [{{hash: '{HASH}'}}]}}, {{name: b, keys: [{{hash: '{HASH}'}}]}}]\n",
            "is also at",
        ),
    ],
)
def test_an_invalid_key_set_is_a_fault(spec: str, message: str) -> None:
    assert message in "\n".join(faults(KEYS + spec))


RULES = """apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: p}
spec:
  rules:
  - when: [{key: zta.apiClient, values: [acme]}, {key: zta.apiScopes, values: ["orders:*"], notValues: ["orders:none"]}]
  - condition: apiClient.name == 'beta' && 'x' in apiClient.scopes
"""


@pytest.mark.parametrize(
    ("client", "rule"),
    [
        (ApiClient("acme", ("orders:read",)), 0),
        (ApiClient("acme", ("stock", "orders:write")), 0),
        (ApiClient("acme", ("stock",)), None),
        (ApiClient("acme", ("orders:read", "orders:none")), None),
        (ApiClient("acme2", ("orders:read",)), None),
        (ApiClient("beta", ("x",)), 1),
        (ApiClient("beta", ()), None),
        (None, None),
    ],
)
def test_rules_and_conditions_can_require_the_client_and_its_scopes(client: ApiClient | None, rule: int | None) -> None:
    compiled = snapshot(RULES)
    inputs = Inputs(request(), Identity(api_client=client), compiled.options)
    decision = combine(compiled.table.default_view, inputs, default_allow=False)
    assert (decision.allowed, decision.rule) == (rule is not None, rule)


def test_istios_authorization_policy_has_no_api_client_keys() -> None:
    text = RULES.replace("zta.dev/v1", "security.istio.io/v1").replace("AccessPolicy", "AuthorizationPolicy")
    assert "condition key `zta.apiClient` is for AccessPolicy only" in "\n".join(faults(text))


def test_explanations_show_the_api_client() -> None:
    compiled = snapshot(RULES)
    (miss, _) = explain(compiled, request(), NO_EVIDENCE, 0.0).nearest[:2]
    assert "saw" in miss.failed[0]
    texts = [clause.actual(Inputs(request(), Identity(), compiled.options)) for clause in _first_rule(compiled)]
    assert texts[:2] == ["nothing", "nothing"]


def _first_rule(compiled: Snapshot) -> tuple[Clause, ...]:
    return compiled.table.default_view.allow.rules[0].clauses


BUNDLE = "apiVersion: zta.dev/v1\nkind: TrustBundle\nmetadata: {name: b}\nspec:\n  trustDomain: td\n"


def test_the_audiences_of_jwt_svids_are_read_and_need_keys() -> None:
    spec = "  jwtAuthorities: {keys: []}\n  jwtSvidAudiences: [a, b]\n"
    assert documents(BUNDLE + spec).bundles[0].jwt_svid_audiences == ("a", "b")
    without = "\n".join(faults(BUNDLE + "  x509Authorities: x\n  jwtSvidAudiences: [a]\n"))
    assert "a.yaml:7:21: `jwtSvidAudiences` needs keys that sign JWT-SVIDs" in without
    assert "`jwtSvidAudiences` is an empty list" in "\n".join(
        faults(BUNDLE + "  jwtAuthorities: {keys: []}\n  jwtSvidAudiences: []\n")
    )
