"""The models of facts in one snapshot, and which of them select a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import Fault
from zta_authz.model.changed_headers import TRUST_HEADERS
from zta_authz.policy.classification import CombinedClassification, CompiledClassification
from zta_authz.policy.rules.device_identity import InventoryDevices
from zta_authz.policy.rules.fact_reader import FactModels, ModelTable
from zta_authz.trust.compile import compile_trust_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.model.documents import Position, Selector
    from zta_authz.model.options import Options, Workload
    from zta_authz.policy.documents.spec import DocumentSet, PolicySpec
    from zta_authz.policy.rules.fact_reader import Classifier
    from zta_authz.policy.rules.rule import Rule
    from zta_authz.trust.assessment import CompiledTrustModel

MAX_SELECTIONS: Final = 1024
_Key = tuple[str, tuple[tuple[str, str], ...]]
_Model = TypeVar("_Model")


class CompiledModels(ModelTable):
    """All models of one snapshot. The models of each workload are selected once and kept, within a bound.

    `trust`, `devices` and `classifications` have every model with its selector, in the order of the documents.
    """

    def __init__(
        self,
        trust: Sequence[tuple[Selector, CompiledTrustModel]],
        devices: Sequence[tuple[Selector, InventoryDevices]],
        classifications: Sequence[tuple[Selector, CompiledClassification]],
        options: Options,
    ) -> None:
        super().__init__(options.workload)
        self.trust = tuple(trust)
        self.devices = tuple(devices)
        self.classifications = tuple(classifications)
        self._root = options.root_namespace
        self.is_empty = False
        self.output_headers = frozenset(TRUST_HEADERS if self.trust else ())
        self.inventories = tuple(inventory.inventory for _, inventory in self.devices)
        self._selected: BoundedCache[_Key, FactModels] = BoundedCache(MAX_SELECTIONS)

    @property
    def trust_models(self) -> tuple[CompiledTrustModel, ...]:
        """Every trust model, in the order of the documents."""
        return tuple(model for _, model in self.trust)

    def select(self, workload: Workload) -> FactModels:
        """The models that select `workload`: of several of a kind, the most specific."""
        key = (workload.namespace, tuple(sorted(workload.labels.items())))
        models = self._selected[key]
        if models is None:
            models = FactModels(
                self._most_specific(self.devices, workload),
                self._most_specific(self.trust, workload),
                self._classifier(workload),
            )
            self._selected.put(key, models)
        return models

    def _classifier(self, workload: Workload) -> Classifier | None:
        """All classifications that select `workload` count: a namespace's own cannot undo the root namespace's."""
        fitting = [
            model
            for selector, model in self.classifications
            if selector.selects(workload.namespace, workload.labels, self._root)
        ]
        return CombinedClassification(fitting) if len(fitting) > 1 else next(iter(fitting), None)

    def _most_specific(self, models: Sequence[tuple[Selector, _Model]], workload: Workload) -> _Model | None:
        fitting = [
            (specificity(selector, self._root), model)
            for selector, model in models
            if selector.selects(workload.namespace, workload.labels, self._root)
        ]
        return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def specificity(selector: Selector, root: str) -> tuple[bool, int]:
    """Orders selectors: a namespace's own before the root namespace's, more labels before fewer."""
    return selector.namespace != root, len(selector.labels)


def compile_models(
    documents: DocumentSet, options: Options, faults: list[Fault], rules_of: Callable[[PolicySpec], tuple[Rule, ...]]
) -> ModelTable:
    """Every model of `documents`; `rules_of` compiles the rules of classifications. Errors go to `faults`."""
    _refuse_ties("TrustModel", documents.trust_models, faults)
    _refuse_ties("DeviceInventory", documents.inventories, faults)
    trust = [(spec.selector, compile_trust_model(spec, faults)) for spec in documents.trust_models]
    devices = [(inventory.selector, InventoryDevices(inventory)) for inventory in documents.inventories]
    classes = [(spec.selector, CompiledClassification(spec, rules_of)) for spec in documents.classifications]
    if not (trust or devices or classes):
        return ModelTable(options.workload)
    return CompiledModels(trust, devices, classes, options)


class _Selected(Protocol):
    """A document that selects workloads."""

    @property
    def selector(self) -> Selector:
        """Which ones."""
        ...

    @property
    def position(self) -> Position:
        """Where it is."""
        ...

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        ...


def _refuse_ties(kind: str, documents: Sequence[_Selected], faults: list[Fault]) -> None:
    """Report documents of which neither is more specific: which one applies must not depend on the order of files."""
    for number, document in enumerate(documents):
        for earlier in documents[:number]:
            if _may_tie(document.selector, earlier.selector):
                at = document.position
                message = f"{kind} `{document.full_name}` and `{earlier.full_name}` may select the same workload"
                hint = "give one of them more labels, or remove it: the more specific one applies"
                faults.append(Fault(at.source, at.line, at.column, message, hint))
                break


def _may_tie(one: Selector, other: Selector) -> bool:
    if one.namespace != other.namespace or len(one.labels) != len(other.labels):
        return False
    return all(other.labels.get(name, value) == value for name, value in one.labels.items())
