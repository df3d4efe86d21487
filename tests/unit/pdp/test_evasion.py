"""Spellings that could evade a DENY rule, or that two parties could read as two requests."""

from __future__ import annotations

import pytest

from zta_authz.errors import Reason
from zta_authz.model.identity import Changes, Identity, Token
from zta_authz.model.options import Options
from zta_authz.model.request import Evidence, Headers, RequestAttributes
from zta_authz.pdp.decide import combine, evaluate
from zta_authz.pdp.explain import explain
from zta_authz.pdp.paths import plain_authority
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot
from zta_authz.policy.cel.condition import Condition
from zta_authz.policy.rules.inputs import Inputs

OPEN = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: open}, spec: {rules: [{}]}}\n"


def denying(rule: str, options: Options | None = None) -> Snapshot:
    deny = f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: deny}}
spec: {{action: DENY, rules: [{rule}]}}
"""
    return compile_snapshot([SourceText("open.yaml", OPEN), SourceText("deny.yaml", deny)], options or Options())


def reason(snapshot: Snapshot, path: str = "/", host: str = "shop.example.com", **headers: str) -> Reason:
    sent = Headers({name.replace("_", "-"): (value,) for name, value in headers.items()}, exact=True)
    return evaluate(snapshot, RequestAttributes("GET", path, host, headers=sent), Evidence(), 0.0).reason


@pytest.mark.parametrize(
    "host",
    [
        "secret.example.com:foo", "secret.example.com:80:80", "secret.example.com:80.", "secret.example.com:+80",
        "secret.example.com:", "u@secret.example.com", "secret%2eexample.com", "secret.example.com/", "[::1", "[::1]x",
        "secret.example.com:123456", "sécret.example.com", "secret example",
    ],
)  # fmt: skip
def test_an_ambiguous_host_is_denied_in_strict_only(host: str) -> None:
    rule = "{to: [{operation: {hosts: [secret.example.com]}}]}"
    assert reason(denying(rule), host=host) is Reason.HOST_AMBIGUOUS
    assert reason(denying(rule, Options.istio()), host=host) is Reason.ALLOW_POLICY


@pytest.mark.parametrize(
    "host", ["", "a", "a.b", "a_b:80", "a.b.:65535", "10.0.0.1:8080", "[::1]", "[2001:db8::1]:443"]
)
def test_a_plain_authority_is_accepted(host: str) -> None:
    assert plain_authority(host)


@pytest.mark.parametrize(
    "method", ["delete", "Delete", "dELETE", "DELETe", "DELETE ", "DEL\u00c9TE", "DELETE\n", "GET,DELETE", ""]
)
def test_a_method_in_lower_case_reaches_no_rule(method: str) -> None:
    """A framework that converts methods to upper case would run the denied method."""
    rule = "{to: [{operation: {methods: [DELETE]}}]}"
    asked = RequestAttributes(method, "/", "shop.example.com")
    refused = evaluate(denying(rule), asked, Evidence(), 0.0)
    assert (refused.allowed, refused.reason) == (False, Reason.METHOD_AMBIGUOUS)
    lower = "the method has a lower-case letter"
    assert refused.detail == (lower if method.upper() == "DELETE" else "the method is not a token")
    assert evaluate(denying(rule, Options.istio()), asked, Evidence(), 0.0).reason is Reason.ALLOW_POLICY


@pytest.mark.parametrize(
    "method",
    ["GET", "OPTIONS", "CONNECT", "TRACE", "PROPFIND", "M-SEARCH", "VERSION-CONTROL", "BASELINE-CONTROL", "X_1"],
)
def test_every_method_in_upper_case_reaches_the_rules(method: str) -> None:
    asked = RequestAttributes(method, "/", "shop.example.com")
    for value, expected in ((method, Reason.DENY_POLICY), ("DELETE", Reason.ALLOW_POLICY)):
        rule = f"{{to: [{{operation: {{methods: [{value}]}}}}]}}"
        assert evaluate(denying(rule), asked, Evidence(), 0.0).reason is expected


@pytest.mark.parametrize(
    "path", ["/v1/things%3Adelete", "/v1/things:delete", "/v1/things:delete%20", "/v1/%74hings:delete"]
)
def test_a_denied_path_cannot_be_reached_by_encoding_it(path: str) -> None:
    assert reason(denying('{to: [{operation: {paths: ["/v1/things:delete"]}}]}'), path) is not Reason.ALLOW_POLICY


def test_an_encoded_path_matches_an_allow_only_as_received() -> None:
    allow = OPEN.replace("rules: [{}]", 'rules: [{to: [{operation: {paths: ["/u/a@b"]}}]}]')
    snapshot = compile_snapshot([SourceText("a.yaml", allow)], Options())
    assert reason(snapshot, "/u/a@b") is Reason.ALLOW_POLICY
    assert reason(snapshot, "/u/a%40b") is Reason.NO_MATCHING_POLICY


def test_an_allow_with_not_paths_does_not_match_an_encoded_spelling() -> None:
    allow = OPEN.replace("rules: [{}]", 'rules: [{to: [{operation: {notPaths: ["/u/a@b"]}}]}]')
    snapshot = compile_snapshot([SourceText("a.yaml", allow)], Options())
    assert reason(snapshot, "/u/c%40b") is Reason.ALLOW_POLICY
    assert reason(snapshot, "/u/a%40b") is Reason.NO_MATCHING_POLICY


@pytest.mark.parametrize("key", ["request.headers[host]", "request.headers[:authority]"])
@pytest.mark.parametrize(
    "host", ["secret.example.com", "SECRET.example.com", "secret.example.com:80", "secret.example.com."]
)
def test_a_condition_on_the_authority_matches_as_hosts_do(key: str, host: str) -> None:
    rule = f'{{when: [{{key: "{key}", values: [secret.example.com]}}]}}'
    assert reason(denying(rule), host=host) is Reason.DENY_POLICY


@pytest.mark.parametrize(("options", "denied"), [(Options(), True), (Options.istio(), False)])
def test_every_token_is_checked_against_a_deny_rule_in_strict(options: Options, denied: bool) -> None:
    snapshot = denying("{from: [{source: {requestPrincipals: [https://b/mallory]}}]}", options)
    tokens = tuple(
        Token(issuer, subject, {"iss": issuer, "sub": subject})
        for issuer, subject in (("https://a", "nobody"), ("https://b", "mallory"))
    )
    identity = Identity(token=tokens[0], tokens=tokens)
    decision = combine(
        snapshot.table.default_view,
        Inputs(RequestAttributes("GET", "/"), identity, options),
        default_allow=False,
    )
    assert decision.allowed is not denied


@pytest.mark.parametrize(
    ("condition", "suffix"),
    [
        ("token.subject == 'mallory'", ""),
        ("claims.level > 3", ": its condition is Unknown: it could not be evaluated on this request"),
    ],
)
def test_a_denial_for_the_second_token_is_explained_with_that_token(condition: str, suffix: str) -> None:
    """The explanation evaluated the condition with the first token, and reported it as Unknown."""
    tokens = tuple(
        Token(issuer, subject, {"iss": issuer, "sub": subject, **more})
        for issuer, subject, more in (("https://a", "nobody", {"level": 1}), ("https://b", "mallory", {}))
    )
    identity = Identity(token=tokens[0], tokens=tokens)
    inputs = Inputs(RequestAttributes("GET", "/"), identity, Options())
    decision = combine(conditional(condition, "DENY").table.default_view, inputs, default_allow=False)
    assert (decision.reason, decision.identity) == (Reason.DENY_POLICY, identity)
    assert decision.detail == f"for another token, of issuer `https://b`{suffix}"


def test_a_user_agent_with_commas_is_one_value() -> None:
    snapshot = denying('{when: [{key: "request.headers[user-agent]", values: [evil*]}]}')
    for agent, expected in (
        ("Mozilla/5.0 (X11, like Gecko)", Reason.ALLOW_POLICY),
        ("evil, really", Reason.DENY_POLICY),
    ):
        sent = Headers({"user-agent": (agent,)}, exact=False)
        request = RequestAttributes("GET", "/", "shop.example.com", headers=sent)
        assert evaluate(snapshot, request, Evidence(), 0.0).reason is expected


def test_headers_of_a_deny_policy_are_not_removed_from_allowed_requests() -> None:
    deny = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: deny}
spec:
  action: DENY
  response: {headers: {set: [{name: retry-after, value: "9"}]}}
  rules: [{to: [{operation: {paths: [/x]}}]}]
"""
    snapshot = compile_snapshot([SourceText("open.yaml", OPEN), SourceText("deny.yaml", deny)], Options())
    assert snapshot.table.output_headers == frozenset()


@pytest.mark.parametrize(("options", "denied"), [(Options(), True), (Options.istio(), False)])
def test_a_star_matches_one_line_in_envoy_and_any_text_in_a_strict_deny(options: Options, denied: bool) -> None:
    snapshot = denying('{from: [{source: {requestPrincipals: ["*"]}}]}', options)
    token = Token("https://a", "bob\n", {"iss": "https://a", "sub": "bob\n"})
    inputs = Inputs(RequestAttributes("GET", "/"), Identity(token=token, tokens=(token,)), options)
    assert combine(snapshot.table.default_view, inputs, default_allow=False).allowed is not denied


def sent(lines: dict[str, str], *, exact: bool = True) -> RequestAttributes:
    headers = Headers({name: (value,) for name, value in lines.items()}, exact=exact)
    return RequestAttributes("GET", "/", "shop.example.com", headers=headers)


BANNED = '{when: [{key: "request.headers[x-role]", values: [banned]}]}'


@pytest.mark.parametrize("name", ["x_role", "x.role", "x~role", "x-role"])
def test_a_denied_header_is_denied_in_every_spelling_that_applications_treat_alike(name: str) -> None:
    """WSGI and PHP give an application `HTTP_X_ROLE` for each of these."""
    snapshot = denying(BANNED)
    for value, expected in (
        ("banned", Reason.DENY_POLICY),
        (" banned ", Reason.DENY_POLICY),
        ("user", Reason.ALLOW_POLICY),
    ):
        for lines in ({name: value}, {"x-role": "user", name: value}):
            assert evaluate(snapshot, sent(lines), Evidence(), 0.0).reason is expected, lines
    joined = evaluate(snapshot, sent({name: "user,banned"}, exact=False), Evidence(), 0.0)
    assert joined.reason is Reason.DENY_POLICY
    istio = evaluate(denying(BANNED, Options.istio()), sent({name: "banned"}), Evidence(), 0.0)
    assert istio.reason is (Reason.DENY_POLICY if name == "x-role" else Reason.ALLOW_POLICY)


def test_a_denied_header_with_an_odd_name_is_denied_in_its_plain_spelling_too() -> None:
    snapshot = denying(BANNED.replace("x-role", "x_role"))
    assert evaluate(snapshot, sent({"x-role": "banned"}), Evidence(), 0.0).reason is Reason.DENY_POLICY
    assert evaluate(snapshot, sent({"x-roles": "banned"}), Evidence(), 0.0).reason is Reason.ALLOW_POLICY


def test_other_spellings_are_found_among_many_headers() -> None:
    rules = ", ".join(BANNED.replace("x-role", f"x-h{number}") for number in range(40))
    for snapshot in (denying(rules), denying(f"{rules}, {BANNED}")):
        for name in ("x_h33", "x.h33", "x-h33"):
            assert evaluate(snapshot, sent({name: "banned"}), Evidence(), 0.0).reason is Reason.DENY_POLICY
        assert evaluate(snapshot, sent({"x_h33": "user", "x_other": "banned"}), Evidence(), 0.0).allowed


def test_an_allow_matches_only_the_exact_name() -> None:
    allow = OPEN.replace("rules: [{}]", 'rules: [{when: [{key: "request.headers[x-role]", values: [admin]}]}]')
    snapshot = compile_snapshot([SourceText("a.yaml", allow)], Options())
    assert evaluate(snapshot, sent({"x-role": "admin"}), Evidence(), 0.0).reason is Reason.ALLOW_POLICY
    assert evaluate(snapshot, sent({"x_role": "admin"}), Evidence(), 0.0).reason is Reason.NO_MATCHING_POLICY
    excluding = compile_snapshot(
        [SourceText("a.yaml", allow.replace("values: [admin]", "notValues: [banned]"))], Options()
    )
    assert evaluate(excluding, sent({}), Evidence(), 0.0).reason is Reason.ALLOW_POLICY
    assert evaluate(excluding, sent({"x_role": "banned"}), Evidence(), 0.0).reason is Reason.NO_MATCHING_POLICY


def test_a_condition_on_a_header_is_unknown_if_another_spelling_is_present() -> None:
    condition = Condition("'x-role' in request.headers && request.headers['x-role'] == 'banned'")
    for lines in ({"x_role": "banned"}, {"x-role": "user", "x.role": "banned"}):
        assert condition.evaluate(Inputs(sent(lines), Identity(), Options())) is None
    assert condition.evaluate(Inputs(sent({"x-role": "user", "x_other": "a"}), Identity(), Options())) is False


def test_a_header_set_from_a_token_has_no_other_spelling() -> None:
    """If it is forwarded, the client's other spellings are removed."""
    identity = Identity(changes=Changes(set_headers=(("x-role", "user"),)))
    inputs = Inputs(sent({"x_role": "banned"}), identity, Options())
    assert not combine(denying(BANNED).table.default_view, inputs, default_allow=False).policy.endswith("deny")


SPELLINGS = [
    ("/caf%C3%A9", "/caf%c3%a9"),
    ("/caf%c3%a9/*", "/caf%C3%A9/x"),
    ("/a%28b", "/a(b"),
    ("/a%28b", "/a%28b"),
    ("*%C3%A9", "/x/%c3%a9"),
    ("/x%28/{*}", "/x(/1"),
]


@pytest.mark.parametrize(("value", "path"), SPELLINGS)
def test_a_denied_path_that_is_written_encoded_is_denied_in_every_spelling(value: str, path: str) -> None:
    assert reason(denying(f"{{to: [{{operation: {{paths: ['{value}']}}}}]}}"), path) is Reason.DENY_POLICY
    but = OPEN.replace("[{}]", f"[{{to: [{{operation: {{notPaths: ['{value}']}}}}]}}]")
    rules = compile_snapshot([SourceText("but.yaml", but)], Options())
    assert reason(rules, path) is Reason.NO_MATCHING_POLICY
    assert reason(rules, "/else") is Reason.ALLOW_POLICY


def test_an_allowed_path_is_allowed_only_in_the_written_spelling() -> None:
    allow = OPEN.replace("[{}]", "[{to: [{operation: {paths: ['/a%28b']}}]}]")
    rules = compile_snapshot([SourceText("open.yaml", allow)], Options())
    assert [reason(rules, path) for path in ("/a%28b", "/a(b")] == [Reason.ALLOW_POLICY, Reason.NO_MATCHING_POLICY]


@pytest.mark.parametrize(("value", "path"), [("/a%2Fb", "/a/b"), ("/a%2A", "/abc"), ("/a%3Bb", "/a")])
def test_a_denied_path_is_not_decoded_into_another_one(value: str, path: str) -> None:
    assert reason(denying(f"{{to: [{{operation: {{paths: ['{value}']}}}}]}}"), path) is Reason.ALLOW_POLICY


def test_istio_semantics_compare_encoded_paths_as_received() -> None:
    rules = denying("{to: [{operation: {paths: ['/caf%C3%A9']}}]}", Options.istio())
    assert reason(rules, "/caf%c3%a9") is Reason.ALLOW_POLICY
    assert reason(rules, "/caf%C3%A9") is Reason.DENY_POLICY


def conditional(text: str, action: str, options: Options | None = None) -> Snapshot:
    policy = f"""
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: p}}
spec: {{action: {action}, rules: [{{condition: "{text}"}}]}}
"""
    texts = [SourceText("p.yaml", policy)] + ([SourceText("open.yaml", OPEN)] if action == "DENY" else [])
    return compile_snapshot(texts, options or Options())


@pytest.mark.parametrize(
    "path",
    ["/v1/things:delete", "/v1/things%3Adelete", "/v1/things%3adelete", "/v1/things:delete%20", "/caf%E9:delete"],
)
def test_a_path_that_a_condition_denies_is_denied_decoded_too(path: str) -> None:
    denied = conditional("request.path.endsWith(':delete')", "DENY")
    assert reason(denied, path) is Reason.DENY_POLICY
    assert reason(denied, "/v1/things%3Aget") is Reason.ALLOW_POLICY
    assert reason(conditional("request.query.endsWith(':delete')", "DENY"), path) is Reason.ALLOW_POLICY
    istio = conditional("request.path.endsWith(':delete')", "DENY", Options.istio())
    assert (reason(istio, path) is Reason.DENY_POLICY) is path.endswith(":delete")


def test_a_path_that_a_condition_allows_is_allowed_only_if_all_its_readings_are() -> None:
    for text, other in (("request.path.endsWith(':delete')", "get"), ("!request.path.endsWith(':delete')", "delete")):
        allowing = conditional(text, "ALLOW")
        good = "get" if other == "delete" else "delete"
        assert reason(allowing, f"/v1/things:{good}") is Reason.ALLOW_POLICY
        assert reason(allowing, f"/v1/things:{other}") is Reason.NO_MATCHING_POLICY
        assert reason(allowing, "/v1/things%3Adelete") is Reason.NO_MATCHING_POLICY
    assert reason(conditional("request.path.startsWith('/caf')", "ALLOW"), "/caf%C3%A9/a%20b") is Reason.ALLOW_POLICY


@pytest.mark.parametrize(
    "query", ["role=admin", "r%6fle=admin", "role=%61dmin", "%72%6F%6C%65%3Dadmin", "a=1&role=admin%20"]
)
def test_a_query_that_a_condition_denies_is_denied_decoded_too(query: str) -> None:
    denied = conditional("request.query.contains('role=admin')", "DENY")
    assert reason(denied, f"/?{query}") is Reason.DENY_POLICY
    assert reason(denied, "/?role=%75ser+1") is Reason.ALLOW_POLICY
    istio = conditional("request.query.contains('role=admin')", "DENY", Options.istio())
    assert (reason(istio, f"/?{query}") is Reason.DENY_POLICY) is ("role=admin" in query)


@pytest.mark.parametrize("plus", ["+", "%20"])
def test_a_blank_in_a_query_is_a_blank_in_every_spelling(plus: str) -> None:
    assert reason(conditional("request.query == 'q=a b'", "DENY"), f"/?q=a{plus}b") is Reason.DENY_POLICY


def test_path_and_query_of_a_condition_are_decoded_together() -> None:
    denied = conditional("request.path == '/é' && request.query == 'é'", "DENY")
    assert reason(denied, "/%C3%A9?%C3%A9") is Reason.DENY_POLICY
    assert reason(denied, "/%C3%A9?e") is Reason.ALLOW_POLICY


@pytest.mark.parametrize(
    "host", ["secret.example.com", "secret.example.com.", "secret.example.com:80", "SECRET.example.com.:1"]
)
def test_a_host_that_a_condition_denies_is_denied_with_port_and_trailing_dot(host: str) -> None:
    for text in (
        "request.host == 'secret.example.com'",
        "request.host.endsWith('t.example.com') && token.issuer != 'https://a'",
    ):
        assert reason(conditional(text, "DENY"), host=host) is Reason.DENY_POLICY
        assert reason(conditional(text, "DENY"), host="shop.example.com:80") is Reason.ALLOW_POLICY
    but = conditional("request.host != 'secret.example.com'", "ALLOW")
    assert reason(but, host=host) is Reason.NO_MATCHING_POLICY
    assert reason(but, host="shop.example.com.:80") is Reason.ALLOW_POLICY


def test_a_condition_that_names_a_port_sees_it() -> None:
    text = "request.host == 'secret.example.com:8443'"
    assert reason(conditional(text, "ALLOW"), host="secret.example.com:8443") is Reason.ALLOW_POLICY
    assert reason(conditional(text, "DENY"), host="secret.example.com.:8443") is Reason.DENY_POLICY
    assert reason(conditional(text, "DENY"), host="secret.example.com:80") is Reason.ALLOW_POLICY


USER = ["user"]
DENIED_UNLESS_USER = [
    ({"x-role": ("user", "admin")}, USER, True),
    ({"x-role": ("admin", "user")}, USER, True),
    ({"x-role": ("user",), "x_role": ("admin",)}, USER, True),
    ({"x-role": ("user",), "x.role": ("a,user",)}, USER, True),
    ({"x-role": ("user ",)}, ["user "], True),  # to HTTP/1 it is `user`
    ({"x-role": ()}, USER, True),
    ({"x_role": ("user",)}, USER, True),
    ({"x-role": ("user",)}, USER, False),
    ({"x-role": ("user", "user")}, USER, False),
    ({"x-role": ("user",), "x_role": ("user",)}, USER, False),
    ({"x-role": ("user", "guest")}, ["user", "gue*"], False),
]


@pytest.mark.parametrize(("headers", "values", "denied"), DENIED_UNLESS_USER)
@pytest.mark.parametrize("others", [0, 20])
def test_a_deny_of_all_but_some_values_of_a_header_checks_each_value(
    headers: dict[str, tuple[str, ...]], values: list[str], denied: bool, others: int
) -> None:
    """An application may use the first, the last or any of them, and another spelling of the name."""
    unless = [f"{{when: [{{key: 'request.headers[x-role]', notValues: {values}}}]}}"]
    unless += [
        unless[0].replace("}]}", f"}}, {{key: 'request.headers[x-{n}]', values: [a]}}]}}") for n in range(others)
    ]
    sent = Headers({name: value for name, value in headers.items() if value}, exact=True)
    asked = RequestAttributes("GET", "/", "a", headers=sent)
    decided = evaluate(denying(", ".join(unless)), asked, Evidence(), 0.0)
    assert (decided.reason is Reason.DENY_POLICY) is denied, decided
    istio = evaluate(denying(", ".join(unless), Options.istio()), asked, Evidence(), 0.0)
    assert (istio.reason is Reason.DENY_POLICY) is not bool(set(values).intersection(headers.get("x-role", ())))


@pytest.mark.parametrize(
    ("claim", "value", "denied"),
    [
        (True, "true", True), (False, "false", True), (7, "7", True), (-7, "-7.000000", True), (["a", 7], "7", True),
        ({"sub": "x"}, "*", True), ([{"sub": "x"}], "*", True), ([True], "true", True), ("true", "true", True),
        (None, "*", False), ([], "*", False), ([None], "*", False), (True, "false", False), (7, "77", False),
    ],
)  # fmt: skip
def test_a_deny_matches_claims_that_are_not_strings(claim: object, value: str, denied: bool) -> None:
    """A boolean `blocked: true` must not evade a DENY of `blocked: "true"`."""
    token = Token("https://i", "s", {"iss": "https://i", "sub": "s", "c": {"d": claim}})
    asked = RequestAttributes("GET", "/", "a")
    for options in (Options(), Options.istio()):
        rules = denying(f"{{when: [{{key: 'request.auth.claims[c][d]', values: ['{value}']}}]}}", options)
        inputs = Inputs(asked, Identity(token=token, tokens=(token,)), options, 0.0)
        decision = combine(rules.table.default_view, inputs, default_allow=False)
        assert (decision.reason is Reason.DENY_POLICY) is (denied and (options.strict or claim == value))
    but = OPEN.replace("[{}]", f"[{{when: [{{key: 'request.auth.claims[c][d]', notValues: ['{value}']}}]}}]")
    allow = compile_snapshot([SourceText("but.yaml", but)], Options())
    inputs = Inputs(asked, Identity(token=token, tokens=(token,)), Options(), 0.0)
    assert combine(allow.table.default_view, inputs, default_allow=False).allowed is not denied


@pytest.mark.parametrize("path", ["/v1/a:delete?x=1", "/v1/a%3Adelete?x=1", "/v1/a%3adelete?%20"])
def test_a_condition_on_the_path_header_sees_it_decoded_as_paths_do(path: str) -> None:
    rule = "{when: [{key: 'request.headers[:path]', values: ['/v1/a:delete*']}]}"
    assert reason(denying(rule), path) is Reason.DENY_POLICY
    assert reason(denying(rule), "/v1/a%3Aget") is Reason.ALLOW_POLICY
    assert (reason(denying(rule, Options.istio()), path) is Reason.DENY_POLICY) is ("%3" not in path)
    unless = f"{{when: [{{key: 'request.headers[:path]', notValues: ['{path}']}}]}}"
    assert reason(denying(unless), path) is Reason.ALLOW_POLICY
    allow = OPEN.replace("[{}]", f"[{rule}]")
    only = compile_snapshot([SourceText("a.yaml", allow)], Options())
    assert (reason(only, path) is Reason.ALLOW_POLICY) is ("%3" not in path)


@pytest.mark.parametrize("name", ["x-role", "x_role", "x.role"])
def test_a_condition_that_searches_header_names_is_unknown_if_a_name_is_ambiguous(
    name: str,
) -> None:
    denied = conditional("request.headers.exists(h, h == 'x-role')", "DENY")
    for sent, expected in ((name, Reason.DENY_POLICY), ("x-other", Reason.ALLOW_POLICY)):
        asked = RequestAttributes("GET", "/", "a", headers=Headers({sent: ("admin",)}, exact=True))
        assert evaluate(denied, asked, Evidence(), 0.0).reason is expected
    asked = RequestAttributes("GET", "/", "a", headers=Headers({name: ("admin",)}, exact=True))
    (line,) = explain(denied, asked, Evidence(), 0.0).matched
    assert ("may read as another" in line) is (name != "x-role")
