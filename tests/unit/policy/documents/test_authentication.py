"""RequestAuthentication and TrustBundle: their shape, and every deviation with its position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.policies import faults, warnings
from zta_authz.model.documents import ClaimToHeader, FromHeader, JwtRule, RequestAuthentication, TrustBundle
from zta_authz.policy.documents.reader import read_all

if TYPE_CHECKING:
    from zta_authz.errors import Fault

TOP = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: p}\n"
BUNDLE = "apiVersion: zta.dev/v1\nkind: TrustBundle\nmetadata: {name: b}\n"
KEYS = '{"keys": []}'
PUBLIC = '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'  # RFC 8037


def documents(text: str) -> tuple[list[RequestAuthentication], list[TrustBundle], list[str]]:
    reported: list[Fault] = []
    read = read_all([("f.yaml", text)], "default", reported, [], lambda _: None)
    return read.authentications, read.bundles, [str(fault) for fault in reported]


def jwt_rule(text: str) -> tuple[JwtRule | None, list[str]]:
    """The rule whose fields start at line 5, column 3, after its issuer in line 4."""
    authentications, _, reported = documents(f"{TOP}spec: {{jwtRules: [{{issuer: i,\n  {text}}}]}}\n")
    rules = authentications[0].rules
    return (rules[0] if rules else None), reported


def test_every_field_of_a_jwt_rule_is_read() -> None:
    (authentication,), _, reported = documents(
        f"""{TOP}spec:
  selector: {{matchLabels: {{app: web}}}}
  jwtRules:
  - issuer: https://iss.example
    audiences: [a, b]
    jwksUri: https://iss.example/jwks.json
    fromHeaders: [{{name: X-Token, prefix: 'Bearer '}}, {{name: x-raw, prefix: ''}}]
    fromParams: [token]
    fromCookies: [session]
    outputPayloadToHeader: X-Payload
    outputClaimToHeaders: [{{header: X-Sub, claim: sub}}, {{header: x-role, claim: realm.role}}]
    forwardOriginalToken: true
    spaceDelimitedClaims: [roles]
    timeout: 1m30s
  - issuer: other
    jwks: '{KEYS}'
"""
    )
    assert reported == []
    first, second = authentication.rules
    assert authentication.selector.labels == {"app": "web"}
    assert (first.policy, first.issuer, first.audiences) == ("default/p", "https://iss.example", ("a", "b"))
    assert (first.jwks, first.jwks_uri) == (None, "https://iss.example/jwks.json")
    assert first.from_headers == (FromHeader("x-token", "Bearer "), FromHeader("x-raw", ""))
    assert (first.from_params, first.from_cookies) == (("token",), ("session",))
    assert first.output_payload_to_header == "x-payload"
    assert first.output_claim_to_headers == (ClaimToHeader("x-sub", "sub"), ClaimToHeader("x-role", "realm.role"))
    assert (first.forward_original_token, first.space_delimited_claims) == (True, ("roles",))
    assert first.timeout_seconds == 90
    assert (second.jwks, second.forward_original_token, second.timeout_seconds) == (KEYS, False, 5.0)
    assert (first.position.line, second.position.line) == (7, 18)


def test_a_rule_may_require_its_token_and_may_name_no_issuer() -> None:
    for text, required in (("presence: REQUIRED", True), ("presence: OPTIONAL", False), ("audiences: [a]", False)):
        rule, reported = jwt_rule(text)
        assert rule is not None
        assert (rule.required, reported) == (required, [])
    for rules in ("{jwksUri: https://x/}", f"{{jwks: '{KEYS}'}}"):
        (authentication,), _, reported = documents(f"{TOP}spec: {{jwtRules: [{rules}]}}\n")
        assert ([rule.issuer for rule in authentication.rules], reported) == ([""], [])


def test_a_document_without_rules_has_only_a_name() -> None:
    (authentication,), _, reported = documents(f"{TOP}spec: {{}}\n")
    assert (authentication.rules, reported) == ((), [])


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("250ms", 0.25), ("1h", 3600), ("0.5s", 0.5), ("1m1s", 61), ("1ms", 0.001)]
)
def test_a_timeout_is_a_kubernetes_duration(text: str, seconds: float) -> None:
    rule, reported = jwt_rule(f"timeout: {text}")
    assert reported == []
    assert rule is not None
    assert rule.timeout_seconds == seconds


_URI = "is not an HTTP or HTTPS URL; write https://issuer.example/jwks.json"
_NAME = "is not a header name; use letters, digits and `-`"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("jwksURI: x", "5:3: unknown field `jwksURI` in a JWT rule; did you mean `jwksUri`?"),
        ("jwksUri: ftp://x/", f"5:12: `jwksUri` {_URI}"),
        ("jwksUri: 'https://'", f"5:12: `jwksUri` {_URI}"),
        ("jwksUri: 'https://x y/'", f"5:12: `jwksUri` {_URI}"),
        ("jwksUri: 'https://[x/'", f"5:12: `jwksUri` {_URI}"),
        ("jwks_uri: '/x'", f"5:13: `jwks_uri` {_URI}"),
        (
            f"jwks: '{KEYS}', jwksUri: https://x/",
            "4:19: a JWT rule has both `jwks` and `jwksUri`; remove one of the two",
        ),
        ("jwks: {keys: []}", "5:9: `jwks` is a mapping where a string is expected; write a string"),
        ("audiences: []", "5:14: `audiences` is an empty list; list at least one of the strings, or remove the field"),
        ("fromHeaders: [{prefix: x}]", "5:17: an entry of `fromHeaders` has no `name`; add `name`"),
        ("fromHeaders: [{name: 'x y'}]", f"5:24: `x y` in `name` {_NAME}"),
        ("fromHeaders: [{name: ''}]", "5:24: `name` is empty; write a value or remove the field"),
        (
            "fromHeaders: [x]",
            "5:17: an entry of `fromHeaders` is a string where a mapping of fields is expected; write a mapping of fields",
        ),
        ("outputPayloadToHeader: 'x:'", f"5:26: `x:` in `outputPayloadToHeader` {_NAME}"),
        ("outputClaimToHeaders: [{header: x}]", "5:26: an entry of `outputClaimToHeaders` has no `claim`; add `claim`"),
        (
            "outputClaimToHeaders: [{claim: x}]",
            "5:26: an entry of `outputClaimToHeaders` has no `header`; add `header`",
        ),
        (
            "outputClaimToHeaders: [{header: x, claim: 'a b'}]",
            "5:45: `a b` is not a claim name; use letters, digits, `_`, `-`, `:`, `/` and `.`",
        ),
        (
            "forwardOriginalToken: 'true'",
            "5:25: `forwardOriginalToken` is a string where `true` or `false` is expected; write `true` or `false`",
        ),
        (
            "forwardOriginalToken: yes",
            "5:25: `forwardOriginalToken` is `yes` where `true` or `false` is expected; write `true` or `false`",
        ),
        ("presence: MANDATORY", "5:13: unknown `presence` `MANDATORY`; write `REQUIRED` or `OPTIONAL`"),
        (
            "presence: true",
            '5:13: `presence` has the boolean `true` where a string is expected; write it in quotes: "true"',
        ),
        ("timeout: 5", '5:12: `timeout` has the integer `5` where a string is expected; write it in quotes: "5"'),
        ("timeout: 5x", "5:12: `timeout` is `5x`, not a duration from 1ms to 1h; write it like `5s`"),
        ("timeout: 2h", "5:12: `timeout` is `2h`, not a duration from 1ms to 1h; write it like `5s`"),
        ("timeout: 0s", "5:12: `timeout` is `0s`, not a duration from 1ms to 1h; write it like `5s`"),
    ],
)
def test_an_invalid_field_of_a_jwt_rule_is_reported_with_position_and_hint(text: str, fault: str) -> None:
    assert jwt_rule(text)[1] == [f"f.yaml:{fault}"]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("{jwtRule: []}", "4:8: unknown field `jwtRule` in RequestAuthentication.spec; did you mean `jwtRules`?"),
        (
            "{jwtRules: {}}",
            "4:18: `jwtRules` is a mapping where a list of JWT rules is expected; write a list of JWT rules",
        ),
        (
            "{jwtRules: [x]}",
            "4:19: `a JWT rule` is a string where a mapping of fields is expected; write a mapping of fields",
        ),
        (
            "{jwtRules: [{audiences: [a]}]}",
            "4:19: a JWT rule without `issuer` has no keys; add `issuer`, or `jwksUri` to accept any issuer",
        ),
        ("{jwtRules: [{issuer: ''}]}", "4:28: `issuer` is empty; write a value or remove the field"),
    ],
)
def test_an_invalid_request_authentication_is_reported_with_position_and_hint(spec: str, fault: str) -> None:
    assert documents(f"{TOP}spec: {spec}\n")[2] == [f"f.yaml:{fault}"]


def test_a_request_authentication_for_a_gateway_gives_a_warning() -> None:
    text = f"{TOP}spec: {{targetRefs: [{{kind: Gateway}}], jwtRules: [{{issuer: i}}]}}\n"
    assert warnings(text) == [
        (
            "a.yaml:1:1: RequestAuthentication `default/p` is not used here: `targetRefs` attaches it to a gateway or waypoint; "
            "leave it to Istio and remove it here"
        )
    ]
    assert documents(text)[0] == []


def test_the_authorities_of_a_trust_domain_are_read_with_their_positions() -> None:
    text = f"{BUNDLE}spec:\n  trustDomain: td.example\n  x509Authorities: |\n    PEM\n  x509Intermediates: more\n"
    text += '  jwtAuthorities: {keys: [{kty: EC, n: 1, ok: true, none: ~}], "sequence": 1.5}\n'
    _, (bundle,), reported = documents(text)
    assert reported == []
    assert (bundle.trust_domain.name, bundle.x509_authorities, bundle.x509_intermediates) == (
        "td.example",
        "PEM\n",
        "more",
    )
    assert bundle.jwt_authorities == {"keys": [{"kty": "EC", "n": 1, "ok": True, "none": None}], "sequence": 1.5}
    places = [bundle.x509_authorities_position, bundle.x509_intermediates_position, bundle.jwt_authorities_position]
    assert [(place.line, place.column) for place in places if place] == [(6, 20), (8, 22), (9, 19)]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("{x509Authorities: x}", "4:7: TrustBundle.spec has no `trustDomain`; add `trustDomain`"),
        (
            "{trustDomain: 7}",
            '4:21: `trustDomain` has the integer `7` where a string is expected; write it in quotes: "7"',
        ),
        (
            "{trustDomain: TD, x509Authorities: x}",
            (
                "4:21: `trustDomain` `TD`: a trust domain is 1 to 255 characters of a-z, 0-9, `.`, `-` and `_`, in lower case; "
                "write it like `cluster.local`"
            ),
        ),
        (
            "{trustDomain: td}",
            "4:7: the bundle has no authorities; add `x509Authorities`, `jwtAuthorities` or `spiffeBundle`",
        ),
        (
            "{trustDomain: td, jwtAuthorities: x}",
            "4:41: `jwtAuthorities` is not a JSON Web Key Set; write `keys:` with a list of keys (RFC 7517)",
        ),
        (
            "{trustDomain: td, jwtAuthorities: {keys: {}}}",
            "4:41: `jwtAuthorities` is not a JSON Web Key Set; write `keys:` with a list of keys (RFC 7517)",
        ),
        (
            "{trustDomain: td, x509Authorites: x, jwtAuthorities: {keys: []}}",
            "4:25: unknown field `x509Authorites` in TrustBundle.spec; did you mean `x509Authorities`?",
        ),
    ],
)
def test_an_invalid_trust_bundle_is_reported_with_position_and_hint(spec: str, fault: str) -> None:
    assert documents(f"{BUNDLE}spec: {spec}\n")[2] == [f"f.yaml:{fault}"]


def test_faults_of_policies_and_keys_are_in_one_report() -> None:
    policy = TOP.replace("RequestAuthentication", "AuthorizationPolicy")
    reported = faults(
        f"{policy}spec: {{rules: [{{to: [{{operation: {{ports: ['x']}}}}]}}]}}\n",
        f"{TOP}spec: {{jwtRules: [{{issuer: i, jwks: 'no'}}]}}\n",
    )
    assert [fault.partition(":")[0] for fault in reported] == ["a.yaml", "b.yaml"]


def test_inline_keys_that_can_verify_nothing_are_a_fault_at_their_position() -> None:
    reported = faults(f"{TOP}spec: {{jwtRules: [{{issuer: i, jwks: '{KEYS}'}}]}}\n")
    assert len(reported) == 1
    assert reported[0].startswith("a.yaml:4:37: the key set has no key that can verify tokens")


@pytest.mark.parametrize(
    "name", ["x_zta_principal", "x.zta.principal", "X-Zta-Team", "content-length", "content.length", "Host"]
)
def test_a_token_claim_may_not_set_a_reserved_header(name: str) -> None:
    text = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: a}}
spec: {{jwtRules: [{{issuer: i, jwks: "x", outputClaimToHeaders: [{{header: {name}, claim: sub}}]}}]}}
"""
    assert any("a policy can't change header" in fault for fault in faults(text))


def test_more_jwt_rules_than_the_limit_are_a_fault() -> None:
    rules = "\n".join("  - {issuer: i, jwks: x}" for _ in range(4097))
    text = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: a}}
spec:
  jwtRules:
{rules}
"""
    assert any("4097 JWT rules, more than the limit of 4096" in fault for fault in faults(text))


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        (f"jwks: '{PUBLIC}', timeout: 5s", "`timeout` is for fetching keys"),
        (
            f"jwks: '{PUBLIC}', outputClaimToHeaders: [{{header: x-a, claim: a}}, {{header: X-A, claim: b}}]",
            "header `X-A` is set more than once",
        ),
        (
            f"jwks: '{PUBLIC}', outputPayloadToHeader: x-a, outputClaimToHeaders: [{{header: x-a, claim: a}}]",
            "header `x-a` is set more than once",
        ),
        (f"jwks: '{PUBLIC}', outputClaimToHeaders: [{{header: x-a, claim: a}}]", ""),
    ],
)
def test_fields_of_a_jwt_rule_without_effect_give_a_warning(fields: str, warned: str) -> None:
    lines = warnings(f"{TOP}spec: {{jwtRules: [{{issuer: i, {fields}}}]}}\n")
    assert [warned in line for line in lines] == ([True] if warned else [])
