"""A snapshot: rules and keys compiled from one set of documents, and replaced as one reference."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zta_authz.authn.verify import compile_verifier
from zta_authz.errors import DocumentErrors, Fault, quoted
from zta_authz.model.changed_headers import GuardedNames
from zta_authz.model.options import ADMINISTRATOR_APPS
from zta_authz.model.pace import no_pause
from zta_authz.pdp.models import compile_models
from zta_authz.policy.compile import TableCompiler
from zta_authz.policy.documents.reader import read_all
from zta_authz.policy.documents.scope import ScopeCheck
from zta_authz.policy.documents.signal_source import check_signal_sources
from zta_authz.policy.entitlements import bind_grant_clauses, compile_entitlements
from zta_authz.policy.rules.require_authentication import compile_acr_levels
from zta_authz.policy.workloads import WorkloadResolver

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.model.options import Options
    from zta_authz.model.pace import Pause
    from zta_authz.model.signal_documents import SignalSource
    from zta_authz.policy.entitlements import CompiledEntitlement
    from zta_authz.policy.rules.fact_reader import ModelTable
    from zta_authz.policy.rules.table import CompiledPolicy, RuleTable


@dataclass(frozen=True, slots=True)
class SourceText:
    """The text of one policy file, and the name that faults use for it."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The compiled rules and keys; immutable.

    `digest` is the SHA-256 (hex) of the options and the sources' texts; `sources` are their names.
    `guarded_names` are the headers that no client may send, because tokens or policies set them.
    `warnings` are faults that do not prevent loading; `notes` describe what was skipped, and why.
    """

    table: RuleTable
    verifier: IdentityVerifier
    options: Options
    workloads: WorkloadResolver
    digest: str
    sources: tuple[str, ...]
    guarded_names: GuardedNames
    warnings: tuple[Fault, ...]
    notes: tuple[Fault, ...]
    models: ModelTable
    entitlements: Mapping[str, CompiledEntitlement] = field(default_factory=dict)
    signal_sources: tuple[SignalSource, ...] = ()


def compile_snapshot(
    sources: Iterable[SourceText], options: Options, pause: Pause = no_pause, notes: Iterable[Fault] = ()
) -> Snapshot:
    """Compile all documents into one snapshot, or raise `DocumentErrors` with every fault of every file.

    `pause` is called between pieces of work, so that decisions can run in between. `notes` describe what was skipped
    when the sources were read.
    """
    texts = list(sources)
    faults: list[Fault] = []
    warnings: list[Fault] = []
    compiler = TableCompiler(options, warnings, pause)
    namespace = options.document_namespace or options.workload.namespace
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
    models = compile_models(documents, options, faults, compiler.rules_of)
    entitlements = compile_entitlements(documents, compiler.rules_of, options.root_namespace, faults)
    bind_grant_clauses(compiler.rules, entitlements, faults)
    check_signal_sources(documents, faults, warnings)
    if faults:
        raise DocumentErrors(faults)
    table = compiler.table(compile_acr_levels(documents.issuer_policies))
    names = tuple(source.name for source in texts)
    resolver = WorkloadResolver(options)
    digest = sources_digest(texts, options)
    all_notes = (*notes, *documents.notes, *_idle_policy_notes(table))
    guarded = GuardedNames(verifier.strip_headers | table.output_headers | models.output_headers, verifier.read_headers)
    return Snapshot(
        table, verifier, options, resolver, digest, names, guarded, tuple(warnings), all_notes, models, entitlements,
        tuple(documents.signal_sources),
    )  # fmt: skip


def _idle_policy_notes(table: RuleTable) -> list[Fault]:
    """A note on policies that select no workload of the settings, or on the lack of one for the administrator."""
    options = table.options
    labels = ", ".join(f"{name}={value}" for name, value in sorted(options.workload.labels.items())) or "no labels"
    default_workload = f"namespace `{options.workload.namespace}`, {labels}"
    if options.allow_by_selector:
        message = f"no ALLOW policy selects the administrator ({default_workload}), so nobody may call it"
        hint = "add an AccessPolicy with that namespace and selector"
        return [] if table.default_view.has_allow else [Fault("policies", 0, 0, message, hint)]
    idle = [policy for policy in table.unselected_policies() if not _is_for_administrator(policy, options)]
    if not idle:
        return []
    at = idle[0].ref.position
    workloads = "those of `workloads`" if options.workloads else default_workload
    names = quoted(policy.ref.name for policy in idle)
    summary = f"{len(idle)} of {len(table.policies)} policies select no workload of the settings ({workloads})"
    hint = "set `workload` or `workloads` in the settings"
    return [Fault(at.source, at.line, at.column, f"{summary} and decide nothing: {names}", hint)]


def _is_for_administrator(policy: CompiledPolicy, options: Options) -> bool:
    selector = policy.selector
    return selector.namespace == options.root_namespace and selector.labels.get("app") in ADMINISTRATOR_APPS


def sources_digest(sources: Iterable[SourceText], options: Options) -> str:
    """Compute `Snapshot.digest`. Two sets with the same digest decide the same."""
    digest = hashlib.sha256()
    for part in (repr(options), *(text for s in sources for text in (s.name, s.text))):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()
