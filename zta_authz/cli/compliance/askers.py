"""Who asks zta-authz: Istio's CUSTOM policies with their providers, Envoy Gateway's policies, Envoy's own filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.compliance.authorizers import NAME, is_authorizer
from zta_authz.cli.compliance.installation import EXT_AUTHZ, Installation, Message, pod_labels

if TYPE_CHECKING:
    from zta_authz.cli.compliance.values import Document, Value

_PROVIDER_FIELDS: Final = ("envoyExtAuthzGrpc", "envoyExtAuthzHttp")


def service_names(installation: Installation) -> set[str]:
    """What the Services are called that lead to zta-authz; its own name where the files hold none."""
    found = {
        service.name
        for service in installation.of_kind("Service")
        for _, pod, container in installation.containers()
        if is_authorizer(container) and leads_to(service, pod)
    }
    return found or {NAME}


def leads_to(service: Document, pod: Value) -> bool:
    """Whether a Service selects the pod."""
    labels, wanted = pod_labels(pod), service.root.fields("spec", "selector")
    return bool(wanted) and all(labels.get(key) == value.text() for key, value in wanted.items())


def entry_of(installation: Installation, policy: Document) -> Value | None:
    """The provider of a CUSTOM policy in the mesh configuration, None where that was not given."""
    name = policy.root.text("spec", "provider", "name")
    for mesh in installation.meshes:
        for each in mesh.items("extensionProviders"):
            entries = [found for field in _PROVIDER_FIELDS if (found := each.get(field)) is not None]
            if each.text("name") == name and entries:
                return entries[0]
    return None


def custom_policies(installation: Installation) -> list[Document]:
    """Istio policies that send requests to zta-authz: those whose provider is known to be another are left out."""
    names = service_names(installation)
    found = []
    for each in installation.of_kind("AuthorizationPolicy"):
        if each.group != "security.istio.io" or each.root.text("spec", "action") != "CUSTOM":
            continue
        entry = entry_of(installation, each)
        service = "" if entry is None else entry.text("service").rpartition("/")[2]
        if entry is None or service.partition(".")[0] in names:
            found.append(each)
    return found


def security_policies(installation: Installation) -> list[Document]:
    """Envoy Gateway policies that send requests to zta-authz."""
    names = service_names(installation)
    found = []
    for each in installation.of_kind("SecurityPolicy"):
        grpc = each.root.get("spec", "extAuth", "grpc")
        backends = [] if grpc is None else [*grpc.items("backendRefs"), *filter(None, [grpc.get("backendRef")])]
        if any(backend.text("name") in names for backend in backends):
            found.append(each)
    return found


def asking_filters(installation: Installation) -> list[Document]:
    """EnvoyFilters that put an ext_authz filter into proxies."""
    found = (each.holder for each in installation.messages(EXT_AUTHZ) if not each.merged)
    return list({id(each): each for each in found if each.kind == "EnvoyFilter"}.values())


def merged_into(installation: Installation, asker: Document, messages: list[Message]) -> list[Value]:
    """Those of `messages` that a patch merges into the proxies of all workloads that `asker` is for."""
    spaces = {asker.namespace, *installation.root_namespaces}
    labels = _workload_labels(asker)
    return [
        each.value
        for each in messages
        if each.merged and each.holder.namespace in spaces and _workload_labels(each.holder).items() <= labels.items()
    ]


def _workload_labels(document: Document) -> dict[str, str]:
    path = ("workloadSelector", "labels") if document.kind == "EnvoyFilter" else ("selector", "matchLabels")
    return {key: value.text() for key, value in document.root.fields("spec", *path).items()}
