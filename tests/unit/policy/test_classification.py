"""Classes of resources: the strictest in any reading of a request, and what a class demands of an allowed one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.policies import ISTIO, faults, request, snapshot
from tests.support.trust import MODEL, NETWORK, NOW, USER
from zta_authz.errors import Reason
from zta_authz.model.facts import FactViews, NetworkFacts
from zta_authz.model.identity import Identity, Token
from zta_authz.model.trust import TrustDemand, TrustLevel
from zta_authz.pdp.decide import combine, facts_of
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.addresses import Ip
    from zta_authz.model.decision import Decision
    from zta_authz.model.options import Options
    from zta_authz.model.request import RequestAttributes
    from zta_authz.model.trust import ResourceClass

HEAD = "apiVersion: zta.dev/v1\nkind: ResourceClassification\nmetadata: {name: c, namespace: default}\nspec:\n"
SPEC = """  default: internal
  rules:
  - {class: public, to: [{operation: {paths: ["/public/*", "/café"]}}]}
  - {class: restricted, cost: 5, to: [{operation: {paths: ["/payroll/*"], notMethods: [HEAD]}}, {operation: {hosts: [vault.example]}}]}
  - {class: confidential, to: [{operation: {paths: ["/public/staff/{*}"], ports: ["8080"]}}]}
  demands:
    confidential: {device: 50}
    restricted: {level: HIGH, user: 80}
"""
EVERYBODY = (
    "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: p, namespace: default}\nspec:\n  rules: [{}]\n"
)
TRUST = MODEL + "spec:\n  allowedCountries: [DE]\n  components: {behavior: {assume: 100}, device: {assume: 60}}\n"


class Germany:
    def look_up(self, address: Ip, now: float) -> NetworkFacts:
        del address, now
        return NETWORK


def inputs_of(
    *texts: str, asked: RequestAttributes, claims: dict[str, object] | None = None, options: Options | None = None
) -> Inputs:
    compiled = snapshot(*texts, **({} if options is None else {"options": options}))
    token = Token("https://i", "u", claims or {})
    views = FactViews(networks=Germany())
    return Inputs(asked, Identity(None, token, (token,)), compiled.options, NOW, None, facts_of(compiled, None, views))


def classified(
    path: str = "/", method: str = "GET", host: str = "example.com", options: Options | None = None
) -> ResourceClass:
    found = inputs_of(HEAD + SPEC, asked=request(method, path, host), options=options).facts.resource_class
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "internal"), ("/public/a", "public"), ("/payroll/1", "restricted"), ("/public/staff/1", "confidential"),
        ("/public/a?x=/payroll/", "public"),
    ],
)  # fmt: skip
def test_the_strictest_matching_rule_gives_the_class(path: str, name: str) -> None:
    assert classified(path).name == name


def test_a_class_has_its_demand_and_its_cost() -> None:
    found = classified("/payroll/1")
    assert found.demand == TrustDemand(TrustLevel.HIGH, (("user", 8000),))
    assert (found.cost, found.source) == (5, "default/c")
    assert (classified().cost, classified().demand) == (1, TrustDemand())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/p%61yroll/1", "restricted"), ("/payrol%6C/1", "restricted"), ("/%70ublic/a", "internal"), ("/caf%c3%a9", "internal"),
        ("/public/st%61ff/1", "confidential"),
    ],
)  # fmt: skip
def test_no_other_spelling_of_a_path_gets_a_laxer_class(path: str, name: str) -> None:
    assert classified(path).name == name


@pytest.mark.parametrize("host", ["vault.example", "VAULT.example", "vault.example:8443", "vault.example."])
def test_no_other_spelling_of_a_host_gets_a_laxer_class(host: str) -> None:
    assert classified(host=host).name == "restricted"


def test_istios_semantics_reads_the_text_as_it_came() -> None:
    assert classified("/p%61yroll/1", options=ISTIO).name == "internal"


def decided(path: str, claims: dict[str, object] | None = None, *more: str) -> Decision:
    texts = (HEAD + SPEC, EVERYBODY, *more)
    compiled = snapshot(*texts)
    inputs = inputs_of(*texts, asked=request(path=path), claims=claims)
    return combine(compiled.table.default_view, inputs, default_allow=False)


def test_an_allow_stands_where_the_class_demands_nothing_or_is_met() -> None:
    assert decided("/public/a").allowed
    assert decided("/payroll/1", USER, TRUST).allowed
    assert decided("/public/staff/1", USER, TRUST).allowed


def test_an_allow_becomes_a_denial_where_the_demand_is_not_met() -> None:
    denial = decided("/payroll/1", {**USER, "amr": ["pwd"]}, TRUST)
    assert (denial.allowed, denial.reason, denial.policy) == (False, Reason.TRUST_TOO_LOW, "")
    assert denial.detail.startswith(
        "class `restricted` (default/c) demands at least level HIGH, user 80, and the request has level"
    )
    assert "user 70" in denial.detail


def test_without_a_trust_model_no_demand_is_met() -> None:
    denial = decided("/payroll/1", USER)
    assert (denial.reason, "no TrustModel" in denial.detail) == (Reason.TRUST_TOO_LOW, True)


def test_a_denial_stays_what_it_is() -> None:
    deny = EVERYBODY.replace("{name: p,", "{name: d,").replace("  rules:", "  action: DENY\n  rules:")
    assert decided("/payroll/1", None, deny).reason is Reason.DENY_POLICY


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("  rules: []\n", "ResourceClassification.spec has no `default`"),
        ("  default: secret\n", "`secret` is not a class; one of public, internal, confidential, restricted"),
        ("  default: Public\n", "`Public` is not a class; write `public`"),
        ("  default: public\n  rules: [{to: [{operation: {paths: [/a]}}]}]\n", "a rule has no `class`"),
        ("  default: public\n  rules: [{class: public}]\n", "a rule has no `to`"),
        ("  default: public\n  rules: [{class: public, to: [{operation: {paths: ['/a/{*}x']}}]}]\n", "`/a/{*}x`"),
        ("  default: public\n  rules: [{class: public, to: [{operation: {methods: [GET], color: [x]}}]}]\n", "unknown field `color`"),
        ("  default: public\n  rules: [{class: public, from: []}]\n", "unknown field `from`"),
        ("  default: public\n  rules: [{class: public, cost: -1, to: [{operation: {paths: [/a]}}]}]\n", "`cost` is not a whole number"),
        ("  default: public\n  demands: {secret: {level: HIGH}}\n", "unknown field `secret`"),
        ("  default: public\n  demands: {public: {}}\n", "`demands.public` is empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_fault(spec: str, message: str) -> None:
    assert message in "\n".join(faults(HEAD + spec))


@pytest.mark.parametrize(
    ("rule", "path", "host"),
    [
        ("paths: [/payroll]", "/p%61yroll", "example.com"),
        ("notPaths: ['/public/*']", "/%70ublic/1", "example.com"),
        ("notHosts: [open.example]", "/", "open.example:80"),
        ("notHosts: [open.example]", "/", "open.example."),
        ("hosts: ['vault.example:8443']", "/", "vault.example.:8443"),
        ("hosts: [vault.example]", "/", "vault.example:80"),
    ],
)
def test_a_strict_rule_matches_in_any_reading(rule: str, path: str, host: str) -> None:
    spec = f"  default: public\n  rules: [{{class: restricted, to: [{{operation: {{{rule}}}}}]}}]\n"
    found = inputs_of(HEAD + spec, asked=request("GET", path, host)).facts.resource_class
    assert found is not None
    assert found.name == "restricted"


@pytest.mark.parametrize(
    ("rule", "path", "host", "name"),
    [
        ("paths: ['/public/*']", "/public/a%20b", "example.com", "public"),
        ("paths: ['/public/*']", "/%70ublic/a", "example.com", "restricted"),
        ("notPaths: ['/payroll/*']", "/p%61yroll/1", "example.com", "restricted"),
        ("hosts: [open.example]", "/", "open.example", "public"),
        ("hosts: [open.example]", "/", "open.example:80", "restricted"),
        ("hosts: ['open.example:*', open.example]", "/", "open.example:80", "public"),
    ],
)
def test_a_lax_rule_needs_every_reading(rule: str, path: str, host: str, name: str) -> None:
    spec = f"  default: restricted\n  rules: [{{class: public, to: [{{operation: {{{rule}}}}}]}}]\n"
    found = inputs_of(HEAD + spec, asked=request("GET", path, host)).facts.resource_class
    assert found is not None
    assert found.name == name


def test_a_namespace_cannot_undo_the_classification_of_the_root_namespace() -> None:
    root = (
        HEAD.replace("namespace: default", "namespace: istio-system")
        + "  default: restricted\n  demands: {restricted: {level: HIGH}}\n"
    )
    own = HEAD + "  default: public\n"
    for texts in ((root, own), (own, root)):
        found = inputs_of(*texts, asked=request()).facts.resource_class
        assert found is not None
        assert (found.name, found.demand.level) == ("restricted", TrustLevel.HIGH)


def test_demands_of_several_documents_on_one_class_all_count() -> None:
    one = HEAD + "  default: internal\n  demands: {internal: {level: LOW, user: 80, device: 10}}\n"
    other = (
        HEAD.replace("name: c", "name: d") + "  default: internal\n  demands: {internal: {level: HIGH, device: 60}}\n"
    )
    found = inputs_of(one, other, asked=request()).facts.resource_class
    assert found is not None
    assert found.demand.level is TrustLevel.HIGH
    assert dict(found.demand.components) == {"user": 8000, "device": 6000}
    assert found.source == "default/c, default/d"
