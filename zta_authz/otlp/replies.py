"""Reads a collector's reply: all accepted, some rejected, or not accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from zta_authz.otlp.messages import ExportResult, ExportStatus, printable

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from zta_authz.otlp.transports import Reply


def read_result(reply: Reply, kind: type[Message], rejected: str, sent: int) -> ExportResult:
    """Convert `reply` to the result of exporting `sent` items.

    `kind` is the message type of the body, and `rejected` names its field with the number of rejected items. If the
    body is not such a message, all items count as accepted.
    """
    if reply.status is not ExportStatus.ACCEPTED:
        return ExportResult(reply.status, detail=reply.detail, after=reply.after)
    try:
        partial: Any = kind.FromString(reply.body).partial_success  # type: ignore[attr-defined]
    except DecodeError:
        return ExportResult(ExportStatus.ACCEPTED)
    count = min(sent, max(0, getattr(partial, rejected)))
    return ExportResult(ExportStatus.ACCEPTED, count, printable(partial.error_message))
