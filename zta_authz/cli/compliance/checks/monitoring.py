"""Check the decision log, metrics, alerts and traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.compliance.evidence import Finding, Gap, Satisfied, Unseen
from zta_authz.cli.compliance.ext_authz_clients import leads_to
from zta_authz.cli.compliance.installation import Installation, pod_labels
from zta_authz.cli.compliance.values import matches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.cli.compliance.authorizers import Authorizer
    from zta_authz.cli.compliance.values import Document, Value

WATCHED: Final = {
    "zta_decisions_total": "a jump in denials",
    "zta_policy_reload_failed": "refused policies",
    "zta_audit_dropped_total": "lost decision records",
    "zta_trust_bundle_expiry_timestamp_seconds": "expiring authorities",
    "zta_keys_missing": "issuers without keys",
}
"""Metrics that need an alert, and the condition that it reports."""
WATCHED_WITH_ADMINISTRATOR: Final = {
    "zta_following_stale": "grants that are too old to count",
    "zta_administrator_failing": "an administrator that can't change access",
    "zta_access_events_total": "access that was taken in an emergency",
}
"""The same where there is an administrator."""


def decisions_are_recorded(installation: Installation) -> Iterator[Finding]:
    """Every decision is recorded, and a request whose decision can't be recorded is denied."""
    for authorizer in installation.processes:
        audit = authorizer.settings.audit
        at = authorizer.setting("audit", "sink")
        if audit.sink == "none":
            yield Gap("decisions are not recorded", "write `audit: {sink: stdout}`", at)
        else:
            yield Satisfied(at, audit.sink)
        if audit.on_full == "deny":
            yield Satisfied(authorizer.setting("audit", "on_full"), "deny")
        else:
            message = "requests are allowed even if their record is lost"
            yield Gap(message, "write `audit: {on_full: deny}`", authorizer.setting("audit", "on_full"))
        if audit.sample_allows < 1:
            message = f"only {audit.sample_allows:.0%} of the allows are recorded"
            yield Gap(message, "write `audit: {sample_allows: 1}`", authorizer.setting("audit", "sample_allows"))


def records_show_tampering(installation: Installation) -> Iterator[Finding]:
    """Files of the decision log are hash-chained, and signed checkpoints reveal rewritten or cut records."""
    for authorizer in installation.processes:
        audit = authorizer.settings.audit
        if audit.sink == "none":
            continue
        if audit.sink != "file":
            message = f"records are sent to {audit.sink}: manifests do not show whether they can be altered there"
            yield Unseen(message, authorizer.setting("audit", "sink"))
        elif audit.checkpoint is None:
            yield Gap(
                "the whole log can be rewritten without detection",
                "add `audit.checkpoint`",
                authorizer.setting("audit", "sink"),
            )
        else:
            yield Satisfied(
                authorizer.setting("audit", "checkpoint"), f"signed every {audit.checkpoint.interval_seconds:g} s"
            )


def metrics_are_scraped(installation: Installation) -> Iterator[Finding]:
    """A PodMonitor, ServiceMonitor or annotation makes Prometheus scrape each authorizer's metrics."""
    for authorizer in installation.processes:
        if authorizer.settings.health.listen is None:
            yield Gap("metrics are not served", "set `health: {listen: …}`", authorizer.setting("health", "listen"))
            continue
        yield from _scraped(installation, authorizer)


def _scraped(installation: Installation, authorizer: Authorizer) -> Iterator[Finding]:
    workload = authorizer.workload
    if workload is None:
        yield Unseen("the files do not show who scrapes the metrics", authorizer.setting("health", "listen"))
        return
    pod = next(pod for document, pod in installation.pods if document is workload)
    for monitor in installation.of_kind("PodMonitor", "ServiceMonitor"):
        if _watches(monitor, workload) and _selects(installation, monitor, workload, pod):
            yield Satisfied(monitor.root.location, f"scrapes {workload.root.owner}")
            return
    annotation = pod.get("metadata", "annotations", "prometheus.io/scrape")
    if annotation is not None and annotation.text() == "true":
        yield Satisfied(annotation.location, "true")
        return
    remedy = "add a PodMonitor that selects its pods, as k8s/monitoring does"
    yield Gap("the metrics are not scraped", remedy, workload.root.location)


def _watches(monitor: Document, workload: Document) -> bool:
    """Return whether the monitor covers the workload's namespace."""
    names = [name.text() for name in monitor.root.items("spec", "namespaceSelector", "matchNames")]
    everywhere = monitor.root.flag("spec", "namespaceSelector", "any") is True
    return everywhere or workload.namespace in (names or [monitor.namespace])


def _selects(installation: Installation, monitor: Document, workload: Document, pod: Value) -> bool:
    selector = monitor.root.get("spec", "selector")
    if monitor.kind == "PodMonitor":
        return matches(selector, pod_labels(pod))
    services = installation.of_kind_in("Service", [workload.namespace])
    return any(matches(selector, service.labels) and leads_to(service, pod) for service in services)


def alerts_are_defined(installation: Installation) -> Iterator[Finding]:
    """Alerts cover denials, refused policies, lost records, expiring authorities, missing keys, the administrator."""
    alerts = [
        rule
        for document in installation.of_kind("PrometheusRule")
        for group in document.root.items("spec", "groups")
        for rule in group.items("rules")
    ]
    named = [rule for rule in alerts if rule.get("alert") is not None]
    watched = WATCHED | (WATCHED_WITH_ADMINISTRATOR if installation.administrators else {})
    for metric, what in watched.items():
        recorded = {rule.text("record") for rule in alerts if metric in rule.text("expr")} - {""}
        matching = [rule for rule in named if any(name in rule.text("expr") for name in (metric, *recorded))]
        if matching:
            yield Satisfied(matching[0].location, f"{matching[0].text('alert')}: {what}")
        elif installation.authorizers:
            yield Gap(f"no alert reports {what}", f"add an alert on `{metric}`, as k8s/monitoring does")


def requests_are_traced(installation: Installation) -> Iterator[Finding]:
    """Checks appear in the traces of their requests."""
    for authorizer in installation.authorizers:
        tracing = authorizer.settings.tracing
        older = tracing.otlp is None and tracing.otlp_endpoint is not None
        at = (
            authorizer.setting("tracing", "otlp_endpoint")
            if older
            else authorizer.setting("tracing", "otlp", "endpoint")
        )
        if tracing.collector is None:
            yield Gap("checks are not traced", "set `tracing: {otlp: {endpoint: …}}`", at)
        else:
            yield Satisfied(at, tracing.collector.endpoint)
