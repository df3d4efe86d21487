"""Rules on facts: what is known decides, what is unknown never lets an ALLOW match and never keeps a DENY from it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.fakes.facts import FixedFacts, FixedOpener
from tests.support.policies import faults, identity, request, snapshot
from zta_authz.errors import Reason
from zta_authz.model.facts import ABSENT, DeviceFacts, Fact, NetworkFacts, Unknown, describe, known
from zta_authz.model.options import Options
from zta_authz.model.trust import ResourceClass, TrustAssessment, TrustLevel
from zta_authz.pdp.decide import combine
from zta_authz.policy.cel.condition import Condition, ConditionError
from zta_authz.policy.cel.explanation import explain_condition
from zta_authz.policy.rules.fact_values import version_parts
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision

NOW = 1_800_000_000.0
HEAD = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: p, namespace: default}\nspec:\n"
NETWORK = NetworkFacts(
    country=known("DE", NOW - 7200, "geo.mmdb"),
    asn=known(64500),
    anonymous=known(False),
    reputation=known(70),
    corporate=known(False),
)
DEVICE = DeviceFacts(
    "laptop-1",
    "certificate",
    "default/fleet",
    {
        "managed": known(True, NOW - 60, "default/fleet"),
        "encrypted": known(False),
        "os": known("macOS"),
        "osVersion": known("26.1"),
        "lastSeen": known(int(NOW) - 3600),
        "stale": Fact(None, Unknown.STALE, NOW - 200_000, "default/fleet"),
        "compliant": Fact(None, Unknown.CONFLICTING),
    },
)
TRUST = TrustAssessment("default/m", 7050, TrustLevel.MEDIUM, {"user": 10000, "device": 4000})
FACTS = FixedFacts(NETWORK, DEVICE, TRUST, ResourceClass("internal", source="default/c"))


def inputs(facts: FixedFacts = FACTS) -> Inputs:
    return Inputs(request(), identity(), Options(), NOW, None, FixedOpener(facts))


def decided(spec: str, facts: FixedFacts = FACTS) -> Decision:
    compiled = snapshot(HEAD + spec)
    return combine(compiled.table.default_view, inputs(facts), default_allow=False)


def allowed(require: str, facts: FixedFacts = FACTS) -> bool:
    return decided(f"  rules: [{{require: {require}}}]\n", facts).allowed


@pytest.mark.parametrize(
    "require",
    [
        "{device: {managed: true}}",
        "{device: {encrypted: false}}",
        '{device: {osAtLeast: {macOS: "26.1"}}}',
        '{device: {osAtLeast: {MACOS: "9.20", Windows: "11"}}}',
        "{device: {seenWithin: 1h}}",
        "{network: {countries: [FR, DE]}}",
        "{network: {notCountries: [KP]}}",
        "{network: {asns: [64500]}}",
        "{network: {corporate: false, anonymous: false}}",
        "{network: {reputationAtLeast: 70}}",
        "{device: {managed: true}, network: {countries: [DE]}, trust: {level: MEDIUM}}",
    ],
)
def test_a_rule_holds_where_every_fact_is_as_required(require: str) -> None:
    assert allowed(require)


@pytest.mark.parametrize(
    "require",
    [
        "{device: {managed: false}}",
        "{device: {encrypted: true}}",
        "{device: {managed: true, encrypted: true}}",
        '{device: {osAtLeast: {macOS: "26.2"}}}',
        "{device: {seenWithin: 59m}}",
        "{network: {countries: [FR]}}",
        "{network: {notCountries: [KP, DE]}}",
        "{network: {asns: [1]}}",
        "{network: {corporate: true}}",
        "{network: {anonymous: true}}",
        "{network: {reputationAtLeast: 71}}",
        "{device: {managed: true}, network: {countries: [FR]}}",
    ],
)
def test_a_rule_does_not_hold_where_a_fact_is_otherwise(require: str) -> None:
    assert not allowed(require)


@pytest.mark.parametrize(
    "require",
    [
        "{device: {stale: true}}",
        "{device: {stale: false}}",
        "{device: {compliant: true}}",
        "{device: {compliant: false}}",
        "{device: {neverHeardOf: false}}",
        '{device: {osAtLeast: {Windows: "1"}}}',
    ],
)
def test_an_unknown_field_satisfies_nothing(require: str) -> None:
    assert not allowed(require)


@pytest.mark.parametrize("unknown", list(Unknown))
@pytest.mark.parametrize("require", ["{countries: [DE]}", "{notCountries: [KP]}"])
def test_an_unknown_country_is_neither_allowed_nor_excluded(unknown: Unknown, require: str) -> None:
    facts = replace(FACTS, network=replace(NETWORK, country=Fact(None, unknown)))
    assert not allowed(f"{{network: {require}}}", facts)


def test_a_request_without_any_facts_satisfies_nothing() -> None:
    nothing = FixedFacts()
    for require in ("{device: {managed: false}}", "{network: {anonymous: false}}", "{device: {seenWithin: 24h}}"):
        assert not allowed(require, nothing)


def test_a_device_that_will_report_in_the_future_is_conflicting() -> None:
    facts = replace(FACTS, device=replace(DEVICE, fields={"lastSeen": known(int(NOW) + 301)}))
    assert not allowed("{device: {seenWithin: 24h}}", facts)
    skewed = replace(FACTS, device=replace(DEVICE, fields={"lastSeen": known(int(NOW) + 299)}))
    assert allowed("{device: {seenWithin: 24h}}", skewed)


@pytest.mark.parametrize("value", [True, "yesterday"])
def test_a_time_that_is_none_is_unknown(value: bool | str) -> None:
    facts = replace(FACTS, device=replace(DEVICE, fields={"lastSeen": known(value)}))
    assert not allowed("{device: {seenWithin: 24h}}", facts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("26.1", (26, 1)), ("26.1.0", (26, 1)), ("macOS 26.10", (26, 10)), ("Ubuntu 22.04.4 LTS", (22, 4, 4)),
        ("10.0.22631.4460", (10, 0, 22631, 4460)), ("0", ()), ("rolling", None), ("Windows 11 Pro 23H2 10.0.22631.1", (10, 0, 22631, 1)),
        ("CentOS Linux 7", (7,)), ("macOS 10.15 (19.6)", (10, 15)), ("", None), ("9" * 300, (999999999,)),
    ],
)  # fmt: skip
def test_versions_compare_number_by_number(text: str, parts: tuple[int, ...] | None) -> None:
    assert version_parts(text) == parts


@pytest.mark.parametrize(
    ("system", "version", "holds"),
    [
        ("darwin", "macOS 26.1", True), ("darwin", "macOS 26.0.9", False), ("windows", "Windows 11 Pro 10.0.22631.2", True),
        ("Windows", "Windows 11 Pro 10.0.19045", False), ("windows", "Windows 11 Enterprise 22H2", False), ("windows", "12", False),
    ],
)  # fmt: skip
def test_a_marketing_name_never_passes_for_a_build_and_darwin_is_macos(system: str, version: str, holds: bool) -> None:
    facts = replace(FACTS, device=replace(DEVICE, fields={"os": known(system), "osVersion": known(version)}))
    assert allowed('{device: {osAtLeast: {macOS: "26.1", Windows: "10.0.22631"}}}', facts) == holds


WHEN = "  action: {action}\n  rules: [{{when: [{{key: {key}, {side}: [{value}]}}]}}]\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("zta.remote.country", "DE"), ("zta.remote.country", '"*"'), ("zta.remote.asn", '"64500"'), ("zta.remote.reputation", '"70"'),
        ("zta.remote.corporate", '"false"'), ("zta.remote.anonymous", '"false"'), ("zta.device.id", '"laptop-*"'),
        ("zta.device.managed", '"true"'), ("zta.device.os", "macOS"), ("zta.trust.level", "MEDIUM"),
        ("zta.resource.class", "internal"),
    ],
)  # fmt: skip
def test_every_key_of_when_reads_its_fact(key: str, value: str) -> None:
    assert decided(WHEN.format(action="ALLOW", key=key, side="values", value=value)).allowed
    assert not decided(WHEN.format(action="ALLOW", key=key, side="notValues", value=value)).allowed
    nothing = FixedFacts()
    for side in ("values", "notValues"):
        assert not decided(WHEN.format(action="ALLOW", key=key, side=side, value=value), nothing).allowed
        denial = decided(WHEN.format(action="DENY", key=key, side=side, value=value), nothing)
        assert denial.reason is Reason.DENY_POLICY


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("zta.remote.country", "de", "`de` is not a value of `zta.remote.country`"),
        ("zta.remote.reputation", "'101'", "`101` is not a value of `zta.remote.reputation`"),
        ("zta.remote.asn", "AS64500", "`AS64500` is not a value of `zta.remote.asn`"),
        ("zta.remote.corporate", "'yes'", "`yes` is not a value of `zta.remote.corporate`"),
        ("zta.trust.level", "SOME", "`SOME` is not a value of `zta.trust.level`"),
        ("zta.remote.planet", "EARTH", "unknown condition key `zta.remote.planet`"),
        ("zta.remote.countri", "DE", "did you mean `zta.remote.country`?"),
        ("zta.device.", "x", "unknown condition key `zta.device.`"),
    ],
)
def test_what_a_key_can_never_have_is_a_fault(key: str, value: str, message: str) -> None:
    spec = WHEN.format(action="ALLOW", key=key, side="values", value=value)
    assert message in "\n".join(faults(HEAD + spec))


def test_istios_own_kind_has_no_facts() -> None:
    text = HEAD.replace("zta.dev/v1", "security.istio.io/v1").replace("AccessPolicy", "AuthorizationPolicy")
    spec = WHEN.format(action="ALLOW", key="zta.remote.country", side="values", value="DE")
    assert "condition key `zta.remote.country` is for AccessPolicy only" in "\n".join(faults(text + spec))


@pytest.mark.parametrize(
    ("require", "message"),
    [
        ("{device: {}}", "`require.device` is empty"),
        ("{device: [managed]}", "`require.device` is a list"),
        ("{device: {managed: 'yes'}}", "`require.device.managed`"),
        ("{device: {'a b': true}}", "`a b` is not a field of a device"),
        ("{device: {osAtLeast: {macOS: new}}}", "`new` in `require.device.osAtLeast` is not a version"),
        ("{device: {osAtLeast: {}}}", "`require.device.osAtLeast` is empty"),
        (
            "{network: {notCountries: [" + "DE, " * 4097 + "]}}",
            "4097 values in `notCountries`, more than the limit of 4096",
        ),
        ("{device: {osAtLeast: 26}}", "`require.device.osAtLeast`"),
        ("{device: {seenWithin: 24}}", "`seenWithin` has the integer `24`"),
        ("{network: {}}", "`require.network` is empty"),
        ("{network: {countries: [Germany]}}", "`Germany` in `countries` is not a country code"),
        ("{network: {countries: [NO]}}", "boolean"),
        ("{network: {asns: [AS1]}}", "`AS1` in `asns` is not an AS number"),
        ("{network: {asns: [4294967296]}}", "`4294967296` in `asns` is not an AS number"),
        ("{network: {reputationAtLeast: 101}}", "`reputationAtLeast` is not a whole number from 0 to 100"),
        ("{network: {vpn: true}}", "unknown field `vpn`"),
    ],
)
def test_what_cannot_be_required_is_a_fault(require: str, message: str) -> None:
    assert message in "\n".join(faults(HEAD + f"  rules: [{{require: {require}}}]\n"))


def test_a_deny_may_not_require_facts() -> None:
    spec = "  action: DENY\n  rules: [{require: {network: {countries: [DE]}}}]\n"
    assert "a DENY policy would not deny callers that fail `require`" in "\n".join(faults(HEAD + spec))


def test_what_was_read_says_value_state_age_and_source() -> None:
    spec = '  rules: [{require: {network: {countries: [DE], notCountries: [KP]}, device: {stale: true, osAtLeast: {macOS: "9"}}}}]\n'
    (rule,) = snapshot(HEAD + spec).table.default_view.allow.rules
    shown = {clause.label: (clause.actual(inputs()), clause.expected) for clause in rule.clauses}
    assert shown == {
        "require.network.countries": ("`DE`, observed 2.0 h ago, from geo.mmdb", "one of `DE`"),
        "require.network.notCountries": ("`DE`, observed 2.0 h ago, from geo.mmdb", "not one of `KP`"),
        "require.device.stale": ("stale, observed 2.3 d ago, from default/fleet", "`true`"),
        "require.device.osAtLeast": ("`macOS 26.1`", "at least `macOS 9`"),
    }
    assert [clause.index_keys() for clause in rule.clauses] == [None] * 4


def test_ages_are_readable() -> None:
    assert describe(known(True, NOW + 1), NOW) == "`true`, observed in the future"
    assert describe(known(5, NOW - 40), NOW) == "`5`, observed 40 s ago"
    assert describe(ABSENT, NOW) == "absent"


def test_rules_on_facts_are_tried_in_their_order() -> None:
    rules = "".join(f'  - when: [{{key: zta.remote.country, values: ["{a}{b}"]}}]\n' for a in "ABC" for b in "ABCDEFG")
    compiled = snapshot(HEAD + "  rules:\n" + rules + "  - to: [{operation: {methods: [GET]}}]\n")
    assert combine(compiled.table.default_view, inputs(), default_allow=False).rule == 21


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("remote.country == 'DE'", True),
        ("remote.asn == 64500 && !remote.anonymous && !remote.corporate", True),
        ("remote.reputation >= 80", False),
        ("device.id.startsWith('laptop') && device.managed", True),
        ("device.encrypted", False),
        ("device.compliant", None),
        ("device.compliant || device.managed", True),
        ("device.fields['os'] == 'macOS'", True),
        ("device.fields.os.startsWith('mac')", True),
        ("device.fields.stale != 'x'", None),
        ("['os', 'stale'].all(name, device.fields[name] != 'x')", None),
        ("trust.level == 'MEDIUM' && trust.score == 70.5", True),
        ("trust.user > 99.0 && trust.device < 41.0", True),
        ("trust.network > 0.0", None),
        ("resource.class == 'internal'", True),
    ],
)
def test_conditions_read_facts(text: str, value: bool | None) -> None:
    assert Condition(text).evaluate(inputs()) is value


@pytest.mark.parametrize(
    "text",
    [
        "!has(device.fields.jailbroken)",
        "!has( ((device . fields.jailbroken)) ) || device.fields.jailbroken == false",
        "!('jailbroken' in device.fields)",
        "!('jailbroken' in (device.fields))",
        "device.fields.all(name, name != 'jailbroken')",
        "!device.fields.exists(name, name == 'jailbroken')",
        "size(device.fields) == 0",
        "device.fields.size() == 0",
        "device.fields == {}",
        "{} == device.fields",
        "[device.fields][0] == {}",
        "dyn(device.fields) == {}",
        "request.path == '/' && // a comment\n !has(device.fields.os)",
    ],
)
def test_a_condition_cannot_take_an_unknown_field_for_one_that_a_device_does_not_have(text: str) -> None:
    with pytest.raises(ConditionError, match="must not decide"):
        Condition(text)


def test_a_claim_or_header_that_is_called_like_the_fields_of_a_device_is_read_as_any_other() -> None:
    for text in ("has(claims.device.fields)", "!('x' in claims.device.fields)", "request.path == 'device.fields'"):
        Condition(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("device.compliant", "`device.compliant` is Unknown (`device.compliant` is conflicting)"),
        ("!device.compliant", "`device.compliant` is Unknown (`device.compliant` is conflicting)"),
        ("device.fields.stale != 'x'", "`device.fields.stale` is stale, observed 2.3 d ago, from default/fleet)"),
        ("device.fields['stale'] != 'x'", "`device.fields['stale']` is stale, observed 2.3 d ago, from default/fleet)"),
        ("device.fields.other != 'x'", "`device.fields.other` is absent)"),
        ("trust.network > 0.0", "`trust.network` is absent)"),
        ("device.managed", "true: `device.managed` is true"),
    ],
)
def test_an_unknown_fact_of_a_condition_is_explained_with_its_state_age_and_source(text: str, shown: str) -> None:
    explanation = explain_condition(Condition(text), inputs())
    assert explanation.endswith(shown)
    assert "Activation" not in explanation


def test_a_field_of_a_device_that_is_no_variable_gets_a_hint() -> None:
    with pytest.raises(ConditionError) as caught:
        Condition("device.osVersion == '26.1'")
    assert caught.value.hint.startswith("write `device.fields.osVersion`; known variables: ")


def test_a_condition_on_facts_that_nothing_knows_is_unknown() -> None:
    for text in ("remote.country != 'KP'", "device.managed == false", "trust.score < 50.0", "resource.class != 'x'"):
        assert Condition(text).evaluate(inputs(FixedFacts())) is None


def test_a_system_whose_version_cannot_be_compared_is_shown() -> None:
    spec = '  rules: [{require: {device: {osAtLeast: {Windows: "10.0.22631"}}}}]\n'
    (rule,) = snapshot(HEAD + spec).table.default_view.allow.rules
    clause = rule.clauses[0]
    assert clause.actual(inputs()) == "`macOS 26.1`, which cannot be compared"
    nothing = replace(FACTS, device=replace(DEVICE, fields={"os": known("Windows")}))
    assert clause.actual(inputs(nothing)) == "absent"
