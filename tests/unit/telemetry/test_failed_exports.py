"""A collector that accepts nothing: failed batches are freed, even if all live objects are frozen again and again."""

from __future__ import annotations

import gc
import time
import weakref
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Literal

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from zta_authz.otlp.exporters import open_exporter
from zta_authz.otlp.messages import Signal, Target
from zta_authz.telemetry.export_queue import ExportQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = "http://127.0.0.1:1"
SECONDS = 2.0
"""For one batch: an attempt, a pause of about one second, and another attempt."""
BATCH = 20


def span() -> ReadableSpan:
    """Create a span that can be sent."""
    context = SpanContext(1, 2, is_remote=False)
    return ReadableSpan("s", context, resource=Resource({}), start_time=1, end_time=2)


@pytest.fixture
def cleared() -> Iterator[None]:
    """Remove garbage of other tests first, frozen or not, and unfreeze everything afterwards."""
    gc.unfreeze()
    gc.collect()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.unfreeze()


def frozen_garbage() -> list[object]:
    """Return the garbage that is frozen and so would never be collected."""
    gc.collect()
    gc.unfreeze()
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    return gc.garbage


@pytest.mark.usefixtures("cleared")
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_failed_batch_leaves_no_garbage_that_a_reload_could_freeze(
    protocol: Literal["grpc", "http"],
) -> None:
    exporter = open_exporter(Target(NOBODY, protocol, seconds=SECONDS), Signal.TRACES)
    queue = ExportQueue(exporter, capacity=100, batch=BATCH, interval=0.01)
    batch = [span() for _ in range(BATCH)]
    gone = [weakref.ref(item) for item in batch]
    while batch:
        queue.put(batch.pop(), 1)
    deadline = time.monotonic() + 5 * SECONDS
    while queue.failed < BATCH:
        assert time.monotonic() < deadline
        gc.collect(1)  # as a reload of many rules does, whatever is under way
        gc.freeze()
        time.sleep(0.05)
    queue.close(5)
    assert [reference() for reference in gone] == [None] * BATCH
    kept = [item for item in frozen_garbage() if isinstance(item, FrameType | TracebackType | BaseException)]
    assert kept == []
