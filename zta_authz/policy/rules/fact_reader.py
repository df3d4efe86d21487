"""What documents say about facts for one workload, and one request's facts, each read when a rule first asks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from zta_authz.bounded_cache import BoundedCache
from zta_authz.model.decision import DecisionFacts
from zta_authz.model.facts import (
    NO_DEVICE,
    NO_FACTS,
    NO_NETWORK_FACTS,
    NO_SIGNALS,
    DeviceFacts,
    NetworkFacts,
    SignalFacts,
)
from zta_authz.policy.rules.signal_facts import read_signals, signals_about_caller, signals_about_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.model.access import GrantView
    from zta_authz.model.device_documents import DeviceInventory
    from zta_authz.model.facts import DeviceView, FactViews
    from zta_authz.model.identity import Binding, Identity, Peer, Token
    from zta_authz.model.options import Workload
    from zta_authz.model.signals import Signal, SignalView
    from zta_authz.model.trust import ResourceClass, TrustAssessment
    from zta_authz.policy.rules.facts import OpenFacts
    from zta_authz.policy.rules.inputs import Inputs


class DeviceIdentifier(Protocol):
    """Finds the device behind a request: a compiled `DeviceInventory`."""

    def identify(self, inputs: Inputs, devices: DeviceView, signals: SignalView | None = None) -> DeviceFacts:
        """The device and its fields at `inputs.now`, with what `signals` say about it. Never raises.

        `NO_DEVICE` where there is none.
        """
        ...


class TrustModel(Protocol):
    """A compiled `TrustModel`."""

    def assess(self, inputs: Inputs) -> TrustAssessment:
        """Score and level of the request. Never raises; an unknown fact costs at least what a bad one costs."""
        ...

    def steady(self, inputs: Inputs) -> tuple[float, float]:
        """The times between which the same token, device and network get the same assessment (see `NetworkFacts`)."""
        ...


class Classifier(Protocol):
    """Compiled `ResourceClassification` documents."""

    def classify(self, inputs: Inputs) -> ResourceClass | None:
        """The strictest class of the resource in any reading of its path; None where no document names one."""
        ...


MAX_CALLERS: Final = 8192
MAX_FORWARDED: Final = 256
"""Facts are kept for callers with at most so many characters of `x-forwarded-for`."""


@dataclass(frozen=True, slots=True, eq=False)
class FactModels:
    """The models that select one workload; None where no document does."""

    devices: DeviceIdentifier | None = None
    trust: TrustModel | None = None
    classifier: Classifier | None = None


NO_MODELS: Final = FactModels()


class Assessed(NamedTuple):
    """An assessment, what it rests on, and the times between which it stays the same."""

    trust: TrustAssessment
    device: DeviceFacts
    network: NetworkFacts
    signals: SignalFacts | None
    since: float
    until: float


_UNREAD_NETWORK: Final = NetworkFacts()  # these stay the same at no time
_UNREAD_DEVICE: Final = DeviceFacts()
_UNREAD_SIGNALS: Final = SignalFacts()


class CallerFacts:
    """What was read of one caller, each part with the times between which it stays the same.

    It holds the objects whose ids are its key, so that no other object can have these ids. They follow from the signals
    `about` the caller and `about_device`, as they are at `version` of the view and at `sources_version` of its sources.
    """

    __slots__ = (
        "about", "about_device", "assessed", "device", "network", "of", "signals", "sources_version", "version",
    )  # fmt: skip

    def __init__(self, of: tuple[FactModels, Token | None, Peer | None, Binding | None]) -> None:
        self.of = of
        self.version = 0
        self.sources_version = 0
        self.about: tuple[Signal, ...] = ()
        self.about_device: tuple[Signal, ...] = ()
        self.network = _UNREAD_NETWORK
        self.device = _UNREAD_DEVICE
        self.signals = _UNREAD_SIGNALS
        self.assessed: Assessed | None = None


class KnownCallers(BoundedCache[tuple[int, int, int, int, "str | None", str], CallerFacts]):
    """The facts of callers, by the ids of models, token, peer and binding, and by what the address is derived from."""

    __slots__ = ()


class ViewsInForce:
    """One set of views, and the facts of callers as these views say them. `default` is for the options' workload."""

    __slots__ = ("default", "known", "views")

    def __init__(self, views: FactViews, models: FactModels, before: ViewsInForce | None = None) -> None:
        """The facts that are known with the views `before` are kept if only grants differ."""
        self.views = views
        same = before is not None and _say_the_same(before.views, views)
        self.known: KnownCallers = before.known if before is not None and same else KnownCallers(MAX_CALLERS)
        self.default = FactOpener(models, views, self.known)


def _say_the_same(one: FactViews, other: FactViews) -> bool:
    """Whether two sets of views say the same of networks, devices and callers."""
    return (
        one.networks is other.networks
        and one.devices is other.devices
        and one.signals is other.signals
        and one.assumed_network is other.assumed_network
        and one.assumed_device is other.assumed_device
        and one.assumed_signals is other.assumed_signals
    )


class ModelTable:
    """The models of all documents of one snapshot; this one has none."""

    output_headers: frozenset[str] = frozenset()
    """The headers (lower case) that are set on allowed requests because of a model: no client may send them."""
    inventories: tuple[DeviceInventory, ...] = ()
    """Every device inventory."""
    is_empty = True

    def __init__(self, workload: Workload) -> None:
        """`workload` is that of the options."""
        self.workload = workload
        self._in_force: ViewsInForce | None = None

    def select(self, workload: Workload) -> FactModels:
        """Those that select `workload`."""
        del workload
        return NO_MODELS

    def opener(self, workload: Workload | None, views: FactViews) -> OpenFacts:
        """Opens the facts of requests to `workload`; None is the options' workload."""
        in_force = self._in_force
        if in_force is None or in_force.views is not views:
            in_force = self._in_force = ViewsInForce(views, self.select(self.workload), in_force)
        return in_force.default if workload is None else FactOpener(self.select(workload), views, in_force.known)


class FactReader:
    """Reads the facts of one request with one identity. Reading a fact that no rule asks for costs nothing."""

    __slots__ = (
        "_class", "_device", "_facts", "_inputs", "_known", "_models", "_network", "_signals", "_trust", "_views",
    )  # fmt: skip

    def __init__(self, models: FactModels, views: FactViews, known: KnownCallers | None, inputs: Inputs) -> None:
        """`known` are the facts of callers, as `views` say them; None keeps nothing."""
        self._known = known
        self._inputs = inputs
        self._models = models
        self._views = views
        self._facts: CallerFacts | None = None
        self._network: NetworkFacts | None = None
        self._device: DeviceFacts | None = None
        self._signals: SignalFacts | None = None
        self._trust: TrustAssessment | None = None
        self._class: ResourceClass | None = None

    def _caller(self) -> CallerFacts:
        """What is known of the caller: of its token, peer, and address, as `Inputs.remote_ips` derives it."""
        request, identity, models = self._inputs.request, self._inputs.identity, self._models
        token, peer, binding = identity.token, identity.peer, identity.binding
        forwarded = request.headers.joined("x-forwarded-for")
        key = (id(models), id(token), id(peer), id(binding), forwarded, request.source.ip)
        facts = None if self._known is None else self._known[key]
        view = self._views.signals
        if facts is not None and view is not None and facts.version != view.version:
            facts = _confirmed(facts, view, identity)
        if facts is None:
            facts = CallerFacts((models, token, peer, binding))
            if view is not None:
                facts.version, facts.sources_version = view.version, view.sources_version
                facts.about = signals_about_caller(view, identity)
            if self._known is not None and (forwarded is None or len(forwarded) <= MAX_FORWARDED):
                self._known.put(key, facts)
        self._facts = facts
        return facts

    @property
    def network(self) -> NetworkFacts:
        """What is known of the client's address (`remote.ip`: trusted hops only)."""
        if self._network is None:
            facts, inputs = self._facts or self._caller(), self._inputs
            if not facts.network.since < inputs.now < facts.network.until:
                facts.network = _network(inputs, self._views)
            self._network = facts.network
        return self._network

    @property
    def device(self) -> DeviceFacts:
        """The device behind the request."""
        if self._device is None:
            facts, inputs = self._facts or self._caller(), self._inputs
            if not facts.device.since < inputs.now < facts.device.until:
                facts.device = _device(inputs, self._views, self._models.devices)
                if self._views.signals is not None:
                    facts.about_device = signals_about_device(self._views.signals, facts.device)
            self._device = facts.device
        return self._device

    @property
    def signals(self) -> SignalFacts:
        """What security events say about the caller."""
        if self._signals is None:
            facts, inputs = self._facts or self._caller(), self._inputs
            if not facts.signals.since < inputs.now < facts.signals.until:
                facts.signals = _signals(inputs, self._views)
            self._signals = facts.signals
        return self._signals

    @property
    def trust(self) -> TrustAssessment | None:
        """What the trust model says; None without a model."""
        model = self._models.trust
        if self._trust is None and model is not None:
            facts = self._facts or self._caller()
            assessed = facts.assessed
            if assessed is None or not assessed.since < self._inputs.now < assessed.until:
                self._trust = self._assess(model, facts)
            else:
                self._trust, self._device, self._network = assessed.trust, assessed.device, assessed.network
                self._signals = assessed.signals or self._signals
        return self._trust

    def _take_signals(self) -> SignalFacts | None:
        taken, self._signals = self._signals, None
        return taken

    def _assess(self, model: TrustModel, facts: CallerFacts) -> TrustAssessment:
        read_before = self._take_signals()
        assessment = model.assess(self._inputs)
        signals = self._signals  # None if the model does not read them
        self._signals = signals or read_before
        since, until = model.steady(self._inputs)
        if since < until:
            device, network = self.device, self.network
            since = max(since, device.since, network.since)
            until = min(until, device.until, network.until)
            if signals is not None:
                since, until = max(since, signals.since), min(until, signals.until)
            facts.assessed = Assessed(assessment, device, network, signals, since, until)
        return assessment

    @property
    def resource_class(self) -> ResourceClass | None:
        """The resource's class; None without a classification."""
        if self._class is None and self._models.classifier is not None:
            self._class = self._models.classifier.classify(self._inputs)
        return self._class

    @property
    def grants(self) -> GrantView | None:
        """The administrator's grants; None without an administrator."""
        return self._views.grants

    @property
    def assumed_grants(self) -> frozenset[str]:
        """Entitlements that the caller is assumed to hold, in a trial."""
        return self._views.assumed_grants

    def collected(self, *, allowed: bool) -> DecisionFacts | None:
        """The facts that were read, for the decision; None without any. An allow reads the trust model's, too.

        Where no source knows the network or a device, there is nothing to record.
        """
        trust = self._trust
        if trust is None and allowed:
            trust = self.trust
        network = None if self._network is NO_NETWORK_FACTS else self._network
        device = None if self._device is NO_DEVICE else self._device
        signals = None if self._signals is NO_SIGNALS else self._signals
        if trust is None and network is None and device is None and self._class is None and signals is None:
            return None
        expires = int(self._inputs.now) + trust.session_seconds if trust is not None and allowed else 0
        return DecisionFacts(network, device, trust, self._class, expires, signals)


def _confirmed(facts: CallerFacts, view: SignalView, identity: Identity) -> CallerFacts | None:
    """`facts` if the signals that they follow from are still those of `view`, which has changed; else None."""
    if (
        facts.sources_version != view.sources_version
        or facts.about != signals_about_caller(view, identity)
        or facts.about_device != signals_about_device(view, facts.device)
    ):
        return None
    facts.version = view.version
    return facts


def _network(inputs: Inputs, views: FactViews) -> NetworkFacts:
    if views.assumed_network is not None:
        return views.assumed_network
    addresses = () if views.networks is None else inputs.remote_ips
    return views.networks.look_up(addresses[0], inputs.now) if views.networks and addresses else NO_NETWORK_FACTS


def _device(inputs: Inputs, views: FactViews, inventory: DeviceIdentifier | None) -> DeviceFacts:
    if views.assumed_device is not None:
        return views.assumed_device
    if inventory is None or views.devices is None:
        return NO_DEVICE
    return inventory.identify(inputs, views.devices, views.signals)


def _signals(inputs: Inputs, views: FactViews) -> SignalFacts:
    if views.assumed_signals is not None:
        return views.assumed_signals
    return NO_SIGNALS if views.signals is None else read_signals(inputs, views.signals)


class FactOpener:
    """Opens the facts of a request: the models that select its workload, with the views in force."""

    __slots__ = ("_known", "_models", "_views", "assesses", "classifies", "open")

    def __init__(
        self, models: FactModels = NO_MODELS, views: FactViews = NO_FACTS, known: KnownCallers | None = None
    ) -> None:
        """`known` are the facts of callers, as `views` say them; None keeps nothing."""
        self._models = models
        self._views = views
        self._known = known
        self.assesses = models.trust is not None
        self.classifies = models.classifier is not None
        self.open: Callable[[Inputs], FactReader] = partial(FactReader, models, views, known)
        """Returns the reader of a request's facts. A method would be one more call in each request."""

    def assuming(self, entitlements: frozenset[str]) -> FactOpener:
        """Opens the facts of a trial, in which the caller holds grants of `entitlements`."""
        return FactOpener(self._models, replace(self._views, assumed_grants=entitlements), self._known)
