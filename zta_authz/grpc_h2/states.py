"""The stream states of RFC 9113, section 5.1, as a table: what to do with a frame in each state.

A server that does not push has no reserved streams. This server has no half-closed (local) streams either: once it has
answered, it resets a stream whose client still sends. The stream is then ABANDONED, and frames in transit are dropped.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from zta_authz.grpc_h2.errors import ErrorCode


class State(IntEnum):
    """The state of a stream."""

    IDLE = 0
    OPEN = 1
    HALF_CLOSED = 2  # by the client: the request is complete, the answer is not
    ABANDONED = 3  # we reset it while the client was still sending
    CLOSED = 4


class Received(IntEnum):
    """Frame types that belong to a stream."""

    HEADERS = 0
    DATA = 1
    RST_STREAM = 2
    WINDOW_UPDATE = 3


class FrameAction(IntEnum):
    """What to do with a frame."""

    ACCEPT = 0
    DROP = 1
    STREAM_ERROR = 2
    CONNECTION_ERROR = 3


Transition = tuple[FrameAction, ErrorCode]

_ACCEPT: Final = (FrameAction.ACCEPT, ErrorCode.NO_ERROR)
_DROP: Final = (FrameAction.DROP, ErrorCode.NO_ERROR)
_IDLE: Final = (FrameAction.CONNECTION_ERROR, ErrorCode.PROTOCOL_ERROR)
_ENDED: Final = (FrameAction.STREAM_ERROR, ErrorCode.STREAM_CLOSED)
_OVER: Final = (FrameAction.CONNECTION_ERROR, ErrorCode.STREAM_CLOSED)

TRANSITIONS: Final[tuple[tuple[Transition, Transition, Transition, Transition], ...]] = (
    #  HEADERS  DATA    RST_STREAM  WINDOW_UPDATE
    (_ACCEPT, _IDLE, _IDLE, _IDLE),  # idle: HEADERS opens it
    (_ACCEPT, _ACCEPT, _ACCEPT, _ACCEPT),  # open: HEADERS are trailers
    (_ENDED, _ENDED, _ACCEPT, _ACCEPT),  # half-closed: the client has ended the stream
    (_DROP, _DROP, _DROP, _DROP),  # abandoned: sent before the client saw our reset
    (_OVER, _OVER, _DROP, _DROP),  # closed: the last two may cross with our answer
)
"""The action and its error code, as `TRANSITIONS[state][received]`."""
