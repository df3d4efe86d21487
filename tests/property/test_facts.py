"""Rules on facts against a slow reading of the same rules: any fact may be known, absent, stale or conflicting."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings, strategies as st

from tests.fakes.facts import FixedFacts, FixedOpener
from tests.support.policies import identity, request, snapshot
from zta_authz.model.facts import DeviceFacts, Fact, NetworkFacts, Unknown, known
from zta_authz.model.options import Options
from zta_authz.pdp.decide import combine
from zta_authz.policy.rules.inputs import Inputs

NOW = 1_800_000_000.0
COUNTRIES = ("DE", "FR", "KP")
VERSIONS = ("26.1", "26.1.0", "26", "9.20", "26.10", "macOS 26.2", "rolling", "")


def facts_of(*values: Any) -> st.SearchStrategy[Fact]:
    """A known fact with one of the values, or an unknown one."""
    return st.one_of(
        st.sampled_from(values).map(known), st.sampled_from(list(Unknown)).map(lambda state: Fact(None, state))
    )


NETWORKS = st.builds(
    NetworkFacts,
    country=facts_of(*COUNTRIES),
    asn=facts_of(1, 64500, 2**32 - 1),
    anonymous=facts_of(True, False),
    reputation=facts_of(0, 49, 50, 100),
    corporate=facts_of(True, False),
)
DEVICES = st.builds(
    DeviceFacts,
    st.sampled_from(("", "laptop-1")),
    st.just("certificate"),
    st.just("default/fleet"),
    st.fixed_dictionaries(
        {},
        optional={
            "managed": facts_of(True, False, "maybe", 1),
            "encrypted": facts_of(True, False),
            "os": facts_of("macOS", "MACOS", "Windows", ""),
            "osVersion": facts_of(*VERSIONS),
            "lastSeen": facts_of(int(NOW), int(NOW) - 3600, int(NOW) - 3601, int(NOW) + 301, True, "now"),
        },
    ),
)
REQUIRES = st.fixed_dictionaries(
    {},
    optional={
        "network": st.fixed_dictionaries(
            {},
            optional={
                "countries": st.lists(st.sampled_from(COUNTRIES), min_size=1, unique=True),
                "notCountries": st.lists(st.sampled_from(COUNTRIES), min_size=1, unique=True),
                "asns": st.lists(st.sampled_from((1, 64500)), min_size=1, unique=True),
                "anonymous": st.booleans(),
                "corporate": st.booleans(),
                "reputationAtLeast": st.sampled_from((0, 50, 100)),
            },
        ).filter(bool),
        "device": st.fixed_dictionaries(
            {},
            optional={
                "managed": st.booleans(),
                "encrypted": st.booleans(),
                "seenWithin": st.just("1h"),
                "osAtLeast": st.just({"macOS": "26.1"}),
            },
        ).filter(bool),
    },
).filter(bool)


def holds(require: dict[str, Any], network: NetworkFacts, device: DeviceFacts) -> bool:
    """The slow reading: every requirement is about a known value, and that value satisfies it."""
    fields = device.fields or {}
    values = {name: fact.value for name, fact in fields.items() if fact.unknown is None}
    checks = {
        "countries": lambda wanted: network.country.value in wanted,
        "notCountries": lambda wanted: network.country.unknown is None and network.country.value not in wanted,
        "asns": lambda wanted: network.asn.value in wanted,
        "anonymous": lambda wanted: network.anonymous.value is wanted,
        "corporate": lambda wanted: network.corporate.value is wanted,
        "reputationAtLeast": lambda least: (
            network.reputation.unknown is None and int(network.reputation.value or 0) >= least
        ),
        "managed": lambda wanted: values.get("managed") is wanted,
        "encrypted": lambda wanted: values.get("encrypted") is wanted,
        "seenWithin": lambda _: type(values.get("lastSeen")) is int and -300 <= NOW - values["lastSeen"] <= 3600,
        "osAtLeast": lambda _: (
            str(values.get("os")).lower() == "macos"
            and values.get("osVersion") in ("26.1", "26.1.0", "26.10", "macOS 26.2")
        ),
    }
    return all(checks[name](wanted) for part in require.values() for name, wanted in part.items())


@given(REQUIRES, NETWORKS, DEVICES)
@settings(max_examples=400, deadline=None)
def test_a_rule_holds_exactly_where_every_required_fact_is_known_and_right(
    require: dict[str, Any], network: NetworkFacts, device: DeviceFacts
) -> None:
    policy = {
        "apiVersion": "zta.dev/v1",
        "kind": "AccessPolicy",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"rules": [{"require": require}]},
    }
    compiled = snapshot(json.dumps(policy))
    inputs = Inputs(request(), identity(), Options(), NOW, None, FixedOpener(FixedFacts(network, device)))
    allowed = combine(compiled.table.default_view, inputs, default_allow=False).allowed
    assert allowed is holds(require, network, device)


@given(
    st.sampled_from(("zta.remote.country", "zta.device.managed", "zta.device.os", "zta.remote.asn")),
    st.booleans(),
    NETWORKS,
    DEVICES,
)
@settings(max_examples=300, deadline=None)
def test_what_is_unknown_matches_a_deny_and_never_an_allow(
    key: str, negated: bool, network: NetworkFacts, device: DeviceFacts
) -> None:
    value = {
        "zta.remote.country": "DE",
        "zta.device.managed": "true",
        "zta.device.os": "macOS",
        "zta.remote.asn": "64500",
    }[key]
    condition = {"key": key, "notValues" if negated else "values": [value]}
    name = key.rpartition(".")[2]
    fact = device.field(name) if key.startswith("zta.device") else getattr(network, name)
    shown = str(fact.value).lower() if isinstance(fact.value, bool) else str(fact.value)
    known_match = (shown == value) is not negated
    for action in ("ALLOW", "DENY"):
        policy = {
            "apiVersion": "zta.dev/v1",
            "kind": "AccessPolicy",
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"action": action, "rules": [{"when": [condition]}]},
        }
        view = snapshot(json.dumps(policy)).table.default_view
        inputs = Inputs(request(), identity(), Options(), NOW, None, FixedOpener(FixedFacts(network, device)))
        rule = combine(view, inputs, default_allow=False).rule
        matched = rule is not None
        assert matched is ((action == "DENY") if fact.unknown is not None else known_match)
