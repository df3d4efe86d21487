"""`zta-authz trust explain`: the assessment of one request, and what would raise its level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from zta_authz.model.facts import describe
from zta_authz.model.trust import HUNDREDTHS, LostPoints, TrustDemand, TrustLevel
from zta_authz.pdp.demand import class_text
from zta_authz.pdp.explain_facts import fact_lines
from zta_authz.policy.rules.require_trust import demand_text, points
from zta_authz.trust.assessment import CompiledTrustModel
from zta_authz.trust.counterfactual import smallest_lift

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from zta_authz.model.facts import Fact
    from zta_authz.model.identity import Identity
    from zta_authz.model.trust import ResourceClass, TrustAssessment

EXIT_TOO_LOW: Final = 1
_SHOWN: Final = ("network: ", "device: ", "signals: ")


@dataclass(frozen=True, slots=True)
class TrustExplanation:
    """The assessment of a request at `now`, and the least change of signals that reaches `target`.

    `lift` is () if the target is reached, and None if no change of signals would reach it. `class_lift` is the same for
    the demand of the resource's class.
    """

    model: CompiledTrustModel
    assessment: TrustAssessment
    identity: Identity
    now: float
    target: TrustLevel
    lift: tuple[LostPoints, ...] | None
    resource: ResourceClass | None
    class_lift: tuple[LostPoints, ...] | None
    refused: str
    facts: tuple[str, ...] = ()
    """The facts that the model read, in words."""

    @property
    def unmet(self) -> tuple[str, ...]:
        """What the class demands and the request does not have: `level`, or names of components."""
        return () if self.resource is None else self.resource.demand.unmet(self.assessment)


def run(arguments: argparse.Namespace) -> int:
    """Explain. Raises `FaultsError` with all faults, and if no trust model selects the workload."""
    import time

    from zta_authz.cli.output import one_line, print_json, stdout_console
    from zta_authz.cli.request_arguments import load_subject
    from zta_authz.errors import Fault, FaultsError

    evaluator, subject = load_subject(arguments)
    if subject.facts is not None and subject.facts.trust is not None:
        hint = "remove it: this command assesses the request; `explain` accepts it"
        raise FaultsError([Fault("facts.trust", 0, 0, "trust is assumed", hint)])
    now = time.time() if arguments.at is None else arguments.at
    caller, inputs, models = evaluator.facts(subject, now)
    if not isinstance(models.trust, CompiledTrustModel):
        hint = "add a TrustModel, or select another workload with --namespace and --label"
        raise FaultsError([Fault("policies", 0, 0, "no TrustModel selects the workload", hint)])
    assessment = models.trust.assess(inputs)
    target = TrustLevel[arguments.level] if arguments.level else TrustLevel(min(assessment.level + 1, TrustLevel.HIGH))
    resource = inputs.facts.resource_class
    explanation = TrustExplanation(
        models.trust,
        assessment,
        inputs.identity,
        now,
        target,
        smallest_lift(models.trust, assessment, TrustDemand(target)),
        resource,
        () if resource is None else smallest_lift(models.trust, assessment, resource.demand),
        "" if caller.refused is None else f"{caller.refused.reason}: {caller.refused.detail}".removesuffix(": "),
        tuple(line for line in fact_lines(inputs.facts.collected(allowed=False), now) if line.startswith(_SHOWN)),
    )
    if arguments.output == "json":
        print_json("TrustExplanation", _fields(explanation))
    else:
        console = stdout_console()
        for line in _lines(explanation):
            console.print(one_line(line), soft_wrap=True)
    least = target if arguments.level else TrustLevel.LOW
    return 0 if assessment.level >= least and not explanation.refused else EXIT_TOO_LOW


def _fields(explanation: TrustExplanation) -> dict[str, Any]:
    from zta_authz.cli.decision_output import time_text

    assessment, resource = explanation.assessment, explanation.resource
    token = explanation.identity.token
    return {
        "at": time_text(explanation.now),
        "model": assessment.model,
        "principal": explanation.identity.principal or None,
        "requestPrincipal": None if token is None else f"{token.issuer}/{token.subject}",
        "refused": explanation.refused or None,
        "level": assessment.level.name,
        "score": assessment.score / HUNDREDTHS,
        "components": _component_fields(explanation),
        "lost": [_loss_fields(explanation, loss) for loss in assessment.lost],
        "facts": list(explanation.facts),
        "heldDownBy": list(assessment.capped_by),
        "sessionSeconds": assessment.session_seconds,
        "reverifySeconds": assessment.reverify_seconds,
        "target": explanation.target.name,
        "change": _change_fields(explanation.lift),
        "class": None
        if resource is None
        else {
            "name": resource.name,
            "source": resource.source,
            "demand": demand_text(resource.demand) if resource.demand.is_set else None,
            "unmet": list(explanation.unmet),
            "change": _change_fields(explanation.class_lift),
        },
    }


def _component_fields(explanation: TrustExplanation) -> list[dict[str, Any]]:
    by_name = {component.name: component for component in explanation.model.components}
    fields = []
    for name, score in explanation.assessment.components.items():
        component = by_name.get(name)
        fields.append(
            {
                "name": name,
                "score": score / HUNDREDTHS,
                "weight": explanation.model.resource_weight if component is None else component.weight,
                "floor": 0.0 if component is None else component.floor / HUNDREDTHS,
                "assumed": component is not None and component.assume is not None,
            }
        )
    return fields


def _loss_fields(explanation: TrustExplanation, loss: LostPoints) -> dict[str, Any]:
    from zta_authz.cli.decision_output import time_text

    fact = loss.fact
    observed = fact.observed_at
    return {
        "component": loss.component,
        "signal": loss.signal,
        "points": loss.points / HUNDREDTHS,
        "state": fact.state,
        "value": fact.value,
        "observedAt": None if observed is None else time_text(observed),
        "ageSeconds": None if observed is None else round(explanation.now - observed, 3),
        "source": fact.source or None,
    }


def _change_fields(lift: Sequence[LostPoints] | None) -> list[dict[str, Any]] | None:
    if lift is None:
        return None
    return [{"component": loss.component, "signal": loss.signal, "points": loss.points / HUNDREDTHS} for loss in lift]


def _lines(explanation: TrustExplanation) -> Iterator[str]:
    assessment = explanation.assessment
    yield f"{assessment.level.name}  score {points(assessment.score)}, by {assessment.model}"
    if explanation.refused:
        yield f"the request is refused before it is assessed: {explanation.refused}"
    for component in _component_fields(explanation):
        assumed = ", assumed" if component["assumed"] else ""
        floor = f", floor {component['floor']:g}" if component["floor"] else ""
        yield f"  {component['name']:<9} {component['score']:>6g}  weight {component['weight']}{floor}{assumed}"
        for loss in assessment.lost:
            if loss.component == component["name"]:
                yield f"      -{points(loss.points)} {loss.signal}: {_fact_text(loss.fact, explanation.now)}"
    yield from explanation.facts
    if assessment.capped_by:
        yield f"held down by {', '.join(assessment.capped_by)}"
    yield f"session {assessment.session_seconds} s, verify again after {assessment.reverify_seconds} s"
    if explanation.resource is not None:
        yield class_text(explanation.resource) + _class_result(explanation)
    yield _change_text(explanation)


def _fact_text(fact: Fact, now: float) -> str:
    """The fact behind a lost point. If it is known, the signal is `on`, whether the fact is true or false."""
    text = describe(fact, now)
    return text.replace(f"`{fact.state}`", "on", 1) if isinstance(fact.value, bool) else text


def _class_result(explanation: TrustExplanation) -> str:
    if explanation.resource is None or not explanation.resource.demand.is_set:
        return ""
    if not explanation.unmet:
        return ", which the request has"
    return f", which the request does not have ({', '.join(explanation.unmet)}); {_change(explanation.class_lift)}"


def _change_text(explanation: TrustExplanation) -> str:
    if explanation.lift == ():
        return f"{explanation.target.name} is reached"
    return f"to reach {explanation.target.name}: {_change(explanation.lift)}"


def _change(lift: Sequence[LostPoints] | None) -> str:
    if lift is None:
        return "no change of signals would suffice"
    return "without " + ", ".join(f"{loss.component}.{loss.signal} (+{points(loss.points)})" for loss in lift)
