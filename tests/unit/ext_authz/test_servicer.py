"""One Check call: whatever happens inside, the bytes that leave are an explicit answer."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from tests.fakes.check import RecordingObserver, RecordingSink, ScriptedDecision
from tests.fakes.snapshots import FixedSnapshot, hatshop
from tests.support.check_requests import ENCODER, allow, check_request, deny
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.authorizer import Authorizer
from zta_authz.errors import DENIAL_RESPONSES, Reason, Refused
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.ext_authz.servicer import CheckServicer, new_decision_id
from zta_authz.model.decision import Decision, Verdict

if TYPE_CHECKING:
    from zta_authz.model.changed_headers import GuardedNames
    from zta_authz.model.request import RequestAttributes
    from zta_authz.ports import Encode

SECRET = "eyJhbGciOi.secret.token"
SNAPSHOT = hatshop()


def servicer(
    outcome: Decision | Exception,
    observer: RecordingObserver | None = None,
    sink: RecordingSink | None = None,
    encode: Encode = ENCODER.encode,
) -> CheckServicer:
    return CheckServicer(
        Authorizer(
            parse_check_request,
            encode,
            FixedSnapshot(SNAPSHOT),
            sink or RecordingSink(),
            observer or RecordingObserver(),
            ScriptedDecision(outcome),
        )
    )


def answered(check: CheckServicer, payload: bytes | None = None) -> CheckResponse:
    return CheckResponse.FromString(check.check(check_request().SerializeToString() if payload is None else payload))


def decision_id(message: CheckResponse) -> str:
    return message.dynamic_metadata.fields["decision_id"].string_value


def test_an_allow_goes_through_with_the_decision_id_of_its_record() -> None:
    sink = RecordingSink()
    message = answered(servicer(allow(), sink=sink))
    assert message.HasField("ok_response")
    [(request, decision, recorded_id)] = sink.records
    assert request is not None
    assert (request.host, decision, recorded_id) == ("orders:8080", allow(), decision_id(message))


@pytest.mark.parametrize(
    ("payload", "outcome", "reason"),
    [
        (b"\xff\xff", allow(), Reason.REQUEST_MALFORMED),
        (None, RuntimeError("bug"), Reason.INTERNAL_ERROR),
        (None, Decision(Verdict.ALLOW, Reason.DENY_POLICY), Reason.INTERNAL_ERROR),
        (None, deny(), Reason.DENY_POLICY),
    ],
)
def test_the_record_says_what_the_proxy_is_told(
    payload: bytes | None, outcome: Decision | Exception, reason: Reason
) -> None:
    sink = RecordingSink()
    message = answered(servicer(outcome, sink=sink), payload)
    [(request, recorded, recorded_id)] = sink.records
    assert (recorded.verdict, recorded.reason, recorded_id) == (Verdict.DENY, reason, decision_id(message))
    assert (request is None) is (payload is not None)


@pytest.mark.parametrize(("keeps", "status"), [(False, 503), (RuntimeError("disk"), 500)])
def test_an_allow_that_cannot_be_recorded_is_a_denial(keeps: bool | Exception, status: int) -> None:
    observer = RecordingObserver()
    message = answered(servicer(allow(), observer, RecordingSink(keeps)))
    assert message.denied_response.status.code == status
    assert [event.decision.allowed for event in observer.events] == [False]


def test_an_allow_that_cannot_be_written_is_denied_and_the_denial_recorded_after_it() -> None:
    def broken(decision: Decision, number: str, request: RequestAttributes | None, guarded: GuardedNames) -> bytes:
        if decision.allowed:
            raise RuntimeError(SECRET)
        return ResponseEncoder().encode(decision, number, request, guarded)

    sink, observer = RecordingSink(), RecordingObserver()
    check = servicer(allow(), observer, sink, broken)
    assert answered(check).denied_response.status.code == 500
    assert [decision.reason for _, decision, _ in sink.records] == [Reason.ALLOW_POLICY, Reason.INTERNAL_ERROR]
    assert len({number for _, _, number in sink.records}) == 1
    assert [event.decision.reason for event in observer.events] == [Reason.INTERNAL_ERROR]
    assert check.internal_errors == 1


def test_a_call_that_is_turned_away_is_recorded() -> None:
    sink = RecordingSink()
    servicer(allow(), sink=sink).refuse(Reason.OVERLOADED)
    [(request, decision, _)] = sink.records
    assert request is None
    assert decision.reason is Reason.OVERLOADED
    assert sink.digests == [SNAPSHOT.digest]


def test_a_call_that_is_turned_away_is_answered_though_the_decision_log_fails() -> None:
    observer = RecordingObserver()
    message = CheckResponse.FromString(servicer(allow(), observer, RecordingSink(OSError())).refuse(Reason.OVERLOADED))
    assert message.denied_response.status.code == 500
    assert [event.decision.reason for event in observer.events] == [Reason.INTERNAL_ERROR]


def test_spoofed_headers_of_ours_are_removed() -> None:
    message = answered(servicer(allow()), check_request([("x_zta_principal", b"root")]).SerializeToString())
    assert "x_zta_principal" in message.ok_response.headers_to_remove


def test_the_observer_hears_of_the_answer_with_the_calls_metadata() -> None:
    observer = RecordingObserver()
    servicer(deny(), observer).check(check_request().SerializeToString(), (("traceparent", "00"),))
    [event] = observer.events
    assert event.metadata == (("traceparent", "00"),)
    assert event.request is not None
    assert event.decision == deny()
    assert 0 < event.started_ns <= event.ended_ns


def test_bytes_that_are_no_request_are_denied_and_observed() -> None:
    observer = RecordingObserver()
    message = answered(servicer(allow(), observer), b"\xff\xff")
    assert (message.status.code, message.denied_response.status.code) == (3, 400)
    assert observer.events[0].request is None
    assert observer.events[0].decision.reason is Reason.REQUEST_MALFORMED


@pytest.mark.parametrize(
    "failure", [RuntimeError(SECRET), KeyError("x"), RecursionError(), MemoryError(), UnicodeError("x"), TimeoutError()]
)
def test_any_exception_is_an_explicit_denial(failure: Exception) -> None:
    observer, sink = RecordingObserver(), RecordingSink()
    check = servicer(failure, observer, sink)
    message = answered(check)
    assert (message.status.code, message.denied_response.status.code) == (13, 500)
    [event] = observer.events
    assert (event.decision.reason, event.decision.detail) == (Reason.INTERNAL_ERROR, type(failure).__name__)
    assert [(request, decision) for request, decision, _ in sink.records] == [(event.request, event.decision)]
    assert event.request is not None
    assert check.internal_errors == 1


def test_a_refusal_raised_by_the_core_keeps_its_reason() -> None:
    message = answered(servicer(Refused(Reason.TOKEN_EXPIRED)))
    assert message.denied_response.status.code == 401


def test_something_that_is_no_decision_is_a_denial() -> None:
    message = answered(servicer(None))  # type: ignore[arg-type]
    assert message.denied_response.status.code == 500


def test_an_allow_that_contradicts_itself_is_observed_as_the_denial_it_became() -> None:
    observer = RecordingObserver()
    message = answered(servicer(Decision(Verdict.ALLOW, Reason.DENY_POLICY), observer))
    assert message.denied_response.status.code == 500
    assert observer.events[0].decision.verdict is Verdict.DENY


def test_the_log_has_one_stack_and_nothing_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    check = servicer(RuntimeError(SECRET))
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            answered(check)
    [record] = caplog.records
    assert "RuntimeError" in record.getMessage()
    assert "in check" in record.getMessage()
    assert SECRET not in caplog.text
    assert check.internal_errors == 5


@pytest.mark.parametrize("reason", DENIAL_RESPONSES)
def test_each_refusal_is_an_explicit_denial_and_observed(reason: Reason) -> None:
    observer = RecordingObserver()
    message = CheckResponse.FromString(servicer(allow(), observer).refuse(reason))
    assert message.status.code != 0
    assert message.HasField("denied_response")
    assert [event.decision.reason for event in observer.events] == [reason]


def test_a_refusal_can_not_be_talked_into_an_allow() -> None:
    message = CheckResponse.FromString(servicer(allow()).refuse(Reason.ALLOW_POLICY))
    assert message.denied_response.status.code == 500


def test_decision_ids_are_128_random_bits_in_hexadecimal() -> None:
    ids = {new_decision_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(each) == 32 and not set(each) - set("0123456789abcdef") for each in ids)


def test_a_forked_worker_draws_ids_of_its_own() -> None:
    new_decision_id()  # the rest of what was drawn with it waits
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, new_decision_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100).decode() != new_decision_id()
    os.close(reader)
    os.close(writer)
