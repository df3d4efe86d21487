"""Find the remaining faults once one fault prevents the start, so that all are reported together.

Nothing is left behind: no files are created, no addresses kept, no collectors contacted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.errors import collect_faults
from zta_authz.facts.devices import DeviceRefresher
from zta_authz.facts.networks import NetworkDatabases
from zta_authz.keys.signing_keys import read_signing_keys
from zta_authz.model.facts import FactSlot
from zta_authz.otlp.messages import Signal
from zta_authz.servers.listeners import Endpoint, SocketClaim, probe_tcp
from zta_authz.service.following import open_connection
from zta_authz.service.loading import load
from zta_authz.settings.audit import audit_faults
from zta_authz.settings.otlp import connect, exporter_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.errors import Fault
    from zta_authz.servers.listeners import SocketAccess
    from zta_authz.settings import Settings
    from zta_authz.settings.otlp_model import CollectorSettings


def all_faults(settings: Settings) -> list[Fault]:
    """Return everything that would prevent a service with these settings from starting."""
    faults: list[Fault] = []
    with collect_faults(faults):
        snapshot, _, trust, _ = load(settings, settings.options(), lambda: None, lambda _host, _outcome: None)
        directory = settings.facts.directory or ""
        DeviceRefresher(directory, FactSlot(), lambda _: None).load(snapshot.models.inventories)
        open_connection(settings, trust)
    return faults + other_faults(settings, shared_ports=False)


def other_faults(settings: Settings, *, shared_ports: bool) -> list[Fault]:
    """Return the faults of the decision log, of collectors and of addresses, which `load` does not check.

    With `shared_ports`, the supervisor that starts us already holds the TCP ports.
    """
    faults = audit_faults(settings.audit)
    with collect_faults(faults):
        NetworkDatabases(settings.networks.sources())
    if settings.minting.keys is not None:
        with collect_faults(faults):
            read_signing_keys(settings.minting.keys)
    for collector, signal, setting in _collectors(settings):
        with collect_faults(faults):
            if signal is Signal.LOGS:
                connect(collector, signal, setting).close()
            else:
                exporter_target(collector, signal, setting)
    for endpoint in _addresses(settings):
        if endpoint.is_unix or not shared_ports:
            with collect_faults(faults):
                _probe(endpoint, settings.socket_access())
    return faults


def _collectors(settings: Settings) -> Iterator[tuple[CollectorSettings, Signal, str]]:
    if settings.tracing.collector is not None:
        yield settings.tracing.collector, Signal.TRACES, settings.tracing.collector_section
    if settings.metrics.otlp is not None:
        yield settings.metrics.otlp, Signal.METRICS, "metrics.otlp"
    if settings.audit.otlp is not None:
        yield settings.audit.otlp, Signal.LOGS, "audit.otlp"


def _addresses(settings: Settings) -> Iterator[Endpoint]:
    yield from settings.endpoints()
    for text in (settings.admin.listen, settings.health.listen):
        if text is not None:
            yield Endpoint.parse(text)


def _probe(endpoint: Endpoint, access: SocketAccess) -> None:
    if not endpoint.is_unix:
        probe_tcp(endpoint)
        return
    claim = SocketClaim(endpoint, access)
    claim.acquire()
    claim.release()
