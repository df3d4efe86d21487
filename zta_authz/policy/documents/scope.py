"""Check which files and namespaces may contain documents that apply to every workload.

Without this check, anyone who may write one policy file decides whom all workloads trust.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault
from zta_authz.policy.documents.spec import ZTA_VERSION
from zta_authz.policy.yaml.fields import with_article

if TYPE_CHECKING:
    from zta_authz.model.options import DocumentScope
    from zta_authz.policy.documents.spec import DocumentHeader

ROOT_KINDS: Final = frozenset(
    (ZTA_VERSION, kind) for kind in ("TrustBundle", "RevocationList", "IssuerPolicy", "ApiKeySet", "SignalSource")
)
"""Kinds that apply to every workload, whatever their namespace (an ApiKeySet: to the workloads of its namespace)."""


class ScopeCheck:
    """Checks documents against `scope`. Violations become faults; use of the default scope becomes a warning."""

    def __init__(self, scope: DocumentScope, root_namespace: str, warnings: list[Fault]) -> None:
        self._scope = scope
        self._root = root_namespace
        self._warnings = warnings
        self._warned = False

    def allows(self, source: str) -> bool:
        """Whether the file `source` may contain documents that apply to every workload."""
        paths = self._scope.paths
        return paths is None or any(path in ("/", source) or source.startswith(f"{path}/") for path in paths)

    def check(self, header: DocumentHeader, *, allowed: bool) -> None:
        """Report a document in a wrong file or namespace; `allowed` is the result of `allows` for its file."""
        rooted = (header.version, header.kind) in ROOT_KINDS
        if not allowed and (rooted or header.namespace == self._root):
            self._refuse_file(header, rooted=rooted)
        if not rooted:
            return
        named = self._scope.namespaces
        if named is not None and header.namespace not in named:
            self._refuse_namespace(header, named)
        elif not self._scope.chosen and header.namespace != self._root and not self._warned:
            self._warned = True
            self._warn(header)

    def _refuse_file(self, header: DocumentHeader, *, rooted: bool) -> None:
        what = f"{with_article(header.kind)}" if rooted else f"a document in the root namespace `{self._root}`"
        where = ", ".join(f"`{path}`" for path in self._scope.paths or ()) or "no file"
        header.reader.fault(
            header.document,
            f"{what} is not allowed in this file: it applies to every workload, "
            f"and `root_documents.paths` names {where}",
            "move it there, or list this file" if self._scope.paths else "list this file in `root_documents.paths`",
        )

    def _refuse_namespace(self, header: DocumentHeader, named: tuple[str, ...]) -> None:
        where = "only " + ", ".join(f"`{name}`" for name in named) if named else "no namespace"
        move = f"write `namespace: {named[0]}`, or add" if named else "add"
        header.reader.fault(
            header.document.get("metadata") or header.document,
            f"{with_article(header.kind)} is not allowed in namespace `{header.namespace}`: "
            f"it applies to every workload, and the settings allow {where}",
            f"{move} this namespace to `root_documents.namespaces`",
        )

    def _warn(self, header: DocumentHeader) -> None:
        at, name = header.reader.position(header.document), f"{header.kind} `{header.namespace}/{header.name}`"
        message = f"{name} applies to every workload, and is accepted because `policies` names only one source"
        hint = f"write `namespace: {self._root}`, or list the allowed namespaces and files in `root_documents`"
        self._warnings.append(Fault(at.source, at.line, at.column, message, hint))
