"""Security events about callers and devices as facts: the worst report counts, and silence is not peace."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.devices import LAPTOP, NOW, SPEC, inventory, record, table
from tests.support.policies import request, snapshot
from zta_authz.facts.devices import DeviceTables
from zta_authz.model.documents import Revoked
from zta_authz.model.facts import NO_FACTS, Fact, FactSlot, FactViews, Unknown, describe
from zta_authz.model.identity import Identity, Peer, PeerTrust, Token
from zta_authz.model.options import Options
from zta_authz.model.signals import Signal, SignalKind, SourceState
from zta_authz.model.spiffe import SpiffeId
from zta_authz.model.trust import TrustLevel
from zta_authz.pdp.decide import Caller, decide
from zta_authz.pdp.explain_facts import fact_lines
from zta_authz.policy.rules.device_identity import InventoryDevices
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.signal_facts import read_signals
from zta_authz.security_events.signal_table import SignalTable

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision

ISSUER, SOURCE, OTHER = "https://i", "root/idp", "root/other"
KINDS = frozenset(SignalKind)
_ids = itertools.count()
HEAD = "apiVersion: zta.dev/v1\nkind: %s\nmetadata: {name: %s, namespace: default}\nspec:\n"
CLAIMS = {"iss": ISSUER, "sub": "alice", "sid": "s-1", "jti": "t-1", "email": "Alice@Example.com"}


def source(name: str = SOURCE, **changed: Any) -> SourceState:
    made = SourceState(name, NOW - 10, 600.0, frozenset((ISSUER,)), KINDS, "default/fleet", spiffe_ids=True)
    return made._replace(**changed)


def about(
    subject: str,
    value: str,
    kind: SignalKind = SignalKind.RISK,
    what: Revoked = Revoked.SUBJECT,
    issuer: str = ISSUER,
    **changed: Any,
) -> Signal:
    number = next(_ids)
    return Signal(f"id-{number}", what, issuer, subject, kind, value, NOW - 60, SOURCE, f"jti-{number}")._replace(
        **changed
    )


def filled(*items: Signal | SourceState, heard: float = NOW) -> SignalTable:
    made = SignalTable(600.0)
    made.confirm(heard)
    for item in items or (source(),):
        if isinstance(item, Signal):
            made.put(item)
        else:
            made.put_source(item)
    return made


def identity(claims: dict[str, Any] | None = None, spiffe_id: str = "") -> Identity:
    token = None if claims is None else Token(claims["iss"], claims["sub"], claims)
    peer = Peer((spiffe_id,), SpiffeId.parse(spiffe_id), PeerTrust.CERTIFICATE, bytes(32)) if spiffe_id else None
    return Identity(peer, token, () if token is None else (token,))


def risk(view: SignalTable, who: Identity | None = None, now: float = NOW) -> Fact:
    return read_signals(Inputs(request(), who or identity(CLAIMS), Options(), now), view).risk


def assurance(view: SignalTable, now: float = NOW, **claims: Any) -> Fact:
    return read_signals(Inputs(request(), identity(CLAIMS | claims), Options(), now), view).assurance


def test_without_an_event_the_risk_is_low_as_long_as_the_source_is_heard() -> None:
    view = filled()
    assert risk(view) == Fact("LOW", None, None, SOURCE)
    assert risk(view, now=NOW + 590).state == "known"
    assert risk(view, now=NOW + 591).state == "stale"


def test_without_a_source_for_the_tokens_issuer_the_risk_is_absent() -> None:
    assert risk(filled(source(issuers=frozenset()))).state == "absent"
    assert risk(filled(source(kinds=frozenset((SignalKind.ASSURANCE,))))).state == "absent"
    assert risk(filled(), identity(CLAIMS | {"iss": "https://other"}, LAPTOP)).state == "absent"
    assert risk(filled(), identity()).state == "absent"


@pytest.mark.parametrize(
    "signal",
    [
        about("alice", "HIGH"),
        about("s-1", "HIGH", what=Revoked.SESSION),
        about("t-1", "HIGH", what=Revoked.TOKEN),
        about("alice@example.com", "HIGH", what=Revoked.EMAIL),
        about(ISSUER, "HIGH", what=Revoked.ISSUER, issuer=""),
    ],
)
def test_an_event_about_the_token_its_session_or_its_subject_counts(signal: Signal) -> None:
    fact = risk(filled(source(), signal))
    assert (fact.value, fact.event, fact.observed_at) == ("HIGH", signal.event, NOW - 60)
    assert describe(fact, NOW) == f"`HIGH`, observed 60 s ago, from {SOURCE}, event {signal.event}"


@pytest.mark.parametrize(
    "signal",
    [
        about("bob", "HIGH"),
        about("alice", "HIGH", issuer="https://other"),
        about("s-1", "HIGH"),
        about("alice", "HIGH", what=Revoked.SESSION),
        about("alice", "HIGH", SignalKind.ASSURANCE),
        about("alice", "HIGH", source=OTHER),  # no source of this name
    ],
)
def test_an_event_about_somebody_else_does_not(signal: Signal) -> None:
    assert risk(filled(source(), signal)).value == "LOW"


def test_a_workload_is_known_by_its_spiffe_id() -> None:
    view = filled(source(), about(LAPTOP, "HIGH", what=Revoked.SPIFFE_ID, issuer=""))
    assert risk(view, identity(None, LAPTOP)).value == "HIGH"
    assert risk(view, identity(CLAIMS, LAPTOP)).value == "HIGH"
    assert risk(view, identity(CLAIMS | {"sub": LAPTOP})).value == "HIGH"
    assert risk(view, identity(CLAIMS, LAPTOP + "/x")).value == "LOW"
    assert risk(filled(source(spiffe_ids=False)), identity(None, LAPTOP)).state == "absent"


@pytest.mark.parametrize(
    ("session", "user", "highest"),
    [("HIGH", "LOW", "HIGH"), ("LOW", "HIGH", "HIGH"), ("MEDIUM", "LOW", "MEDIUM"), ("LOW", "LOW", "LOW")],
)
def test_the_highest_risk_counts(session: str, user: str, highest: str) -> None:
    signals = (about("s-1", session, what=Revoked.SESSION), about("alice", user))
    assert risk(filled(source(), *signals)).value == highest
    apart = (signals[0], signals[1]._replace(source=OTHER))
    assert risk(filled(source(), source(OTHER), *apart)).value == highest


@pytest.mark.parametrize(("value", "state"), [("HIGH", "known"), ("MEDIUM", "stale"), ("LOW", "stale")])
def test_a_silent_source_could_report_a_higher_risk(value: str, state: str) -> None:
    silent = source(OTHER, heard_at=NOW - 601)
    assert risk(filled(source(), silent, about("alice", value))).state == state
    assert risk(filled(source(), silent, about("alice", value, source=OTHER))).state == "stale"


def test_a_source_that_was_never_heard_is_stale() -> None:
    assert risk(filled(source(heard_at=0.0))) == Fact(None, Unknown.STALE, None, SOURCE)


def test_everything_is_stale_without_the_administrator() -> None:
    assert risk(filled(source(heard_at=NOW + 601), about("alice", "HIGH")), now=NOW + 601).state == "stale"


@pytest.mark.parametrize("verified", [True, False, "true", None])
def test_somebody_with_an_address_that_is_not_verified_does_not_have_the_level_of_its_owner(verified: Any) -> None:
    aal = "nist-aal/nist-aal2"
    level = about("alice@example.com", aal, SignalKind.ASSURANCE, Revoked.EMAIL)
    fact = assurance(filled(source(), level), email_verified=verified)
    assert fact.state == ("known" if verified is True else "conflicting")
    assert fact.value == (aal if verified is True else None)
    assert assurance(filled(source(), level), email="other@example.com").value == ""


def test_the_newest_assurance_counts_and_sources_may_conflict() -> None:
    aal = "NIST-AAL/nist-aal"
    assert assurance(filled()).value == ""
    older = about("alice", aal + "1", SignalKind.ASSURANCE)
    newer = about("s-1", aal + "2", SignalKind.ASSURANCE, Revoked.SESSION, observed_at=NOW - 5)
    assert assurance(filled(source(), older, newer)).value == aal + "2"
    other = newer._replace(id="other", source=OTHER)
    assert assurance(filled(source(), source(OTHER), older, other)).state == "conflicting"
    assert assurance(filled(source(), source(OTHER), older, other._replace(value=aal + "1"))).value == aal + "1"
    assert assurance(filled(source(), source(OTHER, heard_at=NOW - 601), older)).state == "stale"


# Devices

FLEET = HEAD % ("DeviceInventory", "fleet") + SPEC


def compliant(
    row: bool | None,
    *signals: Signal | SourceState,
    now: float = NOW,
    checked: float | None = NOW - 120,
    field: str = "compliant",
) -> Fact:
    """The fact `compliant` of a device whose row of `checked` says `row`; None for a row without the field."""
    devices = DeviceTables({"default/fleet": (inventory().source, table(record(checked=checked, state=row)))})
    inputs = Inputs(request(), identity(None, LAPTOP), Options(), now)
    view = filled(*(signals or (source(),)), heard=now)
    return InventoryDevices(inventory()).identify(inputs, devices, view).field(field)


def state_of(status: str, at: float = NOW - 60, **changed: Any) -> Signal:
    return about(
        "laptop-1", status, SignalKind.COMPLIANCE, Revoked.DEVICE, "default/fleet", **{"observed_at": at, **changed}
    )


def test_an_event_makes_the_device_not_compliant_until_a_newer_row_or_event_says_otherwise() -> None:
    event = state_of("not-compliant")
    assert compliant(True, source(), event).value is False
    assert compliant(True, source(), event).event == event.event
    assert compliant(True, source(), event, checked=NOW - 59).value is True
    assert compliant(False, source(), state_of("compliant")).value is True
    assert compliant(False, source(), state_of("compliant", NOW - 121)).value is False
    assert compliant(None, source(), event, checked=NOW - 59).value is False


def test_of_the_same_time_the_worse_one_counts() -> None:
    assert compliant(True, source(), state_of("not-compliant", NOW - 120)).value is False
    assert compliant(False, source(), state_of("compliant", NOW - 120)).value is False


def test_the_worst_source_counts() -> None:
    both = (state_of("not-compliant", NOW - 100), state_of("compliant", NOW - 50, source=OTHER))
    assert compliant(True, source(), source(OTHER), *both).value is False


def test_an_event_of_a_silent_source_is_stale_and_the_inventory_goes_on() -> None:
    silent = source(heard_at=NOW - 601)
    assert compliant(True, silent, state_of("not-compliant")).state == "stale"
    assert compliant(True, silent, state_of("compliant")).state == "stale"
    assert compliant(True, silent).value is True
    assert compliant(True, silent, state_of("not-compliant", NOW - 121)).value is True


def test_that_a_device_is_compliant_becomes_stale_and_that_it_is_not_does_not() -> None:
    late = NOW + 86_400 - 59
    heard = source(heard_at=late)
    assert compliant(False, heard, state_of("compliant"), now=late, checked=None).state == "stale"
    assert compliant(True, heard, state_of("not-compliant"), now=late, checked=None).value is False


def test_a_conflicting_row_stays_conflicting() -> None:
    assert compliant(True, source(), state_of("compliant"), checked=NOW + 400).state == "conflicting"


def test_events_of_other_devices_inventories_and_sources_do_not_count() -> None:
    for event in (
        state_of("not-compliant")._replace(subject="laptop-2"),
        state_of("not-compliant")._replace(issuer="default/other"),
        state_of("not-compliant", source=OTHER),
    ):
        assert compliant(True, source(), event).value is True


def test_the_risk_of_the_device_is_a_field_of_it() -> None:
    event = about("laptop-1", "HIGH", what=Revoked.DEVICE, issuer="default/fleet")
    assert compliant(True, source(), event, field="signaledRisk").value == "HIGH"
    assert compliant(True, field="signaledRisk").value == "LOW"
    assert compliant(True, source(inventory=""), event, field="signaledRisk").state == "absent"


# Decisions

USERS = HEAD % ("TrustModel", "m") + (
    "  components:\n"
    "    network: {assume: 100}\n"
    "    behavior: {assume: 100}\n"
    "    user: {floor: 0, signals: [{name: highRisk, points: -60, caps: LOW}, {name: elevatedRisk, points: -10}]}\n"
    "    device: "
)
MODEL = (
    USERS + "{floor: 0, signals: [{name: notCompliant, points: -50}, {name: highRiskDevice, points: -1, caps: DENY}]}\n"
)
POLICY = HEAD % ("AccessPolicy", "p") + (
    "  rules:\n"
    "  - {to: [{operation: {paths: [/trust]}}], require: {trust: {level: HIGH}}}\n"
    "  - {to: [{operation: {paths: [/when]}}], when: [{key: zta.signals.risk, values: [LOW, MEDIUM]}]}\n"
    '  - {to: [{operation: {paths: [/cel]}}], condition: \'signals.risk != "HIGH" && signals.assurance == ""\'}\n'
    "  - {to: [{operation: {paths: [/device]}}], require: {device: {compliant: true}}}\n"
)
DENY = HEAD % ("AccessPolicy", "d") + (
    "  action: DENY\n"
    "  rules: [{to: [{operation: {paths: [/denied]}}], when: [{key: zta.signals.risk, values: [HIGH]}]}]\n"
)
ALLOW = HEAD % ("AccessPolicy", "a") + "  rules: [{to: [{operation: {paths: [/denied]}}]}]\n"
COMPILED = snapshot(MODEL, POLICY, DENY, ALLOW, FLEET)
HIGH = about("alice", "HIGH")
LATER = HIGH._replace(value="LOW", observed_at=NOW - 1, event="later")


class Point:
    """A decision point: one snapshot, views that stay, and one caller with the same token object each time."""

    def __init__(self, *items: Signal | SourceState) -> None:
        self.slot = FactSlot()
        self.signals = filled(*(items or (source(),)))
        rows = table(record(checked=NOW - 120))
        self.slot.replace_devices(DeviceTables({"default/fleet": (inventory().source, rows)}))
        self.slot.replace_signals(self.signals)
        self.caller = Caller(identity(CLAIMS, LAPTOP))

    def ask(self, path: str, now: float = NOW) -> Decision:
        return decide(COMPILED, request(path=path), self.caller, now, views=self.slot.views)


@pytest.mark.parametrize("path", ["/trust", "/when", "/cel", "/denied"])
def test_a_change_of_risk_counts_for_the_next_call(path: str) -> None:
    point = Point()
    for _ in range(3):
        assert point.ask(path).allowed
        point.signals.put(HIGH)
        denied = point.ask(path)
        assert not denied.allowed
        assert denied.access is not None
        assert denied.access.signal == HIGH.event
        point.signals.put(LATER)
        assert point.ask(path).allowed
        point.signals.put(HIGH)
        assert not point.ask(path).allowed
        point.signals.remove(HIGH.id)


def test_a_change_of_compliance_counts_for_the_next_call() -> None:
    point = Point()
    assert point.ask("/device").allowed
    event = state_of("not-compliant")
    point.signals.put(event)
    denied = point.ask("/device")
    assert not denied.allowed
    assert denied.access is not None
    assert denied.access.signal == event.event
    assert [loss.signal for loss in _trust(point.ask("/trust")).lost] == ["notCompliant"]
    point.signals.remove(event.id)
    assert point.ask("/device").allowed


@pytest.mark.parametrize("path", ["/trust", "/when", "/cel", "/denied"])
def test_silence_denies_and_a_sign_of_life_allows_again(path: str) -> None:
    point = Point()
    assert point.ask(path).allowed
    late = NOW + 595
    assert not point.ask(path, late).allowed
    assert not point.ask(path, late + 1).allowed
    point.signals.put_source(source(heard_at=late))
    assert point.ask(path, late + 2).allowed
    assert point.ask(path, late + 3).allowed


def test_the_model_says_what_a_risk_costs() -> None:
    point = Point(source(), about("alice", "MEDIUM"))
    trust = _trust(point.ask("/trust"))
    assert [(loss.signal, loss.points) for loss in trust.lost] == [("elevatedRisk", 1000)]
    point.signals.put(HIGH)
    trust = _trust(point.ask("/trust"))
    assert (trust.level, trust.capped_by) == (TrustLevel.LOW, ("signal highRisk",))
    assert [(loss.signal, loss.fact.value) for loss in trust.lost] == [("highRisk", "HIGH"), ("elevatedRisk", "HIGH")]
    point.signals.put(about("laptop-1", "HIGH", what=Revoked.DEVICE, issuer="default/fleet"))
    trust = _trust(point.ask("/trust"))
    assert (trust.level, trust.capped_by) == (TrustLevel.DENY, ("signal highRisk", "signal highRiskDevice"))


def _trust(decision: Decision) -> Any:
    assert decision.facts is not None
    assert decision.facts.trust is not None
    return decision.facts.trust


def test_what_is_unknown_costs_what_is_bad() -> None:
    point = Point(source(kinds=frozenset()))
    assert {loss.fact.state for loss in _trust(point.ask("/trust")).lost} == {"absent"}


def test_other_sets_of_views_do_not_share_what_is_known_of_callers() -> None:
    point = Point()
    assert point.ask("/when").allowed
    point.slot.replace_signals(filled(source(), HIGH))
    assert not point.ask("/when").allowed
    point.slot.replace_signals(None)
    assert not point.ask("/when").allowed


def test_an_explanation_names_age_source_and_event() -> None:
    point = Point(source(), HIGH)
    lines = fact_lines(point.ask("/when").facts, NOW)
    expected = (
        f"signals: risk `HIGH`, observed 60 s ago, from {SOURCE}, event {HIGH.event}; assurance ``, from {SOURCE}"
    )
    assert any(line.startswith(expected) for line in lines), lines


def test_without_signals_there_is_nothing_to_record() -> None:
    decision = decide(COMPILED, request(path="/when"), Caller(identity(CLAIMS)), NOW, views=NO_FACTS)
    assert not decision.allowed
    assert decision.facts is None or decision.facts.signals is None
    assert FactSlot(FactViews(signals=None)).views == NO_FACTS
    assert replace(NO_FACTS, signals=filled()) != NO_FACTS


def test_an_assessment_ends_with_the_silence_of_the_source_it_rests_on() -> None:
    compiled = snapshot(USERS + "{assume: 100}\n", POLICY)
    point = Point()
    caller = Caller(identity(CLAIMS))

    def allowed(now: float) -> bool:
        return decide(compiled, request(path="/trust"), caller, now, views=point.slot.views).allowed

    assert allowed(NOW)
    assert allowed(NOW + 590)
    assert not allowed(NOW + 591)
