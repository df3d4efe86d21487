"""Assess a recorded request with another model, from the states of its signals and from its facts. Exact or not at all.

A record has no claims. The state of a signal is known if the model that assessed the request had a signal that reads
the same, or if the facts that it reads are recorded. For the other signals, the request is assessed twice: as if none
of them took points, and as if all did. More lost points never raise a level, so if both levels agree, it is certain.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from zta_authz.model.facts import NO_DEVICE, DeviceFacts, Fact, FactViews, NetworkFacts, Unknown, known
from zta_authz.model.identity import ANONYMOUS
from zta_authz.model.options import Options
from zta_authz.model.request import RequestAttributes
from zta_authz.policy.rules.fact_reader import NO_MODELS, FactOpener
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.trust.assessment import RESOURCE, CompiledTrustModel, Component, resource_score
from zta_authz.trust.signals import (
    CLAIM_AGE,
    COUNTRY,
    DEVICE_SIGNALS,
    NETWORK_SIGNALS,
    REPUTATION,
    UNMEASURED,
    CountSignal,
    FactSignal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.trust import TrustAssessment, TrustLevel
    from zta_authz.trust.signals import Signal

UNKNOWN_DEVICE: Final = "unknownDevice"
_STATES: Final = {str(state): state for state in Unknown}
_Loss = tuple[int, Fact] | None


@dataclass(frozen=True, slots=True)
class RecordedTrust:
    """What a record says about trust. None: not recorded; an empty `resource` is a resource without a class."""

    signals: Mapping[str, str | int] = field(default_factory=dict)
    device: DeviceFacts | None = None
    network: NetworkFacts | None = None
    resource: str | None = None


@dataclass(frozen=True, slots=True)
class Reassessment:
    """The assessments if none (`best`) or all (`worst`) of the `missing` signals take points: equal if none is missing.

    `missing` has the signals, `component.signal`, whose state does not follow from the record.
    """

    best: TrustAssessment
    worst: TrustAssessment
    missing: tuple[str, ...] = ()

    @property
    def level(self) -> TrustLevel | None:
        """The level; None if it depends on missing signals."""
        return self.best.level if self.best.level is self.worst.level else None


@dataclass(frozen=True, slots=True)
class SettledSignal:
    """A signal whose loss is known without a request."""

    name: str
    caps: TrustLevel | None
    loss: _Loss
    reads: str = ""
    points: int = 0

    def lost(self, inputs: Inputs) -> _Loss:
        """The loss, whatever the request."""
        del inputs
        return self.loss

    def changes(self, inputs: Inputs) -> tuple[float, ...]:
        """No time."""
        del inputs
        return ()


def reassess(model: CompiledTrustModel, recorded: RecordedTrust) -> Reassessment:
    """Assess what `recorded` describes with `model`."""
    inputs = _inputs(recorded)
    missing: list[str] = []
    best: list[Component] = []
    worst: list[Component] = []
    for component in model.components:
        losses = [_loss(signal, recorded, inputs) for signal in component.signals]
        unknown = [signal for signal, loss in zip(component.signals, losses, strict=True) if loss is NOT_RECORDED]
        missing += [f"{component.name}.{signal.name}" for signal in unknown]
        settled = [_settled(signal, loss) for signal, loss in zip(component.signals, losses, strict=True)]
        best.append(replace(component, signals=tuple(one for one, _ in settled)))
        worst.append(replace(component, signals=tuple(other for _, other in settled)))
    resources = [0, 0]
    if model.resource_weight:
        resources = [resource_score(recorded.resource or "")] * 2
        if recorded.resource is None:
            missing.append(RESOURCE)
            resources = [10000, 0]
    one = settled_assessment(model, best, resources[0])
    return Reassessment(one, one if not missing else settled_assessment(model, worst, resources[1]), tuple(missing))


class _NotRecorded:
    """The loss of a signal that does not follow from the record."""


NOT_RECORDED: Final = _NotRecorded()


def _settled(signal: Signal, loss: _Loss | _NotRecorded) -> tuple[SettledSignal, SettledSignal]:
    if not isinstance(loss, _NotRecorded):
        one = SettledSignal(signal.name, signal.caps, loss)
        return one, one
    most = signal.most if isinstance(signal, CountSignal) else signal.points
    return SettledSignal(signal.name, signal.caps, None), SettledSignal(signal.name, signal.caps, (most, Fact()))


def settled_assessment(model: CompiledTrustModel, components: list[Component], resource: int) -> TrustAssessment:
    """Assess with components whose signals are settled. The resource's class counts as one more component."""
    weight = model.resource_weight
    more = (Component(RESOURCE, weight, 0, resource, ()),) if weight else ()
    settled = CompiledTrustModel(
        model.name, (*components, *more), model.thresholds, model.sessions, model.reverify, resource_weight=0
    )
    return settled.assess(_NO_REQUEST)


def _loss(signal: Signal, recorded: RecordedTrust, inputs: Inputs) -> _Loss | _NotRecorded:
    state = recorded.signals.get(signal.reads)
    if state is None:
        state = _implied_state(signal.reads, recorded.signals)
    unknown = _STATES.get(state) if isinstance(state, str) else None
    if isinstance(signal, CountSignal):
        if type(state) is int and state >= 0:
            return signal.for_count(state)
        return NOT_RECORDED if unknown is None else (signal.most, Fact(None, unknown))
    if state == "off":
        return None
    if state == "on":
        return signal.points, known(False)
    if unknown is not None:
        return signal.points, Fact(None, unknown)
    readable = isinstance(signal, FactSignal) and _is_recorded(signal.reads, recorded)
    return signal.lost(inputs) if readable else NOT_RECORDED


def _is_recorded(reads: str, recorded: RecordedTrust) -> bool:
    """Whether the facts that a signal reads are in the record."""
    if reads in UNMEASURED:
        return True
    if reads in DEVICE_SIGNALS:
        return recorded.device is not None or recorded.signals.get(UNKNOWN_DEVICE) == Unknown.ABSENT
    return recorded.network is not None and (reads in NETWORK_SIGNALS or reads.startswith((COUNTRY, REPUTATION)))


def _implied_state(reads: str, signals: Mapping[str, str | int]) -> str | int | None:
    """The state of a signal that follows from others with another parameter; None if none does.

    An account that is older than 30 days is older than 10. An unknown country is unknown, whichever are allowed.
    """
    for kind in (COUNTRY, REPUTATION):
        if reads.startswith(kind):
            return next((state for name, state in signals.items() if name.startswith(kind) and state in _STATES), None)
    claim, _, limit = reads.rpartition(":")
    seconds = _seconds(limit)
    if not reads.startswith(CLAIM_AGE) or seconds is None:
        return None
    for name, state in signals.items():
        other, _, other_limit = name.rpartition(":")
        other_seconds = _seconds(other_limit) if other == claim else None
        if other_seconds is None:
            continue
        follows = state in _STATES or (state == "off" and seconds <= other_seconds)
        if follows or (state == "on" and seconds >= other_seconds):
            return state
    return None


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _inputs(recorded: RecordedTrust) -> Inputs:
    """A request with the recorded facts; the device is NO_DEVICE if the record does not have one."""
    views = FactViews(assumed_network=recorded.network, assumed_device=recorded.device or NO_DEVICE)
    return Inputs(RequestAttributes(), ANONYMOUS, Options(), 0.0, None, FactOpener(NO_MODELS, views))


_NO_REQUEST: Final = _inputs(RecordedTrust())
