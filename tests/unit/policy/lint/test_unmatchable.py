"""Values that never match as written: each is found with a suggestion, and correct values give no finding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.policies import ISTIO, STRICT, operation, policy, snapshot, source, table, when
from zta_authz.model.documents import Selector
from zta_authz.pdp.paths import path_ambiguity, plain_authority
from zta_authz.policy.lint.linter import Finding, Kind, Level, lint
from zta_authz.policy.lint.unmatchable import CredentialSource, suggested_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.options import Options

Rule = dict[str, Any]
ISSUERS = ("https://iss.example", "https://other.example/realms/a")
SOURCES = (CredentialSource(Selector("default", {"app": "web"}), ISSUERS, ("acme",), ("orders:read",)),)


def findings_of(
    *documents: Mapping[str, Any] | str, options: Options = STRICT, sources: tuple[CredentialSource, ...] = SOURCES
) -> list[Finding]:
    made = (
        snapshot(*(item for item in documents if isinstance(item, str)), options=options).table
        if isinstance(documents[0], str)
        else table([item for item in documents if not isinstance(item, str)], options)
    )
    findings = lint(
        made,
        refused_path=lambda path: "" if options.accept_ambiguous_paths else path_ambiguity(path, "GET"),
        refused_host=lambda host: options.strict and not plain_authority(host),
        sources=sources,
    )
    return [item for item in findings if item.level is Level.WARNING]


NEVER = [
    (operation(methods=["GET|POST"]), "`GET`, `POST`"),
    (operation(methods=["GET, POST"]), "`GET`, `POST`"),
    (when("request.headers[:status]", "200"), ":authority"),
    (operation(hosts=["::1"]), "[::1]"),
    (operation(hosts=["shop.example:http"]), "a name"),
    (source(principals=["cluster.local"]), "cluster.local/*"),
    (when("request.auth.claims[scope]", "orders:read orders:write"), "each word"),
    (operation(paths=["/admin/**"]), "/admin/{**}"),
    (operation(paths=["/a/*/b"]), "/a/{*}/b"),
    (operation(paths=["/a/**/b"]), "/a/{**}/b"),
    (operation(paths=["/users/{id}"]), "/users/{*}"),
    (operation(paths=["/users/:id/orders"]), "/users/{*}/orders"),
    (operation(paths=["^/admin/.*$"]), "/admin/*"),
    (operation(paths=["/users/[0-9]+"]), "/users/{*}"),
    (operation(paths=["/users/\\d+/x"]), "/users/{*}/x"),
    (operation(paths=["admin/*"]), "/admin/*"),
    (operation(paths=["/a//b"]), "/a/b"),
    (operation(paths=["https://shop.example/cart"]), "/cart"),
    (operation(paths=["/search?q=1"]), "/search"),
    (operation(notPaths=["/public/**"]), "/public/{**}"),
    (operation(hosts=["https://shop.example"]), "shop.example"),
    (operation(hosts=["shop.example/cart"]), "shop.example"),
    (operation(hosts=["api.*.example.com"]), "*.example.com"),
    (operation(hosts=["^api\\.example\\.com$"]), "a name"),
    (operation(hosts=["café.example"]), "xn--"),
    (source(principals=["spiffe://td/ns/a/sa/b"]), "write `td/ns/a/sa/b`"),
    (source(principals=["td/ns/*/sa/b"]), "`namespaces`"),
    (source(principals=["/ns/a/*"]), "cluster.local/ns/"),
    (source(trustDomains=["Cluster.Local"]), "write `cluster.local`"),
    (source(namespaces=["spiffe://td"]), "name alone"),
    (source(requestPrincipals=["https://iss.example*"]), "https://iss.example/*"),
    (source(requestPrincipals=["https://iss.example"]), "https://iss.example/*"),
    (source(requestPrincipals=["https://iss.example/a/b"]), "request.auth.claims[sub]"),
    (source(requestPrincipals=["https://wrong.example/alice"]), "spelling of the issuer"),
    (source(requestPrincipals=["*/*"]), "write `*`"),
    (when("request.auth.claims[realm_access.roles]", "admin"), "claims[realm_access][roles]"),
    (when("request.headers[x-a]", "v*1*"), "several values"),
    (when("request.headers[x-a]", "^v.*"), "condition"),
    (when("connection.sni", "API.example.com"), "api.example.com"),
]


@pytest.mark.parametrize(("rule", "meant"), NEVER)
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_a_value_that_never_matches_as_written_is_found_with_a_suggestion(rule: Rule, meant: str, action: str) -> None:
    findings = findings_of(policy("p", rule, action=action))
    assert [f.kind in (Kind.NEVER_MATCHES, Kind.NEVER_MATCHES_AS_WRITTEN) for f in findings] == [True]
    assert "never matches" in findings[0].message
    assert meant in findings[0].hint


MAY = [
    operation(methods=["GET", "M-SEARCH", "VERSION-CONTROL", "X_1", "GET*", "*"]),
    operation(paths=["/admin/*", "/a/{*}/b", "/x/{**}", "*", "*.php", "/.well-known/*", "/odata/Products(1)", "/v1/x:go"]),
    operation(paths=["/.*", "/a$b", "/a+b", "/a.b", "/a%20b"]),
    operation(hosts=["shop.example", "*.shop.example", "shop.example:*", "[2001:db8::1]:80", "API.shop.example", "*"]),
    source(principals=["*", "td/*", "*/sa/web", "td/ns/a/sa/b", "spiffe*"]),
    source(namespaces=["a", "a*", "*-prod", "a/b"], notTrustDomains=["td", "td*", "*"]),
    source(serviceAccounts=["web", "default/web"]),
    source(requestPrincipals=["*", "https://iss.example/*", "https://iss.example/al*", "*/alice", "https*"]),
    source(requestPrincipals=["https://other.example/realms/a/bob"]),
    when("request.auth.claims[https://ns.example/roles]", "admin"),
    when("request.auth.audiences", "api.*"),
    when("request.headers[user-agent]", "Mozilla/5.0 (X11; Linux)*", "a|b"),
    when("connection.sni", "api.example.com", "*.example.com"),
    operation(methods=["GET", "PROP*", "*SEARCH", "M-SEARCH", "*"]),
    when("request.headers[:scheme]", "https"),
    when("request.auth.claims[scope]", "orders:read", "orders*"),
    when("request.auth.claims[name]", "a b"),
    when("request.headers[:method]", "GET"),
]  # fmt: skip


@pytest.mark.parametrize("rule", MAY)
@pytest.mark.parametrize("options", [STRICT, ISTIO], ids=["strict", "istio"])
def test_correct_values_give_no_finding(rule: Rule, options: Options) -> None:
    for action in ("ALLOW", "DENY"):
        assert [f.message for f in findings_of(policy("p", rule, action=action), options=options)] == []


@pytest.mark.parametrize("path", ["/café", "/a b", "/a ", "/a/.."])
def test_a_deny_rule_for_a_path_that_may_be_received_encoded_gives_no_finding(path: str) -> None:
    assert findings_of(policy("p", operation(paths=[path]), action="DENY")) == []
    assert [f.kind for f in findings_of(policy("p", operation(paths=[path])))] == [Kind.NEVER_MATCHES]
    assert findings_of(policy("p", operation(paths=["/x/*"], notPaths=[path]))) == []


@pytest.mark.parametrize("path", ["/a;b", "/a//b", "/a\\b", "/a%2Fb", "/./b"])
def test_a_deny_rule_for_a_path_that_is_refused_in_every_encoding_is_found(path: str) -> None:
    assert [f.kind for f in findings_of(policy("p", operation(paths=[path]), action="DENY"))] == [Kind.NEVER_MATCHES]


@pytest.mark.parametrize(
    ("labels", "namespace", "known"),
    [({"app": "web"}, "default", True), ({}, "default", True), ({"app": "x"}, "default", False), ({}, "other", False)],
)
def test_a_rule_on_tokens_needs_a_request_authentication_for_its_workloads(
    labels: dict[str, str], namespace: str, known: bool
) -> None:
    document = policy("p", source(requestPrincipals=["*"]), namespace=namespace)
    document["spec"]["selector"] = {"matchLabels": labels}
    assert [f.kind for f in findings_of(document)] == ([] if known else [Kind.NEVER_MATCHES])
    document["spec"]["rules"] = [when("request.auth.claims[role]", "a")]
    assert [f.kind for f in findings_of(document)] == ([] if known else [Kind.NEVER_MATCHES])


def access(rule: str, action: str = "ALLOW") -> str:
    head = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: p}\n"
    return f"{head}spec: {{action: {action}, rules: [{{{rule}}}]}}\n"


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        ("require: {token: {bound: true}}", Kind.NEVER_MATCHES),
        ("condition: claims.role == 'a'", Kind.NEVER_MATCHES),
        ("condition: token.subject != ''", Kind.NEVER_MATCHES),
        ("condition: token.subject == ''", None),
        ("when: [{key: zta.apiClient, values: [acme]}]", Kind.NEVER_MATCHES),
    ],
)
def test_without_documents_that_verify_credentials_no_rule_on_them_matches(rule: str, kind: Kind | None) -> None:
    assert [f.kind for f in findings_of(access(rule), sources=())] == ([kind] if kind else [])
    assert [f.kind for f in findings_of(access(rule))] == []


def test_an_api_client_without_a_key_is_found() -> None:
    (finding,) = findings_of(access("when: [{key: zta.apiClient, values: [acne]}]"))
    assert (finding.kind, "`acme`" in finding.hint) == (Kind.NEVER_MATCHES, True)


@pytest.mark.parametrize(
    ("condition", "kind", "hint"),
    [
        ("request.headers['X-Team'] == 'a'", Kind.ALWAYS_UNKNOWN, "`x-team`"),
        ("'X-Team' in request.headers", Kind.NEVER_MATCHES_AS_WRITTEN, "`x-team`"),
        ("request.headers.XTeam == 'a'", Kind.ALWAYS_UNKNOWN, "`xteam`"),
        ("request.headers[':path'] == '/a'", Kind.ALWAYS_UNKNOWN, "`request.path`"),
        ("request.host == 'Shop.example'", Kind.NEVER_MATCHES_AS_WRITTEN, "`shop.example`"),
        ("'Shop.example' != request.host", Kind.NEVER_MATCHES_AS_WRITTEN, "`shop.example`"),
        ("request.method == 'post'", Kind.NEVER_MATCHES_AS_WRITTEN, "`POST`"),
        ("request.path == '/a?b'", Kind.NEVER_MATCHES_AS_WRITTEN, "`request.query`"),
        ("source.principal == 'td/ns/a/sa/b'", Kind.NEVER_MATCHES_AS_WRITTEN, "`spiffe://td/ns/a/sa/b`"),
    ],
)
def test_a_clause_with_the_same_value_for_every_request_is_found(condition: str, kind: Kind, hint: str) -> None:
    text = access(
        f"to: [{{operation: {{paths: [/x]}}}}], condition: \"request.method == 'GET' || {condition}\"", "DENY"
    )
    (finding,) = findings_of(text)
    assert finding.kind is kind
    assert hint in finding.hint


@pytest.mark.parametrize(
    ("condition", "action", "kind"),
    [
        ("request.headers['X-Team'] == 'a'", "ALLOW", Kind.NEVER_MATCHES),
        ("request.headers['X-Team'] == 'a'", "DENY", Kind.ALWAYS_UNKNOWN),
        ("request.host == 'Shop.example'", "DENY", Kind.NEVER_MATCHES),
        ("!(request.host == 'Shop.example')", "DENY", Kind.NEVER_MATCHES_AS_WRITTEN),
    ],
)
def test_a_condition_with_the_same_value_for_every_request_decides_the_rule(
    condition: str, action: str, kind: Kind
) -> None:
    findings = findings_of(access(f'condition: "{condition}", from: [{{source: {{principals: ["*"]}}}}]', action))
    assert [f.kind for f in findings] == [kind]


@pytest.mark.parametrize(
    "condition",
    [
        "has(request.headers.XTeam) || request.headers['x-team'] == 'X-Team'",
        "request.host.startsWith('shop') && source.principal == 'spiffe://td/a'",
        "context['X-Team'] == 'a' && claims['Role'] == 'b'",
        "source.principal != '' && request.path == '/a'",
    ],
)
def test_clauses_that_may_be_true_or_false_give_no_finding(condition: str) -> None:
    assert findings_of(access(f'condition: "{condition}", from: [{{source: {{principals: ["*"]}}}}]')) == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [("/a/b", ""), ("/a*b", ""), ("/a/*/b/*", "/a/{*}/b/{**}"), ("(a|b)", ""), ("/files/(.*)", "/files/*")],
)
def test_unclear_values_get_no_suggestion(written: str, meant: str) -> None:
    assert suggested_path(written) == meant


def test_any_issuer_may_match_if_a_jwt_rule_names_none() -> None:
    anybodys = (CredentialSource(Selector("default", {"app": "web"}), ("", *ISSUERS)),)
    rule = policy("p", source(requestPrincipals=["https://wrong.example/alice"]))
    assert findings_of(rule, sources=anybodys) == []
    assert [f.kind for f in findings_of(rule)] == [Kind.NEVER_MATCHES]


def test_a_rule_that_never_matches_has_findings_for_its_other_values_too() -> None:
    rule = operation(paths=["/admin/**", "/x"], hosts=["https://a.example"], methods=["GET"])
    findings = findings_of(policy("p", rule))
    assert {(f.kind, f.hint) for f in findings} == {
        (Kind.NEVER_MATCHES, "write `a.example`, or remove the rule"),
        (Kind.NEVER_MATCHES_AS_WRITTEN, "write `/admin/{**}`"),
    }


@pytest.mark.parametrize(
    ("selector", "options", "named"),
    [
        (Selector("default", {}), STRICT, False),
        (Selector("istio-system", {}), STRICT, False),
        (Selector("default", {"app": "web"}), STRICT, False),
        (Selector("default", {"app": "web", "tier": "x"}), STRICT, True),
        (Selector("other", {}), STRICT, True),
        (Selector("default", {}), ISTIO, True),  # CORS preflights pass without a token
    ],
)
def test_a_rule_behind_a_required_token_is_not_reported_as_unauthenticated(
    selector: Selector, options: Options, named: bool
) -> None:
    document = policy("p", operation(paths=["/a"]))
    document["spec"]["selector"] = {"matchLabels": {"app": "web"}}

    def kinds(source: CredentialSource) -> list[Kind]:
        return [item.kind for item in lint(table([document], options), sources=[source])]

    assert kinds(CredentialSource(selector, ISSUERS, requires_token=True)) == [Kind.UNAUTHENTICATED] * named
    assert kinds(CredentialSource(selector, ISSUERS)) == [Kind.UNAUTHENTICATED]
