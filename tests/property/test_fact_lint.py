"""What the linter proves about clauses on facts holds for every state of every fact."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from tests.fakes.facts import FixedFacts, FixedOpener
from tests.support.policies import STRICT, identity, request, snapshot
from zta_authz.model.facts import DeviceFacts, Fact, NetworkFacts, Unknown, known
from zta_authz.policy.lint.implication import contradict, implies, key_of
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.policy.rules.clauses import Clause

NOW = 1_800_000_000.0
HEAD = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: p, namespace: default}\nspec:\n"
REQUIRED = (
    "network: {countries: [DE]}",
    "network: {countries: [DE, FR]}",
    "network: {notCountries: [DE]}",
    "network: {notCountries: [FR, KP]}",
    "network: {corporate: true}",
    "network: {corporate: false}",
    "network: {anonymous: true}",
    "network: {anonymous: false}",
    "network: {reputationAtLeast: 50}",
    "network: {reputationAtLeast: 80}",
    "network: {asns: [64500]}",
    "network: {asns: [64501]}",
    "device: {managed: true}",
    "device: {managed: false}",
    "device: {seenWithin: 1h}",
    "device: {seenWithin: 24h}",
)
WHEN = (
    "{key: zta.remote.country, values: [DE]}",
    "{key: zta.remote.country, notValues: [DE]}",
    '{key: zta.remote.country, values: ["*"]}',
    '{key: zta.remote.corporate, values: ["true"]}',
    '{key: zta.remote.corporate, notValues: ["true"]}',
    '{key: zta.remote.corporate, notValues: ["false"]}',
    '{key: zta.remote.anonymous, values: ["false"]}',
    '{key: zta.remote.asn, values: ["64500"]}',
    '{key: zta.device.managed, values: ["true"]}',
    '{key: zta.device.managed, notValues: ["true", "false"]}',
)


def clauses(action: str) -> list[Clause]:
    rules = [f"  - require: {{{text}}}\n" for text in REQUIRED] if action == "ALLOW" else []
    rules += [f"  - when: [{text}]\n" for text in WHEN]
    table = snapshot(HEAD + f"  action: {action}\n  rules:\n" + "".join(rules)).table
    return [clause for policy in table.policies for rule in policy.rules for clause in rule.clauses]


def worlds() -> Iterator[Inputs]:
    """Every combination of the states of the facts, as a network view gives them."""
    unknown = Fact(None, Unknown.STALE)
    for corporate, country, other, device in product(
        (known(True), known(False), unknown),
        (*map(known, ("DE", "FR", "KP")), unknown),
        ((64500, True, 60), (64501, False, 90), None),
        ((True, 100), (False, 7200), None),
    ):
        asn, anonymous, reputation = (unknown,) * 3 if other is None else map(known, other)
        network = NetworkFacts(country, asn, anonymous, reputation, corporate)
        if corporate.value is True:  # nothing else is looked up then
            network = NetworkFacts(corporate=corporate)
        fields = {"managed": unknown, "lastSeen": unknown}
        if device is not None:
            fields = {"managed": known(device[0]), "lastSeen": known(int(NOW) - device[1])}
        facts = FixedFacts(network, DeviceFacts("x", "token", "i", fields))
        yield Inputs(request(), identity(), STRICT, NOW, None, FixedOpener(facts))


WORLDS = list(worlds())


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_clauses_that_contradict_each_other_never_hold_together(action: str) -> None:
    proofs, deny = 0, action == "DENY"
    every = clauses(action)
    for one, other in product(every, repeat=2):
        if contradict(one, other, strict=True, deny=deny):
            proofs += 1
            assert not any(one.holds(world, deny) and other.holds(world, deny) for world in WORLDS), (one, other)
    assert (proofs > 40) is (action == "ALLOW"), proofs
    assert proofs == 0 or not deny, "an unknown fact satisfies every clause of a DENY"


def test_a_clause_that_implies_another_holds_for_a_deny_whenever_it_holds_for_an_allow() -> None:
    proofs = 0
    for narrow, wide in product(clauses("ALLOW"), clauses("DENY")):
        if implies(narrow, wide, strict=True):
            proofs += 1
            assert all(wide.holds(world, True) for world in WORLDS if narrow.holds(world, False)), (narrow, wide)
    assert proofs > 20


def test_clauses_with_one_key_hold_for_the_same_requests() -> None:
    every = clauses("ALLOW")
    same = 0
    for one, other in product(every, repeat=2):
        if key_of(one) == key_of(other):
            same += one is not other
            assert [one.holds(world, False) for world in WORLDS] == [other.holds(world, False) for world in WORLDS]
    assert same > 4, "`require` and `when` on the same fact"
