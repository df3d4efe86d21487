"""One Check call: whatever happens inside, the bytes that leave are an explicit answer."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest

from tests.fakes.check import RecordingObserver, ScriptedAuthorizer
from tests.support.check_requests import FRONTEND, allow, check_request, deny
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.errors import ANSWERS, Reason, Refused
from zta_authz.ext_authz.guarded_names import GuardedNames
from zta_authz.ext_authz.servicer import CheckServicer, new_decision_id
from zta_authz.model.decision import Decision, Verdict

GUARDED = GuardedNames(["x-user"])

SECRET = "eyJhbGciOi.secret.token"


def servicer(outcome: Decision | BaseException, observer: RecordingObserver | None = None) -> CheckServicer:
    return CheckServicer(
        ScriptedAuthorizer(outcome),  # type: ignore[arg-type]  # answers like an Authorizer
        observer or RecordingObserver(),
        lambda: GUARDED,
    )


async def told(check: CheckServicer, payload: bytes | None = None) -> CheckResponse:
    return CheckResponse.FromString(
        await check.check(check_request().SerializeToString() if payload is None else payload)
    )


def decision_id(message: CheckResponse) -> str:
    return message.dynamic_metadata.fields["decision_id"].string_value


async def test_an_allow_goes_through_with_the_decision_id_of_its_record() -> None:
    authorizer = ScriptedAuthorizer(allow())
    check = CheckServicer(authorizer, RecordingObserver())  # type: ignore[arg-type]
    message = await told(check)
    assert message.HasField("ok_response")
    [(request, evidence, _)] = authorizer.asked
    assert (request.host, evidence.principal) == ("orders:8080", FRONTEND)
    assert authorizer.recorded == [(request, allow(), decision_id(message))]


@pytest.mark.parametrize(
    ("payload", "outcome", "reason"),
    [
        (b"\xff\xff", allow(), Reason.REQUEST_MALFORMED),
        (None, RuntimeError("bug"), Reason.INTERNAL_ERROR),
        (None, Decision(Verdict.ALLOW, Reason.DENY_POLICY), Reason.INTERNAL_ERROR),
        (None, deny(), Reason.DENY_POLICY),
    ],
)
async def test_the_record_says_what_the_proxy_is_told(
    payload: bytes | None, outcome: Decision | Exception, reason: Reason
) -> None:
    authorizer = ScriptedAuthorizer(outcome)
    message = await told(CheckServicer(authorizer, RecordingObserver()), payload)  # type: ignore[arg-type]
    [(_, recorded, recorded_id)] = authorizer.recorded
    assert (recorded.verdict, recorded.reason, recorded_id) == (Verdict.DENY, reason, decision_id(message))


@pytest.mark.parametrize(
    ("accounts", "status"),
    [(Decision(Verdict.DENY, Reason.AUDIT_UNAVAILABLE), 503), (RuntimeError("disk"), 500)],
)
async def test_an_allow_that_cannot_be_recorded_is_a_denial(accounts: Decision | Exception, status: int) -> None:
    authorizer, observer = ScriptedAuthorizer(allow()), RecordingObserver()
    authorizer.accounts = accounts
    message = await told(CheckServicer(authorizer, observer))  # type: ignore[arg-type]
    assert message.denied_response.status.code == status
    assert not observer.events[0].decision.allowed


async def test_a_call_that_is_turned_away_is_recorded() -> None:
    authorizer = ScriptedAuthorizer(allow())
    CheckServicer(authorizer, RecordingObserver()).refuse(Reason.OVERLOADED)  # type: ignore[arg-type]
    [(request, decision, _)] = authorizer.recorded
    assert request is None
    assert decision.reason is Reason.OVERLOADED


async def test_spoofed_output_headers_are_removed() -> None:
    message = await told(servicer(allow()), check_request([("x_user", b"root")]).SerializeToString())
    assert list(message.ok_response.headers_to_remove) == ["x_user", "x-user"]


async def test_the_observer_hears_of_the_answer_with_the_calls_metadata() -> None:
    observer = RecordingObserver()
    await servicer(deny(), observer).check(check_request().SerializeToString(), (("traceparent", "00"),))
    [event] = observer.events
    assert event.metadata == (("traceparent", "00"),)
    assert event.request is not None
    assert event.decision == deny()
    assert 0 < event.started_ns <= event.ended_ns


async def test_bytes_that_are_no_request_are_denied_and_observed() -> None:
    observer = RecordingObserver()
    message = await told(servicer(allow(), observer), b"\xff\xff")
    assert (message.status.code, message.denied_response.status.code) == (3, 400)
    assert observer.events[0].request is None
    assert observer.events[0].decision.reason is Reason.REQUEST_MALFORMED


@pytest.mark.parametrize(
    "failure", [RuntimeError(SECRET), KeyError("x"), RecursionError(), MemoryError(), UnicodeError("x"), TimeoutError()]
)
async def test_any_exception_is_an_explicit_denial(failure: Exception) -> None:
    observer = RecordingObserver()
    check = servicer(failure, observer)
    message = await told(check)
    assert (message.status.code, message.denied_response.status.code) == (13, 500)
    assert observer.events[0].decision.reason is Reason.INTERNAL_ERROR
    assert check.internal_errors == 1


async def test_a_refusal_raised_by_the_core_keeps_its_reason() -> None:
    message = await told(servicer(Refused(Reason.TOKEN_EXPIRED)))
    assert message.denied_response.status.code == 401


async def test_something_that_is_no_decision_is_a_denial() -> None:
    message = await told(servicer(None))  # type: ignore[arg-type]
    assert message.denied_response.status.code == 500


async def test_output_headers_that_cannot_be_told_are_a_denial() -> None:
    def broken() -> GuardedNames:
        raise RuntimeError(SECRET)

    check = CheckServicer(ScriptedAuthorizer(allow()), RecordingObserver(), broken)  # type: ignore[arg-type]
    assert (await told(check)).denied_response.status.code == 500


async def test_an_allow_that_contradicts_itself_is_observed_as_the_denial_it_became() -> None:
    observer = RecordingObserver()
    message = await told(servicer(Decision(Verdict.ALLOW, Reason.DENY_POLICY), observer))
    assert message.denied_response.status.code == 500
    assert observer.events[0].decision.verdict is Verdict.DENY


async def test_cancellation_is_not_answered() -> None:
    with pytest.raises(asyncio.CancelledError):
        await told(servicer(asyncio.CancelledError()))


async def test_a_failing_observer_changes_nothing_and_is_counted() -> None:
    check = servicer(allow(), RecordingObserver(RuntimeError("telemetry")))
    assert (await told(check)).HasField("ok_response")
    assert check.observer_errors == 1


async def test_the_log_has_one_stack_and_nothing_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    check = servicer(RuntimeError(SECRET))
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            await told(check)
    [record] = caplog.records
    assert "RuntimeError" in record.getMessage()
    assert "in authorize" in record.getMessage()
    assert SECRET not in caplog.text
    assert check.internal_errors == 5


@pytest.mark.parametrize("reason", ANSWERS)
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
