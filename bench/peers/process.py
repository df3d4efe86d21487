"""Measure a process from outside: CPU time of all its threads, and resident memory."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads so far, in nanosecond steps.

    It is the sum that `/proc/PID/stat` shows in ticks of 10 ms, read from the process's own CPU clock (Linux makes the
    clock's number from the pid: clock_getcpuclockid(3)), for at low rates a whole round is a few ticks.
    """
    return time.clock_gettime((~pid << 3) | 2)


def resident_mb(pid: int) -> float:
    """Return the resident memory in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(pid)


@contextmanager
def realtime(pids: Iterable[int], *, enabled: bool) -> Iterator[None]:
    """All threads of `pids`, and this process meanwhile, go before everything else (SCHED_RR), if `enabled`.

    For a machine that does other work: without it, the latencies are those of its scheduler. Raises PermissionError
    without CAP_SYS_NICE.
    """
    if not enabled:
        yield
        return
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_RR, os.sched_param(1))
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
