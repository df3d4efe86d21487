"""An installation as its files describe it: objects, authorizers and Envoy configurations."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

from zta_authz.cli.compliance.authorizers import Authorizer, AuthorizerReader, Overrides, containers_of, pods_of
from zta_authz.cli.compliance.embedded_text import EmbeddedTexts, embedded_text
from zta_authz.cli.compliance.sources import ENVOY_CONFIG, MESH_VALUES, read_documents, read_texts
from zta_authz.cli.compliance.values import Document, Value, matches
from zta_authz.errors import Fault, FaultsError
from zta_authz.policy.yaml.nodes import Mapping, iter_documents
from zta_authz.policy_sources.walk import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

EXT_AUTHZ: Final = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
PER_ROUTE: Final = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
CONNECTION_MANAGER: Final = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
DOWNSTREAM_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
FILTER_CONFIG: Final = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
_T = TypeVar("_T")
SDS_RESOURCE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
"""The type of secrets that Envoy reads from files (SDS)."""
_ENVOY_MARKS: Final = ("static_resources", SDS_RESOURCE)
_MAX_INNER_CHARACTERS: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One typed Envoy message. `holder` is the object that contains it; `merged`: a patch merges it into another."""

    value: Value
    holder: Document
    merged: bool = False


@dataclass(frozen=True, eq=False)
class Installation:
    """The input of the checks. `now` is in seconds since the epoch.

    Frequent lookups are indexed on first use, because a cluster has thousands of objects.
    """

    documents: tuple[Document, ...]
    authorizers: tuple[Authorizer, ...]
    envoy: tuple[tuple[Document, Value], ...]
    """Envoy configurations, with the objects that contain them."""
    meshes: tuple[Value, ...]
    """Istio's mesh configurations."""
    now: float
    administrators: tuple[Authorizer, ...] = ()
    memo: dict[object, Any] = field(default_factory=dict, repr=False)
    """Cached results: see `cached`."""

    @property
    def processes(self) -> tuple[Authorizer, ...]:
        """Every zta-authz: decision points and administrators."""
        return (*self.authorizers, *self.administrators)

    @cached_property
    def _by_kind(self) -> dict[str, list[Document]]:
        by_kind: dict[str, list[Document]] = {}
        for document in self.documents:
            by_kind.setdefault(document.kind, []).append(document)
        return by_kind

    @cached_property
    def _by_namespace(self) -> dict[tuple[str, str], list[Document]]:
        by_namespace: dict[tuple[str, str], list[Document]] = {}
        for document in self.documents:
            by_namespace.setdefault((document.kind, document.namespace), []).append(document)
        return by_namespace

    def of_kind(self, *kinds: str) -> list[Document]:
        """Return the objects of these kinds."""
        return [document for kind in kinds for document in self._by_kind.get(kind, ())]

    def of_kind_in(self, kind: str, namespaces: Iterable[str]) -> list[Document]:
        """Return the objects of a kind in these namespaces."""
        return [
            document for namespace in sorted(namespaces) for document in self._by_namespace.get((kind, namespace), ())
        ]

    def named(self, kind: str, name: str, namespace: str = "") -> Document | None:
        """Return one object; None if it does not exist."""
        return next((document for document in self.of_kind_in(kind, [namespace]) if document.name == name), None)

    @cached_property
    def pods(self) -> list[tuple[Document, Value]]:
        """The workloads with their pod templates."""
        return list(pods_of(self.documents))

    @cached_property
    def containers(self) -> list[tuple[Document, Value, Value]]:
        """The containers with their workloads and pod templates."""
        return [(document, pod, container) for document, pod in self.pods for container in containers_of(pod)]

    @cached_property
    def _messages(self) -> dict[str, list[Message]]:
        messages: dict[str, list[Message]] = {}

        def add(value: Value | None, holder: Document, merged: bool) -> None:
            for node in () if value is None else value.below():
                messages.setdefault(node.text("@type"), []).append(Message(node, holder, merged))

        for document in self.of_kind("EnvoyFilter"):
            for patch in document.root.items("spec", "configPatches"):
                add(patch.get("patch", "value"), document, patch.text("patch", "operation") == "MERGE")
        for document, value in self.envoy:
            add(value, document, False)
        return messages

    def messages(self, type_url: str) -> list[Message]:
        """Return the messages of a type, in patches of EnvoyFilters and in Envoy configurations."""
        return self._messages.get(type_url, [])

    @cached_property
    def injected_namespaces(self) -> list[Document]:
        """The namespaces where Istio injects sidecars."""
        return [
            namespace
            for namespace in self.of_kind("Namespace")
            if namespace.labels.get("istio-injection") == "enabled" or "istio.io/rev" in namespace.labels
        ]

    @cached_property
    def root_namespaces(self) -> set[str]:
        """The namespaces whose policies apply to every workload."""
        return {authorizer.settings.root_namespace for authorizer in self.authorizers} or {"istio-system"}

    @cached_property
    def workloads(self) -> dict[str, list[tuple[Document, Value]]]:
        """The workloads with their pod templates, by namespace."""
        by_namespace: dict[str, list[tuple[Document, Value]]] = {}
        for document, pod in self.pods:
            by_namespace.setdefault(document.namespace, []).append((document, pod))
        return by_namespace


def cached(function: Callable[[Installation], _T]) -> Callable[[Installation], _T]:
    """Cache the result of `function` in the installation."""

    @wraps(function)
    def remembered(installation: Installation) -> _T:
        if function not in installation.memo:
            installation.memo[function] = function(installation)
        answer: _T = installation.memo[function]
        return answer

    return remembered


def pod_labels(pod: Value) -> dict[str, str]:
    """Return the labels of a pod template."""
    return {key: value.text() for key, value in pod.fields("metadata", "labels").items()}


def selects(document: Document, pod: Value, *path: str) -> bool:
    """Return whether the selector at `path` of `document` selects the pod."""
    return matches(document.root.get(*path), pod_labels(pod))


def load_installation(paths: Sequence[str], given: Overrides, now: float) -> Installation:
    """Load the installation at `paths`. Raises `FaultsError` with everything unreadable or refused by `serve`."""
    faults: list[Fault] = []
    texts = read_texts(paths, faults)
    documents = read_documents(texts, faults)
    if faults:
        raise FaultsError(faults)
    lines = {text.source: text.text.split("\n") for text in texts}
    processes = AuthorizerReader(documents, lines, given, faults).read()
    authorizers = tuple(process for process in processes if not process.administers)
    administrators = tuple(process for process in processes if process.administers)
    envoy = [(document, document.root) for document in documents if document.kind == ENVOY_CONFIG]
    envoy += _written_in(documents, lines, faults, _holds_envoy)
    meshes = [document.root.get("meshConfig") for document in documents if document.kind == MESH_VALUES]
    meshes += [document.root.get("spec", "meshConfig") for document in documents if document.kind == "IstioOperator"]
    meshes += [value for _, value in _written_in(documents, lines, faults, lambda key, _: key == "mesh")]
    if faults:
        raise FaultsError(dict.fromkeys(faults))
    known = tuple(mesh for mesh in meshes if mesh is not None)
    return Installation(tuple(documents), authorizers, tuple(envoy), known, now, administrators)


def _holds_envoy(key: str, text: str) -> bool:
    return any(mark in text for mark in _ENVOY_MARKS) and key.lower().endswith(SUFFIXES)


def _written_in(
    documents: Sequence[Document],
    lines: dict[str, list[str]],
    faults: list[Fault],
    selects_text: Callable[[str, str], bool],
) -> list[tuple[Document, Value]]:
    """Return the YAML documents in ConfigMaps for whose key and text `selects_text` is true."""
    values: list[tuple[Document, Value]] = []
    read = 0
    embedded_texts = EmbeddedTexts()
    for document in (document for document in documents if document.kind == "ConfigMap" and not document.group):
        for key, value in document.root.fields("data").items():
            text = value.text()
            if not selects_text(key, text):
                continue
            read += len(text)
            if read > _MAX_INNER_CHARACTERS:
                limit = f"more than {_MAX_INNER_CHARACTERS // 1_048_576} MiB of configurations in ConfigMaps"
                faults.append(
                    Fault(value.source, value.location.line, 1, limit, "name only the files of the installation")
                )
                return []
            embedded = embedded_texts.add(embedded_text(document, key, value, lines))
            wrong: list[Fault] = []
            owner = f'{document.root.owner}: data["{key}"]'
            values += [
                (document, Value(embedded.shown_source, owner, "", node, embedded.shift))
                for node in iter_documents(embedded.name, embedded.text, wrong)
                if isinstance(node, Mapping)
            ]
            faults += embedded_texts.faults(wrong)
    return values
