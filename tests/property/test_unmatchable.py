"""No request contradicts a finding that something never matches."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.support.policies import identity, operation, policy, source
from zta_authz.cli.policy_warnings import findings_of
from zta_authz.errors import DocumentErrors
from zta_authz.model.options import Options
from zta_authz.model.request import Evidence, Headers, RequestAttributes
from zta_authz.pdp.decide import evaluate
from zta_authz.pdp.snapshot import SourceText, compile_snapshot
from zta_authz.policy.lint.linter import Kind
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = (
    "/", "/", "/", "a", "b", "*", "**", "{*}", "{**}", "{id}", ":x", ".", "..", "//", "é", " ", "%20", "%2F", "%e9", "%",
    ";", "?", "#", "\\", "^", "$", "[0-9]+", "(a|b)", ".*", "=", "~", "<",
)  # fmt: skip
HOST_PARTS = (
    "a",
    ".",
    "example",
    "com",
    "*",
    ":",
    "80",
    "https://",
    "/",
    "é",
    "[",
    "::1",
    "]",
    "^",
    "-",
    "_",
    "@",
    "%",
)
NAME_PARTS = ("td", "/ns/", "a", "/sa/", "web", "*", "/", "spiffe://", ".", "é", "T", " ", "-", "%", "..")
ODD = frozenset("*^$[]{}()|\\:+<?")
_VALUES = 350
_REQUESTS = 25


def drawn(random: Random, parts: tuple[str, ...], start: str = "") -> str:
    return start + "".join(random.choice(parts) for _ in range(random.randint(1, 5)))


def met(random: Random, value: str) -> str:
    """A text that `value` may match, some of it percent-encoded, in UTF-8 or Latin-1."""
    text = value
    for operator in ("{**}", "{*}", "*"):
        if random.random() < 0.7:
            text = text.replace(operator, random.choice(("x", "x/y", "", "é", "20")))
    text = random.choice(("", "", "/", "x")) + text + random.choice(("", "", "x", " ", "/"))
    made = ""
    for character in text:
        latin = quote(character, safe="", encoding="latin-1", errors="ignore")
        made += random.choice((character, character, character, quote(character, safe=""), latin or character))
    return made


def paths(random: Random) -> tuple[dict[str, Any], Callable[[], tuple[RequestAttributes, str]]]:
    value = drawn(random, PARTS, random.choice(("/", "/", "")))

    def request() -> tuple[RequestAttributes, str]:
        path = met(random, value)
        return RequestAttributes(method="GET", path=path, host="a.example"), path

    return operation(paths=[value]), request


def hosts(random: Random) -> tuple[dict[str, Any], Callable[[], tuple[RequestAttributes, str]]]:
    value = drawn(random, HOST_PARTS)

    def request() -> tuple[RequestAttributes, str]:
        host = value.replace("*", random.choice(("x", "x.y", "", "*"))) + random.choice(("", "", ":80", ".", "x"))
        return RequestAttributes(method="GET", path="/", host=host), host

    return operation(hosts=[value]), request


def names(random: Random) -> tuple[dict[str, Any], Callable[[], tuple[RequestAttributes, str]]]:
    field = random.choice(("principals", "principals", "namespaces", "trustDomains"))
    value = drawn(random, NAME_PARTS)

    def request() -> tuple[RequestAttributes, str]:
        text = value.replace("*", random.choice(("x", "td/ns/a/sa/web", "/x", "", "*")))
        forms = {
            "principals": "spiffe://{}",
            "namespaces": "spiffe://td/ns/{}/sa/web",
            "trustDomains": "spiffe://{}/ns/a",
        }
        name = forms[field].format(text) + random.choice(("", "", "x", "/x"))
        return RequestAttributes(method="GET", path="/"), name

    return source(**{field: [value]}), request


@pytest.mark.parametrize("accepting", [False, True], ids=["refusing", "accepting ambiguous paths"])
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize("draw", [paths, hosts, names])
def test_no_request_matches_a_rule_reported_as_never_matching(draw: Any, action: str, accepting: bool) -> None:
    random = Random(f"{draw.__name__} {action} {accepting}")
    options = Options(trust_proxy=True, accept_ambiguous_paths=accepting)
    certain = doubtful = matched = 0
    for _ in range(_VALUES):
        rule, request = draw(random)
        texts = [policy("p", rule, action=action), *([policy("rest", {})] if action == "DENY" else [])]
        try:
            rules = compile_snapshot([SourceText(f"{n}.yaml", as_yaml(text)) for n, text in enumerate(texts)], options)
        except DocumentErrors:
            continue
        findings = [f for f in findings_of(rules, 0.0) if f.policy == "default/p"]
        never = any(f.kind is Kind.NEVER_MATCHES for f in findings)
        characters = any(f.kind is Kind.NEVER_MATCHES_AS_WRITTEN for f in findings)
        certain, doubtful = certain + never, doubtful + characters
        for _ in range(_REQUESTS):
            attributes, text = request()
            evidence = Evidence(text if draw is names else "")
            if evaluate(rules, attributes, evidence, 0.0).policy == "default/p":
                matched += 1
                assert not never, (rule, text, findings)
                strange = not ODD.isdisjoint(text) or "%" in text or not text.startswith("/")
                assert not characters or strange, (rule, text, findings)
    assert certain > 5 or accepting, (certain, doubtful, matched)
    assert matched > 100, (certain, doubtful, matched)


def as_yaml(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False)


CLAUSES = (
    "request.headers['X-A'] == 'v'", "'X-A' in request.headers", "request.headers['x-a'] == 'v'", "request.host == 'A.b'",
    "request.host == 'a.b'", "request.path == '/a?b'", "request.path == '/a'", "source.principal == 'td/a'",
    "source.principal == 'spiffe://td/a'", "claims.role == 'x'", "has(claims.role)", "token.subject == ''",
    "(request.path == '/a' ? request.headers['X-A'] : 'b') == 'b'", "(has(claims.a) ? claims.a : 'x') == 'x'",
    "(request.path == '/b' || request.headers['X-A'] == 'v') == true", "(claims.a == 1 && false) == false",
    "token.subject == 'alice'", "request.headers[':path'] == '/a'",
)  # fmt: skip
HEAD = (
    "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: %s}\nspec: {action: %s, rules: [{condition: %r}]}\n"
)


def condition(random: Random, depth: int = 2) -> str:
    if depth == 0 or random.random() < 0.3:
        return random.choice(CLAUSES)
    one, two = condition(random, depth - 1), condition(random, depth - 1)
    return random.choice((f"({one} && {two})", f"({one} || {two})", f"!({one})", f"({one} ? {two} : {one})"))


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_no_request_contradicts_a_finding_about_a_condition(action: str) -> None:
    random = Random(f"conditions {action}")
    counts = {Kind.NEVER_MATCHES: 0, Kind.UNAUTHENTICATED: 0}
    for _ in range(250):
        rules = compile_snapshot([SourceText("a.yaml", HEAD % ("p", action, condition(random)))], Options())
        kinds = {finding.kind for finding in findings_of(rules, 0.0)}
        rule = rules.table.policies[0].rules[0]
        for kind in counts:
            counts[kind] += kind in kinds
        for _ in range(10):
            caller = identity(*random.choice(((), ("spiffe://td/a",), ("spiffe://td/b",))))
            made = Headers({"x-a": ("v",)} if random.random() < 0.5 else {}, exact=True)
            attributes = RequestAttributes(
                method="GET",
                path=random.choice(("/a", "/a?b", "/b")),
                host=random.choice(("a.b", "A.b", "c")),
                headers=made,
            )
            holds = rule.holds(Inputs(attributes, caller, Options()), action == "DENY")
            assert not (holds and Kind.NEVER_MATCHES in kinds), rules.table
            if holds and action == "ALLOW" and not caller.principal:
                assert Kind.UNAUTHENTICATED in kinds
    assert counts[Kind.NEVER_MATCHES] > 20
    assert counts[Kind.UNAUTHENTICATED] > 20 or action == "DENY"
