"""One Check call: bytes in, bytes out, and whatever goes wrong inside is an explicit denial.

An exception that reached gRPC would become a gRPC error, which Envoy's `failure_mode_allow` may let through; an empty
CheckResponse is read as "let it through". So neither leaves this module.
"""

from __future__ import annotations

import logging
import os
import re
import time
import traceback
from typing import TYPE_CHECKING

from zta_authz.errors import Reason, Refused
from zta_authz.ext_authz.guarded_names import OWN_NAMES
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.ext_authz.response import answer, told
from zta_authz.model.decision import Decision, Verdict
from zta_authz.ports import CheckEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.authorizer import Authorizer
    from zta_authz.ext_authz.guarded_names import GuardedNames
    from zta_authz.model.request import RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.ports import Observer

_LOG = logging.getLogger(__name__)
_LOG_INTERVAL_SECONDS = 1.0
_ONE_ID = re.compile(r"[0-9a-f]{32}")
_NANOSECONDS = 1e9
_DRAWN_BYTES = 4096  # randomness for 256 calls: each drawing lets other threads run, and the call waits for them

_ids: list[str] = []
os.register_at_fork(after_in_child=_ids.clear)


def new_decision_id() -> str:
    """128 random bits as 32 hexadecimal digits; unguessable, and never shared between forked workers."""
    if not _ids:
        _ids.extend(_ONE_ID.findall(os.urandom(_DRAWN_BYTES).hex()))
    return _ids.pop()


def only_own_names() -> GuardedNames:
    """For a service whose policies and tokens set no headers."""
    return OWN_NAMES


class CheckServicer:
    """Answers Check calls with what the authorizer decides.

    `guarded_names` gives the header names that no client may send, by the policies and tokens in force; it is asked on
    every allow and must be one attribute read. `internal_errors` and `observer_errors` count since the start.
    """

    __slots__ = ("_authorizer", "_guarded_names", "_observer", "_quiet_until", "internal_errors", "observer_errors")

    def __init__(
        self,
        authorizer: Authorizer,
        observer: Observer,
        guarded_names: Callable[[], GuardedNames] = only_own_names,
    ) -> None:
        self._authorizer = authorizer
        self._observer = observer
        self._guarded_names = guarded_names
        self._quiet_until = 0.0
        self.internal_errors = 0
        self.observer_errors = 0

    @property
    def wants_metadata(self) -> bool:
        """True where the call's metadata is looked at (for spans); reading it costs, so it is not read otherwise."""
        return self._observer.traces

    async def check(self, payload: bytes, metadata: Sequence[tuple[str, str | bytes]] = (), caller: str = "") -> bytes:
        """The CheckResponse for the CheckRequest in `payload`. Raises nothing but cancellation and its like.

        `metadata` is the gRPC call's, with names in lower case. `caller` is the verified SPIFFE ID of the proxy that
        asks, "" on a Unix socket.
        """
        started = time.time_ns()
        now = started / _NANOSECONDS
        decision_id = new_decision_id()
        stages = self._begin(metadata, decision_id)
        request: RequestAttributes | None = None
        try:
            request, evidence = parse_check_request(payload)
            if stages is not None:
                stages.parsed = stages.clock()
            decided = await self._authorizer.authorize(request, evidence, now, caller, stages)
            decision, response = told(decided, decision_id, request, self._guarded_names())
        except Refused as refused:
            decision = Decision(Verdict.DENY, refused.reason, detail=refused.detail)
            response = answer(decision, decision_id, request)
        except Exception as error:  # noqa: BLE001  the last resort: a bug is a denial, told to the operator only
            decision, response = self._failed(error, decision_id, request)
        decision, response = self._account(request, decision, response, decision_id, now, metadata)
        self._observe(CheckEvent(metadata, request, decision, decision_id, started, time.time_ns(), stages))
        return response

    def refuse(self, reason: Reason, metadata: Sequence[tuple[str, str | bytes]] = ()) -> bytes:
        """The CheckResponse for a call that is turned away unread: overload, deadline, a caller that may not ask."""
        now = time.time_ns()
        decision_id = new_decision_id()
        decision, response = told(Decision(Verdict.DENY, reason), decision_id, None)
        decision, response = self._account(None, decision, response, decision_id, now / _NANOSECONDS, metadata)
        self._observe(CheckEvent(metadata, None, decision, decision_id, now, now, self._begin(metadata, decision_id)))
        return response

    def _account(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        response: bytes,
        decision_id: str,
        now: float,
        metadata: Sequence[tuple[str, str | bytes]],
    ) -> tuple[Decision, bytes]:
        """What is answered once it was recorded, last of all, so that the record says what the proxy is told."""
        try:
            accounted = self._authorizer.account(request, decision, decision_id, now, metadata)
        except Exception as error:  # noqa: BLE001  an allow without a record must not stand
            return self._failed(error, decision_id, request)
        if accounted is decision:
            return decision, response
        return accounted, answer(accounted, decision_id, request)

    def _failed(self, error: Exception, decision_id: str, request: RequestAttributes | None) -> tuple[Decision, bytes]:
        """The denial that a bug becomes."""
        self._log_failure(error, decision_id)
        decision = Decision(Verdict.DENY, Reason.INTERNAL_ERROR, detail=type(error).__name__)
        return decision, answer(decision, decision_id, request)

    def _begin(self, metadata: Sequence[tuple[str, str | bytes]], decision_id: str) -> Stages | None:
        try:
            return self._observer.begin(metadata)
        except Exception as error:  # noqa: BLE001  deciding goes on, and only its times are missing
            self.observer_errors += 1
            self._log("telemetry failed before the answer was made", error, decision_id)
            return None

    def _observe(self, event: CheckEvent) -> None:
        try:
            self._observer.observe(event)
        except Exception as error:  # noqa: BLE001  the answer is made; telemetry can't change it
            self.observer_errors += 1
            self._log("telemetry failed after the answer was made", error, event.decision_id)

    def _log_failure(self, error: Exception, decision_id: str) -> None:
        self.internal_errors += 1
        self._log("deciding failed, the request was denied", error, decision_id)

    def _log(self, what: str, error: Exception, decision_id: str) -> None:
        """One stack a second at most, and none of the exceptions' messages: they may quote the request."""
        now = time.monotonic()
        if now < self._quiet_until:
            return
        self._quiet_until = now + _LOG_INTERVAL_SECONDS
        stack = "".join(traceback.format_tb(error.__traceback__))
        _LOG.error("%s: %s in decision %s\n%s", what, type(error).__qualname__, decision_id, stack)
