"""The facts of one request as rules read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from zta_authz.model.facts import NO_DEVICE, NO_NETWORK_FACTS, NO_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.model.access import GrantView
    from zta_authz.model.decision import DecisionFacts
    from zta_authz.model.facts import DeviceFacts, NetworkFacts, SignalFacts
    from zta_authz.model.trust import ResourceClass, TrustAssessment


class RequestFacts(Protocol):
    """One request's facts. Each is read when a rule first asks for it, and once."""

    @property
    def network(self) -> NetworkFacts:
        """What is known of the client's address (`remote.ip`: trusted hops only)."""
        ...

    @property
    def device(self) -> DeviceFacts:
        """The device behind the request."""
        ...

    @property
    def signals(self) -> SignalFacts:
        """What security events say about the caller."""
        ...

    @property
    def trust(self) -> TrustAssessment | None:
        """What the trust model says; None without a model."""
        ...

    @property
    def resource_class(self) -> ResourceClass | None:
        """The class of the resource; None without a classification."""
        ...

    @property
    def grants(self) -> GrantView | None:
        """The administrator's grants; None without an administrator."""
        ...

    @property
    def assumed_grants(self) -> frozenset[str]:
        """Entitlements that the caller is assumed to hold, in a trial."""
        ...

    def collected(self, *, allowed: bool) -> DecisionFacts | None:
        """The facts that were read, for the decision; None without any. An allow reads the trust model's, too."""
        ...


class NoFacts:
    """The facts of a request where nothing says anything: all are absent, except for grants that a trial assumes."""

    def __init__(self, assumed_grants: frozenset[str] = frozenset()) -> None:
        self.assumed_grants = assumed_grants

    network: NetworkFacts = NO_NETWORK_FACTS
    device: DeviceFacts = NO_DEVICE
    signals: SignalFacts = NO_SIGNALS
    trust: TrustAssessment | None = None
    resource_class: ResourceClass | None = None
    grants: GrantView | None = None

    def collected(self, *, allowed: bool) -> DecisionFacts | None:
        """None: nothing was read."""
        del allowed
        return None


NO_REQUEST_FACTS: Final[RequestFacts] = NoFacts()


class OpenFacts(Protocol):
    """Opens the facts of a request."""

    @property
    def assesses(self) -> bool:
        """Whether an allowed request is assessed by a trust model, whether or not a rule asks."""
        ...

    @property
    def classifies(self) -> bool:
        """Whether the resource's class may demand something of an allowed request."""
        ...

    @property
    def open(self) -> Callable[[Any], RequestFacts]:
        """Returns the facts of an `Inputs`."""
        ...

    def assuming(self, entitlements: frozenset[str]) -> OpenFacts:
        """Opens the facts of a trial, in which the caller holds grants of `entitlements`."""
        ...


class _OpenNoFacts:
    """Opens the facts of any request where nothing says anything."""

    assesses = False
    classifies = False

    def __init__(self, facts: RequestFacts = NO_REQUEST_FACTS) -> None:
        self._facts = facts

    def open(self, inputs: object) -> RequestFacts:
        """All absent."""
        del inputs
        return self._facts

    def assuming(self, entitlements: frozenset[str]) -> OpenFacts:
        """All absent, with grants of `entitlements`."""
        return _OpenNoFacts(NoFacts(entitlements))


no_facts: Final = _OpenNoFacts()
