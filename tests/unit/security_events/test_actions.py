"""What each event changes, and the examples of the specifications as a table."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.support.pki import NOW
from tests.support.security_events import ALICE, IDP, KEYS, SESSION_REVOKED, event, signed, source, verified
from zta_authz.model.documents import Revoked
from zta_authz.model.signal_documents import CAEP, EVENT_KINDS, RISC, SSF, EventKind, SignalAction
from zta_authz.model.signals import SignalKind
from zta_authz.security_events.actions import (
    FOR_EVER,
    AddRevocation,
    Outcome,
    Plan,
    SetSignal,
    Why,
    plan_changes,
)  # fmt: skip
from zta_authz.security_events.set_verifier import SetError, SetErrorCode, verify_set
from zta_authz.security_events.subjects import SubjectKey

DAY = 86400.0
ALICE_KEY = SubjectKey(Revoked.SUBJECT, IDP, "alice")
SESSION = {"format": "opaque", "id": "s-1"}
LAPTOP = {"format": "opaque", "id": "laptop"}
TENANT = {"format": "complex", "tenant": {"format": "opaque", "id": "t-1"}}
HAPPENED = NOW - 10
CUT_OFF = AddRevocation(ALICE_KEY, HAPPENED + 1, HAPPENED + 1 + 30 * DAY)
RISK, ASSURANCE, DEVICE = CAEP + "risk-level-change", CAEP + "assurance-level-change", CAEP + "device-compliance-change"


def plan(
    kind: str, subject: Any = None, *, recent: int = 0, source_: dict[str, Any] | None = None, **values: Any
) -> Plan:
    return plan_changes(event(kind, subject, **values), source(**(source_ or {})), NOW, recent_subjects=recent)


REVOKES = [
    (SESSION_REVOKED, {}),
    (CAEP + "token-claims-change", {"claims": {"role": "ro-admin"}}),
    *((CAEP + "credential-change", {"change_type": kind}) for kind in ("update", "revoke", "delete")),
    *(
        (RISC + kind, {})
        for kind in (
            "account-credential-change-required", "account-purged", "account-disabled", "identifier-changed",
            "identifier-recycled", "credential-compromise", "sessions-revoked",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values"), REVOKES, ids=str)
def test_an_event_that_ends_access_revokes_what_was_issued_up_to_its_own_second(
    kind: str, values: dict[str, Any]
) -> None:
    assert plan(kind, **values) == Plan(Outcome.ACCEPTED, changes=(CUT_OFF,))


def test_the_cut_off_is_the_time_of_the_event_not_of_the_set_or_its_arrival() -> None:
    changes = plan_changes(event(SESSION_REVOKED, event_timestamp=NOW - 500), source(), NOW + 100).changes
    assert changes == (AddRevocation(ALICE_KEY, NOW - 499, NOW - 499 + 30 * DAY),)


def test_a_session_or_token_that_ended_never_comes_back() -> None:
    [session] = plan(SESSION_REVOKED, SESSION).changes
    [token] = plan(CAEP + "token-claims-change", {"format": "jwt_id", "iss": IDP, "jti": "j"}).changes
    assert isinstance(session, AddRevocation)
    assert isinstance(token, AddRevocation)
    assert (session.before, token.before) == (FOR_EVER, FOR_EVER)
    assert session.until == CUT_OFF.until


ONLY_RECORDED = [
    *(CAEP + kind for kind in ("session-established", "session-presented")),
    *(RISC + kind for kind in ("account-enabled", "opt-in", "opt-out-initiated", "opt-out-cancelled", "opt-out-effective")),
    *(RISC + kind for kind in ("recovery-activated", "recovery-information-changed")),
]  # fmt: skip


@pytest.mark.parametrize("kind", ONLY_RECORDED)
def test_other_events_are_only_recorded(kind: str) -> None:
    assert plan(kind) == Plan(Outcome.WITHOUT_EFFECT, Why.NOT_MAPPED)


def test_every_kind_of_event_is_in_one_of_the_tables() -> None:
    signals = {RISK, ASSURANCE, DEVICE, SSF + "verification", SSF + "stream-updated"}
    assert {kind for kind, _ in REVOKES} | set(ONLY_RECORDED) | signals == set(EVENT_KINDS)


def test_a_new_credential_ends_nothing_unless_the_document_says_so() -> None:
    kind = CAEP + "credential-change"
    assert plan(kind, change_type="create") == Plan(Outcome.WITHOUT_EFFECT, Why.NOT_MAPPED)
    assert plan(kind, change_type="create", source_={"change_types": frozenset(("create",))}).changes == (CUT_OFF,)


def test_the_document_can_take_an_event_its_effect() -> None:
    actions = {EventKind.SESSION_REVOKED: SignalAction.IGNORE}
    assert plan(SESSION_REVOKED, source_={"actions": actions}).why is Why.NOT_MAPPED
    assert plan(SESSION_REVOKED, source_={"actions": {}}).why is Why.NOT_MAPPED
    actions = {EventKind.RISK_LEVEL_CHANGE: SignalAction.REVOKE}
    assert plan(RISK, current_level="HIGH", source_={"actions": actions}).changes == (CUT_OFF,)


@pytest.mark.parametrize(
    ("kind", "values", "signal", "value"),
    [
        (RISK, {"current_level": "LOW", "principal": "USER"}, SignalKind.RISK, "LOW"),
        (RISK, {"current_level": "MEDIUM"}, SignalKind.RISK, "MEDIUM"),
        (RISK, {"current_level": "HIGH", "previous_level": "LOW"}, SignalKind.RISK, "HIGH"),
        (ASSURANCE, {"namespace": "NIST-AAL", "current_level": "nist-aal2"}, SignalKind.ASSURANCE, "NIST-AAL/nist-aal2"),
        (ASSURANCE, {"current_level": "aal1"}, SignalKind.ASSURANCE, "/aal1"),
    ],
)  # fmt: skip
def test_a_level_becomes_a_signal(kind: str, values: dict[str, Any], signal: SignalKind, value: str) -> None:
    assert plan(kind, **values).changes == (SetSignal(ALICE_KEY, signal, value, HAPPENED),)


@pytest.mark.parametrize("status", ["compliant", "not-compliant"])
def test_the_compliance_of_a_device_becomes_a_signal(status: str) -> None:
    subjects = {"subjects": {"device_inventory": "shop/fleet"}}
    [change] = plan(DEVICE, LAPTOP, current_status=status, source_=subjects).changes
    assert change == SetSignal(
        SubjectKey(Revoked.DEVICE, "shop/fleet", "laptop"), SignalKind.COMPLIANCE, status, HAPPENED
    )


def test_what_restores_trust_never_counts_for_more_than_its_subject() -> None:
    part = {"format": "complex", "user": ALICE, "application": {"format": "opaque", "id": "shop"}}
    wider = Plan(Outcome.WITHOUT_EFFECT, Why.WIDER_SUBJECT)
    assert plan(RISK, part, current_level="LOW") == plan(RISK, part, current_level="MEDIUM") == wider
    assert plan(ASSURANCE, part, current_level="aal2", namespace="n", change_direction="increase") == wider
    assert plan(ASSURANCE, part, current_level="aal2", namespace="n") == wider
    assert plan(RISK, part, current_level="HIGH").changes == (SetSignal(ALICE_KEY, SignalKind.RISK, "HIGH", HAPPENED),)
    assert plan(ASSURANCE, part, current_level="aal1", change_direction="decrease").outcome is Outcome.ACCEPTED
    assert plan(SESSION_REVOKED, part).changes == (CUT_OFF,)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (RISK, {}, "`current_level` is not one of LOW, MEDIUM, HIGH"),
        (RISK, {"current_level": "low"}, "`current_level` is not one of"),
        (RISK, {"current_level": ["LOW"]}, "`current_level` is not one of"),
        (ASSURANCE, {}, "`current_level` is not a string"),
        (ASSURANCE, {"current_level": ""}, "`current_level` is empty"),
        (ASSURANCE, {"current_level": "x" * 257}, "`current_level` is not a string of at most 256"),
        (ASSURANCE, {"current_level": "x", "namespace": 7}, "`namespace` is not a string"),
        (DEVICE, {}, "`current_status` is not one of compliant, not-compliant"),
        (DEVICE, {"current_status": {}}, "`current_status` is not one of"),
        (CAEP + "credential-change", {}, "`change_type` is not one of"),
        (CAEP + "credential-change", {"change_type": "replace"}, "`change_type` is not one of"),
        (CAEP + "credential-change", {"change_type": ["update"]}, "`change_type` is not one of"),
    ],
)
def test_an_event_without_what_its_type_requires_is_an_invalid_request(kind: str, values: dict[str, Any], message: str) -> None:  # fmt: skip
    with pytest.raises(SetError, match=message) as caught:
        plan(kind, **values)
    assert caught.value.code is SetErrorCode.INVALID_REQUEST


def test_an_unknown_subject_and_an_unknown_event_have_no_effect() -> None:
    stranger = ALICE | {"iss": "https://other.example/"}
    assert plan(SESSION_REVOKED, stranger) == Plan(Outcome.WITHOUT_EFFECT, Why.UNKNOWN_SUBJECT)
    assert plan("https://example.com/event") == Plan(Outcome.WITHOUT_EFFECT, Why.UNKNOWN_EVENT)


def test_an_event_with_a_critical_member_that_cannot_be_evaluated_is_discarded() -> None:
    subject = {"format": "complex", "user": ALICE, "group": LAPTOP}
    found = plan_changes(event(SESSION_REVOKED, subject), source(), NOW, critical=("group",))
    assert found == Plan(Outcome.DISCARDED, Why.CRITICAL_MEMBER)


def test_an_event_for_a_whole_tenant_is_held_with_what_it_would_do() -> None:
    held = plan(SESSION_REVOKED, TENANT, source_={"tenant": "t-1"})
    assert (held.outcome, held.why) == (Outcome.HELD, Why.TENANT_WIDE)
    assert held.changes == (AddRevocation(SubjectKey(Revoked.ISSUER, "", IDP), CUT_OFF.before, CUT_OFF.until),)
    assert plan(SESSION_REVOKED, TENANT).why is Why.UNKNOWN_SUBJECT


def test_more_subjects_than_the_document_allows_are_held() -> None:
    bound = {"max_subjects": 2}
    assert plan(SESSION_REVOKED, recent=1, source_=bound).outcome is Outcome.ACCEPTED
    held = plan(SESSION_REVOKED, recent=2, source_=bound)
    assert held == Plan(Outcome.HELD, Why.TOO_MANY_SUBJECTS, (CUT_OFF,))
    aliases = {"format": "aliases", "identifiers": [ALICE | {"sub": str(number)} for number in range(3)]}
    assert plan(SESSION_REVOKED, aliases, source_=bound).why is Why.TOO_MANY_SUBJECTS
    assert plan(SESSION_REVOKED, TENANT, recent=5, source_=bound | {"tenant": "t-1"}).why is Why.TENANT_WIDE


def test_the_tokens_of_several_issuers_are_those_of_one_subject() -> None:
    changed = {"subjects": {"token_issuers": (IDP + "a", IDP + "b")}, "max_subjects": 1}
    found = plan(SESSION_REVOKED, source_=changed)
    assert (found.outcome, found.subjects, len(found.changes)) == (Outcome.ACCEPTED, 1, 2)


def test_an_event_before_the_longest_life_of_a_token_has_nothing_left_to_end() -> None:
    old = {"event_timestamp": NOW - DAY}
    assert plan(SESSION_REVOKED, **old, source_={"max_token_life": DAY - 1}).why is Why.ENDED
    assert plan(SESSION_REVOKED, **old, source_={"max_token_life": DAY}).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("kind", ["verification", "stream-updated"])
def test_events_about_the_stream_change_no_access(kind: str) -> None:
    assert plan(SSF + kind, {"format": "opaque", "id": "stream-1"}) == Plan(Outcome.STREAM)


ISSUER = "https://idp.example.com/3456789/"
JANE = {"format": "iss_sub", "iss": ISSUER, "sub": "jane.smith@example.com"}
DEVICE_ID = {"format": "iss_sub", "iss": ISSUER, "sub": "e9297990-14d2-42ec-a4a9-4036db86509a"}
TENANT_ID = {"format": "opaque", "id": "123456789"}
SESSION_ID = {"format": "opaque", "id": "dMTlD|1600802906337.16|16008.16"}
JOHN = {"format": "email", "email": "john.doe@example.com"}
PHONE = {"format": "phone_number", "phone_number": "+1 206 555 0123"}
CATALOG = {"format": "catalog_item", "catalog_id": "c0384/winter/2354122"}
TOKEN_ID = {"format": "jwt_id", "iss": ISSUER, "jti": "f61t6e20zdo3px56gepu8rzlsp4c1dpc0fx7"}
SAML = {"format": "saml_assertion_id", "issuer": ISSUER, "assertion_id": "_a75adf55-01d7-dbd8372ebdfc"}
AT = {"event_timestamp": 1615304991}
KEY_OF_JANE = (Revoked.SUBJECT, ISSUER, "jane.smith@example.com")
KEY_OF_DEVICE = (Revoked.DEVICE, "shop/fleet", "e9297990-14d2-42ec-a4a9-4036db86509a")
KEY_OF_JOHN = (Revoked.EMAIL, ISSUER, "john.doe@example.com")
REASONS = {"initiating_entity": "policy", "reason_admin": {"en": "Policy Violation: C076E82F"}, "reason_user": {"it": "Non sei più connesso."}}  # fmt: skip


def of(**members: Any) -> dict[str, Any]:
    return {"format": "complex", **members}


EXAMPLES = [
    # CAEP 1.0
    (CAEP + "session-revoked", SESSION_ID, AT, (Revoked.SESSION, ISSUER, SESSION_ID["id"])),
    (CAEP + "session-revoked", of(session=SESSION_ID, user=JANE, tenant=TENANT_ID), AT | REASONS, (Revoked.SESSION, ISSUER, SESSION_ID["id"])),
    (CAEP + "session-revoked", of(user=JANE, device=DEVICE_ID, tenant=TENANT_ID), AT | REASONS, KEY_OF_JANE),
    (CAEP + "token-claims-change", TOKEN_ID, AT | {"claims": {"role": "ro-admin"}}, (Revoked.TOKEN, ISSUER, TOKEN_ID["jti"])),
    (CAEP + "token-claims-change", TOKEN_ID, AT | REASONS | {"claims": {"trusted_network": False}}, (Revoked.TOKEN, ISSUER, TOKEN_ID["jti"])),
    (CAEP + "token-claims-change", SAML, AT | {"claims": {"role": "ro-admin"}}, Why.UNKNOWN_SUBJECT),
    (CAEP + "credential-change", JANE, AT | {"credential_type": "fido2-roaming", "change_type": "create"}, Why.NOT_MAPPED),
    (CAEP + "assurance-level-change", JANE, AT | {"namespace": "NIST-AAL", "current_level": "nist-aal2", "previous_level": "nist-aal1", "change_direction": "increase"}, KEY_OF_JANE),
    (CAEP + "assurance-level-change", JANE, AT | {"namespace": "Retinal Scan", "current_level": "hi-res-scan"}, KEY_OF_JANE),
    (CAEP + "device-compliance-change", of(device=DEVICE_ID, tenant=TENANT_ID), AT | REASONS | {"current_status": "not-compliant", "previous_status": "compliant"}, KEY_OF_DEVICE),
    (CAEP + "session-established", JOHN, AT | {"fp_ua": "abb0b6e7", "acr": "AAL2", "amr": ["otp"]}, Why.NOT_MAPPED),
    (CAEP + "session-presented", JOHN, AT | {"fp_ua": "abb0b6e7", "ext_id": "12345"}, Why.NOT_MAPPED),
    (CAEP + "risk-level-change", JANE, AT | {"current_level": "LOW", "previous_level": "HIGH", "principal": "USER", "risk_reason": "PASSWORD_FOUND_IN_DATA_BREACH"}, KEY_OF_JANE),
    # RISC 1.0
    (RISC + "account-credential-change-required", JANE, {}, KEY_OF_JANE),
    (RISC + "account-disabled", JANE, {"reason": "hijacking"}, KEY_OF_JANE),
    (RISC + "identifier-changed", JOHN, {"new-value": "john.roe@example.com"}, KEY_OF_JOHN),
    (RISC + "identifier-recycled", JOHN, {}, KEY_OF_JOHN),
    (RISC + "credential-compromise", JANE, {"credential_type": "password"}, KEY_OF_JANE),
    # SSF 1.0
    (RISC + "account-enabled", JOHN, {}, Why.NOT_MAPPED),
    (RISC + "account-disabled", PHONE, {"reason": "hijacking"}, Why.UNKNOWN_SUBJECT),
    (CAEP + "token-claims-change", JOHN, {"claims": {"token": "some-token-value"}}, KEY_OF_JOHN),
    (CAEP + "session-revoked", of(user=JANE, device=DEVICE_ID), AT | REASONS, KEY_OF_JANE),
    (CAEP + "token-claims-change", CATALOG, AT | {"claims": {"role": "ro-admin"}}, Why.UNKNOWN_SUBJECT),
    (SSF + "verification", {"format": "opaque", "id": "72e6991badb44e08a69672960053b342"}, {"state": "VGhpcw=="}, None),
    (SSF + "stream-updated", {"format": "opaque", "id": "72e6991badb44e08a69672960053b342"}, {"status": "paused", "reason": "License is not valid"}, None),
]  # fmt: skip
_numbers = itertools.count()


def example(kind: str, subject: dict[str, Any], values: dict[str, Any], aud: Any, iat: int = 1615305159) -> bytes:
    """An example of a specification in its shape; each has a `jti` of its own, unlike in the texts."""
    jti = f"24c63fb56e5a2d77a6b512616ca9fa{next(_numbers):02x}"
    events = {kind: values}
    return signed({"iss": ISSUER, "jti": jti, "iat": iat, "aud": aud, "txn": "8675309", "sub_id": subject, "events": events})  # fmt: skip


@pytest.mark.parametrize("aud", ["636C69656E745F6964", ["receiver.example.com/web", "636C69656E745F6964"]])
@pytest.mark.parametrize(
    ("kind", "subject", "values", "expected"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_examples_of_the_specifications(kind: str, subject: dict[str, Any], values: dict[str, Any], expected: Any, aud: Any) -> None:  # fmt: skip
    now = 1615305170.0
    accepted = verify_set(example(kind, subject, values, aud), ISSUER, ("636C69656E745F6964",), KEYS, now)
    subjects = {"token_issuers": (ISSUER,), "email_claim": "email", "device_inventory": "shop/fleet"}
    found = plan_changes(accepted, source(issuer=ISSUER, tenant="123456789", subjects=subjects), now)
    if isinstance(expected, Why):
        assert found == Plan(Outcome.WITHOUT_EFFECT, expected)
    elif expected is None:
        assert found == Plan(Outcome.STREAM)
    else:
        assert found.outcome is Outcome.ACCEPTED
        assert [change.subject for change in found.changes] == [SubjectKey(*expected)]


def test_the_example_from_the_year_2451_is_refused() -> None:
    data = example(CAEP + "token-claims-change", CATALOG, AT, "636C69656E745F6964", iat=15203800012)
    with pytest.raises(SetError, match="s from now"):
        verify_set(data, ISSUER, ("636C69656E745F6964",), KEYS, 1615305170.0)


def test_a_token_of_the_same_second_as_the_event_is_revoked() -> None:
    [change] = plan_changes(verified(events={SESSION_REVOKED: {"event_timestamp": NOW - 10}}), source(), NOW).changes
    assert isinstance(change, AddRevocation)
    assert NOW - 10 < change.before <= NOW - 9
