"""How far gRPC's own server is behind, and which calls are therefore turned away unread.

`grpc.aio` hands over one call after the other, and deciding waits for nothing: so all that is too much waits inside
gRPC, where no count of ours sees it, until callers have given up. Neither the number of running handlers nor the
lateness of the event loop shows it (both measured: 1, and under 5 ms, with 3,600 calls waiting). gRPC's own counters
do. Reading them costs 0.1 ms a server, so it is done now and then, and in between by subtraction.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Final

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # private; `grpcio-channelz` reads it from here too

from zta_authz.errors import Reason
from zta_authz.servers.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable

OPTIONS: Final = (
    ("grpc.server.max_pending_requests", 1 << 20),  # past it gRPC would answer with errors: proxies hold fewer
    ("grpc.server.max_pending_requests_hard_limit", 1 << 20),
    ("grpc.enable_channelz", 1),
    ("grpc.max_channel_trace_event_memory_per_node", 0),
)
"""What a server needs, so that calls wait to be denied and are counted."""

LOOK_SECONDS: Final = 0.05

_LOG = logging.getLogger(__name__)


class OverloadGuard(Deadlines):
    """Judges each call as it is handed over, by how many wait as well. One for all servers of the process."""

    __slots__ = ("_blind", "_judged", "_looking", "_waiting", "max_waiting")

    def __init__(self, max_waiting: int) -> None:
        """More than `max_waiting` calls that wait or run are too many."""
        super().__init__()
        self.max_waiting = max_waiting
        self._waiting = 0
        self._judged = 0
        self._looking = False
        self._blind = False

    def judge(self, context: Any) -> Reason | None:
        """Why this call (its `grpc.aio.ServicerContext`) is turned away; None where it is to be decided."""
        self._judged += 1
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        if self._waiting > self.max_waiting:
            self._waiting -= 1  # this one; those that come meanwhile are seen at the next look
            return Reason.OVERLOADED
        if self._waiting:
            self._waiting -= 1
        return super().judge(context)

    def unfinished(self) -> int:
        """Calls that are not answered yet, 0 where that can't be told."""
        return self._count(unfinished_calls)

    def failed(self) -> int:
        """Calls since the start that ended without an answer: gRPC drops what is late before we see it."""
        return self._count(failed_calls)

    def _look(self) -> None:
        """Count what waits, and look again as long as calls come."""
        self._waiting = self._count(unfinished_calls)
        self._looking = self._judged > 0
        self._judged = 0
        if self._looking:
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _count(self, counted: Callable[[], int]) -> int:
        try:
            return counted()
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # another gRPC: deadlines still hold
            if not self._blind:
                _LOG.warning(
                    "gRPC's counters can't be read (%s): overload shows by deadlines only", type(error).__name__
                )
            self._blind = True
            return 0


def unfinished_calls() -> int:
    """Calls to this process's gRPC servers that are not yet answered, those included that gRPC has not handed over."""
    started, succeeded, failed = _sums()
    return started - succeeded - failed


def failed_calls() -> int:
    """Calls to this process's gRPC servers that ended unanswered: deadlines had passed, or callers had given up."""
    return _sums()[2]


def _sums() -> tuple[int, int, int]:
    """Calls started, succeeded and failed. `ServerData` of gRPC Channelz: numbers are texts, zeros may be absent."""
    servers = json.loads(cygrpc.channelz_get_servers(0))["server"]
    return (
        sum(int(server["data"].get("callsStarted", 0)) for server in servers),
        sum(int(server["data"].get("callsSucceeded", 0)) for server in servers),
        sum(int(server["data"].get("callsFailed", 0)) for server in servers),
    )
