"""Read every YAML document of every source; ConfigMaps and Lists are unwrapped.

Nothing is skipped silently: a document of another application gives a note, a misspelled kind a fault, and a policy
that is not enforced here a warning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault
from zta_authz.policy.documents.access_entitlement import read_access_entitlement, read_access_grant
from zta_authz.policy.documents.access_policy import read_access_policy
from zta_authz.policy.documents.authentication import read_request_authentication, read_trust_bundle
from zta_authz.policy.documents.authorization_policy import read_authorization_policy
from zta_authz.policy.documents.credentials import read_api_key_set, read_issuer_policy
from zta_authz.policy.documents.device_inventory import read_device_inventory
from zta_authz.policy.documents.foreign import HeadingFault, check_unknown_kind, is_foreign, may_hold_documents
from zta_authz.policy.documents.resource_classification import read_resource_classification
from zta_authz.policy.documents.revocation_list import read_revocation_list
from zta_authz.policy.documents.signal_source import read_signal_source
from zta_authz.policy.documents.spec import DRY_RUN_ANNOTATION, ISTIO_VERSIONS, ZTA_VERSION, DocumentHeader, DocumentSet
from zta_authz.policy.documents.trust_model import read_trust_model
from zta_authz.policy.yaml.fields import Reader, entries, with_article
from zta_authz.policy.yaml.nodes import Mapping, Node, Scalar, iter_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zta_authz.model.documents import Position
    from zta_authz.policy.documents.scope import ScopeCheck
    from zta_authz.policy.documents.spec import PolicySpec

_MAX_WRAPPING: Final = 3
_TOP_FIELDS: Final = ("apiVersion", "kind", "metadata", "spec", "status")
# Includes the fields that the Kubernetes API server adds.
_METADATA_FIELDS: Final = (
    "name", "namespace", "labels", "annotations", "generateName", "uid", "resourceVersion", "generation",
    "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers",
    "managedFields", "selfLink",
)  # fmt: skip

KINDS: dict[tuple[str, str], Callable[[DocumentHeader, DocumentSet, list[Fault]], None]] = {
    **{(version, "AuthorizationPolicy"): read_authorization_policy for version in ISTIO_VERSIONS},
    **{(version, "RequestAuthentication"): read_request_authentication for version in ISTIO_VERSIONS},
    (ZTA_VERSION, "AccessPolicy"): read_access_policy,
    (ZTA_VERSION, "TrustBundle"): read_trust_bundle,
    (ZTA_VERSION, "RevocationList"): read_revocation_list,
    (ZTA_VERSION, "IssuerPolicy"): read_issuer_policy,
    (ZTA_VERSION, "ApiKeySet"): read_api_key_set,
    (ZTA_VERSION, "TrustModel"): read_trust_model,
    (ZTA_VERSION, "DeviceInventory"): read_device_inventory,
    (ZTA_VERSION, "ResourceClassification"): read_resource_classification,
    (ZTA_VERSION, "AccessEntitlement"): read_access_entitlement,
    (ZTA_VERSION, "AccessGrant"): read_access_grant,
    (ZTA_VERSION, "SignalSource"): read_signal_source,
}


class DocumentReader:
    """Collects the documents of many sources. A set with `faults` is rejected; `warnings` don't reject it."""

    def __init__(
        self,
        default_namespace: str,
        faults: list[Fault],
        warnings: list[Fault],
        on_policy: Callable[[PolicySpec], None],
        scope: ScopeCheck | None = None,
    ) -> None:
        """`scope` checks which documents may apply to every workload; without it all may."""
        self._scope = scope
        self._may_be_root = True
        self.documents = DocumentSet()
        self._on_policy = on_policy
        self._default_namespace = default_namespace
        self._faults = faults
        self._warnings = warnings
        self._seen: dict[tuple[str, str, str], Position] = {}

    def read(self, source: str, text: str) -> None:
        """Read every document of one source. A source without documents is a fault."""
        before, count = len(self._faults), 0
        self._may_be_root = self._scope is None or self._scope.allows(source)
        for node in iter_documents(source, text, self._faults):
            self._read_document(Reader(source, self._faults), node, text, 0)
            count += 1
        if count == 0 and len(self._faults) == before:
            message = "the file has no documents"
            self._faults.append(Fault(source, 1, 1, message, "add a policy or remove the file"))

    def _read_document(self, reader: Reader, node: Node, text: str, depth: int) -> None:
        if not isinstance(node, Mapping):
            reader.fault(
                node, f"a document is a mapping, not {with_article(node.kind)}", "start with `apiVersion:` and `kind:`"
            )
            return
        version = self._heading(reader, node, "apiVersion")
        kind = self._heading(reader, node, "kind")
        if version is None or kind is None:
            return
        if version == "v1" and kind in ("ConfigMap", "List"):
            if depth >= _MAX_WRAPPING:
                reader.fault(node, f"{kind} inside {kind} is nested deeper than {_MAX_WRAPPING} levels", "unwrap it")
            elif kind == "ConfigMap":
                self._read_config_map(reader, node, text, depth)
            else:
                self._read_list(reader, node, text, depth)
            return
        read = KINDS.get((version, kind))
        if read is None:
            self._unknown_kind(reader, node, version, kind)
            return
        header = self._header(reader, node, version, kind)
        if header is not None:
            self._check_dry_run(header)
            if self._scope is not None:
                self._scope.check(header, allowed=self._may_be_root)
            read(header, self.documents, self._warnings)
            while self.documents.policies:  # handed over at once, so that the nodes of a large set are freed
                self._on_policy(self.documents.policies.pop())

    @staticmethod
    def _check_dry_run(header: DocumentHeader) -> None:
        """Report Istio's dry-run annotation on a kind that would be enforced despite it."""
        if header.version == ZTA_VERSION and DRY_RUN_ANNOTATION in header.annotations:
            hint = "remove it; for a trial use action AUDIT, an AuthorizationPolicy, or shadow policies"
            at = header.annotation(DRY_RUN_ANNOTATION)
            header.reader.fault(
                at, f"a {header.kind} does not support `{DRY_RUN_ANNOTATION}`: it would be enforced", hint
            )

    @staticmethod
    def _heading(reader: Reader, node: Mapping, field: str) -> str | None:
        value = reader.required(node, field, "the document")
        return None if value is None else reader.string(value, field)

    def _unknown_kind(self, reader: Reader, node: Mapping, version: str, kind: str) -> None:
        result = check_unknown_kind(version, kind, (*KINDS, ("v1", "ConfigMap")))
        if isinstance(result, HeadingFault):
            reader.fault(node.get(result.field) or node, result.message, result.hint)
            return
        self._note(reader, node, f"{kind} (apiVersion `{version}`)", f": {result}")

    def _note(self, reader: Reader, node: Node, subject: str, why: str = "") -> None:
        """Note that `subject` is skipped."""
        at = reader.position(node)
        self.documents.notes.append(Fault(at.source, at.line, at.column, f"{subject} is not read{why}"))

    def _header(self, reader: Reader, node: Mapping, version: str, kind: str) -> DocumentHeader | None:
        reader.mapping(node, kind, _TOP_FIELDS)
        metadata = reader.required(node, "metadata", kind)
        spec = reader.required(node, "spec", kind)
        if metadata is None or spec is None:
            return None
        if not isinstance(spec, Mapping):
            reader.fault(
                spec, f"`spec` is {with_article(spec.kind)}, not a mapping", "write the fields below it, or `spec: {}`"
            )
            return None
        name, namespace, annotations = self._metadata(reader, metadata)
        if name is None:
            return None
        self._check_duplicate(reader, metadata, kind, namespace, name)
        return DocumentHeader(version, kind, name, namespace, annotations, node, spec, reader)

    def _metadata(self, reader: Reader, node: Node) -> tuple[str | None, str, dict[str, str]]:
        metadata = reader.mapping(node, "metadata", _METADATA_FIELDS)
        if metadata is None:
            return None, "", {}
        name_node = reader.required(metadata, "name", "metadata")
        name = None if name_node is None else reader.string(name_node, "metadata.name")
        if name is not None and "/" in name:
            reader.fault(metadata, f"`metadata.name` `{name}` has a `/`", "use a Kubernetes object name")
        namespace_node = metadata.get("namespace")
        namespace: str | None = self._default_namespace
        if namespace_node is not None and not _is_null(namespace_node):
            namespace = reader.string(namespace_node, "metadata.namespace")
        for field in ("labels", "annotations"):
            value = metadata.get(field)
            if value is not None and not _is_null(value):
                reader.string_map(value, f"metadata.{field}")
        annotations_node = metadata.get("annotations")
        annotations: dict[str, str] = {}
        if isinstance(annotations_node, Mapping):
            annotations = {k: v.value for k, v in entries(annotations_node) if isinstance(v, Scalar)}
        return name, namespace or "", annotations

    def _check_duplicate(self, reader: Reader, node: Node, kind: str, namespace: str, name: str) -> None:
        key = (kind, namespace, name)
        at = reader.position(node.get("name") or node) if isinstance(node, Mapping) else reader.position(node)
        first = self._seen.setdefault(key, at)
        if first is not at:
            message = f"duplicate {kind} `{namespace}/{name}` (first at {first.source}:{first.line})"
            self._faults.append(Fault(at.source, at.line, at.column, message, "rename or remove one of the two"))

    def _read_list(self, reader: Reader, node: Mapping, text: str, depth: int) -> None:
        reader.mapping(node, "List", ("apiVersion", "kind", "metadata", "items"))
        items = reader.required(node, "items", "List")
        if items is not None:
            for item in reader.items(items, "items", "documents"):
                self._read_document(reader, item, text, depth + 1)

    def _read_config_map(self, reader: Reader, node: Mapping, text: str, depth: int) -> None:
        reader.mapping(node, "ConfigMap", ("apiVersion", "kind", "metadata", "data", "binaryData", "immutable"))
        binary = node.get("binaryData")
        if binary is not None:
            reader.fault(binary, "`binaryData` can't contain policies", "move them to `data`")
        data = reader.required(node, "data", "ConfigMap")
        if data is None:
            return
        if not isinstance(data, Mapping) or not data.entries:
            reader.fault(data, "`data` has no policies", "add a key whose value is a policy document")
            return
        for key, value in entries(data):
            inner = reader.string(value, f"data.{key}")
            if inner is not None:
                self._read_value(reader, key, value, inner, text, depth)

    def _read_value(self, reader: Reader, key: str, value: Node, inner: str, text: str, depth: int) -> None:
        """Read the documents in one value of a ConfigMap, with positions in the file if the value is a block text."""
        at = reader.position(value)
        indent = _block_indent(text, at) if depth == 0 else None
        source = reader.source if indent is not None else f"{reader.source}[{key}]"
        line_shift, column_shift = (at.line, indent) if indent is not None else (0, 0)
        inner_faults: list[Fault] = []
        count = 0
        for node in iter_documents(source, inner, inner_faults):
            count += 1
            if is_foreign(node):
                self._note(reader, value, f"`data.{key}`, which is not a policy document,")
                continue
            self._read_document(Reader(source, self._faults, line_shift, column_shift), node, inner, depth + 1)
        if count == 0 and inner_faults and not may_hold_documents(key, inner):
            self._note(reader, value, f"`data.{key}`, which is not YAML,")
            return
        if count == 0 and not inner_faults:
            reader.fault(value, f"`data.{key}` has no documents", "add a policy or remove the key")
        self._faults += [
            Fault(fault.source, fault.line + line_shift, fault.column + column_shift, fault.message, fault.hint)
            for fault in inner_faults
        ]


def _is_null(node: Node) -> bool:
    """Whether a field has no value, which Kubernetes treats as absent."""
    return isinstance(node, Scalar) and node.kind == "null"


def _block_indent(text: str, at: Position) -> int | None:
    """The indentation of a literal block whose `|` is at `at`; None for every other style."""
    lines = text.split("\n", at.line + 64)
    if not lines[at.line - 1][at.column - 1 :].startswith("|"):
        return None
    for line in lines[at.line :]:
        if line.strip():
            return len(line) - len(line.lstrip(" "))
    return None


def read_all(
    sources: Iterable[tuple[str, str]],
    default_namespace: str,
    faults: list[Fault],
    warnings: list[Fault],
    on_policy: Callable[[PolicySpec], None],
    scope: ScopeCheck | None = None,
) -> DocumentSet:
    """Read the documents of all (name, text) sources. All errors are appended to `faults`.

    Each authorization policy is passed to `on_policy` as soon as it is read; the result has all other documents.
    """
    reader = DocumentReader(default_namespace, faults, warnings, on_policy, scope)
    for name, text in sources:
        reader.read(name, text)
    return reader.documents
