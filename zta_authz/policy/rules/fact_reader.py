"""What documents say about facts for one workload, and one request's facts, each read when a rule first asks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.model.decision import DecisionFacts
from zta_authz.model.facts import NO_DEVICE, NO_FACTS, NO_NETWORK_FACTS, DeviceFacts, FactViews, NetworkFacts

if TYPE_CHECKING:
    from zta_authz.model.access import GrantView
    from zta_authz.model.device_documents import DeviceInventory
    from zta_authz.model.facts import DeviceView
    from zta_authz.model.options import Workload
    from zta_authz.model.trust import ResourceClass, TrustAssessment
    from zta_authz.policy.rules.inputs import Inputs


class DeviceIdentifier(Protocol):
    """Finds the device behind a request: a compiled `DeviceInventory`."""

    def identify(self, inputs: Inputs, devices: DeviceView) -> DeviceFacts:
        """The device and its fields, aged at `inputs.now`; `NO_DEVICE` where there is none. Never raises."""
        ...


class TrustModel(Protocol):
    """A compiled `TrustModel`."""

    def assess(self, inputs: Inputs) -> TrustAssessment:
        """Score and level of the request. Never raises; an unknown fact costs at least what a bad one costs."""
        ...


class Classifier(Protocol):
    """Compiled `ResourceClassification` documents."""

    def classify(self, inputs: Inputs) -> ResourceClass | None:
        """The strictest class of the resource in any reading of its path; None where no document names one."""
        ...


@dataclass(frozen=True, slots=True)
class FactModels:
    """The models that select one workload; None where no document does."""

    devices: DeviceIdentifier | None = None
    trust: TrustModel | None = None
    classifier: Classifier | None = None


NO_MODELS: Final = FactModels()


class ModelTable(Protocol):
    """The models of all documents of one snapshot."""

    @property
    def output_headers(self) -> frozenset[str]:
        """The headers (lower case) that are set on allowed requests because of a model: no client may send them."""
        ...

    @property
    def inventories(self) -> tuple[DeviceInventory, ...]:
        """Every device inventory."""
        ...

    def select(self, workload: Workload) -> FactModels:
        """Those that select `workload`."""
        ...


class NoModels:
    """The table of a set of documents without any model."""

    output_headers: frozenset[str] = frozenset()
    inventories: tuple[DeviceInventory, ...] = ()

    def select(self, workload: Workload) -> FactModels:
        """None select any workload."""
        del workload
        return NO_MODELS


NO_MODEL_TABLE: Final[ModelTable] = NoModels()


class FactReader:
    """Reads the facts of one request with one identity. Reading a fact that no rule asks for costs nothing."""

    __slots__ = ("_class", "_device", "_inputs", "_network", "_trust", "models", "views")

    def __init__(self, inputs: Inputs, models: FactModels = NO_MODELS, views: FactViews = NO_FACTS) -> None:
        self._inputs = inputs
        self.models = models
        self.views = views
        self._network: NetworkFacts | None = None
        self._device: DeviceFacts | None = None
        self._trust: TrustAssessment | None = None
        self._class: ResourceClass | None = None

    @property
    def network(self) -> NetworkFacts:
        """What is known of the client's address (`remote.ip`: trusted hops only)."""
        if self._network is None:
            self._network = self.views.assumed_network
        if self._network is None:
            addresses, view = self._inputs.remote_ips, self.views.networks
            known = view is not None and bool(addresses)
            self._network = view.look_up(addresses[-1], self._inputs.now) if known and view else NO_NETWORK_FACTS
        return self._network

    @property
    def device(self) -> DeviceFacts:
        """The device behind the request."""
        if self._device is None:
            self._device = self.views.assumed_device
        if self._device is None:
            model, view = self.models.devices, self.views.devices
            self._device = NO_DEVICE if model is None or view is None else model.identify(self._inputs, view)
        return self._device

    @property
    def trust(self) -> TrustAssessment | None:
        """What the trust model says; None without a model."""
        if self._trust is None and self.models.trust is not None:
            self._trust = self.models.trust.assess(self._inputs)
        return self._trust

    @property
    def resource_class(self) -> ResourceClass | None:
        """The resource's class; None without a classification."""
        if self._class is None and self.models.classifier is not None:
            self._class = self.models.classifier.classify(self._inputs)
        return self._class

    @property
    def grants(self) -> GrantView | None:
        """The administrator's grants; None without an administrator."""
        return self.views.grants

    @property
    def assumed_grants(self) -> frozenset[str]:
        """Entitlements that the caller is assumed to hold, in a trial."""
        return self.views.assumed_grants

    def collected(self, *, allowed: bool) -> DecisionFacts | None:
        """The facts that were read, for the decision; None without any. An allow reads the trust model's, too.

        Where no source knows the network or a device, there is nothing to record.
        """
        trust = self.trust if allowed else self._trust
        network = None if self._network is NO_NETWORK_FACTS else self._network
        device = None if self._device is NO_DEVICE else self._device
        if trust is None and network is None and device is None and self._class is None:
            return None
        expires = int(self._inputs.now) + trust.session_seconds if trust is not None and allowed else 0
        return DecisionFacts(network, device, trust, self._class, expires)


class FactOpener:
    """Opens the facts of a request: the models that select its workload, with the views in force."""

    __slots__ = ("_models", "_views", "assesses", "classifies")

    def __init__(self, models: FactModels = NO_MODELS, views: FactViews = NO_FACTS) -> None:
        self._models = models
        self._views = views
        self.assesses = models.trust is not None
        self.classifies = models.classifier is not None

    def assuming(self, entitlements: frozenset[str]) -> FactOpener:
        """Opens the facts of a trial, in which the caller holds grants of `entitlements`."""
        return FactOpener(self._models, replace(self._views, assumed_grants=entitlements))

    def __call__(self, inputs: Inputs) -> FactReader:
        """The reader of `inputs`' facts."""
        return FactReader(inputs, self._models, self._views)
