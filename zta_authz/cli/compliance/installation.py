"""An installation as its files describe it: objects, authorizers, and Envoy configurations wherever they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.cli.compliance.authorizers import Authorizer, AuthorizerReader, Given, containers_of, pods_of
from zta_authz.cli.compliance.inner import Inners, inner_of
from zta_authz.cli.compliance.sources import ENVOY_CONFIG, MESH_VALUES, SUFFIXES, read_documents, read_texts
from zta_authz.cli.compliance.values import Document, Value, matches
from zta_authz.errors import Fault, FaultsError
from zta_authz.policy.yaml_reader import Mapping, iter_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

EXT_AUTHZ: Final = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
PER_ROUTE: Final = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
CONNECTION_MANAGER: Final = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
DOWNSTREAM_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
FILTER_CONFIG: Final = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
_ENVOY_MARK: Final = "static_resources"
_MAX_INNER_CHARACTERS: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One typed Envoy message. `holder` is the object around it; `merged` where a patch merges it into another."""

    value: Value
    holder: Document
    merged: bool = False


@dataclass(frozen=True, slots=True)
class Installation:
    """What the checks look at. `now` is seconds since the epoch."""

    documents: tuple[Document, ...]
    authorizers: tuple[Authorizer, ...]
    envoy: tuple[tuple[Document, Value], ...]
    """Envoy's own configurations, with the objects that hold them."""
    meshes: tuple[Value, ...]
    """Istio's MeshConfig, wherever it stands."""
    now: float

    def of_kind(self, *kinds: str) -> list[Document]:
        """The objects of these kinds."""
        return [each for each in self.documents if each.kind in kinds]

    def named(self, kind: str, name: str, namespace: str = "") -> Document | None:
        """One object."""
        found = (each for each in self.documents if (each.kind, each.name, each.namespace) == (kind, name, namespace))
        return next(found, None)

    def pods(self) -> list[tuple[Document, Value]]:
        """Each workload with its pod template."""
        return list(pods_of(self.documents))

    def containers(self) -> Iterator[tuple[Document, Value, Value]]:
        """Each container with its workload and pod template."""
        for document, pod in self.pods():
            for container in containers_of(pod):
                yield document, pod, container

    def messages(self, type_url: str) -> list[Message]:
        """Every message of a type: in EnvoyFilters' patches and in Envoy's configurations."""
        found = []
        for document in self.of_kind("EnvoyFilter"):
            for patch in document.root.items("spec", "configPatches"):
                merged = patch.text("patch", "operation") == "MERGE"
                found += [Message(each, document, merged) for each in _typed(patch.get("patch", "value"), type_url)]
        for document, value in self.envoy:
            found += [Message(each, document) for each in _typed(value, type_url)]
        return found

    def injected_namespaces(self) -> list[Document]:
        """Namespaces whose pods get Istio's sidecar."""
        return [
            each
            for each in self.of_kind("Namespace")
            if each.labels.get("istio-injection") == "enabled" or "istio.io/rev" in each.labels
        ]

    @property
    def root_namespaces(self) -> set[str]:
        """The namespaces whose policies are for every workload."""
        return {each.settings.root_namespace for each in self.authorizers} or {"istio-system"}

    def workloads_in(self, namespace: str) -> list[tuple[Document, Value]]:
        """The workloads of a namespace with their pod templates."""
        return [(document, pod) for document, pod in self.pods() if document.namespace == namespace]


def pod_labels(pod: Value) -> dict[str, str]:
    """The labels of a pod template."""
    return {key: value.text() for key, value in pod.fields("metadata", "labels").items()}


def selects(document: Document, pod: Value, *path: str) -> bool:
    """Whether the selector at `path` of `document` takes the pod."""
    return matches(document.root.get(*path), pod_labels(pod))


def _typed(value: Value | None, type_url: str) -> list[Value]:
    return [] if value is None else [each for each in value.below() if each.text("@type") == type_url]


def load_installation(paths: Sequence[str], given: Given, now: float) -> Installation:
    """Everything that `paths` describe. Raises `FaultsError` with all that can't be read or that `serve` refuses."""
    faults: list[Fault] = []
    texts = read_texts(paths, faults)
    documents = read_documents(texts, faults)
    if faults:
        raise FaultsError(faults)
    lines = {each.source: each.text.split("\n") for each in texts}
    authorizers = AuthorizerReader(documents, lines, given, faults).read()
    envoy = [(each, each.root) for each in documents if each.kind == ENVOY_CONFIG]
    envoy += _written_in(documents, lines, faults, lambda key, text: _ENVOY_MARK in text and key.endswith(SUFFIXES))
    meshes = [each.root.get("meshConfig") for each in documents if each.kind == MESH_VALUES]
    meshes += [each.root.get("spec", "meshConfig") for each in documents if each.kind == "IstioOperator"]
    meshes += [value for _, value in _written_in(documents, lines, faults, lambda key, _: key == "mesh")]
    if faults:
        raise FaultsError(dict.fromkeys(faults))
    known = tuple(each for each in meshes if each is not None)
    return Installation(tuple(documents), tuple(authorizers), tuple(envoy), known, now)


def _written_in(
    documents: Sequence[Document],
    lines: dict[str, list[str]],
    faults: list[Fault],
    wanted: Callable[[str, str], bool],
) -> list[tuple[Document, Value]]:
    """The YAML documents inside ConfigMaps under the keys (with the texts) that are `wanted`."""
    found: list[tuple[Document, Value]] = []
    read = 0
    inners = Inners()
    for document in (each for each in documents if each.kind == "ConfigMap" and not each.group):
        for key, value in document.root.fields("data").items():
            text = value.text()
            if not wanted(key, text):
                continue
            read += len(text)
            if read > _MAX_INNER_CHARACTERS:
                limit = f"more than {_MAX_INNER_CHARACTERS // 1_048_576} MiB of configurations in ConfigMaps"
                faults.append(Fault(value.source, value.place.line, 1, limit, "name the installation's own files only"))
                return []
            inner = inners.add(inner_of(document, key, value, lines))
            wrong: list[Fault] = []
            owner = f'{document.root.owner}: data["{key}"]'
            found += [
                (document, Value(inner.shown_source, owner, "", node, inner.shift))
                for node in iter_documents(inner.name, inner.text, wrong)
                if isinstance(node, Mapping)
            ]
            faults += inners.faults(wrong)
    return found
