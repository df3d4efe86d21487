"""The rules and keys in force, compiled together from one set of documents and swapped as one reference."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zta_authz.authn.verify import compile_verifier
from zta_authz.errors import DocumentErrors, Fault, quoted
from zta_authz.model.guarded_names import GuardedNames
from zta_authz.model.pace import no_pause
from zta_authz.policy.compile import TableCompiler
from zta_authz.policy.documents.reader import read_all
from zta_authz.policy.documents.scope import ScopeCheck
from zta_authz.policy.rules.fact_reader import NO_MODEL_TABLE
from zta_authz.policy.workloads import WorkloadResolver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.model.options import Options
    from zta_authz.model.pace import Pause
    from zta_authz.policy.rules.fact_reader import ModelTable
    from zta_authz.policy.rules.table import RuleTable


@dataclass(frozen=True, slots=True)
class SourceText:
    """One policy file as read: `name` is what faults call it, `text` its content."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable. `digest` is SHA-256 (hex) over the options and the sources' texts; `sources` are their names.

    `guarded_names` are the headers that no client may send, because tokens or policies set them.
    `warnings` are faults that do not keep the documents from being taken; `notes` say what was skipped, and why.
    """

    table: RuleTable
    verifier: IdentityVerifier
    options: Options
    workloads: WorkloadResolver
    digest: str
    sources: tuple[str, ...]
    guarded_names: GuardedNames
    warnings: tuple[Fault, ...] = ()
    notes: tuple[Fault, ...] = ()
    models: ModelTable = NO_MODEL_TABLE


def compile_snapshot(
    sources: Iterable[SourceText], options: Options, pause: Pause = no_pause, notes: Iterable[Fault] = ()
) -> Snapshot:
    """Compile all documents into one snapshot, or raise `DocumentErrors` with every fault of every file.

    `pause` is called between pieces of the work, for whoever compiles beside deciding. `notes` say what was skipped
    when the sources were read.
    """
    texts = list(sources)
    faults: list[Fault] = []
    warnings: list[Fault] = []
    compiler = TableCompiler(options, warnings, pause)
    namespace = options.workload.namespace
    scope = ScopeCheck(options.root_documents, options.root_namespace, warnings)
    documents = read_all(((s.name, s.text) for s in texts), namespace, faults, warnings, compiler.add, scope)
    verifier = compile_verifier(
        documents.authentications,
        documents.bundles,
        options,
        faults,
        revocations=documents.revocations,
        issuer_policies=documents.issuer_policies,
        api_keys=documents.api_keys,
        warnings=warnings,
    )
    if faults:
        raise DocumentErrors(faults)
    table = compiler.table()
    names = tuple(source.name for source in texts)
    resolver = WorkloadResolver(options)
    digest = sources_digest(texts, options)
    told = (*notes, *documents.notes, *_idle(table))
    guarded = GuardedNames(verifier.strip_headers | table.output_headers, verifier.read_headers)
    return Snapshot(table, verifier, options, resolver, digest, names, guarded, tuple(warnings), told)


def _idle(table: RuleTable) -> list[Fault]:
    """What to tell of policies that select no workload of the settings."""
    idle = table.unselected_policies()
    if not idle:
        return []
    at, options = idle[0].ref.position, table.options
    labels = ", ".join(f"{name}={value}" for name, value in sorted(options.workload.labels.items())) or "no labels"
    named = f"namespace `{options.workload.namespace}`, {labels}"
    whose = "those of `workloads`" if options.workloads else named
    names = quoted(policy.ref.name for policy in idle)
    told = f"{len(idle)} of {len(table.policies)} policies select no workload of the settings ({whose})"
    hint = "say whose requests these are: `workload` or `workloads`"
    return [Fault(at.source, at.line, at.column, f"{told} and decide nothing: {names}", hint)]


def sources_digest(sources: Iterable[SourceText], options: Options) -> str:
    """What `Snapshot.digest` is for these sources; two sets with the same digest decide the same."""
    digest = hashlib.sha256()
    for part in (repr(options), *(text for s in sources for text in (s.name, s.text))):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()
