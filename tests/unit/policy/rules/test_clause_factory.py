"""Values and keys of clauses: those that Istio would drop, which widens a DENY, are faults with their position."""

from __future__ import annotations

import pytest

from tests.support.policies import STRICT, faults, identity, matches, request, when

HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec:\n  action: DENY\n"
KNOWN = (
    "known keys: source.ip, remote.ip, source.namespace, source.principal, source.serviceAccount, source.trustDomain, "
    "request.auth.principal, destination.port, connection.sni, request.auth.audiences, request.auth.presenter, "
    "destination.ip, request.headers[name], request.auth.claims[name], experimental.envoy.filters.NAME[key]; "
    "in an AccessPolicy also zta.apiClient, zta.apiScopes, zta.remote.country, zta.remote.asn, zta.remote.anonymous, zta.remote.reputation, "
    "zta.remote.corporate, zta.device.id, zta.trust.level, zta.resource.class, zta.signals.risk, zta.signals.assurance, "
    "zta.device.FIELD"
)
_PORT = 'a port is a decimal number from 0 to 65535; write it like "8080"'
_IP = "write it like `10.0.0.0/8`, `192.0.2.1` or `2001:db8::/32`"
_ACCOUNT = "write `account` or `namespace/account`, without `*`"


def field_faults(section: str, party: str, field: str, value: str) -> list[str]:
    return faults(f"{HEAD}  rules: [{{{section}: [{{{party}: {{{field}:\n    ['{value}']}}}}]}}]\n")


def key_faults(key: str, value: str = "a", field: str = "values") -> list[str]:
    return faults(f"{HEAD}  rules: [{{when: [{{key:\n    '{key}', {field}: [\n    '{value}']}}]}}]\n")


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("ports", "http", f"`http` in `ports`: {_PORT}"),
        ("notPorts", "65536", f"`65536` in `notPorts`: {_PORT}"),
        ("ports", "-1", f"`-1` in `ports`: {_PORT}"),
        ("ports", "080808", f"`080808` in `ports`: {_PORT}"),
        ("ports", "²", f"`²` in `ports`: {_PORT}"),
        ("paths", "{*}", "`{*}` in `paths`: a path template starts with `/`; correct the value: it is not skipped"),
        (
            "notPaths",
            "/a/{*}b",
            (
                "`/a/{*}b` in `notPaths`: `{*}b`: `{*}` and `{**}` stand for a whole path segment; "
                "correct the value: it is not skipped"
            ),
        ),
        (
            "paths",
            "/{**}/{*}",
            "`/{**}/{*}` in `paths`: `{**}` is the last operator of a path template; correct the value: it is not skipped",
        ),
        (
            "paths",
            "/a*/{*}",
            (
                "`/a*/{*}` in `paths`: `a*` has characters that a path template can't contain; "
                "correct the value: it is not skipped"
            ),
        ),
    ],
)
def test_an_invalid_value_of_an_operation_is_a_fault(field: str, value: str, fault: str) -> None:
    assert field_faults("to", "operation", field, value) == [f"a.yaml:7:6: {fault}"]


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("ipBlocks", "10.0.0.256", f"`10.0.0.256` in `ipBlocks`: not an IP address or CIDR block; {_IP}"),
        ("notIpBlocks", "10.0.0.0/33", f"`10.0.0.0/33` in `notIpBlocks`: not an IP address or CIDR block; {_IP}"),
        ("remoteIpBlocks", "fe80::1%eth0", f"`fe80::1%eth0` in `remoteIpBlocks`: an address block has no zone; {_IP}"),
        ("serviceAccounts", "foo/*", f"`foo/*` in `serviceAccounts` is not a service account; {_ACCOUNT}"),
        ("serviceAccounts", "a/b/c", f"`a/b/c` in `serviceAccounts` is not a service account; {_ACCOUNT}"),
        ("notServiceAccounts", "/x", f"`/x` in `notServiceAccounts` is not a service account; {_ACCOUNT}"),
        ("serviceAccounts", "x/", f"`x/` in `serviceAccounts` is not a service account; {_ACCOUNT}"),
        ("trustDomains", "a/b", "`a/b` in `trustDomains`: a trust domain has no `/`; write it like `cluster.local`"),
        (
            "notTrustDomains",
            "a*b*",
            "`a*b*` in `notTrustDomains`: a trust domain has at most one `*`; write it like `cluster.local`",
        ),
    ],
)
def test_an_invalid_value_of_a_source_is_a_fault(field: str, value: str, fault: str) -> None:
    assert field_faults("from", "source", field, value) == [f"a.yaml:7:6: {fault}"]


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        (
            "zta.apiClient",
            (
                "condition key `zta.apiClient` is for AccessPolicy only; write this policy as an AccessPolicy "
                "(`apiVersion: zta.dev/v1`): Istio's kinds have no such keys"
            ),
        ),
        ("zta.apiclient", f"unknown condition key `zta.apiclient`; did you mean `zta.apiClient`? {KNOWN}"),
        ("source.port", f"unknown condition key `source.port`; {KNOWN}"),
        ("", "`key` is empty; write a value or remove the field"),
        (
            "request.headersx[a]",
            f"unknown condition key `request.headersx[a]`; did you mean `request.headers[name]`? {KNOWN}",
        ),
        (
            "request.auth.claimsx[a]",
            f"unknown condition key `request.auth.claimsx[a]`; did you mean `request.auth.claims[name]`? {KNOWN}",
        ),
        *(
            (key, f"condition key `{key}` is not supported by Istio either; {KNOWN}")
            for key in ("destination.labels[app]", "destination.name", "destination.namespace", "destination.user")
        ),
        ("request.headers", "`request.headers` has no name in brackets; write `request.headers[name]`"),
        ("request.headers[]", "`request.headers[]` has no name in brackets; write `request.headers[name]`"),
        ("request.headers[a][b]", "`request.headers[a][b]` does not name one header; write `request.headers[x-name]`"),
        ("request.headers[a b]", "`request.headers[a b]` does not name one header; write `request.headers[x-name]`"),
        ("request.headers[a]b", "`request.headers[a]b` does not name one header; write `request.headers[x-name]`"),
        ("request.auth.claims", "`request.auth.claims` has no name in brackets; write `request.auth.claims[name]`"),
        (
            "request.auth.claims[a]b",
            "`request.auth.claims[a]b` does not end with `]`; write `request.auth.claims[name]`",
        ),
        (
            "experimental.envoy.filters.f",
            "`experimental.envoy.filters.f` has no name in brackets; write `experimental.envoy.filters.f[name]`",
        ),
    ],
)
def test_an_unknown_condition_key_is_a_fault(key: str, fault: str) -> None:
    assert key_faults(key) == [f"a.yaml:7:5: {fault}"]


@pytest.mark.parametrize(
    ("key", "value", "label", "fault"),
    [
        ("destination.port", "x", "destination.port", _PORT),
        ("destination.ip", "x", "destination.ip", f"not an IP address or CIDR block; {_IP}"),
        ("source.ip", "::/129", "source.ip", f"not an IP address or CIDR block; {_IP}"),
        (
            "source.trustDomain",
            "**",
            "source.trustDomain",
            "a trust domain has at most one `*`; write it like `cluster.local`",
        ),
        (
            "experimental.envoy.filters.f[k]",
            "[]",
            "experimental.envoy.filters.f[k]",
            "the brackets are empty; correct the value: it is not skipped",
        ),
    ],
)
def test_an_invalid_value_of_a_condition_is_a_fault_that_names_the_key(
    key: str, value: str, label: str, fault: str
) -> None:
    assert key_faults(key, value) == [f"a.yaml:8:5: `{value}` in `{label}`: {fault}"]
    assert key_faults(key, value, "notValues") == [f"a.yaml:8:5: `{value}` in `{label} notValues`: {fault}"]


def test_list_values_of_metadata_must_not_be_mixed_with_plain_values() -> None:
    assert key_faults("experimental.envoy.filters.f[k]", "a', '[b]") == [
        "a.yaml:8:5: `experimental.envoy.filters.f[k]` mixes list values `[x]` with plain ones; write two conditions"
    ]


def test_every_invalid_value_of_a_policy_is_reported() -> None:
    assert len(field_faults("to", "operation", "paths", "{*}', '/ok', '/{*}/{x}', '/{**}/{**}")) == 3


def test_values_and_not_values_of_a_condition_must_both_hold() -> None:
    rule = when("request.headers[x]", "a*", negated=["ab"])
    assert matches(rule, request(headers={"x": "ac"}))
    assert not matches(rule, request(headers={"x": "ab"}))
    assert not matches(rule, request(headers={"x": "b"}))
    assert not matches(rule, request())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source.ip", "10.0.0.1"),
        ("remote.ip", "10.0.0.1"),
        ("destination.ip", "10.0.0.2"),
        ("destination.port", "8080"),
        ("source.namespace", "foo"),
        ("source.principal", "td1/ns/foo/sa/web"),
        ("source.serviceAccount", "foo/web"),
        ("source.trustDomain", "td1"),
        ("request.auth.principal", "issuer/alice"),
        ("request.auth.audiences", "api"),
        ("request.auth.presenter", "client"),
        ("request.auth.claims[groups]", "admin"),
        ("request.headers[X-Name]", "v"),
        ("connection.sni", "example.com"),
        ("experimental.envoy.filters.f[k]", "v"),
    ],
)
def test_every_key_matches_only_its_value_and_its_negation_any_other_value(key: str, value: str) -> None:
    claims = {"iss": "issuer", "sub": "alice", "aud": ["api", "x"], "azp": "client", "groups": ["admin"]}
    caller = identity("spiffe://td1/ns/foo/sa/web", claims=claims)
    asked = request(headers={"x-name": "v"}, sni="example.com", metadata={"envoy.filters.f": {"k": "v"}})
    other = {"source.ip": "1.1.1.1", "remote.ip": "1.1.1.1", "destination.ip": "1.1.1.1", "destination.port": "1"}
    different = other.get(key, "other")
    for deny in (False, True):
        assert matches(when(key, value), asked, caller, STRICT, deny=deny)
        assert matches(when(key, different, value), asked, caller, STRICT, deny=deny)
        assert not matches(when(key, different), asked, caller, STRICT, deny=deny)
        assert not matches(when(key, negated=[value, different]), asked, caller, STRICT, deny=deny)
        assert matches(when(key, negated=[different]), asked, caller, STRICT, deny=deny)
