"""Read files, directories and standard input into documents. Anything unreadable is a fault; nothing is skipped."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.cli.command_inputs import STDIN, as_text, read_small_file
from zta_authz.cli.compliance.values import Document, Value
from zta_authz.errors import Fault
from zta_authz.policy.yaml.fields import with_article
from zta_authz.policy.yaml.nodes import Mapping, Node, Sequence, iter_documents
from zta_authz.policy_sources.files import MAX_FILE_BYTES, read_sources
from zta_authz.policy_sources.walk import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_FILES: Final = 4096
MAX_TOTAL_CHARACTERS: Final = 64 * 1024 * 1024
MAX_DOCUMENTS: Final = 20_000
_MAX_LISTS: Final = 3
STDIN_NAME: Final = "<stdin>"
MESH_VALUES: Final = "MeshConfigValues"
"""The kind that is assigned to values of istiod's Helm chart: documents with `meshConfig` and no kind."""
ENVOY_CONFIG: Final = "EnvoyConfig"
"""The kind that is assigned to Envoy configurations."""
_KUSTOMIZATIONS: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_ORIGIN: Final = re.compile(r"^(?:path|configuredIn): (\S+)$", re.MULTILINE)
"""The file from which kustomize took an object (`buildMetadata: [originAnnotations]`)."""
_RENDER: Final = "render one first: `kubectl kustomize {} | zta-authz compliance -`"


@dataclass(frozen=True, slots=True)
class Text:
    """The content of one file."""

    source: str
    text: str


def read_texts(paths: Iterable[str], faults: list[Fault]) -> list[Text]:
    """Read the manifest files at `paths`: `-` is standard input, directories are read recursively without links."""
    texts: list[Text] = []
    total = 0
    for path in paths:
        if path == STDIN:
            read = [
                Text(STDIN_NAME, as_text(STDIN_NAME, read_small_file(path, "give a smaller input", MAX_FILE_BYTES)))
            ]
        else:
            names = _files_of(path, faults)
            read = [Text(source.name, source.text) for source in read_sources(names, faults)]
        total += sum(len(text.text) for text in read)
        texts += read
        if total > MAX_TOTAL_CHARACTERS or len(texts) > MAX_FILES:
            limit = f"{MAX_FILES} files and {MAX_TOTAL_CHARACTERS // 1_048_576} MiB"
            faults.append(
                Fault(path, 0, 0, f"the input has more than {limit}", "name only the files of the installation")
            )
            return []
    return texts


def _files_of(path: str, faults: list[Fault]) -> list[str]:
    if not os.path.isdir(path):
        if not os.path.lexists(path):
            faults.append(
                Fault(path, 0, 0, "there is no such file or directory", "name manifests, or use `-` for standard input")
            )
            return []
        return [path]
    files: list[str] = []
    sources: list[str] = []
    failed: list[OSError] = []
    for folder, below, names in os.walk(path, onerror=failed.append):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if any(name in _KUSTOMIZATIONS for name in names):
            sources.append(folder)
        shown = (name for name in sorted(names) if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        files += [os.path.join(folder, name) for name in shown]
        if len(files) > MAX_FILES:
            break
    faults += [Fault(str(error.filename), 0, 0, f"cannot be read: {error.strerror}", "") for error in failed]
    if sources:
        roots = sorted(sources, key=lambda folder: ("overlays" not in folder.split(os.sep), folder))
        message = f"contains kustomize sources ({len(sources)} kustomizations) instead of manifests"
        faults.append(Fault(path, 0, 0, message, _RENDER.format(roots[0])))
        return []
    if not files and not failed:
        faults.append(Fault(path, 0, 0, "the directory has no manifests", "add *.yaml, *.yml or *.json files"))
    return files


def read_documents(texts: Iterable[Text], faults: list[Fault]) -> list[Document]:
    """Parse all texts into objects and expand Lists."""
    documents: list[Document] = []
    for text in texts:
        before, known = len(documents), len(faults)
        for number, node in enumerate(iter_documents(text.source, text.text, faults)):
            documents += _objects(Value(text.source, f"document {number}", "", node), faults, 0)
            if len(documents) > MAX_DOCUMENTS:
                faults.append(Fault(text.source, node.line, node.column, f"more than {MAX_DOCUMENTS} objects", ""))
                return documents
        if len(documents) == before and len(faults) == known:
            faults.append(Fault(text.source, 1, 1, "the file has no manifest", "add one, or leave the file out"))
    _refuse_duplicates(documents, faults)
    return documents


def _objects(value: Value, faults: list[Fault], depth: int) -> list[Document]:
    """Return the object in `value`, or the items of a List."""
    node, version = value.node, value.text("apiVersion")
    wrong: tuple[Node, str, str] | None = None
    if not isinstance(node, Mapping):
        wrong = node, f"a manifest is a mapping, not {with_article(node.kind)}", "start with `apiVersion:` and `kind:`"
    elif _is_list(value):
        if depth < _MAX_LISTS:
            return [document for item in value.items("items") for document in _objects(item, faults, depth + 1)]
        wrong = node, f"lists are nested more than {_MAX_LISTS} levels deep", "flatten them"
    elif not value.text("kind") or not version:
        own = _without_kind(value)
        if own is not None:
            return [own]
        wrong = node, "`apiVersion` or `kind` is missing", "add both; render templates first"
    elif version.startswith("kustomize.config.k8s.io/"):
        wrong = node, "is a kustomize source, not a manifest", _RENDER.format("DIRECTORY")
    else:
        wrong = _wrong_section(node)
    if wrong is not None:
        at, message, hint = wrong
        faults.append(Fault(value.source, at.line, at.column, message, hint))
        return []
    return [_object(value, value.text("kind"), version)]


def _is_list(value: Value) -> bool:
    items = value.get("items")
    is_list = items is not None and isinstance(items.node, Sequence)
    return is_list and value.text("kind").endswith("List") and value.get("spec") is None


def _wrong_section(node: Mapping) -> tuple[Node, str, str] | None:
    for field in ("metadata", "spec", "data"):
        below = node.get(field)
        if below is not None and not isinstance(below, Mapping) and below.kind != "null":
            return below, f"`{field}` is {with_article(below.kind)}, not a mapping", "write a mapping of fields"
    return None


def _object(value: Value, kind: str, version: str) -> Document:
    namespace, name = value.text("metadata", "namespace"), value.text("metadata", "name")
    owner = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
    origin = _ORIGIN.search(value.text("metadata", "annotations", "config.kubernetes.io/origin"))
    owner += f" ({origin[1]})" if origin else ""
    group = version.rpartition("/")[0]
    return Document(Value(value.source, owner, "", value.node, value.shift), kind, group, namespace, name)


def _without_kind(value: Value) -> Document | None:
    """Recognize Helm values for istiod and Envoy configurations; None for anything else."""
    if value.get("meshConfig") is not None:
        return Document(Value(value.source, "Helm values", "", value.node), MESH_VALUES, "", "", "")
    if value.get("static_resources") is not None or value.get("admin") is not None:
        return Document(Value(value.source, "Envoy configuration", "", value.node), ENVOY_CONFIG, "", "", "")
    return None


def _refuse_duplicates(documents: list[Document], faults: list[Fault]) -> None:
    """Refuse a second object of the same name: the files do not show which of the two is applied."""
    seen: dict[tuple[str, str, str, str], Document] = {}
    for document in documents:
        if not document.name:
            continue
        first = seen.setdefault((document.group, document.kind, document.namespace, document.name), document)
        if first is not document:
            node, at = document.root.node, first.root.location
            message = f"duplicate {document.root.owner} (the first is at {at.source}:{at.line})"
            faults.append(Fault(document.root.source, node.line, node.column, message, "remove one of the two"))
