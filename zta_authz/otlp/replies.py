"""What a collector's reply says: all taken, some of it rejected, or not taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from zta_authz.otlp.messages import Answer, Fate, printable

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from zta_authz.otlp.transports import Reply


def answer(reply: Reply, kind: type[Message], rejected: str, sent: int) -> Answer:
    """The answer in `reply`, whose body is of `kind`; `rejected` names its count of those of `sent` that it refused.

    A body that is no such message is that of something which took the request and says no more.
    """
    if reply.fate is not Fate.TAKEN:
        return Answer(reply.fate, said=reply.said, after=reply.after)
    try:
        partial: Any = kind.FromString(reply.body).partial_success  # type: ignore[attr-defined]
    except DecodeError:
        return Answer(Fate.TAKEN)
    count = min(sent, max(0, getattr(partial, rejected)))
    return Answer(Fate.TAKEN, count, printable(partial.error_message))
