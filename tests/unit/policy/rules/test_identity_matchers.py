"""Matchers for callers: peers by SPIFFE ID (in Istio semantics by any name), users by issuer and subject."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from tests.support.policies import ISTIO, STRICT, identity, in_mesh, matches, source, when
from zta_authz.policy.rules.identity_matchers import (
    InTrustDomain,
    NamespaceMatcher,
    ServiceAccount,
    namespace_matcher,
    request_principal_matcher,
    trust_domain_matcher,
)

if TYPE_CHECKING:
    from zta_authz.model.options import Options

both = pytest.mark.parametrize("options", [STRICT, ISTIO], ids=["strict", "istio"])


def check(
    field: str, value: str, met: list[str], missed: list[str], options: Options, key: str = "", **metadata: Any
) -> None:
    negated = f"not{field[0].upper()}{field[1:]}"
    for expected, names in ((True, met), (False, missed)):
        for name in names:
            caller = identity(name) if name else identity()
            rules = [source(**{field: [value]})] + ([when(key, value)] if key else [])
            for rule in rules:
                assert matches(rule, caller=caller, options=options, **metadata) is expected, (value, name)
            assert matches(source(**{negated: [value]}), caller=caller, options=options, **metadata) is not expected


@both
@pytest.mark.parametrize(
    ("value", "met", "missed"),
    [
        ("td1/ns/foo/sa/web", ["spiffe://td1/ns/foo/sa/web"], ["spiffe://td1/ns/foo/sa/webx", "td1/ns/foo/sa/web", ""]),
        ("td1/ns/foo/sa/*", ["spiffe://td1/ns/foo/sa/", "spiffe://td1/ns/foo/sa/a/b"], ["spiffe://td1/ns/fo", ""]),
        ("td1/ns/foo/sa/we*", ["spiffe://td1/ns/foo/sa/web-x"], ["spiffe://td1/ns/foo/sa/w"]),
        ("*/sa/web", ["spiffe://td1/ns/foo/sa/web", "spiffe:///sa/web"], ["client/sa/web", "https://x/sa/web", ""]),
        ("*web", ["spiffe://web", "spiffe://td/web"], ["web", "CN=web", "spiffe:/web"]),
        ("*", ["spiffe://td1", "client.example", "CN=x"], [""]),
        ("spiffe://td1/x", [], ["spiffe://td1/x"]),
        ("Td1/x", ["spiffe://Td1/x"], ["spiffe://td1/x"]),
    ],
)
def test_principals_are_spiffe_ids_without_their_scheme(
    value: str, met: list[str], missed: list[str], options: Options
) -> None:
    check("principals", value, met, missed, options, "source.principal")


@both
@pytest.mark.parametrize(
    ("value", "met", "missed"),
    [
        ("foo", ["spiffe://td/ns/foo/sa/x", "CN=a/ns/foo/b", "/ns/foo/"], ["spiffe://td/ns/foo", "x/ns/food/", ""]),
        ("foo*", ["a/ns/foo/x", "a/ns/food/x", "a/ns/foo/deep/er"], ["a/ns/fo/x"]),
        ("*-prod", ["a/ns/x-prod/b", "a/ns/x/y-prod/b"], ["a/ns/prod/b", "a/ns/x-prod"]),
        ("f*o", ["a/ns/fo/b", "a/ns/fxxo/b"], ["a/ns/f/b"]),
        ("*", ["a/ns/x/b", "/ns//"], ["a/ns/", "spiffe://td"]),
        ("f.o", ["a/ns/f.o/b"], ["a/ns/fxo/b"]),
        ("a/b", ["x/ns/a/b/y"], ["x/ns/a/y"]),
    ],
)
def test_namespaces_match_a_part_of_any_name(value: str, met: list[str], missed: list[str], options: Options) -> None:
    check("namespaces", value, met, missed, options, "source.namespace")


@both
@pytest.mark.parametrize(
    ("value", "met", "missed"),
    [
        (
            "foo/web",
            [
                "spiffe://td/ns/foo/sa/web",
                "spiffe://td/ns/foo/sa/web/pod/1",
                "spiffe://td/ns/foo/cluster/c1/sa/web",
                "spiffe://td/x/ns/foo/sa/x/sa/web/y",
                "spiffe://td/ns/foo/ns/foo/sa/web",
            ],
            [
                "spiffe://td/ns/foo/sa/web/",
                "spiffe://td/ns/foo/sa/webx",
                "spiffe://td/ns/foo/xsa/web",
                "spiffe://td/ns/foo//sa/webx",
                "spiffe://td/ns/bar/sa/web",
                "spiffe:///ns/foo/sa/web",
                "https://td/ns/foo/sa/web",
                "spiffe://td/sa/web/ns/foo/x",
                "",
            ],
        ),
        ("foo/web.app", ["spiffe://td/ns/foo/sa/web.app"], ["spiffe://td/ns/foo/sa/web-app"]),
        ("web", ["spiffe://td/ns/default/sa/web"], ["spiffe://td/ns/foo/sa/web"]),
    ],
)
def test_service_accounts_name_a_namespace_and_an_account(
    value: str, met: list[str], missed: list[str], options: Options
) -> None:
    check("serviceAccounts", value, met, missed, options, "source.serviceAccount")


@both
def test_a_service_account_without_namespace_is_the_policys(options: Options) -> None:
    met, missed = ["spiffe://td/ns/istio-system/sa/web"], ["spiffe://td/ns/default/sa/web"]
    check("serviceAccounts", "web", met, missed, options, namespace="istio-system")


@both
@pytest.mark.parametrize(
    ("value", "met", "missed"),
    [
        ("*", ["spiffe://a/b", "spiffe://a"], ["https://a/b", "a", ""]),
        ("td1", ["spiffe://td1/x", "spiffe://td1/"], ["spiffe://td1", "spiffe://td12/x", "https://td1/x"]),
        ("td*", ["spiffe://td/x", "spiffe://td12/x"], ["spiffe://t/x", "spiffe://x/td/x", "spiffe://td1"]),
        ("*-td", ["spiffe://old-td/x", "spiffe://-td/x"], ["spiffe://td/x", "spiffe://a/b-td/x"]),
        ("t*d", ["spiffe://td/x", "spiffe://txd/x"], ["spiffe://t/d/x"]),
        ("ab*ba", ["spiffe://abba/x", "spiffe://ab.ba/x"], ["spiffe://aba/x"]),
    ],
)
def test_trust_domains_stop_at_the_next_slash(value: str, met: list[str], missed: list[str], options: Options) -> None:
    check("trustDomains", value, met, missed, options, "source.trustDomain")


def test_in_istio_semantics_any_of_a_peers_names_may_match() -> None:
    caller = identity("spiffe://td1/a", "spiffe://td2/b", "client.example", "CN=x/ns/foo/y")
    for field, value in (("principals", "td2/b"), ("trustDomains", "td2"), ("namespaces", "foo")):
        assert matches(source(**{field: [value]}), caller=caller, options=ISTIO)


_ALIASED = ["spiffe://td1/ns/foo/sa/web", "spiffe://old-td/ns/foo/sa/web"]
_LOCAL = "spiffe://cluster.local/ns/foo/sa/web"


@both
@pytest.mark.parametrize(
    ("field", "value", "met", "missed"),
    [
        ("principals", "td1/ns/foo/sa/web", _ALIASED, [_LOCAL]),
        ("principals", "old-td/ns/foo/sa/web", _ALIASED, [_LOCAL]),
        ("principals", "cluster.local/ns/foo/sa/web", _ALIASED, [_LOCAL]),
        ("principals", "td3/ns/foo/sa/web", ["spiffe://td3/ns/foo/sa/web"], [*_ALIASED, _LOCAL]),
        ("principals", "cluster.local/ns/foo/*", [_LOCAL], _ALIASED),
        ("principals", "cluster.local/ns/foo/sa/web/x", [f"{_LOCAL}/x"], [f"{_ALIASED[0]}/x"]),
        ("principals", "*/ns/foo/sa/web", [*_ALIASED, _LOCAL], []),
        ("principals", "*-td/ns/foo/sa/web", [*_ALIASED, "spiffe://x-td/ns/foo/sa/web"], [_LOCAL]),
        ("principals", "td*/ns/foo/sa/web", _ALIASED, [_LOCAL, "spiffe://td2/ns/foo/sa/web"]),
        ("trustDomains", "td1", _ALIASED, [_LOCAL]),
        ("trustDomains", "old-td", _ALIASED, [_LOCAL]),
        ("trustDomains", "cluster.local", [_LOCAL], _ALIASED),
        ("trustDomains", "td*", _ALIASED[:1], _ALIASED[1:]),
    ],
)
def test_trust_domain_aliases_are_equivalent(
    field: str, value: str, met: list[str], missed: list[str], options: Options
) -> None:
    check(field, value, met, missed, in_mesh(options, "td1", "old-td"))


def test_without_aliases_a_principal_matches_only_itself() -> None:
    mesh = in_mesh(STRICT, "cluster.local")
    check("principals", "cluster.local/ns/foo/sa/web", [_LOCAL], _ALIASED, mesh)


_ISSUER = "https://iss.example"


@both
@pytest.mark.parametrize(
    ("value", "met", "missed"),
    [
        ("*", [("a", "b")], [("", "b"), ("a", "")]),
        ("*/*", [("a", "*")], [("a", "b"), ("", "*")]),
        ("*/alice", [("a", "alice")], [("a", "malice"), ("", "alice")]),
        ("*alice", [("a", "alice"), ("a", "malice"), ("a", "b/alice")], [("a", "alicex"), ("", "alice")]),
        ("*example/alice", [(_ISSUER, "alice"), ("example", "alice")], [(_ISSUER, "malice"), ("x", "alice")]),
        ("*b/*", [("b", "*")], [("b", "x")]),
        (f"{_ISSUER}/alice", [(_ISSUER, "alice")], [(_ISSUER, "alic"), (f"{_ISSUER}/", "alice"), ("", "")]),
        (f"{_ISSUER}/*", [(_ISSUER, "x"), (_ISSUER, "a/b")], [(_ISSUER, ""), ("https:", "x")]),
        (f"{_ISSUER}/al*", [(_ISSUER, "al"), (_ISSUER, "alice")], [(_ISSUER, "bob")]),
        ("issuer*", [("issuer", "x"), ("issuers", "x")], [("issuer", ""), ("xissuer", "x")]),
        ("https://iss*", [("https:/", "iss"), ("https:/", "isss")], [("https://iss.example", "x")]),
        ("issuer", [("issuer", "")], [("issuer", "x"), ("", "")]),
        ("https://iss.example", [("https:/", "iss.example")], [(_ISSUER, "")]),
        ("a/b/c", [("a/b", "c")], [("a", "b/c")]),
    ],
)
def test_request_principals_are_split_at_the_last_slash(
    value: str, met: list[tuple[str, str]], missed: list[tuple[str, str]], options: Options
) -> None:
    for expected, pairs in ((True, met), (False, missed)):
        for issuer, subject in pairs:
            caller = identity(claims={"iss": issuer, "sub": subject})
            assert matches(source(requestPrincipals=[value]), caller=caller, options=options) is expected
            assert matches(when("request.auth.principal", value), caller=caller, options=options) is expected
            assert matches(source(notRequestPrincipals=[value]), caller=caller, options=options) is not expected


@both
@pytest.mark.parametrize(
    "claims", [None, {}, {"iss": "a"}, {"sub": "b"}, {"iss": 1, "sub": "b"}, {"iss": "a", "sub": 2}]
)
def test_without_both_claims_no_request_principal_matches_and_every_negation_does(
    claims: dict[str, Any] | None, options: Options
) -> None:
    for value in ("*", "*b", "a*", "a/b"):
        assert not matches(source(requestPrincipals=[value]), caller=identity(claims=claims), options=options)
        assert matches(source(notRequestPrincipals=[value]), caller=identity(claims=claims), options=options)


def test_matchers_are_displayed_as_written() -> None:
    assert NamespaceMatcher("foo").text == "foo"
    assert NamespaceMatcher("a/b").key is None
    assert ServiceAccount("foo", "web").text == "foo/web"
    assert (InTrustDomain("td").text, InTrustDomain("t", "d").text) == ("td", "t*d")
    assert trust_domain_matcher("td*").key is None
    assert namespace_matcher("f*").text == "f*"
    assert request_principal_matcher("*/x").text == "*/x"


@pytest.mark.parametrize("value", ["a*b", "*", "*a", "a*", "*a*b*", "a**b", "a/*/b", "*/*"])
@given(text=st.text(alphabet="ab/ns\n", max_size=12).map(lambda text: f"x/ns/{text}"))
def test_a_namespace_with_wildcards_matches_as_istios_expression_does(value: str, text: str) -> None:
    expression = f".*/ns/{'.*'.join(re.escape(part) for part in value.split('*'))}/.*"
    assert namespace_matcher(value).matches(text) is (re.fullmatch(expression, text) is not None)


@given(text=st.text(alphabet="/nsab", max_size=24).map(lambda text: f"spiffe://t/ns/a/{text}"))
def test_a_service_account_matches_as_istios_expression_does(text: str) -> None:
    expression = r"spiffe://.+/ns/a/(.+/|)sa/b(/.+)?"
    assert ServiceAccount("a", "b").matches(text) is (re.fullmatch(expression, text) is not None)
