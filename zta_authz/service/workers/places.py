"""Which sockets, files and ports each of several workers has.

A Unix socket gets the worker's number behind its name (`authz.sock.1`), so that a proxy can balance over them and stop
asking one that died; a TCP port is shared by all (SO_REUSEPORT, socket(7)); a decision log of its own keeps each
worker's lines in order.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import PurePath
from typing import TYPE_CHECKING

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.servers.listeners import Endpoint, bind_error, probe_tcp
from zta_authz.sockets import bound_socket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.settings import Settings


def worker_settings(settings: Settings, number: int, ports: Mapping[str, str]) -> Settings:
    """The settings of worker `number` (from 1). `ports`: the addresses of TCP listeners, by how they are written."""
    admin, audit = settings.admin, settings.audit
    if admin.listen is not None:
        admin = admin.model_copy(update={"listen": _place(admin.listen, number, ports)})
    if audit.path is not None:
        audit = audit.model_copy(update={"path": log_path(audit.path, number)})
    if audit.checkpoint is not None:
        checkpoint = audit.checkpoint.model_copy(update={"path": log_path(audit.checkpoint.path, number)})
        audit = audit.model_copy(update={"checkpoint": checkpoint})
    return settings.model_copy(
        update={
            "listen": tuple(_place(text, number, ports) for text in settings.listen),
            "health": settings.health.model_copy(update={"listen": None}),
            "admin": admin,
            "audit": audit,
            "metrics": settings.metrics.model_copy(update={"otlp": None}),  # the supervisor pushes those of all
        }
    )


def _place(text: str, number: int, ports: Mapping[str, str]) -> str:
    endpoint = Endpoint.parse(text)
    return f"{endpoint}.{number}" if endpoint.is_unix else ports.get(text, text)


def log_path(path: str, number: int) -> str:
    """The decision log of worker `number`: `decisions.jsonl` becomes `decisions.worker1.jsonl`."""
    file = PurePath(path)
    return str(file.with_name(f"{file.stem}.worker{number}{file.suffix}"))


class Ports:
    """Holds the TCP ports of all workers, so that no other service shares them, and a port 0 is the same for all."""

    def __init__(self, settings: Settings) -> None:
        """Take them. Raises `SettingsErrors` with every address that can't be had."""
        self.addresses: dict[str, str] = {}
        self._held = ExitStack()
        faults: list[Fault] = []
        for text in settings.listen:
            endpoint = Endpoint.parse(text)
            try:
                if not endpoint.is_unix:
                    self.addresses[text] = self._hold(endpoint)
            except SettingsErrors as error:
                faults.extend(error.faults)
        if faults:
            self.close()
            raise SettingsErrors(faults)

    def _hold(self, endpoint: Endpoint) -> str:
        probe_tcp(endpoint)  # the one that follows would be let in beside another service's
        try:  # never listened on: it gets no connections
            held = self._held.enter_context(bound_socket(endpoint.host, endpoint.port, shared=True))
        except OSError as error:
            raise bind_error(endpoint, error) from error
        return str(Endpoint(host=endpoint.host, port=held.getsockname()[1]))

    def close(self) -> None:
        """Give them free."""
        self._held.close()
