"""The default trust model as a document: written from what the reader of documents gives a model without any value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.model.trust import HUNDREDTHS
from zta_authz.policy.documents.reader import read_all

if TYPE_CHECKING:
    from zta_authz.model.trust_documents import ComponentSpec, SignalSpec, TrustModelSpec

NAMESPACE: Final = "default"
_EMPTY: Final = "apiVersion: zta.dev/v1\nkind: TrustModel\nmetadata: {name: trust}\nspec: {}\n"
_HEAD: Final = """\
# The default trust model of zta-authz, written out. Change what does not fit, and remove what you leave as it is.
# Without `allowedCountries`, every country loses the points of `countryNotAllowed`.
# Nothing measures the signals of `behavior` yet: every request has the level DENY until you write
# `behavior: {assume: 100}`.
apiVersion: zta.dev/v1
kind: TrustModel
metadata: {name: trust, namespace: default}
spec:
  # allowedCountries: [DE, FR]
"""


def default_spec() -> TrustModelSpec:
    """What the reader makes of a document without any value."""
    (spec,) = read_all([("default", _EMPTY)], NAMESPACE, [], [], lambda _: None).trust_models
    return spec


def default_model() -> str:
    """The document, in YAML."""
    spec = default_spec()
    levels = ", ".join(f"{level.name}: {score // HUNDREDTHS}" for level, score in spec.least_scores.items())
    sessions = ", ".join(f"{level.name}: {_duration(seconds)}" for level, seconds in spec.sessions.items())
    lines = [
        f"  leastReputation: {spec.least_reputation}",
        f"  levels: {{{levels}}}",
        f"  sessions: {{{sessions}}}",
        f"  reverify: {_duration(spec.reverify)}",
        "  components:",
    ]
    for component in spec.components:
        lines += _component_lines(component)
    return _HEAD + "\n".join(lines) + "\n"


def _component_lines(component: ComponentSpec) -> list[str]:
    return [
        f"    {component.name}:",
        f"      weight: {component.weight}",
        f"      floor: {component.floor // HUNDREDTHS}",
        "      signals:",
        *(f"      - {{{', '.join(_signal_fields(signal))}}}" for signal in component.signals),
    ]


def _signal_fields(signal: SignalSpec) -> list[str]:
    fields = [f"name: {signal.name}"]
    if signal.claim_age is not None:
        claim = ".".join(signal.claim_age.claim)
        fields.append(f"claimAge: {{claim: {claim}, below: {_duration(signal.claim_age.below)}}}")
    if signal.count_claim is not None:
        fields.append(f"count: {{claim: {'.'.join(signal.count_claim)}}}")
    fields.append(f"points: {-signal.points // HUNDREDTHS}")
    if signal.most is not None:
        fields.append(f"most: {-signal.most // HUNDREDTHS}")
    return fields


def _duration(seconds: float) -> str:
    """Seconds as documents write them: `2h`, `30m`, `90s`."""
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:g}s"
