"""What another model makes of a record is what it would have made of the request, or the record says too little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import given, strategies as st

from tests.support.trust import NOW, inputs, trust_model
from zta_authz.audit.record import facts_of
from zta_authz.cli.recorded_facts import recorded_trust
from zta_authz.model.decision import DecisionFacts
from zta_authz.model.facts import NO_DEVICE, NO_NETWORK_FACTS, DeviceFacts, Fact, NetworkFacts, Unknown, known
from zta_authz.trust.recorded import reassess

if TYPE_CHECKING:
    from zta_authz.trust.assessment import CompiledTrustModel

USER_SIGNALS = (
    ("{name: violations, count: {claim: security_violations}, points: -10}",),
    ("", "{name: noMfa, points: -30}"),
    (
        "",
        "{name: young, claimAge: {claim: account_created_at, below: 240h}, points: -20, caps: MEDIUM}",
        "{name: young, claimAge: {claim: account_created_at, below: 720h}, points: -45}",
        "{name: young, claimAge: {claim: account_created_at, below: 2400h}, points: -20}",
    ),
    ("", "{name: strikes, count: {claim: security_violations}, points: -30, most: -90}"),
    ("", "{name: admin, when: 'claims.admin == true', points: -25, caps: LOW}"),
    ("", "{name: self, when: 'claims.sub == \"x\"', points: -25}"),
)
"""For each signal, its variants; "" is a model without it."""
DEVICE_SIGNALS = (
    ("{name: noFirewall, points: -15}",),
    *(
        ("", f"{{name: {name}, points: -15}}", f"{{name: {name}, points: -40}}")
        for name in ("unmanaged", "unencrypted", "unknownDevice")
    ),
)
NETWORK_SIGNALS = (
    ("{name: anonymousNetwork, points: -20, caps: DENY}", "{name: anonymousNetwork, points: -20}"),
    ("", "{name: countryNotAllowed, points: -40}"),
    ("", "{name: badReputation, points: -50}"),
)


@st.composite
def models(draw: st.DrawFn) -> CompiledTrustModel:
    lines = [f"  leastReputation: {draw(st.sampled_from((30, 50)))}"]
    countries = draw(st.sampled_from(("", "[DE]", "[DE, FR]")))
    lines += [f"  allowedCountries: {countries}"] if countries else []
    lines += ["  seedCompatible: true"] if draw(st.booleans()) else []
    lines += ["  components:", "    behavior: {assume: 100}"]
    for component, known_signals in (("user", USER_SIGNALS), ("device", DEVICE_SIGNALS), ("network", NETWORK_SIGNALS)):
        chosen = [draw(st.sampled_from(variants)) for variants in known_signals]
        lines += [f"    {component}:", "      signals:", *(f"      - {text}" for text in chosen if text)]
    return trust_model("\n".join(lines) + "\n")


def facts(*values: Any) -> st.SearchStrategy[Fact]:
    return st.sampled_from((*map(known, values), *(Fact(None, state) for state in Unknown)))


DEVICES = st.one_of(
    st.just(NO_DEVICE),
    st.builds(
        DeviceFacts,
        st.sampled_from(("", "laptop-1")),
        st.just("token"),
        st.just("default/fleet"),
        st.dictionaries(st.sampled_from(("managed", "encrypted", "firewall")), facts(True, False)),
    ).map(lambda device: device if device.device_id else DeviceFacts("", "", device.inventory, device.fields)),
)
NETWORKS = st.one_of(
    st.just(NO_NETWORK_FACTS),
    st.builds(
        NetworkFacts,
        facts("DE", "FR", "KP"),
        facts(64500),
        facts(True, False),
        facts(20, 40, 90),
        facts(True, False),
    ),
)
USERS = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "amr": st.sampled_from((["pwd"], ["mfa"], "mfa")),
            "account_created_at": st.sampled_from([NOW - days * 86400 for days in (-1, 5, 20, 60, 200)]),
            "security_violations": st.sampled_from((0, 1, 3, 10**30, "x")),
            "admin": st.booleans(),
        },
    ),
)


def record_of(old: CompiledTrustModel, user: Any, device: DeviceFacts, network: NetworkFacts, resource: str) -> Any:
    """The record of an assessment by `old`, as a log has it."""
    request = inputs(user, None, network, resource)
    request.facts.device = device
    # As `FactReader.collected`: what no source knows is not recorded.
    read = DecisionFacts(
        None if network is NO_NETWORK_FACTS else network,
        None if device is NO_DEVICE else device,
        old.assess(request),
        request.facts.resource_class,
    )
    names = ("trust", "device", "network", "resource_class")
    fields = {
        name: msgspec.json.decode(msgspec.json.encode(part)) for name, part in zip(names, facts_of(read), strict=True)
    }
    return request, fields


@given(
    models(), models(), USERS, DEVICES, NETWORKS, st.sampled_from(("", "public", "restricted")), st.sets(
        st.sampled_from(("device", "network", "resource_class"))
    )
)  # fmt: skip
def test_a_new_model_makes_of_a_record_what_it_would_have_made_of_the_request(
    old: CompiledTrustModel,
    new: CompiledTrustModel,
    user: Any,
    device: DeviceFacts,
    network: NetworkFacts,
    resource: str,
    masked: set[str],
) -> None:
    request, fields = record_of(old, user, device, network, resource)
    for name in masked:
        fields[name] = "" if name == "resource_class" else None
    if "resource_class" in masked:
        fields["trust"]["components"].pop("resource", None)
    actual = new.assess(request)
    again = reassess(new, recorded_trust(fields))
    assert again.worst.level <= actual.level <= again.best.level
    assert again.worst.score <= actual.score <= again.best.score
    if again.level is not None:
        assert again.level is actual.level
    if not again.missing:
        assert (again.best.score, again.best.components) == (actual.score, actual.components)


@given(models(), USERS, DEVICES, NETWORKS, st.sampled_from(("", "public", "restricted")))
def test_the_same_model_makes_the_same_of_a_record_without_its_facts(
    model: CompiledTrustModel, user: Any, device: DeviceFacts, network: NetworkFacts, resource: str
) -> None:
    request, fields = record_of(model, user, device, network, resource)
    again = reassess(model, recorded_trust({**fields, "device": None, "network": None}))
    actual = model.assess(request)
    assert (again.missing, again.best.score, again.level) == ((), actual.score, actual.level)
