"""The streams of a connection: those under way, and what is remembered of those that are over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2.errors import ConnectionFault, StreamFault
from zta_authz.grpc_h2.states import RULINGS, State, Verdict

if TYPE_CHECKING:
    from zta_authz.grpc_h2.request import Head
    from zta_authz.grpc_h2.states import Received

_REMEMBERED: Final = 2
"""Abandoned streams that are remembered, as a multiple of those that may be open."""


class Stream:
    """A call under way. `body` is what came of an incomplete one; `room` is what its window still lets come."""

    __slots__ = ("body", "called", "head", "opened", "received", "room", "state", "unread")

    def __init__(self, head: Head, room: int, opened: float) -> None:
        self.head = head
        self.state = State.OPEN
        self.body: bytes | bytearray = (
            b""  # bytes or, once a second part came, a bytearray: a part costs its bytes, not an object
        )
        self.received = 0
        self.room = room
        self.opened = opened
        self.called = False  # handed over, and neither answered nor given up
        self.unread = False  # what comes of its content is dropped


class Streams:
    """`live` by number, in the order in which they were opened; `highest` is the last that the client opened."""

    __slots__ = ("_abandoned", "_limit", "highest", "live")

    def __init__(self, max_concurrent: int) -> None:
        self.live: dict[int, Stream] = {}
        self.highest = 0
        self._abandoned: dict[int, None] = {}  # the oldest first
        self._limit = max_concurrent * _REMEMBERED

    def abandon(self, number: int) -> Stream | None:
        """We reset it: what is under way will be dropped. What it was, None if it was not live."""
        if len(self._abandoned) >= self._limit:
            del self._abandoned[next(iter(self._abandoned))]
        self._abandoned[number] = None
        return self.live.pop(number, None)

    def state_of(self, number: int) -> State:
        """The state of any stream; a number that only a server uses is idle for ever."""
        stream = self.live.get(number)
        if stream is not None:
            return stream.state
        if number > self.highest or not number & 1:
            return State.IDLE
        return State.ABANDONED if number in self._abandoned else State.CLOSED

    def takes(self, number: int, received: Received) -> bool:
        """True for a frame to act on, False for one to drop. Raises the fault that the frame is, if it is one."""
        verdict, code = RULINGS[self.state_of(number)][received]
        if verdict is Verdict.STREAM_ERROR:
            raise StreamFault(code, f"{received.name} on a stream that its client has ended")
        if verdict is Verdict.CONNECTION_ERROR:
            raise ConnectionFault(code, f"{received.name} on a stream that is not open")
        return verdict is Verdict.TAKE
