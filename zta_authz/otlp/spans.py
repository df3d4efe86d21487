"""Spans to a collector: requests that are encoded already, tried again for as long as there is time."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from zta_authz.otlp.messages import Fate
from zta_authz.otlp.replies import answer

if TYPE_CHECKING:
    from zta_authz.otlp.messages import Answer
    from zta_authz.otlp.transports import Transport

FIRST_PAUSE_SECONDS: Final = 1.0
"""Before the second try; each later pause is twice as long."""


class SpanExporter:
    """Sends ExportTraceServiceRequests. Blocks; one thread uses it, but for `stop`, which any may call."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stopped = threading.Event()

    def export(self, request: bytes, spans: int, seconds: float) -> Answer:
        """What the collector made of a request of so many `spans`; all tries and pauses within about `seconds`."""
        until, backoff = time.monotonic() + seconds, FIRST_PAUSE_SECONDS
        while True:
            reply = self._transport.send(request, max(0.0, until - time.monotonic()))
            told = answer(reply, ExportTraceServiceResponse, "rejected_spans", spans)
            if told.fate is not Fate.LATER:
                return told
            pause = max(told.after or 0.0, backoff * random.uniform(0.8, 1.2))  # noqa: S311  not all instances at once
            if pause >= until - time.monotonic() or self._stopped.wait(pause):
                return told
            backoff *= 2

    def stop(self) -> None:
        """Try nothing again: a pause that is under way ends."""
        self._stopped.set()

    def close(self) -> None:
        """Give connections back."""
        self._transport.close()
