"""Which documents may apply to every workload."""

from __future__ import annotations

import os.path

from zta_authz.model.options import DocumentScope
from zta_authz.settings.values import Section, Text


class RootDocumentsSettings(Section):
    """Which namespaces and files may contain documents that apply to every workload; null: not restricted here.

    `namespaces` are those of TrustBundle, RevocationList, IssuerPolicy, ApiKeySet and SignalSource documents; `*` is
    any. `paths` are files and directories of `policies`; documents in the root namespace must come from them too.
    """

    namespaces: tuple[Text, ...] | None = None
    paths: tuple[Text, ...] | None = None

    def scope(self, policies: tuple[str, ...], root_namespace: str) -> DocumentScope:
        """Return the resulting scope.

        If neither is set, all documents of a single source are allowed, and of several sources those in the
        root namespace.
        """
        if self.namespaces is None and self.paths is None:
            return DocumentScope(chosen=False) if len(policies) == 1 else DocumentScope(namespaces=(root_namespace,))
        named = None if self.namespaces is None or "*" in self.namespaces else self.namespaces
        paths = None if self.paths is None else tuple(map(os.path.normpath, self.paths))
        return DocumentScope(named, paths)
