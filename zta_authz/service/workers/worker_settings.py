"""The sockets, files and ports of each worker.

A Unix socket has the worker's number appended to its name (`authz.sock.1`), so that a proxy can balance over the
workers and avoid one that died. A TCP port is shared by all (SO_REUSEPORT, socket(7)). Each worker has its own decision
log, which keeps its lines in order.
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
    """Return the settings of worker `number` (from 1). `ports` maps TCP listeners, as written, to bound addresses."""
    admin, audit = settings.admin, settings.audit
    if admin.listen is not None:
        admin = admin.model_copy(update={"listen": _worker_address(admin.listen, number, ports)})
    if audit.path is not None:
        audit = audit.model_copy(update={"path": log_path(audit.path, number)})
    if audit.checkpoint is not None:
        checkpoint = audit.checkpoint.model_copy(update={"path": log_path(audit.checkpoint.path, number)})
        audit = audit.model_copy(update={"checkpoint": checkpoint})
    return settings.model_copy(
        update={
            "listen": tuple(_worker_address(text, number, ports) for text in settings.listen),
            "health": settings.health.model_copy(update={"listen": None}),
            "admin": admin,
            "audit": audit,
            "metrics": settings.metrics.model_copy(
                update={"otlp": None}
            ),  # the supervisor pushes the metrics of all workers
        }
    )


def _worker_address(text: str, number: int, ports: Mapping[str, str]) -> str:
    endpoint = Endpoint.parse(text)
    return f"{endpoint}.{number}" if endpoint.is_unix else ports.get(text, text)


def log_path(path: str, number: int) -> str:
    """Return the decision log of worker `number`: `decisions.jsonl` becomes `decisions.worker1.jsonl`."""
    file = PurePath(path)
    return str(file.with_name(f"{file.stem}.worker{number}{file.suffix}"))


class SharedPorts:
    """Holds the workers' TCP ports, so that no other service shares them and port 0 is the same for all workers."""

    def __init__(self, settings: Settings) -> None:
        """Bind them. Raises `SettingsErrors` with every address that can't be bound."""
        self.addresses: dict[str, str] = {}
        self._sockets = ExitStack()
        faults: list[Fault] = []
        for text in settings.listen:
            endpoint = Endpoint.parse(text)
            try:
                if not endpoint.is_unix:
                    self.addresses[text] = self._bind(endpoint)
            except SettingsErrors as error:
                faults.extend(error.faults)
        if faults:
            self.close()
            raise SettingsErrors(faults)

    def _bind(self, endpoint: Endpoint) -> str:
        probe_tcp(endpoint)  # the shared bind below would succeed beside another service
        try:  # never listens, so it gets no connections
            bound = self._sockets.enter_context(bound_socket(endpoint.host, endpoint.port, shared=True))
        except OSError as error:
            raise bind_error(endpoint, error) from error
        return str(Endpoint(host=endpoint.host, port=bound.getsockname()[1]))

    def close(self) -> None:
        """Release them."""
        self._sockets.close()
