"""What must hold in everything that is rendered from k8s/, as functions from manifests to what is wrong with them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from tests.k8s.manifests import Manifest, called, containers_of, of_kind, pod_of

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "Pod", "CronJob")
DEPLOYED = ("Deployment", "StatefulSet")
RIGHTS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
VOLUMES = {"configMap", "secret", "emptyDir", "csi", "projected"}
"""Less than the Pod Security Standard `restricted` admits."""
EXT_AUTHZ = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
WRITABLE = ("/tmp", "/run/zta-authz", "/var/lib/zta-authz")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def faults(manifests: list[Manifest]) -> list[str]:
    """Everything that is wrong, [] for nothing."""
    found = [*_workloads(manifests), *_rights(manifests), *_namespaces(manifests), *_mesh(manifests)]
    found += [f"{called(each)}: a Secret is committed" for each in of_kind(manifests, "Secret")]
    return found


def _workloads(manifests: list[Manifest]) -> Iterator[str]:
    for workload in manifests:
        if workload["kind"] not in WORKLOADS:
            continue
        name = called(workload)
        if workload["kind"] not in DEPLOYED:
            yield f"{name}: this check knows {' and '.join(DEPLOYED)} only"
            continue
        yield from (f"{name}: {fault}" for fault in _pod(pod_of(workload)))
        for container in containers_of(workload):
            yield from (f"{name} {container['name']}: {fault}" for fault in _container(container))


def _pod(pod: dict[str, Any]) -> Iterator[str]:
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken is not false"
    if pod.get("serviceAccountName", "default") == "default":
        yield "no ServiceAccount of its own"
    if pod.get("enableServiceLinks") is not False:
        yield "enableServiceLinks is not false"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"{name} is set"
    yield from _identity(pod.get("securityContext", {}))
    for volume in pod.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if len(kinds) != 1 or not kinds <= VOLUMES:
            yield f"volume {volume['name']} is of {sorted(kinds)}"


def _identity(context: dict[str, Any]) -> Iterator[str]:
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if context.get("runAsUser") == 0 or context.get("runAsGroup") == 0 or context.get("fsGroup") == 0:
        yield "runs as 0"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "seccompProfile is not RuntimeDefault"


def _container(container: dict[str, Any]) -> Iterator[str]:
    context = container.get("securityContext", {})
    yield from _identity(context)
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem is not true"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "capabilities are not dropped"
    if context.get("privileged"):
        yield "privileged"
    if not re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", container.get("image", "")):
        yield "the image is not named by digest"
    resources = container.get("resources", {})
    if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
        yield "requests of CPU and memory, or the limit of memory, are missing"
    if container["name"] == "zta-authz":
        yield from _authorizer(container)


def _authorizer(container: dict[str, Any]) -> Iterator[str]:
    yield from (f"{probe} is missing" for probe in PROBES if probe not in container)
    if "cpu" in container["resources"]["limits"]:
        yield "a limit of CPU pauses the process"
    for mount in container["volumeMounts"]:
        if mount.get("readOnly") is not True and mount["mountPath"] not in WRITABLE:
            yield f"{mount['mountPath']} can be written to"
        if "subPath" in mount:
            yield f"{mount['mountPath']} is a subPath, which is never updated"


def _rights(manifests: list[Manifest]) -> Iterator[str]:
    for each in manifests:
        if each["kind"] in RIGHTS:
            yield f"{called(each)}: rights in the API"
    for account in of_kind(manifests, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"{called(account)}: automountServiceAccountToken is not false"


def _namespaces(manifests: list[Manifest]) -> Iterator[str]:
    """Namespaces of workloads admit `restricted` pods only, and let nothing in or out that is not named."""
    namespaces = {each["metadata"]["name"]: each for each in of_kind(manifests, "Namespace")}
    workloads = [each for kind in DEPLOYED for each in of_kind(manifests, kind)]
    for name in sorted({each["metadata"]["namespace"] for each in workloads}):
        labels = namespaces[name]["metadata"].get("labels", {}) if name in namespaces else {}
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"Namespace/-/{name}: does not enforce `restricted`"
        policies = [each for each in of_kind(manifests, "NetworkPolicy") if each["metadata"]["namespace"] == name]
        if {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} not in [each["spec"] for each in policies]:
            yield f"Namespace/-/{name}: no NetworkPolicy denies what is not named"
        for policy in policies:
            yield from (f"{called(policy)}: {fault}" for fault in _open_doors(policy["spec"]))


def _open_doors(spec: dict[str, Any]) -> Iterator[str]:
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction, ()):
            if not rule.get(peers) or not rule.get("ports"):
                yield f"an {direction} rule names no peers or no ports"


def _mesh(manifests: list[Manifest]) -> Iterator[str]:
    for each in of_kind(manifests, "PeerAuthentication"):
        if each["spec"].get("mtls", {}).get("mode") != "STRICT":
            yield f"{called(each)}: mutual TLS is not STRICT"
    for each in of_kind(manifests, "SecurityPolicy"):
        extension = each["spec"]["extAuth"]
        if extension.get("failOpen") is not False:
            yield f"{called(each)}: failOpen is not false"
        if extension.get("timeout") != "200ms":
            yield f"{called(each)}: timeout is not 200ms"
    for each in manifests:
        yield from (f"{called(each)}: {fault}" for fault in _ext_authz(each))


def _ext_authz(manifest: Manifest) -> Iterator[str]:
    """Every ext_authz filter that anything holds, Envoy configurations in ConfigMaps included."""
    inserted = manifest["kind"] == "ConfigMap"
    holders: list[Any] = [manifest]
    if manifest["kind"] == "ConfigMap":
        holders = [yaml.safe_load(text) for name, text in manifest["data"].items() if name == "envoy.yaml"]
    for patch in manifest["spec"]["configPatches"] if manifest["kind"] == "EnvoyFilter" else ():
        inserted = inserted or (patch["applyTo"] == "HTTP_FILTER" and patch["patch"]["operation"].startswith("INSERT"))
    for config in (found for holder in holders for found in _find(holder, EXT_AUTHZ)):
        if config.get("failure_mode_allow", False if not inserted else None) is not False:
            yield "failure_mode_allow is not false"
    for patch in manifest["spec"]["jsonPatches"] if manifest["kind"] == "EnvoyPatchPolicy" else ():
        if "failure_mode_allow" in patch["operation"].get("path", ""):
            yield "failure_mode_allow is patched"


def _find(value: Any, type_url: str) -> Iterator[dict[str, Any]]:
    """The messages of a type, however deep."""
    if isinstance(value, dict):
        if value.get("@type") == type_url:
            yield value
        for inner in value.values():
            yield from _find(inner, type_url)
    elif isinstance(value, list):
        for inner in value:
            yield from _find(inner, type_url)


def provider_faults(values: dict[str, Any]) -> list[str]:
    """What is wrong with the entry for istiod's MeshConfig."""
    found = []
    for provider in values["meshConfig"]["extensionProviders"]:
        entry = provider["envoyExtAuthzGrpc"]
        if entry.get("failOpen") is not False:
            found.append("failOpen is not false")
        if entry.get("timeout") != "200ms":
            found.append("timeout is not 200ms, and Istio's own is 600s")
        if entry.get("statusOnError") != "503":
            found.append("statusOnError is not 503")
    return found
