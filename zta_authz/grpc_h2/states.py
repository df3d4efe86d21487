"""The stream states of RFC 9113, section 5.1, as a table: what a received frame means in each.

A server that is never asked to push has no reserved streams, and one that resets a stream whose client still sends has
no half-closed (local) ones: such a stream is ABANDONED, and what the client had under way is dropped.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from zta_authz.grpc_h2.errors import ErrorCode


class State(IntEnum):
    """Where a stream is."""

    IDLE = 0
    OPEN = 1
    HALF_CLOSED = 2  # by the client: the request is complete, the answer is not
    ABANDONED = 3  # we reset it while the client still sent
    CLOSED = 4


class Received(IntEnum):
    """Frames that belong to a stream."""

    HEADERS = 0
    DATA = 1
    RST_STREAM = 2
    WINDOW_UPDATE = 3


class Verdict(IntEnum):
    """What to do with a frame."""

    TAKE = 0
    DROP = 1
    STREAM_ERROR = 2
    CONNECTION_ERROR = 3


Ruling = tuple[Verdict, ErrorCode]

_TAKE: Final = (Verdict.TAKE, ErrorCode.NO_ERROR)
_DROP: Final = (Verdict.DROP, ErrorCode.NO_ERROR)
_IDLE: Final = (Verdict.CONNECTION_ERROR, ErrorCode.PROTOCOL_ERROR)
_ENDED: Final = (Verdict.STREAM_ERROR, ErrorCode.STREAM_CLOSED)
_OVER: Final = (Verdict.CONNECTION_ERROR, ErrorCode.STREAM_CLOSED)

RULINGS: Final[tuple[tuple[Ruling, Ruling, Ruling, Ruling], ...]] = (
    #  HEADERS  DATA    RST_STREAM  WINDOW_UPDATE
    (_TAKE, _IDLE, _IDLE, _IDLE),  # idle: HEADERS opens it
    (_TAKE, _TAKE, _TAKE, _TAKE),  # open: HEADERS are trailers
    (_ENDED, _ENDED, _TAKE, _TAKE),  # half-closed: the client said that it was done
    (_DROP, _DROP, _DROP, _DROP),  # abandoned: it was under way before the client knew
    (_OVER, _OVER, _DROP, _DROP),  # closed: the last two may cross the end of our answer
)
"""`RULINGS[state][received]`."""
