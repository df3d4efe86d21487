"""What k8s/ becomes: each overlay rendered by kustomize, and ways to look at what was rendered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir() if (path / "kustomization.yaml").exists())
TOOLS = ROOT / ".tools"
SCHEMAS = Path(__file__).parent / "schemas"

Manifest = dict[str, Any]


def find_tool(name: str) -> Path | None:
    """The program that `KUBECTL` or `PROMTOOL` names, else what `make tools` fetched, else what is on the PATH."""
    named = os.environ.get(name.upper())
    found = named or shutil.which(str(TOOLS / name)) or shutil.which(name)
    return Path(found) if found else None


def kustomize(kubectl: Path, folder: Path) -> str:
    """What kustomize makes of `folder`. Raises AssertionError with what it says against it."""
    done = subprocess.run(
        [str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower(), done.stderr
    return done.stdout


@cache
def _rendered(kubectl: Path, overlay: str) -> str:
    return kustomize(kubectl, K8S / "overlays" / overlay)


def render(kubectl: Path, overlay: str) -> list[Manifest]:
    """The overlay's manifests, fresh objects at each call, so that a test may break them."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(_rendered(kubectl, overlay), Loader=loader) if document]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """The manifests of one kind."""
    return [each for each in manifests if each["kind"] == kind]


def called(manifest: Manifest) -> str:
    """`Kind/namespace/name`."""
    metadata = manifest["metadata"]
    return f"{manifest['kind']}/{metadata.get('namespace', '-')}/{metadata['name']}"


def pod_of(workload: Manifest) -> dict[str, Any]:
    """The pod's spec of a Deployment, StatefulSet, DaemonSet or Job."""
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def containers_of(workload: Manifest) -> list[dict[str, Any]]:
    """Every container of the pod, those that start before the others included."""
    pod = pod_of(workload)
    return [*pod.get("initContainers", ()), *pod["containers"]]


def data_of(manifests: list[Manifest], name: str, namespace: str | None = None) -> dict[str, str]:
    """The files of a ConfigMap, by its rendered name."""
    for each in of_kind(manifests, "ConfigMap"):
        if each["metadata"]["name"] == name and namespace in (None, each["metadata"].get("namespace")):
            data: dict[str, str] = each["data"]
            return data
    raise AssertionError(f"there is no ConfigMap `{name}`")


def authorizers(manifests: list[Manifest]) -> Iterator[tuple[Manifest, dict[str, Any]]]:
    """Each container that runs zta-authz, with its workload."""
    for workload in of_kind(manifests, "Deployment"):
        for container in containers_of(workload):
            if container["name"] == "zta-authz":
                yield workload, container


def mounted(manifests: list[Manifest], workload: Manifest, container: dict[str, Any]) -> dict[str, dict[str, str]]:
    """What the container finds where ConfigMaps of ours are mounted: path -> name of the file -> text."""
    volumes = {volume["name"]: volume for volume in pod_of(workload)["volumes"]}
    namespace = workload["metadata"]["namespace"]
    found = {}
    for mount in container["volumeMounts"]:
        name = volumes.get(mount["name"], {}).get("configMap", {}).get("name")  # a claim is not among the volumes
        if name not in (None, "istio-ca-root-cert"):  # which Istio makes
            found[mount["mountPath"]] = data_of(manifests, name, namespace)
    return found


def schema_for(kind: str) -> dict[str, Any]:
    """Our own JSON Schema of a kind. Raises FileNotFoundError for a kind without one."""
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    return schema
