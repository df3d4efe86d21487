"""Find the clients of zta-authz: Istio's CUSTOM policies, Envoy Gateway's policies and Envoy's ext_authz filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.compliance.authorizers import NAME, is_authorizer
from zta_authz.cli.compliance.installation import (
    CONNECTION_MANAGER,
    EXT_AUTHZ,
    Installation,
    Message,
    cached,
    pod_labels,
)

if TYPE_CHECKING:
    from zta_authz.cli.compliance.values import Document, Value

_PROVIDER_FIELDS: Final = ("envoyExtAuthzGrpc", "envoyExtAuthzHttp")


@cached
def service_names(installation: Installation) -> set[str]:
    """Return the names of the Services of zta-authz; its default name if the files have none."""
    pods = {id(pod): pod for _, pod, container in installation.containers if is_authorizer(container)}
    labels = {tuple(sorted(pod_labels(pod).items())): pod for pod in pods.values()}
    names = {
        service.name for service in installation.of_kind("Service") for pod in labels.values() if leads_to(service, pod)
    }
    return names or {NAME}


def leads_to(service: Document, pod: Value) -> bool:
    """Return whether a Service selects the pod."""
    labels, selector = pod_labels(pod), service.root.fields("spec", "selector")
    return bool(selector) and all(labels.get(key) == value.text() for key, value in selector.items())


@cached
def _providers(installation: Installation) -> dict[str, Value]:
    """Return the extension providers of all mesh configurations by name. The first of a name counts."""
    entries: dict[str, Value] = {}
    for mesh in installation.meshes:
        for provider in mesh.items("extensionProviders"):
            entry = next(filter(None, (provider.get(field) for field in _PROVIDER_FIELDS)), None)
            if entry is not None:
                entries.setdefault(provider.text("name"), entry)
    return entries


def provider_of(installation: Installation, policy: Document) -> Value | None:
    """Return the provider of a CUSTOM policy; None if the mesh configuration was not given."""
    return _providers(installation).get(policy.root.text("spec", "provider", "name"))


@cached
def custom_policies(installation: Installation) -> list[Document]:
    """Return the Istio policies that send requests to zta-authz, unless their provider is known to be another one."""
    names = service_names(installation)
    policies = []
    for policy in installation.of_kind("AuthorizationPolicy"):
        if policy.group != "security.istio.io" or policy.root.text("spec", "action") != "CUSTOM":
            continue
        entry = provider_of(installation, policy)
        service = "" if entry is None else entry.text("service").rpartition("/")[2]
        if entry is None or service.partition(".")[0] in names:
            policies.append(policy)
    return policies


@cached
def security_policies(installation: Installation) -> list[Document]:
    """Return the Envoy Gateway policies that send requests to zta-authz."""
    names = service_names(installation)
    policies = []
    for policy in installation.of_kind("SecurityPolicy"):
        grpc = policy.root.get("spec", "extAuth", "grpc")
        backends = [] if grpc is None else [*grpc.items("backendRefs"), *filter(None, [grpc.get("backendRef")])]
        if any(backend.text("name") in names for backend in backends):
            policies.append(policy)
    return policies


@cached
def asking_filters(installation: Installation) -> list[Document]:
    """Return the EnvoyFilters that add an ext_authz filter to proxies."""
    holders = (message.holder for message in installation.messages(EXT_AUTHZ) if not message.merged)
    return list({id(holder): holder for holder in holders if holder.kind == "EnvoyFilter"}.values())


def merged_into(installation: Installation, asker: Document, type_url: str) -> list[Value]:
    """Return the messages of a type that patches merge into the proxies of all workloads of `asker`."""
    labels = _workload_labels(asker)
    near = _merged(installation)
    return [
        message.value
        for namespace in sorted({asker.namespace, *installation.root_namespaces})
        for message in near.get((type_url, namespace), ())
        if _workload_labels(message.holder).items() <= labels.items()
    ]


@cached
def _merged(installation: Installation) -> dict[tuple[str, str], list[Message]]:
    """Return the messages that patches merge, by type and namespace of the patch."""
    merged: dict[tuple[str, str], list[Message]] = {}
    for type_url in (EXT_AUTHZ, CONNECTION_MANAGER):
        for message in installation.messages(type_url):
            if message.merged:
                merged.setdefault((type_url, message.holder.namespace), []).append(message)
    return merged


@cached
def custom_by_namespace(installation: Installation) -> dict[str, list[Document]]:
    """Return `custom_policies` by namespace."""
    return _by_namespace(custom_policies(installation))


@cached
def filters_by_namespace(installation: Installation) -> dict[str, list[Document]]:
    """Return `asking_filters` by namespace."""
    return _by_namespace(asking_filters(installation))


def _by_namespace(documents: list[Document]) -> dict[str, list[Document]]:
    by_namespace: dict[str, list[Document]] = {}
    for document in documents:
        by_namespace.setdefault(document.namespace, []).append(document)
    return by_namespace


def _workload_labels(document: Document) -> dict[str, str]:
    path = ("workloadSelector", "labels") if document.kind == "EnvoyFilter" else ("selector", "matchLabels")
    return {key: value.text() for key, value in document.root.fields("spec", *path).items()}
