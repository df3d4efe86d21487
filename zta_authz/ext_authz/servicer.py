"""The last resort around the data path: whatever goes wrong inside `authorizer.check`, an explicit denial goes out.

An exception that reached gRPC would become a gRPC error, which Envoy's `failure_mode_allow` may let through; an empty
CheckResponse is read as "let it through". So neither leaves this module.
"""

from __future__ import annotations

import logging
import os
import re
import time
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason
from zta_authz.failure_log import FailureLog
from zta_authz.model.decision import UNDECIDED, Decision, Verdict
from zta_authz.ports import CheckEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.authorizer import Authorizer

_LOG = logging.getLogger(__name__)
_ONE_ID: Final = re.compile(r"[0-9a-f]{32}")
_DRAWN_BYTES: Final = 4096  # randomness for 256 calls: each drawing lets other threads run, and the call waits for them

_ids: list[str] = []
os.register_at_fork(after_in_child=_ids.clear)


def new_decision_id() -> str:
    """128 random bits as 32 hexadecimal digits; unguessable, and never shared between forked workers."""
    if not _ids:
        _ids.extend(_ONE_ID.findall(os.urandom(_DRAWN_BYTES).hex()))
    return _ids.pop()


class CheckServicer:
    """Answers Check calls with what the authorizer says. `internal_errors` counts since the start."""

    __slots__ = ("_authorizer", "_failures", "internal_errors", "wants_metadata")

    def __init__(self, authorizer: Authorizer, *, wants_metadata: bool = False) -> None:
        """`wants_metadata`: the calls' metadata is looked at (for spans); reading it costs, so it is not read else."""
        self._authorizer = authorizer
        self._failures = FailureLog(_LOG)
        self.wants_metadata = wants_metadata
        self.internal_errors = 0

    def check(self, payload: bytes, metadata: Sequence[tuple[str, str | bytes]] = (), caller: str = "") -> bytes:
        """The CheckResponse for the CheckRequest in `payload`. Raises nothing.

        `metadata` is the gRPC call's, with names in lower case. `caller` is the verified SPIFFE ID of the proxy that
        asks, "" on a Unix socket.
        """
        call = CheckEvent(metadata, None, UNDECIDED, new_decision_id(), time.time_ns())
        try:
            return self._authorizer.check(call, payload, caller)
        except Exception as error:  # noqa: BLE001  the last resort: a bug is a denial, explained to the operator only
            return self._failed(call, error)

    def refuse(self, reason: Reason, metadata: Sequence[tuple[str, str | bytes]] = ()) -> bytes:
        """The CheckResponse for a call that is turned away unread: overload, deadline, a caller that may not ask."""
        call = CheckEvent(metadata, None, UNDECIDED, new_decision_id(), time.time_ns())
        try:
            return self._authorizer.refuse(call, Decision(Verdict.DENY, reason))
        except Exception as error:  # noqa: BLE001  as above
            return self._failed(call, error)

    def _failed(self, call: CheckEvent, error: Exception) -> bytes:
        """The denial that a bug becomes. It is recorded too, even after an allow that could not be sent."""
        self.internal_errors += 1
        self._failures.error("deciding failed, the request was denied", error, call.decision_id)
        denial = Decision(Verdict.DENY, Reason.INTERNAL_ERROR, detail=type(error).__name__)
        try:
            return self._authorizer.refuse(call, denial)
        except Exception:  # noqa: BLE001  the decision log fails, say: what is left is to answer
            call.decision = denial
            return self._authorizer.reply(call)
