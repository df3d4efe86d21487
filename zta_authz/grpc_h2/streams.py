"""The open streams of a connection, and the streams that were reset recently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2.errors import ConnectionFault, StreamFault
from zta_authz.grpc_h2.states import TRANSITIONS, FrameAction, State

if TYPE_CHECKING:
    from zta_authz.grpc_h2.request import Head
    from zta_authz.grpc_h2.states import Received

_REMEMBERED: Final = 2
"""How many reset streams are remembered, as a multiple of those that may be open."""


class Stream:
    """A call in progress. `body` is the content received so far; `recv_window` is how many bytes may still come."""

    __slots__ = ("awaiting_answer", "body", "head", "opened", "received", "recv_window", "state", "unread")

    def __init__(self, head: Head, recv_window: int, opened: float) -> None:
        self.head = head
        self.state = State.OPEN
        self.body: bytes | bytearray = b""  # a bytearray from the second part on, so that a part costs no object
        self.received = 0
        self.recv_window = recv_window
        self.opened = opened
        self.awaiting_answer = False  # emitted as an event, and neither answered nor cancelled
        self.unread = False  # its remaining content is dropped


class Streams:
    """`live` are the open streams by number, in order of opening; `highest` is the last that the client opened."""

    __slots__ = ("_abandoned", "_limit", "highest", "live")

    def __init__(self, max_concurrent: int) -> None:
        self.live: dict[int, Stream] = {}
        self.highest = 0
        self._abandoned: dict[int, None] = {}  # oldest first
        self._limit = max_concurrent * _REMEMBERED

    def abandon(self, number: int) -> Stream | None:
        """Remember a stream that we reset, so that its frames in transit are dropped. Return it, None if not open."""
        if len(self._abandoned) >= self._limit:
            del self._abandoned[next(iter(self._abandoned))]
        self._abandoned[number] = None
        return self.live.pop(number, None)

    def state_of(self, number: int) -> State:
        """The state of any stream; a server's stream number is always idle."""
        stream = self.live.get(number)
        if stream is not None:
            return stream.state
        if number > self.highest or not number & 1:
            return State.IDLE
        return State.ABANDONED if number in self._abandoned else State.CLOSED

    def accepts(self, number: int, received: Received) -> bool:
        """Whether to process the frame (else drop it). Raises the fault if the stream's state forbids it."""
        action, code = TRANSITIONS[self.state_of(number)][received]
        if action is FrameAction.STREAM_ERROR:
            raise StreamFault(code, f"{received.name} on a stream that its client has ended")
        if action is FrameAction.CONNECTION_ERROR:
            raise ConnectionFault(code, f"{received.name} on a stream that is not open")
        return action is FrameAction.ACCEPT
