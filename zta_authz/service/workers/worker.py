"""The worker's side: serve like `zta-authz serve`, answer the supervisor, and drain when the supervisor exits."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING

from zta_authz.service.app import serve
from zta_authz.service.workers.control import StartMessage, frame, read_frame, receive_frame
from zta_authz.service.workers.replays import SharedReplays
from zta_authz.service.workers.worker_settings import worker_settings
from zta_authz.settings import Settings, load_settings

if TYPE_CHECKING:
    from zta_authz.service.app import Service


def run_worker(descriptor: int) -> None:
    """Serve what the supervisor sends over the socket `descriptor`. Raises `FaultsError` like `serve`."""
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    start_message = StartMessage.decode(receive_frame(control))

    def for_this_worker(settings: Settings) -> Settings:
        return worker_settings(settings, start_message.number, start_message.ports)

    def read() -> Settings:
        return for_this_worker(load_settings(start_message.config, os.environ))

    answering: list[asyncio.Task[None]] = []  # an unreferenced task may be garbage-collected

    def on_serving(service: Service) -> None:
        service.reload()  # the settings may have changed since the supervisor read them
        answering.append(asyncio.get_running_loop().create_task(_answer(control, service), name="supervisor"))

    replays = None
    if start_message.replays is not None:
        os.set_inheritable(start_message.replays, False)
        replays = SharedReplays(start_message.replays)
    relay = None
    if start_message.relay is not None:
        relay = socket.socket(fileno=start_message.relay)
        relay.set_inheritable(False)
    serve(
        for_this_worker(Settings.model_validate_json(start_message.settings)),
        start_message.config,
        read,
        on_serving,
        replays,
        relay,
    )


async def _answer(control: socket.socket, service: Service) -> None:
    """Answer page requests until the supervisor is gone; then stop, as on SIGTERM."""
    control.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=control)
    try:
        while True:
            page = service.page(await read_frame(reader))
            writer.write(frame(page.status.value.to_bytes(2, "big") + page.body))
            await writer.drain()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        writer.close()
