"""How the subject of an event joins to tokens, sessions and devices."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.security_events import ALICE, IDP, SESSION_REVOKED, event, source
from zta_authz.model.documents import Revoked
from zta_authz.model.signal_documents import CAEP, RISC, OpaqueAs
from zta_authz.security_events.subjects import SubjectKey, SubjectMatch, Unmatched, match_subject

SHOP = "https://idp.example.com/oauth2/shop"
OTHER = "https://other.example/"
RISK = CAEP + "risk-level-change"
COMPLIANCE = CAEP + "device-compliance-change"
ALICE_KEY = SubjectKey(Revoked.SUBJECT, IDP, "alice")
SID = {"format": "opaque", "id": "s-1"}
SESSION_KEY = SubjectKey(Revoked.SESSION, IDP, "s-1")
LAPTOP = {"format": "opaque", "id": "laptop"}
LAPTOP_KEY = SubjectKey(Revoked.DEVICE, "shop/fleet", "laptop")
EMAIL = {"format": "email", "email": "Alice@Example.com"}
EMAIL_KEY = SubjectKey(Revoked.EMAIL, IDP, "alice@example.com")
TENANT = {"format": "opaque", "id": "t-1"}
EVERYONE = SubjectKey(Revoked.ISSUER, "", IDP)
GROUP = {"format": "opaque", "id": "admins"}
FRONTEND = {"format": "uri", "uri": "spiffe://cluster.local/ns/shop/sa/web"}
ALL: dict[str, Any] = {"email_claim": "email", "device_inventory": "shop/fleet"}


def match(subject: dict[str, Any], kind: str = SESSION_REVOKED, critical: tuple[str, ...] = (), **changed: Any) -> SubjectMatch:  # fmt: skip
    values = {"principal": changed.pop("principal")} if "principal" in changed else {}
    return match_subject(event(kind, subject, **values), source(**changed), critical)


def keys(subject: dict[str, Any], kind: str = SESSION_REVOKED, **changed: Any) -> tuple[SubjectKey, ...]:
    return match(subject, kind, **changed).keys


def complex_subject(**members: Any) -> dict[str, Any]:
    return {"format": "complex", **members}


def test_a_user_joins_to_the_tokens_of_its_issuer() -> None:
    assert match(ALICE) == SubjectMatch((ALICE_KEY,), exact=True)


def test_the_transmitters_own_issuer_stands_for_every_issuer_of_its_tokens() -> None:
    subjects = {"token_issuers": (SHOP, SHOP + "2")}
    assert keys(ALICE, subjects=subjects) == tuple(SubjectKey(Revoked.SUBJECT, i, "alice") for i in (SHOP, SHOP + "2"))
    assert keys(ALICE | {"iss": SHOP}, subjects=subjects) == (SubjectKey(Revoked.SUBJECT, SHOP, "alice"),)


def test_a_transmitter_does_not_speak_for_the_users_of_another_issuer() -> None:
    for subject in (ALICE | {"iss": OTHER}, complex_subject(user=ALICE | {"iss": OTHER}, session=SID)):
        assert match(subject).unmatched is Unmatched.UNKNOWN_SUBJECT
    assert match({"format": "jwt_id", "iss": OTHER, "jti": "j"}).unmatched is Unmatched.UNKNOWN_SUBJECT


def test_an_email_joins_only_where_the_document_maps_a_claim() -> None:
    assert match(EMAIL).unmatched is Unmatched.UNKNOWN_SUBJECT
    assert keys(EMAIL, subjects={"email_claim": "email"}) == (EMAIL_KEY,)


def test_only_ascii_letters_of_an_email_are_lowered() -> None:
    kelvin = {"format": "email", "email": "\N{KELVIN SIGN}ATE@example.com"}
    assert keys(kelvin, subjects={"email_claim": "email"})[0].value == "\N{KELVIN SIGN}ate@example.com"


def test_a_session_is_narrower_than_its_user() -> None:
    assert match(complex_subject(user=ALICE, session=SID)) == SubjectMatch((SESSION_KEY,), exact=True)
    assert keys(SID) == (SESSION_KEY,)


def test_a_session_all_is_every_session_of_the_user() -> None:
    every = {"format": "opaque", "id": "ALL"}
    assert match(complex_subject(user=ALICE, session=every)) == SubjectMatch((ALICE_KEY,), exact=True)
    assert match(complex_subject(session=every)).unmatched is Unmatched.UNKNOWN_SUBJECT
    assert match(every).unmatched is Unmatched.UNKNOWN_SUBJECT
    assert keys(complex_subject(user=EMAIL, session=every)) == ()


def test_sessions_widen_to_the_user_where_tokens_have_no_session_claim() -> None:
    found = match(complex_subject(user=ALICE, session=SID), subjects={"session_claim": ""})
    assert found == SubjectMatch((ALICE_KEY,), exact=False)


def test_an_opaque_subject_is_a_session_for_session_events_and_otherwise_what_the_document_says() -> None:
    disabled = RISC + "account-disabled"
    assert match(SID, disabled).unmatched is Unmatched.UNKNOWN_SUBJECT
    assert keys(SID, disabled, subjects={"opaque": OpaqueAs.SESSION}) == (SESSION_KEY,)
    for kind in (disabled, SESSION_REVOKED):
        assert keys(SID, kind, subjects={"opaque": OpaqueAs.SUBJECT}) == (SubjectKey(Revoked.SUBJECT, IDP, "s-1"),)


def test_a_jwt_id_is_one_token() -> None:
    assert keys({"format": "jwt_id", "iss": IDP, "jti": "j"}) == (SubjectKey(Revoked.TOKEN, IDP, "j"),)


def test_a_device_joins_only_where_the_document_names_an_inventory() -> None:
    assert match(LAPTOP, COMPLIANCE).unmatched is Unmatched.UNKNOWN_SUBJECT
    for written in (
        LAPTOP,
        {"format": "iss_sub", "iss": IDP, "sub": "laptop"},
        complex_subject(user=ALICE, device=LAPTOP),
    ):
        assert match(written, COMPLIANCE, subjects=ALL) == SubjectMatch((LAPTOP_KEY,), exact=True)
    assert match(complex_subject(user=ALICE, device=LAPTOP), COMPLIANCE).unmatched is Unmatched.UNKNOWN_SUBJECT
    assert match(EMAIL, COMPLIANCE, subjects=ALL).unmatched is Unmatched.UNKNOWN_SUBJECT


def test_a_device_of_a_user_widens_to_the_user() -> None:
    for subjects in (ALL, {}):
        found = match(complex_subject(user=ALICE, device=LAPTOP), subjects=subjects)
        assert found == SubjectMatch((ALICE_KEY,), exact=False)


@pytest.mark.parametrize("member", ["application", "org_unit", "group", "shop.example"])
def test_a_member_that_cannot_be_evaluated_widens_to_the_rest_unless_it_is_critical(member: str) -> None:
    subject = complex_subject(user=ALICE, **{member: GROUP})
    assert match(subject) == SubjectMatch((ALICE_KEY,), exact=False)
    assert match(subject, critical=(member,)).unmatched is Unmatched.CRITICAL_MEMBER
    assert match(subject, critical=("user", "device")) == SubjectMatch((ALICE_KEY,), exact=False)
    assert match(complex_subject(**{member: GROUP})).unmatched is Unmatched.UNKNOWN_SUBJECT


def test_an_email_that_is_not_mapped_can_be_critical() -> None:
    subject = complex_subject(user=EMAIL, session=SID)
    assert match(subject) == SubjectMatch((SESSION_KEY,), exact=True)
    assert match(subject, critical=("user",)).unmatched is Unmatched.CRITICAL_MEMBER


def test_a_tenant_is_everyone_only_where_it_is_configured_and_nothing_else_is_named() -> None:
    assert match(complex_subject(tenant=TENANT)).unmatched is Unmatched.UNKNOWN_SUBJECT
    assert match(complex_subject(tenant=TENANT), tenant="t-2").unmatched is Unmatched.OTHER_TENANT
    assert match(complex_subject(tenant=TENANT), tenant="t-1") == SubjectMatch((EVERYONE,), exact=True)
    for other in ({"user": EMAIL}, {"group": GROUP}, {"device": LAPTOP}):
        assert match(complex_subject(tenant=TENANT, **other), tenant="t-1").unmatched is Unmatched.UNKNOWN_SUBJECT
    assert keys(complex_subject(tenant=TENANT, session={"format": "opaque", "id": "ALL"}), tenant="t-1") == (EVERYONE,)


def test_an_event_of_another_tenant_is_about_nobody_here() -> None:
    subject = complex_subject(user=ALICE, tenant=TENANT)
    assert match(subject, tenant="t-2").unmatched is Unmatched.OTHER_TENANT
    assert match(subject, tenant="t-1") == match(subject) == SubjectMatch((ALICE_KEY,), exact=True)


def test_aliases_are_alternatives_for_one_principal() -> None:
    aliases = {"format": "aliases", "identifiers": [ALICE, EMAIL, {"format": "phone_number", "phone_number": "+1"}]}
    assert match(aliases) == SubjectMatch((ALICE_KEY,), exact=True)
    assert keys(aliases, subjects=ALL) == keys(complex_subject(user=aliases), subjects=ALL) == (ALICE_KEY, EMAIL_KEY)


def test_a_workload_joins_only_where_the_document_lets_the_source_name_it() -> None:
    assert match(FRONTEND).unmatched is Unmatched.UNKNOWN_SUBJECT
    subjects = {"spiffe_ids": True}
    assert keys(FRONTEND, subjects=subjects) == (SubjectKey(Revoked.SPIFFE_ID, "", FRONTEND["uri"]),)
    for text in ("spiffe://cluster.local/../x", "https://example.com", "spiffe://"):
        assert match({"format": "uri", "uri": text}, subjects=subjects).unmatched is Unmatched.UNKNOWN_SUBJECT


def test_the_principal_of_a_risk_chooses_the_member() -> None:
    subject = complex_subject(user=ALICE, device=LAPTOP, session=SID, tenant=TENANT)
    for principal, expected in (
        ("USER", ALICE_KEY),
        ("DEVICE", LAPTOP_KEY),
        ("SESSION", SESSION_KEY),
        ("TENANT", EVERYONE),
    ):
        found = match(subject, RISK, principal=principal, subjects=ALL, tenant="t-1")
        assert found == SubjectMatch((expected,), exact=True)
    assert keys(LAPTOP, RISK, principal="DEVICE", subjects=ALL) == (LAPTOP_KEY,)
    assert match(ALICE, RISK, principal="GROUP").unmatched is Unmatched.UNKNOWN_SUBJECT
    assert keys(ALICE, RISK, principal=["USER"]) == (ALICE_KEY,)


@pytest.mark.parametrize(
    "subject",
    [
        {"format": "account", "uri": "acct:a@b.example"},
        {"format": "did", "url": "did:example:1"},
        {"format": "phone_number", "phone_number": "+1"},
        {"format": "saml_assertion_id", "issuer": "i", "assertion_id": "a"},
        {"format": "catalog_item", "catalog_id": "c"},
    ],
)
def test_formats_that_join_to_nothing_are_unknown_subjects(subject: dict[str, Any]) -> None:
    assert match(subject, subjects=ALL).unmatched is Unmatched.UNKNOWN_SUBJECT
