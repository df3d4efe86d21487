"""Every signal in every phase: none that is ours ends the service otherwise than asked, and none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.fakes.snapshots import HATSHOP
from tests.integration.test_serve import Place, check
from tests.support.service import RunningService
from zta_authz.service.workers.control import StartMessage
from zta_authz.service.workers.process import WorkerProcess
from zta_authz.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

ENDS = {signal.SIGTERM: 0, signal.SIGINT: 130}
STAYS = (signal.SIGHUP, signal.SIGUSR2)
WORKERS = pytest.mark.parametrize("workers", [1, 2])


class Loading:
    """A service that waits for its settings: they come by a pipe."""

    def __init__(self, place: Place) -> None:
        self.config = place.directory / "settings.pipe"
        self._file = place.config
        os.mkfifo(self.config)
        self._pipe = -1

    def wait(self) -> None:
        """Until the service has opened the pipe, and reads."""
        deadline = time.monotonic() + 30
        while self._pipe < 0:
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError):  # nobody reads yet
                self._pipe = os.open(self.config, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.02)

    def go_on(self) -> None:
        """Give the settings. Whoever reads them again finds a file."""
        os.write(self._pipe, self._file.read_bytes())
        self._file.rename(self.config)
        self.close()

    def close(self) -> None:
        """Let the pipe go."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def written(place: Place, workers: int) -> Path:
    place.write_config(f"workers: {workers}\nserver: fast\ndrain_seconds: 1\nreload: {{enabled: false}}\n")
    return place.config


@pytest.mark.parametrize("number", [*ENDS, *STAYS])
def test_signals_are_taken_before_anything_is_imported_that_takes_time(number: int) -> None:
    """Where process 1 has no handler yet, the kernel drops its SIGTERM."""
    look = (
        "import signal, sys\n"
        "class Look:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.startswith(('zta_authz.cli.', 'zta_authz.service.app')) and signal.getsignal({number}) in"
        " (signal.SIG_DFL, signal.default_int_handler):\n"
        "            print(name)\n"
        "sys.meta_path.insert(0, Look())\n"
        "sys.argv = ['zta-authz', 'serve']\n"
        "import zta_authz.cli\n"
        "import zta_authz.service.app\n"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout == ""


@pytest.mark.parametrize("number", ENDS)
def test_while_it_loads_it_ends_at_once_when_told(place: Place, number: signal.Signals) -> None:
    written(place, workers=1)
    loading = Loading(place)
    with RunningService(loading.config) as service:
        loading.wait()
        service.signal(number)
        status, _, err = service.wait()
        loading.close()
    assert (status, err) == (ENDS[number], "")


@WORKERS
def test_while_it_loads_other_signals_do_not_end_it(place: Place, workers: int) -> None:
    written(place, workers)
    loading = Loading(place)
    with RunningService(loading.config) as service:
        loading.wait()
        for number in STAYS:
            service.signal(number)
        loading.go_on()
        service.wait_for("serving")
        if workers > 1:
            service.wait_for("all workers serve")
        service.signal(signal.SIGTERM)
        assert service.wait()[0] == 0


@WORKERS
def test_while_it_serves_and_drains_they_do_what_they_are_for(place: Place, workers: int) -> None:
    with RunningService(written(place, workers)) as service:
        service.wait_for("serving" if workers == 1 else "all workers serve")
        target = f"unix:{place.socket}" + (".1" if workers > 1 else "")
        service.signal(signal.SIGUSR2)
        service.signal(signal.SIGHUP)
        if workers == 1:
            service.wait_for("SIGUSR2 replaces workers, but this process has none")
            assert check(target).status.code == 0
        service.signal(signal.SIGTERM)
        for number in STAYS:
            service.signal(number)
        status, _, err = service.wait()
    assert status == 0
    assert "Traceback" not in err
    assert "never retrieved" not in err


def answered(target: str) -> int | None:
    """The status that a check ends with, None while nobody listens."""
    try:
        return check(target).status.code
    except grpc.RpcError:
        return None


async def test_a_worker_that_is_told_to_reload_before_it_is_known_to_serve_does_so_then(place: Place) -> None:
    """The signal was dropped: policies stayed in force that the worker had read before."""
    place.write_config("server: fast\nreload: {enabled: false}\n")
    start_message = StartMessage(1, str(place.config), load_settings(str(place.config), {}).model_dump_json(), {})
    worker = WorkerProcess(start_message)

    async def until(status: int) -> None:
        async with asyncio.timeout(30):
            while await asyncio.to_thread(answered, f"unix:{place.socket}.1") != status:  # noqa: ASYNC110  a process
                await asyncio.sleep(0.05)

    try:
        worker.reload()  # nothing of its program is imported yet: a signal would end it
        await until(0)
        place.write_policy(HATSHOP.replace("spec:", "spec:\n  action: DENY"))
        worker.reload()
        assert await worker.page(b"/metrics", 10) is not None
        await until(7)
    finally:
        worker.signal(signal.SIGKILL)
        await worker.ended()
