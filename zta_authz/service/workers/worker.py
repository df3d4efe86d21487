"""The worker's side: serve as `zta-authz serve` does, and answer the supervisor. When that ends, drain and end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING

from zta_authz.service.app import serve
from zta_authz.service.workers.control import Orders, frame, read_frame, receive_frame
from zta_authz.service.workers.places import worker_settings
from zta_authz.service.workers.replays import SharedReplays
from zta_authz.settings import Settings, load_settings

if TYPE_CHECKING:
    from zta_authz.service.app import Service


def run_worker(descriptor: int) -> None:
    """Serve what the supervisor at the other end of the socket `descriptor` says. Raises `FaultsError` like `serve`."""
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    orders = Orders.decode(receive_frame(control))

    def mine(settings: Settings) -> Settings:
        return worker_settings(settings, orders.number, orders.ports)

    def read() -> Settings:
        return mine(load_settings(orders.config, os.environ))

    answering: list[asyncio.Task[None]] = []  # a task that nobody holds may be collected

    def serving(service: Service) -> None:
        service.reload()  # the settings may have changed since the supervisor read them
        answering.append(asyncio.get_running_loop().create_task(_answer(control, service), name="supervisor"))

    replays = None
    if orders.replays is not None:
        os.set_inheritable(orders.replays, False)
        replays = SharedReplays(orders.replays)
    serve(mine(Settings.model_validate_json(orders.settings)), orders.config, read, serving, replays)


async def _answer(control: socket.socket, service: Service) -> None:
    """Give the pages that are asked for until the supervisor is gone; then stop, as on SIGTERM."""
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
