"""Decision log, spans, metrics and their push, as configured by the settings."""

from __future__ import annotations

import os
import time
import uuid
from typing import TYPE_CHECKING

from zta_authz import __version__
from zta_authz.admin.state import AuditStatus
from zta_authz.otlp.messages import Origin, Signal
from zta_authz.servers.own_certificate import file_expires_at
from zta_authz.settings.audit import open_audit
from zta_authz.settings.otlp import exporter_target
from zta_authz.telemetry.metrics import CONTENT_TYPE
from zta_authz.telemetry.names import SERVICE_NAME
from zta_authz.telemetry.observer import build_observer
from zta_authz.telemetry.push import MetricsPush

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from opentelemetry.sdk.resources import Resource
    from prometheus_client.metrics_core import Metric

    from zta_authz.admin.state import ServiceState
    from zta_authz.audit.sinks import LineSink, NullSink
    from zta_authz.keys.refresher import JwksRefresher
    from zta_authz.keys.trust import TrustRefresher
    from zta_authz.otlp.exporters import Exporter
    from zta_authz.policy_sources.files import SnapshotHolder
    from zta_authz.ports import FollowingStatus
    from zta_authz.service.fact_data import FactData
    from zta_authz.service.minting import Minting
    from zta_authz.settings import Settings
    from zta_authz.settings.otlp_model import CollectorSettings
    from zta_authz.telemetry.metrics import Metrics
    from zta_authz.telemetry.observer import TelemetryObserver


def new_origin(environ: Mapping[str, str] = os.environ) -> Origin:
    """Return the identity of this process for exports, with the service name from the environment.

    Two processes never share an instance ID, or collectors would mix up their metrics.
    """
    return Origin(environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME, __version__, str(uuid.uuid4()))


def open_observability(settings: Settings, origin: Origin) -> tuple[LineSink | NullSink, TelemetryObserver]:
    """Open the decision log and the observer. Raises `SettingsErrors` if one can't be opened."""
    tracing = settings.tracing
    exporter = None if tracing.collector is None else _span_exporter(tracing.collector, tracing.collector_section)
    audit = open_audit(settings.audit, origin, traced=exporter is not None)
    observer = build_observer(
        exporter=exporter,
        resource=None if exporter is None else _resource(origin),
        sample_ratio=tracing.sample_ratio,
        keep=tracing.keep,
    )
    observer.metrics.watch_audit(lambda: audit.dropped, lambda: audit.queued, lambda: audit.unsampled)
    observer.metrics.watch_audit_sink(
        lambda: bool(audit.failing), lambda: audit_status(audit, time.time()).oldest_unwritten_seconds
    )
    return audit, observer


def audit_status(audit: LineSink | NullSink, now: float) -> AuditStatus:
    """Return the decision log's status at `now` (epoch seconds)."""
    oldest = audit.oldest_unwritten
    return AuditStatus(audit.failing, audit.queued, 0.0 if oldest is None else max(0.0, round(now - oldest, 3)))


def _span_exporter(collector: CollectorSettings, setting: str) -> Exporter:
    """Return the span exporter, not yet connected."""
    target = exporter_target(collector, Signal.TRACES, setting)
    from zta_authz.otlp.exporters import open_exporter  # noqa: PLC0415  megabytes, only needed to send

    return open_exporter(target, Signal.TRACES)


def _resource(origin: Origin) -> Resource:
    from zta_authz.otlp.resources import resource_of  # noqa: PLC0415  megabytes, only needed to send

    return resource_of(origin)


def open_push(
    settings: Settings, origin: Origin, collect: Callable[[], Awaitable[Sequence[Metric]]]
) -> MetricsPush | None:
    """Return the push of the metrics from `collect`, or None if it is off. Raises `SettingsErrors`."""
    push = settings.metrics.otlp
    if push is None:
        return None
    target = exporter_target(push, Signal.METRICS, "metrics.otlp")
    from zta_authz.otlp.exporters import open_exporter  # noqa: PLC0415  megabytes, only needed to send
    from zta_authz.otlp.metrics_export import MetricsExporter  # noqa: PLC0415

    exporter = open_exporter(target, Signal.METRICS)
    export = MetricsExporter(exporter, _resource(origin), origin.version, time.time_ns())
    return MetricsPush(collect, export, push.interval_seconds, target.seconds)


class MetricsSources:
    """All metrics, current when read: counters, and values that are looked up for each reading."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        state: ServiceState,
        snapshots: SnapshotHolder,
        trust: TrustRefresher,
        jwks: JwksRefresher,
        facts: FactData,
        minting: Minting,
    ) -> None:
        self._minting = minting
        self._facts = facts
        self._settings = settings
        self._metrics = metrics
        self._state = state
        self._snapshots = snapshots
        self._trust = trust
        self._jwks = jwks
        metrics.watch_caches(lambda: self._lookups(0), lambda: self._lookups(1))
        if settings.administrator.followed is not None:
            metrics.watch_following(self._following, lambda: max(0.0, state.now - state.started_at))

    def page(self) -> tuple[bytes, str]:
        """Return the metrics as text, and its content type."""
        self._refresh()
        return self._metrics.render(), CONTENT_TYPE

    async def families(self) -> list[Metric]:
        """Return the metrics as families, which do not change afterwards."""
        self._refresh()
        return self._metrics.families()

    def _refresh(self) -> None:
        metrics, now = self._metrics, self._state.now
        metrics.show_outlook(len(self._state.obstacles()), len(self._state.blanket_denials()))
        loaded = sorted(self._facts.networks.loaded, key=lambda source: -source.as_of)  # the oldest list is shown
        ages = {source.name: now - source.as_of for source in loaded}
        metrics.show_network_data(ages, sum(source.entries for source in loaded))
        metrics.show_fact_problems(self._facts.problems(now))
        metrics.show_keys(self._jwks.ages(), len(self._jwks.missing_issuers()))
        metrics.show_signing(self._minting.ends())
        snapshot = self._snapshots.current()
        metrics.show_bundle_ages({bundle.trust_domain: now - bundle.since for bundle in self._trust.status()})
        metrics.show_expiries({} if snapshot is None else snapshot.verifier.bundle_expiry, self._own_expiries())

    def _following(self) -> FollowingStatus:
        status = self._state.following()
        if status is None:  # the settings name an administrator
            raise RuntimeError("no administrator is followed")
        return status

    def _lookups(self, which: int) -> dict[str, int]:
        """Return the hits (0) or misses (1) of the current verifier's caches, by cache."""
        snapshot = self._snapshots.current()
        lookups = {} if snapshot is None else snapshot.verifier.cache_lookups
        return {cache: counts[which] for cache, counts in lookups.items()}

    def _own_expiries(self) -> dict[str, float]:
        """Return when our server certificate expires, by its source; empty if there is none."""
        tls, svid = self._settings.tls, self._trust.current_svid()
        expires = None
        if tls is not None and tls.cert_file is not None:
            expires = file_expires_at(tls.cert_file)
        elif svid is not None:
            expires = svid.validity.not_after
        return {} if tls is None or expires is None else {tls.source: expires}
