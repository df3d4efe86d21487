"""Decision records: complete, without secrets, one line whatever the request holds."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.support.check_requests import DECISION_ID, FRONTEND, allow, answer, attributes, deny
from tests.support.minting import ISSUER, KEY, allowed, ring, terms, user
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.audit.lines import LineEncoder
from zta_authz.audit.masking import Maskable, MaskAction, Masker, MaskRule
from zta_authz.audit.record import (
    MAX_TEXT_CHARACTERS,
    DecisionRecord,
    Obligations,
    encode_line,
    make_record,
)
from zta_authz.audit.sinks import capture
from zta_authz.errors import Reason
from zta_authz.minting.minter import Minter
from zta_authz.model.access import Grant, Subject
from zta_authz.model.decision import AccessBasis, Decision, Disagreement, Response, Shadow, Verdict
from zta_authz.model.identity import ApiClient, Binding, Changes, Identity, NamedToken, Token
from zta_authz.model.request import Address, RequestAttributes

if TYPE_CHECKING:
    from zta_authz.ports import Metadata


def line(request: RequestAttributes, decision: Decision) -> dict[str, Any]:
    encoded = encode_line(make_record(capture(request, decision, DECISION_ID, 1_700_000_000.25)))
    assert encoded.isascii()
    assert encoded.endswith(b"}\n")
    assert len(encoded.decode().splitlines()) == 1
    parsed: dict[str, Any] = json.loads(encoded)
    return parsed


def test_a_record_tells_who_asked_for_what_and_why_it_came_out_so() -> None:
    request = RequestAttributes(
        method="POST",
        path="/orders?access_token=secret",
        host="orders:8080",
        source=Address("10.0.0.1", 1234),
        destination=Address("::1", 8080),
        request_id="7",
    )
    assert line(request, deny()) == {
        "schema": "zta.dev/decision/v1",
        "time": "2023-11-14T22:13:20.250000+00:00",
        "decision_id": DECISION_ID,
        "verdict": "deny",
        "reason": "deny_policy",
        "policy": "default/secret-policy",
        "rule": 1,
        "rule_name": "",
        "detail": "secret detail",
        "principal": FRONTEND,
        "token_subject": "",
        "token_issuer": "",
        "method": "POST",
        "host": "orders:8080",
        "path": "/orders",
        "source": "10.0.0.1:1234",
        "destination": "[::1]:8080",
        "request_id": "7",
        "shadows": [],
        "trace_id": "",
        "api_client": "",
        "binding": "",
        "latency_us": 0,
        "table_digest": "",
        "obligations": {"set_headers": [], "remove_headers": [], "remove_query": []},
        "shadow": None,
        "claimed_subject": "",
        "claimed_issuer": "",
        "trust": None,
        "device": None,
        "network": None,
        "resource_class": "",
        "grant": None,
        "revocation": None,
        "signal": None,
        "minted": None,
    }


def noted(request: RequestAttributes, decision: Decision, ended: float = 0.0) -> DecisionRecord:
    return make_record(capture(request, decision, DECISION_ID, 1_700_000_000.25, ended, "d" * 64))


def test_what_the_shadow_policies_say_is_recorded_beside_what_was_decided() -> None:
    found = Disagreement(Verdict.ALLOW, Reason.ALLOW_POLICY, "default/new", 3, "new-rule")
    record = line(attributes(), msgspec.structs.replace(deny(), disagreement=found))
    assert record["verdict"] == "deny"
    told = {"verdict": "allow", "reason": "allow_policy", "policy": "default/new", "rule": 3, "rule_name": "new-rule"}
    assert record["shadow"] == told


def test_what_an_allow_changes_on_the_request_is_recorded_by_name_only() -> None:
    changes = Changes((("x-user", "alice"),), ("authorization",), ("access_token",))
    response = Response((("x-tier", "gold"),), ("x-debug",))
    decision = Decision(Verdict.ALLOW, Reason.ALLOW_POLICY, identity=Identity(changes=changes), response=response)
    found = noted(attributes(), decision)
    assert found.obligations == Obligations(("x-user", "x-tier"), ("authorization", "x-debug"), ("access_token",))
    assert b"alice" not in encode_line(found)
    assert b"gold" not in encode_line(found)


def test_only_what_is_sent_is_recorded_as_set() -> None:
    changes = Changes((("x-user", "alice\n"), ("x-zta-principal", "me"), ("X-Team", "hats")), ("host", "x-team"))
    response = Response((("x-team", "caps"), ("bad name", "a"), ("host", "other")))
    decision = Decision(Verdict.ALLOW, Reason.ALLOW_POLICY, identity=Identity(changes=changes), response=response)
    assert noted(attributes(), decision).obligations == Obligations(("x-team",), ("x-user", "x-zta-principal"))
    answered = CheckResponse.FromString(answer(decision, "0" * 32, attributes())).ok_response
    assert [option.header.key for option in answered.headers] == ["x-team", "x-zta-decision-id"]
    assert list(answered.headers_to_remove) == ["x-user", "x-zta-principal"]


def test_a_denial_changes_no_request() -> None:
    identity = Identity(changes=Changes((("x-user", "alice"),)))
    decision = Decision(Verdict.DENY, Reason.DENY_POLICY, identity=identity)
    assert noted(attributes(), decision).obligations == Obligations()


def test_the_client_the_binding_the_rules_and_the_latency_are_recorded() -> None:
    identity = Identity(binding=Binding.DPOP, api_client=ApiClient("shop"))
    found = noted(attributes(), Decision(Verdict.ALLOW, Reason.ALLOW_POLICY, identity=identity), 1_700_000_000.2512)
    assert (found.binding, found.api_client, found.table_digest) == ("dpop", "shop", "d" * 64)
    assert found.latency_us == 1200


def test_what_the_access_log_explains_is_recorded() -> None:
    grant = Grant("g1", "shop/refunds", Subject("https://idp", "ann"), 1.0, 1_700_003_600.5)
    for access, expected in (
        (None, (None, None, None)),
        (AccessBasis(grant), ({"id": "g1", "entitlement": "shop/refunds", "until": "2023-11-14T23:13:20.500000+00:00"}, None, None)),
        (AccessBasis(grant._replace(until=math.inf)), ({"id": "g1", "entitlement": "shop/refunds", "until": None}, None, None)),
        (AccessBasis(revocation="r1", signal="jti-1"), (None, "r1", "jti-1")),
    ):  # fmt: skip
        decision = msgspec.structs.replace(allow(), access=access)
        written = line(attributes(), decision)
        assert (written["grant"], written["revocation"], written["signal"]) == expected
        plain = capture(attributes(), decision, DECISION_ID, 1_700_000_000.0)
        assert LineEncoder(Masker(())).line(plain) == encode_line(make_record(plain))


def test_a_clock_that_went_back_gives_no_negative_latency() -> None:
    assert noted(attributes(), deny(), 1.0).latency_us == 0


@pytest.mark.parametrize(
    ("header", "trace_id"),
    [
        (f"00-{'a1' * 16}-{'b' * 16}-01", "a1" * 16),
        (f"01-{'a1' * 16}-{'b' * 16}-01-more", "a1" * 16),
        (f"00-{'a1' * 16}-{'b' * 16}-01-more", ""),
        (f"00-{'0' * 32}-{'b' * 16}-01", ""),
        (f"ff-{'a1' * 16}-{'b' * 16}-01", ""),
        ("00-secret", ""),
        ("", ""),
    ],
)
def test_the_trace_is_that_of_a_valid_traceparent(header: str, trace_id: str) -> None:
    assert noted(attributes(traceparent=header), deny()).trace_id == trace_id


@pytest.mark.parametrize("now", [0.0, -0.5, 1_700_000_000.9999996, 1_700_000_000.123456, 253_402_300_799.5])
def test_the_time_is_what_a_datetime_would_say(now: float) -> None:
    note = capture(None, deny(), DECISION_ID, now)
    assert make_record(note).time == datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")


def test_rules_that_matched_without_deciding_are_recorded() -> None:
    shadow = Shadow("DENY", "default/tr\udc80ied", 2, dry_run=True, rule_name="x")
    found = line(attributes(), Decision(Verdict.ALLOW, Reason.ALLOW_DEFAULT, shadows=(shadow,)))
    assert found["shadows"] == [
        {"action": "DENY", "policy": "default/tr\\udc80ied", "rule": 2, "dry_run": True, "rule_name": "x"}
    ]


def test_a_token_is_named_by_subject_and_issuer_only() -> None:
    token = Token("https://issuer", "alice", {"iss": "https://issuer", "secret": "claim"})
    found = line(attributes(), Decision(Verdict.ALLOW, Reason.ALLOW_POLICY, identity=Identity(token=token)))
    assert (found["token_subject"], found["token_issuer"]) == ("alice", "https://issuer")
    assert "claim" not in str(list(found.values()))


def test_no_header_and_no_query_is_recorded() -> None:
    found = line(attributes(authorization="Bearer secret", cookie="secret"), allow())
    assert "secret" not in str(found)
    assert found["path"] == "/orders/7"


@pytest.mark.parametrize("text", ['\n{"verdict":"allow"}', "\r\x00\x1b[2J\x7f", "\u2028\u2029\x85", 'é"\\'])
def test_no_text_can_break_or_forge_a_line(text: str) -> None:
    found = line(RequestAttributes(method=text, host=text, path=text), deny())
    assert (found["method"], found["host"], found["path"]) == (text, text, text)


def test_bytes_that_were_no_text_are_shown_escaped() -> None:
    assert line(RequestAttributes(path="/é\udcff"), deny())["path"] == "/é\\udcff"


def test_an_endless_path_makes_no_endless_record() -> None:
    assert len(line(RequestAttributes(path="/" * 1_000_000), deny())["path"]) == MAX_TEXT_CHARACTERS


def test_a_line_is_bounded_whatever_the_request_holds() -> None:
    endless = "\U0001f600" * 100_000
    address = Address(endless, 1)
    request = RequestAttributes(endless, endless, endless, source=address, destination=address, request_id=endless)
    identity = Identity(token=Token(endless, endless, {}), api_client=ApiClient(endless))
    note = capture(request, Decision(Verdict.DENY, Reason.DENY_POLICY, "", 0, identity, endless), DECISION_ID, 0)
    assert len(encode_line(make_record(note))) < 300_000


def test_a_query_that_is_cut_stays_out_of_the_record() -> None:
    path = "/" * (MAX_TEXT_CHARACTERS - 10) + "?token=" + "s" * 100
    assert line(RequestAttributes(path=path), deny())["path"] == "/" * (MAX_TEXT_CHARACTERS - 10)


def test_nothing_is_left_out_where_there_is_nothing_to_say() -> None:
    found = line(RequestAttributes(), Decision(Verdict.DENY, Reason.NOT_READY))
    assert found["rule"] is None
    assert {found[name] for name in ("policy", "principal", "source", "detail")} == {""}


@pytest.mark.parametrize(
    ("metadata", "trace"),
    [
        ((), "c" * 32),
        ((("x", "y"), ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")), "a" * 32),
        ((("traceparent", b"00"),), "c" * 32),
        ((("traceparent", "nonsense"),), "c" * 32),
        ((("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),) * 2, "c" * 32),
    ],
)
def test_the_trace_is_that_of_the_proxys_own_span_before_the_clients_word(metadata: Metadata, trace: str) -> None:
    request = attributes(traceparent=f"00-{'c' * 32}-{'d' * 16}-01")
    assert make_record(capture(request, allow(), DECISION_ID, 0.0, metadata=metadata)).trace_id == trace


@pytest.mark.parametrize("verified", [True, False])
def test_whom_a_refused_token_names_is_verified_or_claimed(verified: bool) -> None:
    named = NamedToken("https://issuer", "alice", verified)
    found = line(attributes(), Decision(Verdict.DENY, Reason.TOKEN_SIGNATURE, refused_token=named))
    texts = [found[name] for name in ("token_subject", "token_issuer", "claimed_subject", "claimed_issuer")]
    assert texts == (["alice", "https://issuer", "", ""] if verified else ["", "", "alice", "https://issuer"])


def test_who_masks_the_subject_masks_the_claimed_one_too() -> None:
    named = NamedToken("https://issuer", "alice", verified=False)
    record = noted(attributes(), Decision(Verdict.DENY, Reason.TOKEN_SIGNATURE, detail="alice", refused_token=named))
    masked = Masker([MaskRule(Maskable.TOKEN_SUBJECT, MaskAction.DROP)]).mask(record)
    assert (masked.claimed_subject, masked.claimed_issuer, masked.detail) == ("", "https://issuer", "")


def test_a_minted_token_is_recorded_by_its_names_only() -> None:
    allow = allowed(Identity(None, user()), terms())
    decision = Minter(ISSUER, ring()).mint(allow, DECISION_ID, 1_700_000_000.25)
    assert decision.minted is not None
    token = decision.minted.token
    record = line(attributes(), decision)
    expected = {"token_id": DECISION_ID, "key_id": KEY.key_id, "audience": "orders"}
    assert record["minted"] == expected | {"expires": "2023-11-14T22:14:20.000000+00:00"}
    assert record["obligations"] == {"set_headers": ["x-zta-token"], "remove_headers": [], "remove_query": []}
    plain = capture(attributes(), decision, DECISION_ID, 1_700_000_000.0)
    for written in (json.dumps(record).encode(), LineEncoder(Masker(())).line(plain)):
        assert all(part.encode() not in written for part in token.split("."))
