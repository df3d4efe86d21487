"""What Envoy and the caller are told."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from tests.support.check_requests import DECISION_ID, ENCODER, FRONTEND, allow, answer, attributes, deny
from tests.support.facts import FACTS, TRUST
from tests.support.minting import ISSUER, allowed, ring, terms, user as end_user, verified, workload
from tests.support.pki import NOW
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.errors import DENIAL_RESPONSES, Reason
from zta_authz.ext_authz.response import MAX_CACHED_ANSWERS, ResponseEncoder
from zta_authz.minting.minter import Minter
from zta_authz.model.changed_headers import GuardedNames
from zta_authz.model.decision import Decision, DecisionFacts, Response, Verdict
from zta_authz.model.identity import ApiClient, Changes, Identity
from zta_authz.model.minting import TokenKind
from zta_authz.model.request import Headers, RequestAttributes
from zta_authz.model.trust import TrustLevel

if TYPE_CHECKING:
    from collections.abc import Callable


def told(decision: Decision, request: RequestAttributes | None = None, *names: str) -> CheckResponse:
    return CheckResponse.FromString(answer(decision, DECISION_ID, request or attributes(), GuardedNames(names)))


def set_upstream(message: CheckResponse) -> dict[str, str]:
    return {option.header.key: option.header.value for option in message.ok_response.headers}


def denied_headers(message: CheckResponse) -> dict[str, str]:
    return {option.header.key: option.header.value for option in message.denied_response.headers}


def with_headers(*names: str) -> RequestAttributes:
    return RequestAttributes(method="GET", headers=Headers(dict.fromkeys(names, ("spoofed",)), exact=True))


# --- allow ---


def test_an_allow_says_so_explicitly_and_who_and_which_decision() -> None:
    message = told(allow())
    assert message.HasField("status")
    assert message.status.code == 0
    assert set_upstream(message) == {"x-zta-principal": FRONTEND, "x-zta-decision-id": DECISION_ID}
    assert {name: value.string_value for name, value in message.dynamic_metadata.fields.items()} == {
        "reason": "allow_policy",
        "policy": "default/hatshop-policy",
        "rule": "0",
        "principal": FRONTEND,
        "decision_id": DECISION_ID,
    }


def documented_metadata() -> set[str]:
    page = (Path(__file__).resolve().parents[3] / "docs" / "envoy-config.md").read_text(encoding="utf-8")
    section = page.partition("## Dynamic metadata")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


@pytest.mark.parametrize("decided", [allow, deny])
def test_every_key_of_the_dynamic_metadata_is_documented_and_no_other(decided: Callable[[], Decision]) -> None:
    decision = decided()
    identity = dataclasses.replace(allow().identity, api_client=ApiClient("partner"))
    message = told(replace(decision, identity=identity, policy="default/a", rule=0, facts=FACTS))
    on_allows = set() if decision.allowed else {"session_expires"}
    assert set(message.dynamic_metadata.fields) == documented_metadata() - on_allows
    assert message.dynamic_metadata.fields["api_client"].string_value == "partner"


def test_clients_that_share_a_rule_and_have_no_principal_are_named_each() -> None:
    """An answer that is known must be none of another client's."""
    names = ["ann", "bob", "ann", None, "bob"]
    for verdict, reason in ((Verdict.ALLOW, Reason.ALLOW_POLICY), (Verdict.DENY, Reason.DENY_POLICY)):
        found = []
        for name in names:
            identity = Identity(api_client=None if name is None else ApiClient(name))
            decision = Decision(verdict, reason, policy="default/a", rule=0, identity=identity)
            message = CheckResponse.FromString(
                answer(decision, DECISION_ID, attributes())
            )  # with the same names each time
            fields = message.dynamic_metadata.fields
            found.append(fields["api_client"].string_value if "api_client" in fields else None)
        assert found == names


def test_a_caller_without_a_principal_gets_no_principal_header() -> None:
    message = told(Decision(Verdict.ALLOW, Reason.ALLOW_DEFAULT), with_headers("x-zta-principal"))
    assert set_upstream(message) == {"x-zta-decision-id": DECISION_ID}
    assert list(message.ok_response.headers_to_remove) == ["x-zta-principal"]
    assert sorted(message.dynamic_metadata.fields) == ["decision_id", "reason"]


def test_every_header_overwrites_what_the_client_sent() -> None:
    message = told(allow(Changes(set_headers=(("X-User", "alice"),))))
    for option in message.ok_response.headers:
        assert option.HasField("append")
        assert option.append.value is False
        assert option.append_action == 0
        assert option.header.raw_value == b""


def test_inbound_headers_of_ours_are_removed_in_every_spelling() -> None:
    spelled = {"x_zta_principal", "x-zta_principal", "x_zta-anything", "x-zta-role", "x-user_id"}
    message = told(allow(), with_headers(*spelled, "x-ztax", "xzta-role"), "X-User-Id")
    assert set(message.ok_response.headers_to_remove) == {*spelled, "x-user-id"}


@pytest.mark.parametrize("character", "!#$%&'*+.^_`|~")
def test_every_character_that_cgi_folds_counts_as_a_dash(character: str) -> None:
    """PHP gives an application `HTTP_X_ZTA_PRINCIPAL` for `x.zta.principal` too."""
    spelled = {name.replace("-", character) for name in ("x-zta-principal", "x-zta-made-up", "x-user")}
    removed = set(told(allow(), with_headers(*spelled, f"x{character}custom"), "x-user").ok_response.headers_to_remove)
    assert removed == {*spelled, "x-user"}


def test_a_name_with_odd_characters_is_guarded_in_its_plain_spelling_too() -> None:
    removed = set(told(allow(), with_headers("x-user", "x_user"), "X.User").ok_response.headers_to_remove)
    assert removed == {"x-user", "x_user", "x.user"}
    changes = Changes(set_headers=(("x.user", "alice"),))
    message = told(allow(changes), with_headers("x-user", "x.user"), "x.user")
    assert set(message.ok_response.headers_to_remove) == {"x-user"}
    assert set_upstream(message)["x.user"] == "alice"


def read_from(*names: str, sent: tuple[str, ...]) -> set[str]:
    """What is removed of `sent`, where credentials are read from `names`."""
    guarded = GuardedNames((), names)
    message = CheckResponse.FromString(answer(allow(), DECISION_ID, with_headers(*sent), guarded))
    return set(message.ok_response.headers_to_remove)


def test_a_credential_is_not_passed_on_in_a_spelling_that_was_not_verified() -> None:
    spellings = ("x-token", "x_token", "x.token", "authorization", "accept")
    assert read_from("x-token", "authorization", sent=spellings) == {"x_token", "x.token"}
    assert read_from("x_token", sent=spellings) == {"x-token", "x.token"}
    assert read_from("x_token", "x.token", sent=spellings) == {"x-token"}
    assert read_from("x_token", sent=("x-token",)) == {"x-token"}


def test_what_the_proxy_did_not_show_us_is_removed_unless_it_is_set() -> None:
    """`allowed_headers` may leave out what the client sent."""
    nobody = Decision(Verdict.ALLOW, Reason.ALLOW_DEFAULT)
    for request in (None, with_headers(), with_headers("x-user", "x-zta-principal")):
        answered = answer(nobody, DECISION_ID, request, GuardedNames(["x-user", "X_Team"]))
        removed = list(CheckResponse.FromString(answered).ok_response.headers_to_remove)
        assert sorted(removed) == ["x-team", "x-user", "x-zta-principal", "x_team"]
    changes = Changes(set_headers=(("x-user", "alice"), ("x_team", "hats")))
    message = told(allow(changes), with_headers(), "x-user", "X_Team")
    assert list(message.ok_response.headers_to_remove) == ["x-team"]


def test_an_answer_is_not_known_from_other_names() -> None:
    first, second = GuardedNames(["x-user"]), GuardedNames(["x-team"])
    for guarded, wanted in ((first, ["x-user"]), (second, ["x-team"]), (first, ["x-user"])):
        answered = CheckResponse.FromString(answer(allow(), DECISION_ID, None, guarded))
        assert list(answered.ok_response.headers_to_remove) == wanted


def test_an_output_header_that_no_token_set_is_removed() -> None:
    assert list(told(allow(), with_headers("x-user"), "x-user").ok_response.headers_to_remove) == ["x-user"]


def test_headers_of_others_pass() -> None:
    request = with_headers("accept", "x_custom", "authorization", "zta", "my-x-zta-principal")
    assert list(told(allow(), request, "x-user").ok_response.headers_to_remove) == ["x-user"]


def test_what_is_set_is_never_removed_as_well() -> None:
    changes = Changes(set_headers=(("x-user", "alice"),), remove_headers=("x-user", "authorization"))
    response = Response(set_headers=(("X-Team", "hats"),), remove_headers=("x-team", "X-ZTA-Principal"))
    request = with_headers("x-user", "x_user", "x-team", "x-zta-principal", "x-zta-decision-id")
    message = told(allow(changes, response), request, "x-user", "x-team")
    removed = set(message.ok_response.headers_to_remove)
    assert removed == {"x_user", "authorization"}
    assert removed.isdisjoint(set_upstream(message))


def test_token_and_policy_headers_are_set_and_the_policy_has_the_last_word() -> None:
    changes = Changes(set_headers=(("x-user", "alice"), ("x-team", "token")), remove_query=("access_token",))
    message = told(allow(changes, Response(set_headers=(("x-team", "policy"),))))
    upstream = set_upstream(message)
    assert (upstream["x-user"], upstream["x-team"]) == ("alice", "policy")
    assert list(message.ok_response.query_parameters_to_remove) == ["access_token"]


def test_neither_token_nor_policy_can_name_the_caller() -> None:
    changes = Changes(set_headers=(("X-Zta-Principal", "mallory"), ("x-zta-decision-id", "1")))
    assert set_upstream(told(allow(changes))) == {"x-zta-principal": FRONTEND, "x-zta-decision-id": DECISION_ID}
    nobody = Decision(Verdict.ALLOW, Reason.ALLOW_DEFAULT, response=Response(set_headers=(("x-zta-principal", "m"),)))
    assert "x-zta-principal" not in set_upstream(told(nobody))


@pytest.mark.parametrize("value", ["a\r\nx-admin: 1", "a\nb", "a\0b", "\x1b[0m", "\x7f", "\x85", "\udcff"])
def test_a_value_that_could_split_the_request_is_not_set_and_the_clients_is_removed(value: str) -> None:
    message = told(allow(Changes(set_headers=(("x-user", value),))), with_headers("x-user"))
    assert "x-user" not in set_upstream(message)
    assert list(message.ok_response.headers_to_remove) == ["x-user"]


@pytest.mark.parametrize("name", ["", "host", "Host", ":path", "a b", "a\nb", "é", "a:b"])
def test_a_name_that_is_no_header_or_that_rules_have_matched_is_neither_set_nor_removed(name: str) -> None:
    message = told(allow(Changes(set_headers=((name, "v"),), remove_headers=(name,))))
    assert set(set_upstream(message)) == {"x-zta-principal", "x-zta-decision-id"}
    assert list(message.ok_response.headers_to_remove) == []


def test_text_beyond_ascii_reaches_the_upstream() -> None:
    assert set_upstream(told(allow(Changes(set_headers=(("x-user", "Jürgen 👒"),)))))["x-user"] == "Jürgen 👒"


@pytest.mark.parametrize("principal", ["CN=a\r\nx-admin: 1", "a\0b", "\udcff"])
def test_a_caller_whose_name_no_header_can_hold_is_denied(principal: str) -> None:
    message = told(allow(principal=principal))
    assert message.status.code != 0
    assert message.denied_response.status.code == 403
    assert "principal" not in message.dynamic_metadata.fields


def test_an_answer_that_is_known_is_of_a_decision_that_is_the_same_in_all_it_says() -> None:
    """Whatever was asked before, each decision is told as by a process that has told nothing yet."""
    usual = allow()
    others = [
        replace(usual, reason=Reason.ALLOW_DEFAULT),
        replace(usual, reason=Reason.TOKEN_EXPIRED),  # an allow that contradicts itself
        replace(usual, verdict=Verdict.DENY, reason=Reason.DENY_POLICY),
        replace(usual, policy="default/other"),
        replace(usual, rule=1),
        allow(principal=FRONTEND + "2"),
        allow(Changes((("x-user", "alice"),))),
        allow(Changes((("x-user", "bob"),))),
        allow(Changes((), ("authorization",))),
        allow(response=Response((("x-tier", "gold"),))),
    ]
    spoofed = with_headers("x-zta-role")
    asked = [(usual, None), *((each, None) for each in others), (usual, spoofed), *((each, spoofed) for each in others)]
    fresh = []
    for decision, request in asked:
        ENCODER._answers.clear()
        fresh.append(answer(decision, DECISION_ID, request))
    assert len({*fresh}) == len(fresh) - 2  # nothing of a request is told to those that are denied
    for _ in range(2):
        assert [answer(decision, DECISION_ID, request) for decision, request in asked] == fresh


def test_answers_that_are_known_are_bounded_in_number() -> None:
    for number in range(3000):
        told(replace(allow(), rule=number))
    assert 0 < len(ENCODER._answers) <= MAX_CACHED_ANSWERS


def test_answers_from_the_cache_differ_only_in_the_decision_id() -> None:
    other = "f" * 32
    first, second = answer(allow(), DECISION_ID, attributes()), answer(allow(), other, attributes())
    assert first.replace(DECISION_ID.encode(), other.encode()) == second != first


def test_callers_with_large_headers_get_their_own() -> None:
    for user in ("a" * 10_000, "b" * 10_000):
        assert set_upstream(told(allow(Changes(set_headers=(("x-user", user),)))))["x-user"] == user


# --- deny ---


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_to_deny_is_an_explicit_denial(reason: Reason) -> None:
    message = told(Decision(Verdict.DENY, reason))
    assert message.status.code not in (0, None)
    assert message.WhichOneof("http_response") == "denied_response"
    assert 400 <= message.denied_response.status.code <= 599


@pytest.mark.parametrize("reason", DENIAL_RESPONSES)
def test_an_allow_for_a_reason_that_denies_is_a_denial(reason: Reason) -> None:
    message = told(Decision(Verdict.ALLOW, reason))
    assert (message.status.code, message.denied_response.status.code) == (13, 500)


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (Reason.NO_MATCHING_POLICY, 403, 7),
        (Reason.TOKEN_EXPIRED, 401, 16),
        (Reason.REQUEST_MALFORMED, 400, 3),
        (Reason.INTERNAL_ERROR, 500, 13),
        (Reason.OVERLOADED, 503, 14),
    ],
)
def test_statuses_of_http_and_rpc_say_the_same(reason: Reason, status: int, code: int) -> None:
    message = told(deny(reason))
    assert (message.denied_response.status.code, message.status.code) == (status, code)
    assert denied_headers(message).get("retry-after") == ("1" if status == 503 else None)


def test_the_body_is_a_problem_document_with_nothing_that_helps_an_attacker() -> None:
    message = told(deny())
    assert json.loads(message.denied_response.body) == {
        "type": "about:blank",
        "title": "Access denied",
        "status": 403,
        "reason": "deny_policy",
        "decision_id": DECISION_ID,
    }
    assert denied_headers(message) == {
        "content-type": "application/problem+json",
        "cache-control": "no-store",
        "x-zta-decision-id": DECISION_ID,
    }


def test_the_proxy_learns_which_rule_denied() -> None:
    fields = told(deny()).dynamic_metadata.fields
    assert (fields["policy"].string_value, fields["rule"].string_value) == ("default/secret-policy", "1")


def test_detail_policy_and_principal_are_in_no_header_and_no_body_of_a_denial() -> None:
    for reason in DENIAL_RESPONSES:
        message = told(deny(reason))
        message.ClearField("dynamic_metadata")
        text = str(message)
        assert "secret" not in text
        assert "frontend" not in text


def test_a_bad_token_is_challenged_without_saying_which_check_failed() -> None:
    bad = {reason for reason in Reason if reason.startswith("token_")} - {Reason.TOKEN_MISSING}
    challenges = {denied_headers(told(deny(reason)))["www-authenticate"] for reason in bad}
    assert denied_headers(told(deny(Reason.TOKEN_MISSING)))["www-authenticate"] == 'Bearer realm="zta-authz"'
    assert challenges == {'Bearer realm="zta-authz", error="invalid_token"'}
    assert "www-authenticate" not in denied_headers(told(deny(Reason.DENY_POLICY)))


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "Application/gRPC-Web"])
def test_a_grpc_caller_gets_one_line(content_type: str) -> None:
    message = told(deny(Reason.TOKEN_EXPIRED), attributes(**{"content-type": content_type}))
    assert message.denied_response.body == f"token_expired (decision {DECISION_ID})"
    assert "content-type" not in denied_headers(message)


@pytest.mark.parametrize(("wanted", "given"), [(0, 403), (200, 403), (302, 403), (404, 404), (429, 429), (600, 403)])
def test_a_policy_chooses_the_status_but_never_one_that_looks_like_success(wanted: int, given: int) -> None:
    message = told(deny(response=Response(status=wanted, message="ask the hatters")))
    assert message.denied_response.status.code == given
    assert message.status.code != 0
    assert json.loads(message.denied_response.body)["detail"] == "ask the hatters"


def test_a_policy_may_send_a_caller_elsewhere() -> None:
    response = Response(set_headers=(("location", "https://login.example/"),), status=302)
    message = told(deny(response=response))
    assert message.denied_response.status.code == 302
    assert denied_headers(message)["location"] == "https://login.example/"
    assert message.status.code != 0


def denied_lines(message: CheckResponse) -> list[tuple[str, str]]:
    return [(option.header.key, option.header.value) for option in message.denied_response.headers]


def test_the_headers_of_a_denial_are_the_policys_where_it_has_them() -> None:
    wanted = (
        ("cache-control", "max-age=60"),
        ("retry-after", "120"),
        ("set-cookie", "session=; Max-Age=0"),
        ("www-authenticate", 'Bearer realm="shop"'),
        ("set-cookie", "back=/orders"),
        ("www-authenticate", "DPoP"),
    )
    for status in (401, 503):
        lines = denied_lines(told(deny(response=Response(set_headers=wanted, status=status))))
        assert lines == [
            ("content-type", "application/problem+json"),
            *wanted,
            ("x-zta-decision-id", DECISION_ID),
        ]


@pytest.mark.parametrize("name", ["content-type", "Content-Encoding", "trailer", "grpc-status", "grpc-message"])
def test_what_frames_a_denial_is_never_a_policys(name: str) -> None:
    message = told(deny(response=Response(set_headers=((name, "0"),))))
    assert denied_headers(message).get(name.lower()) in (None, "application/problem+json")


def test_a_grpc_caller_gets_the_policys_message() -> None:
    asked = attributes(**{"content-type": "application/grpc"})
    message = told(deny(response=Response(message="ask the hatters")), asked)
    assert message.denied_response.body == f"deny_policy: ask the hatters (decision {DECISION_ID})"


@pytest.mark.parametrize(("reason", "status"), [(Reason.DENY_POLICY, 403), (Reason.TOKEN_EXPIRED, 401)])
def test_a_grpc_caller_is_sent_nowhere(reason: Reason, status: int) -> None:
    response = Response(set_headers=(("location", "https://login.example/"), ("x-why", "a")), status=302)
    message = told(deny(reason, response=response), attributes(**{"content-type": "application/grpc"}))
    assert message.denied_response.status.code == status
    assert "location" not in denied_headers(message)
    assert denied_headers(message)["x-why"] == "a"


@pytest.mark.parametrize(("wanted", "given"), [(429, 429), (401, 401), (404, 404), (451, 403), (500, 403), (418, 403)])
def test_a_grpc_caller_gets_no_status_that_envoy_knows_no_grpc_status_for(wanted: int, given: int) -> None:
    asked = attributes(**{"content-type": "application/grpc"})
    assert told(deny(response=Response(status=wanted)), asked).denied_response.status.code == given
    assert told(deny(response=Response(status=wanted))).denied_response.status.code == wanted


def test_headers_of_an_allow_that_turned_into_a_denial_are_not_told_to_the_caller() -> None:
    decision = Decision(Verdict.ALLOW, Reason.DENY_POLICY, response=Response(set_headers=(("x-team", "hats"),)))
    message = told(decision)
    assert message.denied_response.status.code == 500
    assert "x-team" not in denied_headers(message)


def test_a_refusal_before_the_request_was_read_is_told_too() -> None:
    message = CheckResponse.FromString(answer(Decision(Verdict.DENY, Reason.REQUEST_MALFORMED), DECISION_ID, None))
    assert message.denied_response.status.code == 400


@pytest.mark.parametrize("decision_id", ["", "short", "é" * 32, "\n" * 32, "a" * 33])
def test_a_decision_id_of_another_form_is_a_bug(decision_id: str) -> None:
    with pytest.raises(ValueError, match="decision id"):
        answer(allow(), decision_id, attributes())


@pytest.mark.parametrize("decision", [Decision(Verdict.ALLOW, Reason.DENY_POLICY), allow(principal="a\nb")])
def test_an_allow_that_is_not_final_is_never_written(decision: Decision) -> None:
    with pytest.raises(ValueError, match="not final"):
        ResponseEncoder().encode(decision, DECISION_ID, attributes())


def test_other_spellings_of_a_header_that_is_read_here_are_removed_and_its_own_is_kept() -> None:
    asked = attributes(**{"x-jwt": "good", "x_jwt": "forged", "x_other": "kept"})
    message = CheckResponse.FromString(answer(allow(), DECISION_ID, asked, GuardedNames((), ["x-jwt"])))
    assert list(message.ok_response.headers_to_remove) == ["x_jwt"]


# --- trust ---


def test_an_allow_says_level_score_and_the_end_of_the_session() -> None:
    message = told(replace(allow(), facts=FACTS))
    headers = set_upstream(message)
    assert headers["x-zta-trust-level"] == "MEDIUM"
    assert headers["x-zta-trust-score"] == "70.50"
    assert headers["x-zta-session-expires"] == "1800003600"
    fields = {name: value.string_value for name, value in message.dynamic_metadata.fields.items()}
    assert (fields["trust_level"], fields["trust_score"], fields["session_expires"]) == (
        "MEDIUM",
        "70.50",
        "1800003600",
    )


def test_each_answer_has_its_own_end_of_the_session_from_one_cached_answer() -> None:
    encoder = ResponseEncoder()
    for expires in (1_800_000_000, 1_800_000_001, 0, 10**12):
        facts = replace(FACTS, session_expires=expires)
        encoded = encoder.encode(replace(allow(), facts=facts), DECISION_ID, attributes())
        header = set_upstream(CheckResponse.FromString(encoded))["x-zta-session-expires"]
        assert int(header) == min(max(expires, 10**9), 10**10 - 1)
    assert len(encoder._answers) == 2  # the answer, and the last one of its rule


def test_an_allow_without_trust_has_no_such_headers_after_one_with_it() -> None:
    encoder = ResponseEncoder()
    for decision in (replace(allow(), facts=FACTS), allow(), replace(allow(), facts=DecisionFacts())):
        message = CheckResponse.FromString(encoder.encode(decision, DECISION_ID, attributes()))
        trusted = decision.facts is FACTS
        assert ("x-zta-trust-level" in set_upstream(message)) is trusted
        assert ("trust_level" in message.dynamic_metadata.fields) is trusted


def test_another_level_is_another_answer() -> None:
    encoder = ResponseEncoder()
    levels = []
    for score, level in ((7050, TrustLevel.MEDIUM), (9100, TrustLevel.HIGH), (7050, TrustLevel.MEDIUM)):
        trust = dataclasses.replace(TRUST, score=score, level=level)
        decision = replace(allow(), facts=replace(FACTS, trust=trust))
        levels.append(
            set_upstream(CheckResponse.FromString(encoder.encode(decision, DECISION_ID, attributes())))[
                "x-zta-trust-level"
            ]
        )
    assert levels == ["MEDIUM", "HIGH", "MEDIUM"]


def test_a_denial_tells_the_proxy_level_and_score_but_not_the_caller() -> None:
    message = told(replace(deny(), facts=FACTS))
    assert message.dynamic_metadata.fields["trust_level"].string_value == "MEDIUM"
    assert "session_expires" not in message.dynamic_metadata.fields
    assert not [name for name in denied_headers(message) if "trust" in name]
    assert "MEDIUM" not in message.denied_response.body


# --- minted tokens ---


def minted(kind: TokenKind, identity: Identity, decision_id: str = DECISION_ID) -> Decision:
    order = terms(kind, scope="a" if kind is TokenKind.TRANSACTION else "")
    return MINTER.mint(allowed(identity, order), decision_id, NOW)


MINTER = Minter(ISSUER, ring())
ANN = Identity(workload(), end_user())


@pytest.mark.parametrize("kind", list(TokenKind))
def test_a_minted_token_replaces_what_the_client_sent_in_every_spelling(kind: TokenKind) -> None:
    message = told(minted(kind, ANN), with_headers("x-zta-token", "x_zta_token"), "x-zta-token")
    assert verified(set_upstream(message)["x-zta-token"])["sub"] == "ann"
    assert all(option.append.value is False for option in message.ok_response.headers)
    assert "x-zta-token" not in message.ok_response.headers_to_remove
    assert "x_zta_token" in message.ok_response.headers_to_remove


def test_without_a_minted_token_the_header_is_removed() -> None:
    message = told(minted(TokenKind.SESSION, Identity()), attributes(), "x-zta-token")
    assert "x-zta-token" not in set_upstream(message)
    assert "x-zta-token" in message.ok_response.headers_to_remove


def test_no_answer_has_the_token_of_another() -> None:
    encoder = ResponseEncoder()
    for kind in TokenKind:
        for number, subject in enumerate(("ann", "bob", "ann")):
            identity = Identity(workload(), end_user(subject))
            decision = minted(kind, identity, f"{number:032x}")
            message = CheckResponse.FromString(encoder.encode(decision, DECISION_ID, attributes()))
            claims = verified(set_upstream(message)["x-zta-token"])
            assert (claims["sub"], claims["jti"]) == (subject, f"{number:032x}")


def test_tokens_do_not_fill_the_cache_of_answers() -> None:
    encoder, order = ResponseEncoder(), terms(TokenKind.TRANSACTION, scope="a")
    allow = allowed(ANN, order)
    for number in range(10):
        encoder.encode(MINTER.mint(allow, f"{number:032x}", NOW), DECISION_ID, attributes())
    assert len(encoder._answers) == 2
    encoder.encode(allow, DECISION_ID, attributes())
    assert len(encoder._answers) == 3


def test_an_answer_without_a_token_is_not_that_with_one() -> None:
    encoder, allow = ResponseEncoder(), allowed(ANN, terms())
    with_token = CheckResponse.FromString(
        encoder.encode(MINTER.mint(allow, DECISION_ID, NOW), DECISION_ID, attributes())
    )
    without = CheckResponse.FromString(encoder.encode(allow, DECISION_ID, attributes()))
    assert "x-zta-token" in set_upstream(with_token)
    assert "x-zta-token" not in with_token.ok_response.headers_to_remove
    assert "x-zta-token" not in set_upstream(without)
    assert "x-zta-token" in without.ok_response.headers_to_remove


def test_a_token_replaces_the_header_that_a_claim_sets() -> None:
    claimed = Identity(workload(), end_user(), changes=Changes((("x-zta-token", "forged"),)))
    message = told(MINTER.mint(allowed(claimed, terms()), DECISION_ID, NOW))
    values = [option.header.value for option in message.ok_response.headers if option.header.key == "x-zta-token"]
    assert len(values) == 1
    assert verified(values[0])["sub"] == "ann"
