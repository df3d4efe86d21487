"""The models of facts in one snapshot, and which of them select a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault
from zta_authz.model.changed_headers import TRUST_HEADERS
from zta_authz.policy.rules.fact_reader import NO_MODEL_TABLE, FactModels
from zta_authz.trust.compile import compile_trust_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.model.documents import Selector
    from zta_authz.model.options import Options, Workload
    from zta_authz.model.trust_documents import TrustModelSpec
    from zta_authz.policy.documents.spec import DocumentSet
    from zta_authz.policy.rules.fact_reader import ModelTable
    from zta_authz.trust.assessment import CompiledTrustModel

MAX_SELECTIONS: Final = 1024
_Key = tuple[str, tuple[tuple[str, str], ...]]


class CompiledModels:
    """All models of one snapshot. The models of each workload are selected once and kept, within a bound."""

    def __init__(self, trust: Sequence[tuple[Selector, CompiledTrustModel]], options: Options) -> None:
        self._trust = tuple(trust)
        self._root = options.root_namespace
        self._selected: dict[_Key, FactModels] = {}

    @property
    def output_headers(self) -> frozenset[str]:
        """The headers about trust, if any workload has a trust model."""
        return frozenset(TRUST_HEADERS) if self._trust else frozenset()

    @property
    def trust_models(self) -> tuple[CompiledTrustModel, ...]:
        """Every trust model, in the order of the documents."""
        return tuple(model for _, model in self._trust)

    def select(self, workload: Workload) -> FactModels:
        """The models that select `workload`: of several, the most specific."""
        key = (workload.namespace, tuple(sorted(workload.labels.items())))
        models = self._selected.get(key)
        if models is None:
            if len(self._selected) >= MAX_SELECTIONS:
                self._selected = {}
            models = self._selected[key] = FactModels(trust=self._select_trust(workload))
        return models

    def _select_trust(self, workload: Workload) -> CompiledTrustModel | None:
        fitting = [
            (specificity(selector, self._root), model)
            for selector, model in self._trust
            if selector.selects(workload.namespace, workload.labels, self._root)
        ]
        return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def specificity(selector: Selector, root: str) -> tuple[bool, int]:
    """Orders selectors: a namespace's own before the root namespace's, more labels before fewer."""
    return selector.namespace != root, len(selector.labels)


def compile_models(documents: DocumentSet, options: Options, faults: list[Fault]) -> ModelTable:
    """Every model of `documents`. What is wrong goes to `faults`."""
    _refuse_equal_selectors(documents.trust_models, faults)
    trust = [(spec.selector, compile_trust_model(spec, faults)) for spec in documents.trust_models]
    return CompiledModels(trust, options) if trust else NO_MODEL_TABLE


def _refuse_equal_selectors(specs: Sequence[TrustModelSpec], faults: list[Fault]) -> None:
    """Note models of which neither is more specific: which one would apply must not hang on the order of files."""
    for number, spec in enumerate(specs):
        for earlier in specs[:number]:
            if _may_tie(spec.selector, earlier.selector):
                at = spec.position
                message = f"TrustModel `{spec.full_name}` and `{earlier.full_name}` may select the same workload"
                hint = "give one of them more labels, or remove it: the more specific one applies"
                faults.append(Fault(at.source, at.line, at.column, message, hint))
                break


def _may_tie(one: Selector, other: Selector) -> bool:
    if one.namespace != other.namespace or len(one.labels) != len(other.labels):
        return False
    return all(other.labels.get(name, value) == value for name, value in one.labels.items())
