"""Schemas of AccessPolicy, ResourceClassification and TrustModel."""

from __future__ import annotations

from typing import Final

from zta_authz.cli.schema.building import (
    Schema,
    duration,
    fields,
    flag,
    listed,
    not_both,
    number,
    shared,
    table,
    text,
    whole,
    word,
)
from zta_authz.cli.schema.requirements import country_codes
from zta_authz.cli.schema.rules import rule_sections, rules, times
from zta_authz.model.trust import CLASSES
from zta_authz.policy.documents.access_policy import ACTIONS, RULE_NAME
from zta_authz.policy.documents.resource_classification import MAX_COST
from zta_authz.policy.documents.trust_model import (
    BUILT_IN_SIGNALS,
    CAPS,
    LONGEST_CLAIM_AGE,
    LONGEST_SESSION,
    MAX_SIGNALS,
    SIGNAL_NAME,
)
from zta_authz.policy.rules.require_authentication import ACR, MAX_LEVEL
from zta_authz.policy.rules.require_trust import COMPONENTS, LEVELS

_SCORES: Final = {"LOW": 40, "MEDIUM": 60, "HIGH": 80}
_SESSIONS: Final = {"LOW": "30m", "MEDIUM": "1h", "HIGH": "2h"}


def access_policy() -> Schema:
    """The schema of an AccessPolicy's `spec`."""
    condition = text(
        "A CEL expression on the request, the caller and facts. The rule matches where it is true.",
        examples=["request.method == 'GET' && claims.level >= 3"],
    )
    extras = {"response": shared("response"), "require": shared("require"), **times()}
    rule = fields(
        "A rule matches when all its parts do. An empty rule matches every request.",
        {
            "name": text("The rule's name in decisions and logs; unique in the policy.", pattern=whole(RULE_NAME)),
            **rule_sections(),
            "condition": condition,
            **extras,
        },
    )
    actions = "ALLOW what the rules match, DENY it, or only record it (AUDIT)."
    described = "One of the rules must match. A policy with action ALLOW and no rules allows nothing."
    return fields(
        "Which requests are allowed or denied.",
        {
            "selector": shared("selector"),
            "action": word(actions, ACTIONS, "ALLOW"),
            "rules": rules(rule, described),
            **extras,
        },
    )


def resource_classification() -> Schema:
    """The schema of a ResourceClassification's `spec`."""
    named = word("How sensitive the resource is.", CLASSES)
    rule = fields(
        "Gives the operations in `to` a class.",
        {"class": named, "to": shared("to"), "cost": number("What one operation costs a budget.", 0, MAX_COST, 1)},
        required=("class", "to"),
    )
    return fields(
        "How sensitive resources are, and which trust each class demands.",
        {
            "selector": shared("selector"),
            "rules": rules(rule, "Of several rules that match, the most sensitive class counts.", least=1),
            "default": word("The class of everything that no rule matches.", CLASSES),
            "demands": fields("The least trust for a class.", {name: shared("demand") for name in CLASSES}),
        },
        required=("default",),
    )


def trust_model() -> Schema:
    """The schema of a TrustModel's `spec`. Whatever is absent has the value of the default model."""
    levels = {name: number(f"The least score of level {name}.", 0, 100, _SCORES[name]) for name in LEVELS}
    sessions = {
        name: duration(f"The longest session at level {name}.", LONGEST_SESSION, _SESSIONS[name]) for name in LEVELS
    }
    return fields(
        "How trust in a request is computed from user, device, network and behavior.",
        {
            "selector": shared("selector"),
            "seedCompatible": flag("Average the class of the resource into the score, and set no floors."),
            "allowedCountries": country_codes("Countries that do not turn on the signal `countryNotAllowed`.", None),
            "leastReputation": number("A lower reputation turns on the signal `badReputation`.", 0, 100, 50),
            "components": fields("The components of the score.", {name: _component(name) for name in COMPONENTS}),
            "levels": fields("The least score of each level; they rise from LOW to HIGH.", levels),
            "sessions": fields("The longest session at each level.", sessions),
            "reverify": duration("The longest time between two verifications.", LONGEST_SESSION, "5m"),
        },
    )


def _component(name: str) -> Schema:
    properties = {
        "weight": number("The component's share of the score.", 0, 100),
        "floor": number("A lower score of this component makes the level DENY.", 0, 100, 40),
        "assume": number("The score to assume where nothing measures the component. Excludes `signals`.", 0, 100),
        "signals": listed("What takes points from the component.", _signal(name), MAX_SIGNALS),
    }
    return not_both(fields(f"The component `{name}`.", properties), ("assume", "signals"))


def _signal(component: str) -> Schema:
    claim = text("The claim's name; dots separate the names of a nested claim.", examples=["account_created_at"])
    age = duration("The least age.", LONGEST_CLAIM_AGE, example="720h")
    built_in = ", ".join(f"`{name}`" for name in BUILT_IN_SIGNALS[component])
    signal = fields(
        "A signal takes points while it is on. An unknown fact turns it on.",
        {
            "name": text(
                f"The signal's name. Built in: {built_in}.",
                pattern=whole(SIGNAL_NAME),
                examples=BUILT_IN_SIGNALS[component],
            ),
            "points": number("The points that it takes, as a negative number.", -100, -1),
            "most": number("The most points that a `count` takes together, as a negative number.", -100, -1),
            "caps": word("The highest level while the signal is on.", CAPS),
            "when": text("A CEL expression that turns the signal on.", examples=["request.method == 'DELETE'"]),
            "claimAge": fields(
                "On while the time in a claim is less than `below` ago.",
                {"claim": claim, "below": age},
                required=("claim", "below"),
            ),
            "count": fields(
                "Takes the points once for each of the number in a claim.", {"claim": claim}, required=("claim",)
            ),
        },
        required=("name", "points"),
    )
    return not_both(signal, ("when", "claimAge"), ("when", "count"), ("claimAge", "count"))


def acr_levels() -> Schema:
    """The schema of `acrLevels` of an IssuerPolicy."""
    level: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_LEVEL}
    levels = table(
        "The level of each value of the claim `acr`, for `acrAtLeast`.", level, names={"pattern": whole(ACR)}
    )
    return {**levels, "minProperties": 1, "examples": [{"phr": 2, "phrh": 3}]}
