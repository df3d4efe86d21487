"""The last resort around the data path: whatever fails inside `authorizer.check`, the answer is an explicit denial.

An exception that reached gRPC would become a gRPC error, which Envoy lets pass with `failure_mode_allow`, and Envoy
reads an empty CheckResponse as an allow. Neither leaves this module.
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
_RANDOM_BYTES: Final = 4096  # for 256 calls: each system call lets other threads run while the call waits

_ids: list[str] = []
os.register_at_fork(after_in_child=_ids.clear)


def new_decision_id() -> str:
    """Return 128 random bits as 32 hexadecimal digits: unguessable, and never shared by forked workers."""
    if not _ids:
        _ids.extend(_ONE_ID.findall(os.urandom(_RANDOM_BYTES).hex()))
    return _ids.pop()


class CheckServicer:
    """Answers Check calls with the authorizer's responses. `internal_errors` counts since the start."""

    __slots__ = ("_authorizer", "_failures", "internal_errors", "wants_metadata")

    def __init__(self, authorizer: Authorizer, *, wants_metadata: bool = False) -> None:
        """With `wants_metadata`, the calls' metadata is read (for spans); otherwise not, because that costs time."""
        self._authorizer = authorizer
        self._failures = FailureLog(_LOG)
        self.wants_metadata = wants_metadata
        self.internal_errors = 0

    def check(self, payload: bytes, metadata: Sequence[tuple[str, str | bytes]] = (), caller: str = "") -> bytes:
        """Return the CheckResponse for the CheckRequest in `payload`. Raises nothing.

        `metadata` is the gRPC call's, with names in lower case. `caller` is the verified SPIFFE ID of the
        calling proxy, "" on a Unix socket.
        """
        call = CheckEvent(metadata, None, UNDECIDED, new_decision_id(), time.time_ns())
        try:
            return self._authorizer.check(call, payload, caller)
        except Exception as error:  # noqa: BLE001  the last resort: a bug becomes a denial, and only the log explains it
            return self._failed(call, error)

    def refuse(self, reason: Reason, metadata: Sequence[tuple[str, str | bytes]] = ()) -> bytes:
        """Return the CheckResponse for a call refused unread: overload, deadline, or an unauthorized caller."""
        call = CheckEvent(metadata, None, UNDECIDED, new_decision_id(), time.time_ns())
        try:
            return self._authorizer.refuse(call, Decision(Verdict.DENY, reason))
        except Exception as error:  # noqa: BLE001  as above
            return self._failed(call, error)

    def _failed(self, call: CheckEvent, error: Exception) -> bytes:
        """Return the denial for an internal error, recorded as well, even after an allow that could not be sent."""
        self.internal_errors += 1
        self._failures.error("deciding failed, the request was denied", error, call.decision_id)
        denial = Decision(Verdict.DENY, Reason.INTERNAL_ERROR, detail=type(error).__name__)
        try:
            return self._authorizer.refuse(call, denial)
        except Exception:  # noqa: BLE001  e.g. the decision log fails: still answer
            call.decision = denial
            return self._authorizer.reply(call)
