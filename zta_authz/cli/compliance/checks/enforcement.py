"""Check that every request is checked by zta-authz, on every workload, route and listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.cli.compliance.evidence import Finding, Gap, Satisfied, Unseen
from zta_authz.cli.compliance.ext_authz_clients import (
    custom_by_namespace,
    custom_policies,
    filters_by_namespace,
    security_policies,
)
from zta_authz.cli.compliance.installation import (
    CONNECTION_MANAGER,
    EXT_AUTHZ,
    FILTER_CONFIG,
    PER_ROUTE,
    Installation,
    pod_labels,
    selects,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.cli.compliance.values import Document, Value

_INJECT = "sidecar.istio.io/inject"
_EXT_AUTHZ_NAME = "envoy.filters.http.ext_authz"


def every_request_is_asked(installation: Installation) -> Iterator[Finding]:
    """Every workload that the files name is behind a proxy that asks, with no route left out."""
    policies, gateways = custom_policies(installation), security_policies(installation)
    filters = [message for message in installation.messages(EXT_AUTHZ) if not message.merged]
    if not (policies or gateways or filters):
        remedy = "add an AuthorizationPolicy with action CUSTOM, a SecurityPolicy with extAuth, or the filter"
        yield Gap("no proxy calls zta-authz", remedy)
        return
    for policy in policies:
        yield from _covers_every_request(installation, policy)
    for message in filters:
        yield Satisfied(message.value.location, "calls zta-authz")
    for namespace in installation.injected_namespaces:
        yield from _namespace_asks(installation, namespace)
    for namespace in installation.of_kind("Namespace"):
        if namespace.labels.get("istio.io/dataplane-mode") == "ambient":
            location = (namespace.root.get("metadata", "labels") or namespace.root).location
            yield Gap("ambient waypoints send no identity, so callers can't be verified", "use sidecars", location)
    yield from _gateway_routes(installation, gateways)
    yield from _envoy_listeners(installation)
    yield from _exceptions(installation)


def _covers_every_request(installation: Installation, policy: Document) -> Iterator[Finding]:
    spec = policy.root.get("spec") or policy.root
    at = spec.get("rules") or spec
    if any(not rule.fields() for rule in spec.items("rules")):
        yield Satisfied(at.location, "every request")
    else:
        remedy = "write `rules: [{}]`, and decide in zta-authz's policies"
        yield Gap("only requests that match its `rules` are checked by zta-authz", remedy, at.location)
    for field in ("targetRefs", "targetRef"):
        target = spec.get(field)
        if target is not None:
            yield Gap("waypoints do not send the caller's identity", "select workloads with sidecars", target.location)
    selector = spec.get("selector")
    if selector is not None and not installation.injected_namespaces:
        yield Unseen(
            "these files do not show whether other workloads of the namespace have sidecars", selector.location
        )


def _namespace_asks(installation: Installation, namespace: Document) -> Iterator[Finding]:
    """Check that every pod of the namespace has a sidecar that calls zta-authz."""
    spaces = {namespace.name, *installation.root_namespaces}
    asking = [policy for space in sorted(spaces) for policy in custom_by_namespace(installation).get(space, ())]
    workloads = installation.workloads.get(namespace.name, [])
    for document, pod in workloads:
        for field in ("labels", "annotations"):
            opted_out = pod.get("metadata", field, _INJECT)
            if opted_out is not None and opted_out.text() == "false":
                message = f"{document.root.owner} has no sidecar"
                yield Gap(message, f"remove `{_INJECT}`", opted_out.location)
    for policy in asking:
        if not policy.root.get("spec", "selector") and not policy.root.get("spec", "targetRefs"):
            yield Satisfied(policy.root.location, f"for every workload of namespace {namespace.name}")
            return
    filters = [
        envoy_filter for space in sorted(spaces) for envoy_filter in filters_by_namespace(installation).get(space, ())
    ]
    for document, pod in workloads:
        if any(selects(policy, pod, "spec", "selector") for policy in asking):
            yield Satisfied(document.root.location, "is selected by a CUSTOM policy")
        elif any(_selects(envoy_filter, pod) for envoy_filter in filters):
            yield Satisfied(document.root.location, "is selected by an EnvoyFilter with ext_authz")
        else:
            message = f"the proxies of {document.root.owner} do not call zta-authz"
            yield Gap(
                message, "remove the `selector` of the CUSTOM policy, or select these pods", document.root.location
            )
    if not workloads:
        message = f"no policy covers all workloads of namespace {namespace.name}"
        yield Gap(message, "add an AuthorizationPolicy CUSTOM without `selector` there", namespace.root.location)


def _selects(envoy_filter: Document, pod: Value) -> bool:
    labels = pod_labels(pod)
    selector = envoy_filter.root.fields("spec", "workloadSelector", "labels")
    return all(labels.get(key) == value.text() for key, value in selector.items())


def _targets(policies: list[Document]) -> dict[tuple[str, str, str], Value]:
    """Return the targets of policies: (namespace, kind, name) to the reference."""
    return {
        (policy.namespace, ref.text("kind"), ref.text("name")): ref
        for policy in policies
        for ref in [*policy.root.items("spec", "targetRefs"), *filter(None, [policy.root.get("spec", "targetRef")])]
    }


def _gateway_routes(installation: Installation, policies: list[Document]) -> Iterator[Finding]:
    """Check that a policy targets each route or its Gateway. A policy of the route replaces the Gateway's policy."""
    asking = _targets(policies)
    known = {id(policy) for policy in policies}
    instead = _targets([policy for policy in installation.of_kind("SecurityPolicy") if id(policy) not in known])
    for route in installation.of_kind("HTTPRoute", "GRPCRoute") if policies else ():
        own = (route.namespace, route.kind, route.name)
        parents = [
            (parent.text("namespace") or route.namespace, "Gateway", parent.text("name"))
            for parent in route.root.items("spec", "parentRefs")
        ]
        named = [asking[key] for key in [own, *parents] if key in asking]
        if own in asking or (named and own not in instead):
            yield Satisfied(named[0].location, f"{route.root.owner} calls zta-authz")
        else:
            at = instead[own].location if own in instead else route.root.location
            yield Gap(
                f"{route.root.owner} does not call zta-authz", "name it in `targetRefs` of the SecurityPolicy", at
            )


def _envoy_listeners(installation: Installation) -> Iterator[Finding]:
    """Report listeners of Envoy configurations that route requests without ext_authz."""
    for _, config in installation.envoy:
        for listener in config.items("static_resources", "listeners"):
            if listener.text("traffic_direction") == "OUTBOUND":
                continue
            for manager in (node for node in listener.below() if node.text("@type") == CONNECTION_MANAGER):
                asks = any(node.text("@type") == EXT_AUTHZ for node in manager.below())
                leads = manager.get("rds") is not None or any(node.get("route") is not None for node in manager.below())
                if leads and not asks:
                    yield Gap("requests to this listener are not checked", "add the ext_authz filter", manager.location)


def _exceptions(installation: Installation) -> Iterator[Finding]:
    """Report where ext_authz is disabled: for a route, for a fraction of the requests, or by a patch."""
    for message in [*installation.messages(PER_ROUTE), *installation.messages(FILTER_CONFIG)]:
        if message.value.flag("disabled") and (
            message.value.text("@type") == PER_ROUTE or _EXT_AUTHZ_NAME in message.value.path
        ):
            yield Gap(
                "ext_authz is disabled for a route",
                "remove `disabled`, and allow the route by a rule",
                message.value.location,
            )
    for message in installation.messages(EXT_AUTHZ):
        for field in ("filter_enabled", "filter_enabled_metadata"):
            share = message.value.get(field)
            if share is not None:
                yield Gap("ext_authz may be disabled for some requests", f"remove `{field}`", share.location)
    for document in installation.of_kind("EnvoyFilter"):
        for patch in document.root.items("spec", "configPatches"):
            removed = patch.text("patch", "operation") == "REMOVE"
            if removed and any(_EXT_AUTHZ_NAME in node.text("name") for node in patch.below()):
                yield Gap("a patch removes the ext_authz filter", "remove the patch", patch.location)
