"""Do proxies put every request to zta-authz, and does no answer, or none in time, mean no?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.compliance.evidence import Finding, Found, Gap, Unseen
from zta_authz.cli.compliance.installation import (
    EXT_AUTHZ,
    PER_ROUTE,
    Installation,
    pod_labels,
    selects,
)
from zta_authz.cli.compliance.sources import MESH_VALUES
from zta_authz.policy.yaml_reader import Mapping, iter_documents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.cli.compliance.values import Document, Value

MAX_TIMEOUT_SECONDS: Final = 1.0
_PROVIDER_FIELDS: Final = ("envoyExtAuthzGrpc", "envoyExtAuthzHttp")


def custom_policies(installation: Installation) -> list[Document]:
    """Istio policies that send requests to a provider."""
    return [
        each
        for each in installation.of_kind("AuthorizationPolicy")
        if each.group == "security.istio.io" and each.root.text("spec", "action") == "CUSTOM"
    ]


def security_policies(installation: Installation) -> list[Document]:
    """Envoy Gateway policies that send requests to an external authorizer."""
    found = installation.of_kind("SecurityPolicy")
    return [each for each in found if each.root.get("spec", "extAuth") is not None]


def providers(installation: Installation) -> list[Value]:
    """The `extensionProviders` of every mesh configuration that was given."""
    roots = [each.root.get("meshConfig") for each in installation.of_kind(MESH_VALUES)]
    roots += [each.root.get("spec", "meshConfig") for each in installation.of_kind("IstioOperator")]
    for document in installation.of_kind("ConfigMap"):
        mesh = document.root.get("data", "mesh")
        if mesh is not None:
            for node in iter_documents(mesh.source, mesh.text(), []):
                if isinstance(node, Mapping):
                    held = type(mesh)(mesh.source, mesh.owner, mesh.path, node, mesh.place.line)
                    roots.append(held)
    return [each for root in roots if root is not None for each in root.items("extensionProviders")]


def provider_entries(installation: Installation) -> Iterator[tuple[Document, Value | None]]:
    """Each CUSTOM policy with its provider's entry, None where no mesh configuration with it was given."""
    entries = {each.text("name"): each for each in providers(installation)}
    for policy in custom_policies(installation):
        entry = entries.get(policy.root.text("spec", "provider", "name"))
        found = None if entry is None else next(filter(None, (entry.get(name) for name in _PROVIDER_FIELDS)), None)
        yield policy, found


def every_request_is_asked(installation: Installation) -> Iterator[Finding]:
    """Every workload that the files name is behind a proxy that asks, with no route left out."""
    policies, gateways = custom_policies(installation), security_policies(installation)
    filters = [each for each in installation.messages(EXT_AUTHZ) if not each.merged]
    if not (policies or gateways or filters):
        message = "no proxy is told to ask zta-authz"
        yield Gap(
            message, "add an AuthorizationPolicy with action CUSTOM, a SecurityPolicy with extAuth, or the filter"
        )
        return
    for policy in policies:
        yield from _whole(installation, policy)
    for each in filters:
        yield Found(each.value.place, "asks zta-authz")
    for namespace in installation.injected_namespaces():
        yield from _namespace_asks(installation, namespace)
    for namespace in installation.of_kind("Namespace"):
        if namespace.labels.get("istio.io/dataplane-mode") == "ambient":
            place = (namespace.root.get("metadata", "labels") or namespace.root).place
            yield Gap("ambient waypoints send no identity, so nobody could be verified", "use sidecars", place)
    yield from _gateway_routes(installation, gateways)
    for route in installation.messages(PER_ROUTE):
        if route.value.flag("disabled"):
            yield Gap("a route does not ask", "remove `disabled`, and allow it by a rule", route.value.place)


def _whole(installation: Installation, policy: Document) -> Iterator[Finding]:
    spec = policy.root.get("spec")
    rules = [] if spec is None else spec.items("rules")
    whole = any(not rule.fields() for rule in rules)
    at = policy.root if spec is None else spec.get("rules") or spec
    if not whole:
        message = "only requests that its `rules` match are put to zta-authz"
        yield Gap(message, "write `rules: [{}]`, and decide in zta-authz's policies", at.place)
    for field in ("targetRefs", "targetRef"):
        target = None if spec is None else spec.get(field)
        if target is not None:
            yield Gap(
                "a waypoint or gateway sends no identity of callers", "select workloads with sidecars", target.place
            )
    if whole:
        yield Found(at.place, "every request")
    selector = None if spec is None else spec.get("selector")
    if selector is not None and not installation.injected_namespaces():
        yield Unseen("whether other workloads of the namespace have sidecars is not in these files", selector.place)


def _namespace_asks(installation: Installation, namespace: Document) -> Iterator[Finding]:
    """Every pod with a sidecar in the namespace is selected by something that asks."""
    scopes = {namespace.name, *installation.root_namespaces}
    asking = [each for each in custom_policies(installation) if each.namespace in scopes]
    for each in asking:
        if not each.root.get("spec", "selector") and not each.root.get("spec", "targetRefs"):
            yield Found(each.root.place, f"for every workload of namespace {namespace.name}")
            return
    inserting = {id(each.holder): each.holder for each in installation.messages(EXT_AUTHZ) if not each.merged}
    filters = [each for each in inserting.values() if each.kind == "EnvoyFilter" and each.namespace in scopes]
    workloads = installation.workloads_in(namespace.name)
    for document, pod in workloads:
        if any(selects(each, pod, "spec", "selector") for each in asking):
            yield Found(document.root.place, "is selected by a CUSTOM policy")
        elif any(matches_selector(each, pod) for each in filters):
            yield Found(document.root.place, "is selected by an EnvoyFilter that asks")
        else:
            message = f"the proxies of {document.root.owner} ask nobody"
            yield Gap(message, "take the `selector` from the CUSTOM policy, or select these pods", document.root.place)
    if not workloads:
        message = f"nothing asks for all workloads of namespace {namespace.name}"
        yield Gap(message, "add an AuthorizationPolicy CUSTOM without `selector` there", namespace.root.place)


def matches_selector(envoy_filter: Document, pod: Value) -> bool:
    """Whether an EnvoyFilter's `workloadSelector` takes the pod."""
    labels = pod_labels(pod)
    wanted = envoy_filter.root.fields("spec", "workloadSelector", "labels")
    return all(labels.get(key) == value.text() for key, value in wanted.items())


def _gateway_routes(installation: Installation, policies: list[Document]) -> Iterator[Finding]:
    targets = {
        (each.namespace, ref.text("kind"), ref.text("name")): ref
        for each in policies
        for ref in [*each.root.items("spec", "targetRefs"), *filter(None, [each.root.get("spec", "targetRef")])]
    }
    for route in installation.of_kind("HTTPRoute", "GRPCRoute") if policies else ():
        parents = [
            (parent.text("namespace") or route.namespace, "Gateway", parent.text("name"))
            for parent in route.root.items("spec", "parentRefs")
        ]
        named = [targets[key] for key in [(route.namespace, route.kind, route.name), *parents] if key in targets]
        if named:
            yield Found(named[0].place, f"{route.root.owner} asks")
        else:
            yield Gap(
                f"{route.root.owner} asks nobody", "name it in `targetRefs` of the SecurityPolicy", route.root.place
            )


def no_answer_is_a_denial(installation: Installation) -> Iterator[Finding]:
    """`failOpen` and `failure_mode_allow` are false wherever somebody asks; false is also the default of all three."""
    for policy, entry in provider_entries(installation):
        if entry is None:
            name = policy.root.text("spec", "provider", "name")
            message = f"the entry of provider `{name}` is in istiod's MeshConfig: give its values file or ConfigMap too"
            yield Unseen(message, policy.root.place)
        else:
            yield _closed(entry, "failOpen")
    for message_ in installation.messages(EXT_AUTHZ):
        if not message_.merged or message_.value.get("failure_mode_allow") is not None:
            yield _closed(message_.value, "failure_mode_allow")
    for policy in security_policies(installation):
        extension = policy.root.get("spec", "extAuth")
        if extension is not None:
            yield _closed(extension, "failOpen")
    for patch in installation.of_kind("EnvoyPatchPolicy"):
        for each in patch.root.items("spec", "jsonPatches"):
            operation = each.get("operation")
            if operation is not None and "failure_mode_allow" in operation.text("path") and operation.flag("value"):
                yield Gap("requests pass where zta-authz does not answer", "take the patch away", operation.place)


def _closed(value: Value, field: str) -> Finding:
    found = value.get(field)
    if found is None:
        return Found(value.place, f"{field}: false (default)")
    if found.flag() is False:
        return Found(found.place, "false")
    return Gap("requests pass where zta-authz does not answer", f"write `{field}: false`", found.place)


def answers_in_time(installation: Installation) -> Iterator[Finding]:
    """The wait for an answer is bounded: who slows zta-authz down must not stop everybody for minutes."""
    for policy, entry in provider_entries(installation):
        if entry is None:
            yield Unseen("the provider's timeout is in istiod's MeshConfig", policy.root.place)
        else:
            yield _timed(entry, "Istio's default is 600 s", "timeout")
    for message in installation.messages(EXT_AUTHZ):
        timeout = message.value.get("grpc_service", "timeout")
        if timeout is not None or not message.merged:
            at = message.value.get("grpc_service") or message.value
            yield _timed(at, "", "timeout")
    for policy in security_policies(installation):
        extension = policy.root.get("spec", "extAuth")
        if extension is not None:
            yield _timed(extension, "Envoy Gateway's default is 10 s", "timeout")


def _timed(value: Value, default: str, field: str) -> Finding:
    mend = f"write `{field}: 200ms`"
    found = value.get(field)
    if found is None:
        return Gap(f"no timeout: {default}", mend, value.place) if default else Found(value.place, "200 ms (default)")
    seconds = found.seconds()
    if seconds is None or not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        return Gap(f"the timeout is {found.shown}, more than {MAX_TIMEOUT_SECONDS:g} s or none", mend, found.place)
    return Found(found.place, found.shown)
