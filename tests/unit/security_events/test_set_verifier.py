"""Security Event Tokens: what is accepted, and every way in which one is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.pki import NOW, Signer, jwks
from tests.support.security_events import (
    ALICE,
    HEADER,
    IDP,
    KEYS,
    RECEIVER,
    SESSION_REVOKED,
    SIGNER,
    claims,
    signed,
    verified,
)  # fmt: skip
from tests.unit.authn.support import bearer, refusal, rule, verifier
from zta_authz.authn.keys import NO_KEYS, parse_jwks
from zta_authz.errors import Reason
from zta_authz.model.signal_documents import RISC, SSF, EventKind
from zta_authz.security_events.set_verifier import (
    AHEAD_SECONDS,
    MAX_AGE_SECONDS,
    MAX_SET_BYTES,
    SetError,
    SetErrorCode,
    verify_set,
)  # fmt: skip
from zta_authz.security_events.subject_ids import IdFormat, SubjectId


def refused(data: bytes, keys: Any = KEYS, now: float = NOW) -> SetError:
    with pytest.raises(SetError) as caught:
        verify_set(data, IDP, (RECEIVER,), keys, now)
    return caught.value


def test_a_valid_set_becomes_an_event() -> None:
    event = verified(jti="one", iat=NOW - 5)
    assert (event.issuer, event.token_id, event.transaction) == (IDP, "one", "8675309")
    assert (event.kind, event.type) == (EventKind.SESSION_REVOKED, SESSION_REVOKED)
    assert (event.issued_at, event.happened_at) == (NOW - 5, NOW - 10)
    assert event.audiences == (RECEIVER,)


@pytest.mark.parametrize(
    ("alg", "kind"),
    [("RS256", "RSA-2048"), ("PS256", "RSA-2048"), ("RS512", "RSA-2048"), ("ES256", "P-256"), ("ES384", "P-384"), ("EdDSA", "Ed25519")],
)  # fmt: skip
def test_every_asymmetric_algorithm_is_accepted(alg: str, kind: str) -> None:
    signer = Signer(alg, "k", kind)
    data = signed(claims(), {"alg": alg, "kid": "k"}, signer)
    assert verify_set(data, IDP, (RECEIVER,), parse_jwks(jwks([signer]))[0], NOW).kind is EventKind.SESSION_REVOKED


@pytest.mark.parametrize("kind", ["secevent+jwt", "SECEVENT+JWT", "application/secevent+jwt"])
def test_the_type_is_compared_as_a_media_type(kind: str) -> None:
    assert verify_set(signed(claims(), {"typ": kind}), IDP, (RECEIVER,), KEYS, NOW).issuer == IDP


@pytest.mark.parametrize(
    "kind", [None, "JWT", "at+jwt", "logout+jwt", "secevent", "secevent+jwt ", 7, ["secevent+jwt"]]
)
def test_a_jwt_of_another_type_is_no_set(kind: Any) -> None:
    assert refused(signed(claims(), {"typ": kind})).code is SetErrorCode.INVALID_REQUEST


def test_an_access_token_is_no_set_and_a_set_is_no_access_token() -> None:
    access_token = SIGNER.token(iss=IDP, aud=RECEIVER)
    assert refused(access_token.encode()).code is SetErrorCode.INVALID_REQUEST
    event_token = signed(claims(sub="alice", exp=NOW + 60)).decode()
    subject = verifier(rule(issuer=IDP, jwks=jwks([SIGNER])))
    assert refusal(subject, bearer(event_token)) is Reason.TOKEN_HEADER


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"exp": NOW + 60}, "`exp` is present"),
        ({"exp": None, "sub": "alice"}, "`sub` is present"),
        ({"jti": None}, "`jti` is not"),
        ({"jti": ""}, "`jti` is not"),
        ({"jti": "x" * 257}, "`jti` is not a string of 1 to 256"),
        ({"jti": 7}, "`jti` is not"),
        ({"txn": "x" * 257}, "`txn` is not a string of 1 to 256"),
        ({"txn": 7}, "`txn` is not"),
        ({"iat": None}, "no `iat`"),
        ({"iat": "now"}, "`iat` is not a time"),
        ({"iat": 15203800012}, "s from now"),
        ({"iat": NOW + AHEAD_SECONDS + 1}, "s from now"),
        ({"iat": NOW - MAX_AGE_SECONDS - 1}, "s ago, more than"),
        ({"iat": -1}, "`iat` is not a time"),
        ({"events": None}, "0 events instead of one"),
        ({"events": {}}, "0 events instead of one"),
        ({"events": []}, "0 events instead of one"),
        ({"events": {SESSION_REVOKED: {}, SESSION_REVOKED + "2": {}}}, "2 events instead of one"),
        ({"events": {SESSION_REVOKED: None}}, "`events` is not an object by a URI"),
        ({"events": {"": {}}}, "`events` is not an object by a URI"),
        ({"events": {"x" * 513: {}}}, "`events` is not an object by a URI"),
        ({"events": {SESSION_REVOKED: {"event_timestamp": NOW + AHEAD_SECONDS + 1}}}, "`event_timestamp` is not a time in the past"),
        ({"events": {SESSION_REVOKED: {"event_timestamp": NOW * 1000}}}, "`event_timestamp` is not a time in the past, in seconds"),
        ({"events": {SESSION_REVOKED: {"event_timestamp": True}}}, "`event_timestamp` is not a time"),
        ({"events": {SESSION_REVOKED: {"event_timestamp": "1"}}}, "`event_timestamp` is not a time"),
        ({"events": {SESSION_REVOKED: {}}, "toe": -1}, "`toe` is not a time in the past"),
        ({"sub_id": None}, "no `sub_id`"),
        ({"sub_id": "alice"}, "the subject is not an object"),
        ({"aud": ["x"] * 33}, "`aud` has 33 entries"),
    ],
)  # fmt: skip
def test_a_set_that_does_not_conform_is_an_invalid_request(changed: dict[str, Any], message: str) -> None:
    error = refused(signed(claims(**changed)))
    assert error.code is SetErrorCode.INVALID_REQUEST
    assert message in error.description


@pytest.mark.parametrize("data", [b"", b"a.b", b"a.b.c.d", b"\xff.\xff.\xff", b"{}", b"..", b"a" * (MAX_SET_BYTES + 1)])
def test_bytes_that_are_no_jwt_are_an_invalid_request(data: bytes) -> None:
    assert refused(data).code is SetErrorCode.INVALID_REQUEST


def test_deep_json_and_duplicate_names_are_an_invalid_request() -> None:
    deep = json.dumps(claims(events={SESSION_REVOKED: {"x": json.loads("[" * 40 + "]" * 40)}}))
    twice = json.dumps(claims())[:-1] + ', "iss": "https://other.example"}'
    for payload in (deep, twice):
        assert refused(SIGNER.compact(json.dumps(HEADER), payload).encode()).code is SetErrorCode.INVALID_REQUEST


def test_another_issuer_or_audience_is_refused() -> None:
    assert refused(signed(claims(iss="https://other.example/"))).code is SetErrorCode.INVALID_ISSUER
    assert refused(signed(claims(iss=IDP.rstrip("/")))).code is SetErrorCode.INVALID_ISSUER
    assert refused(signed(claims(iss=None))).code is SetErrorCode.INVALID_ISSUER
    for audience in (None, [], "other", RECEIVER + "/", ["a", "b"]):
        assert refused(signed(claims(aud=audience))).code is SetErrorCode.INVALID_AUDIENCE
    assert verified(aud=["other", RECEIVER]).audiences == ("other", RECEIVER)


def test_a_signature_of_another_key_is_refused() -> None:
    stranger = Signer(alg="RS256", kid="idp-1", kind="RSA-2048", number=7)
    assert refused(signed(claims(), signer=stranger)).code is SetErrorCode.INVALID_KEY
    data = signed(claims())
    assert refused(data[:-4] + (b"AAAA" if data[-4:] != b"AAAA" else b"BBBB")).code is SetErrorCode.INVALID_KEY


def test_an_unknown_key_is_reported_so_that_the_keys_are_fetched() -> None:
    for error in (refused(signed(claims(), {"kid": "idp-2"})), refused(signed(claims()), NO_KEYS)):
        assert (error.code, error.key_unknown) == (SetErrorCode.INVALID_KEY, True)
    assert not refused(signed(claims(), {"alg": "none"})).key_unknown


def test_a_shared_secret_never_verifies_a_set() -> None:
    secret = Signer("HS256", "s", secret=b"x" * 32)
    keys, _ = parse_jwks(jwks([secret]))
    assert refused(signed(claims(), {"alg": "HS256", "kid": "s"}, secret), keys).code is SetErrorCode.INVALID_KEY


def test_an_rsa_key_below_2048_bits_is_no_key() -> None:
    weak = Signer("RS256", "w", "RSA-1024")
    keys, errors = parse_jwks(jwks([weak]))
    assert errors
    assert refused(signed(claims(), {"kid": "w"}, weak), keys).code is SetErrorCode.INVALID_KEY


@pytest.mark.parametrize("member", ["crit", "b64"])
def test_a_header_that_requires_an_extension_is_refused(member: str) -> None:
    assert refused(signed(claims(), {member: ["x"]})).code is SetErrorCode.INVALID_REQUEST


def test_the_time_of_the_event_is_its_own_then_toe_then_iat() -> None:
    bare = {"events": {SESSION_REVOKED: {}}}
    assert verified(**bare, toe=NOW - 100, iat=NOW - 5).happened_at == NOW - 100
    assert verified(**bare, iat=NOW - 5).happened_at == NOW - 5
    both = verified(toe=NOW - 100, events={SESSION_REVOKED: {"event_timestamp": 1.5}})
    assert both.happened_at == 1.5


def test_an_older_subject_is_read_from_inside_the_event() -> None:
    inside = {SESSION_REVOKED: {"subject": {"subject_type": "iss-sub", "iss": IDP, "sub": "bob"}}}
    event = verified(sub_id=None, events=inside)
    assert event.subject.simple[0].value == "bob"
    assert verified(sub_id=ALICE, events=inside).subject.simple[0].value == "alice"


def test_an_event_about_the_stream_needs_no_subject() -> None:
    event = verified(sub_id=None, events={SSF + "verification": {"state": "x"}})
    assert (event.kind, event.values["state"]) == (EventKind.VERIFICATION, "x")


def test_an_unknown_event_type_is_verified_too() -> None:
    assert verified(events={"https://example.com/event": {}}).kind is None


def test_the_repr_of_an_event_has_none_of_its_values() -> None:
    assert "topsecret" not in repr(verified(events={SESSION_REVOKED: {"x": "topsecret"}}))


RFC_8417 = {
    "SCIM, two events": {
        "iss": "https://scim.example.com", "iat": 1458496404, "jti": "4d3559ec67504aaba65d40b0363faad8",
        "aud": ["https://scim.example.com/Feeds/98d52461fa5bbc879593b7754"],
        "events": {
            "urn:ietf:params:scim:event:create": {"ref": "https://scim.example.com/Users/44f6142df96bd6ab61e7521d9"},
            "urn:ietf:params:scim:event:passwordReset": {"id": "44f6142df96bd6ab61e7521d9"},
        },
    },
    "back-channel logout, with `sub`": {
        "iss": "https://server.example.com", "sub": "248289761001", "aud": "s6BhdRkqt3", "iat": 1471566154,
        "jti": "bWJq", "sid": "08a5019c-17e1-4977-8f42-65a12843ea02",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    },
    "consent, with `sub`": {
        "jti": "fb4e75b5411e4e19b6c0fe87950f7749", "sub": "248289761001", "iat": 1458496025,
        "iss": "https://my.med.example.org", "aud": ["https://rp.example.com"],
        "events": {"https://openid.net/heart/specs/consent.html": {"iss": "https://connect.example.com"}},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RFC_8417)
def test_the_examples_of_rfc_8417_that_are_no_shared_signals_are_refused(name: str) -> None:
    payload = RFC_8417[name]
    audience = payload["aud"]
    with pytest.raises(SetError) as caught:
        verify_set(signed(payload), str(payload["iss"]), (audience if isinstance(audience, str) else audience[0],), KEYS, float(str(payload["iat"])))  # fmt: skip
    assert caught.value.code is SetErrorCode.INVALID_REQUEST
    assert ("events" if name.startswith("SCIM") else "`sub` is present") in caught.value.description


def test_the_example_of_rfc_8417_for_risc_is_read_with_its_older_subject() -> None:
    subject = {"subject_type": "iss-sub", "iss": "https://idp.example.com/", "sub": "7375626A656374"}
    payload = {
        "iss": "https://idp.example.com/", "jti": "756E69717565206964656E746966696572", "iat": 1508184845,
        "aud": "636C69656E745F6964",
        "events": {RISC + "account-disabled": {"subject": subject, "reason": "hijacking"}},
    }  # fmt: skip
    event = verify_set(signed(payload), "https://idp.example.com/", ("636C69656E745F6964",), KEYS, 1508184900.0)
    assert event.kind is EventKind.ACCOUNT_DISABLED
    assert event.subject.simple == (SubjectId(IdFormat.ISS_SUB, "https://idp.example.com/", "7375626A656374"),)
