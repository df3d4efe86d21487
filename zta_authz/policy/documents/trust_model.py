"""Reading `zta.dev/v1` TrustModel. What a document leaves out has the value of the default model.

The default numbers are those of a published Policy Engine (williamzujkowski/standards, zero-trust reference), with a
floor for each component: in the plain formula a device with no point left still reaches MEDIUM.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zta_authz.model.trust import HUNDREDTHS, TrustLevel
from zta_authz.model.trust_documents import ClaimAge, ComponentSpec, SignalSpec, TrustModelSpec
from zta_authz.policy.documents.authorization_policy import read_selector
from zta_authz.policy.rules.require_trust import COMPONENTS
from zta_authz.policy.yaml.values import duration, flag, integer, texts, whole_number, whole_seconds

if TYPE_CHECKING:
    from zta_authz.errors import Fault
    from zta_authz.model.documents import Position
    from zta_authz.policy.documents.spec import DocumentHeader, DocumentSet
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Mapping, Node

BUILT_IN_SIGNALS: Final = {
    "user": ("noMfa", "highRisk", "elevatedRisk"),
    "device": (
        "unmanaged", "unencrypted", "noFirewall", "staleAntivirus", "unknownDevice", "notCompliant", "highRiskDevice",
        "elevatedRiskDevice",
    ),
    "network": ("countryNotAllowed", "badReputation", "anonymousNetwork"),
    "behavior": ("unusualTime", "unusualResource", "unusualVolume", "failedAttempts"),
}  # fmt: skip
DEFAULT_FLOOR: Final = 40
MAX_SIGNALS: Final = 32
LONGEST_SESSION: Final = 7 * 86400.0
LONGEST_CLAIM_AGE: Final = 3650 * 86400.0
_SPEC_FIELDS: Final = (
    "selector", "seedCompatible", "allowedCountries", "leastReputation", "components", "levels", "sessions", "reverify",
)  # fmt: skip
_COMPONENT_FIELDS: Final = ("weight", "floor", "assume", "signals")
_SIGNAL_FIELDS: Final = ("name", "points", "most", "caps", "when", "claimAge", "count")
CAPS: Final = ("DENY", "LOW", "MEDIUM")
_LEVELS: Final = (TrustLevel.LOW, TrustLevel.MEDIUM, TrustLevel.HIGH)
_DEFAULT_SCORES: Final = {TrustLevel.LOW: 40, TrustLevel.MEDIUM: 60, TrustLevel.HIGH: 80}
_DEFAULT_SESSIONS: Final = {TrustLevel.LOW: 1800, TrustLevel.MEDIUM: 3600, TrustLevel.HIGH: 7200}
_DEFAULT_REVERIFY: Final = 300
_DEFAULT_WEIGHTS: Final = {"user": 25, "device": 25, "network": 15, "behavior": 20}
SIGNAL_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
COUNTRY: Final = re.compile(r"[A-Z]{2}")


def _default_signals(component: str, at: Position) -> tuple[SignalSpec, ...]:
    def signal(name: str, points: int, most: int | None = None, age: ClaimAge | None = None) -> SignalSpec:
        count = ("security_violations",) if name == "violations" else None
        return SignalSpec(name, at, points * HUNDREDTHS, most, claim_age=age, count_claim=count)

    match component:
        case "user":
            age = ClaimAge(("account_created_at",), 30 * 86400.0)
            return (
                signal("noMfa", 30),
                signal("newAccount", 20, age=age),
                signal("violations", 10, 40 * HUNDREDTHS),
            )
        case "device":
            points = (("unmanaged", 40), ("unencrypted", 30), ("noFirewall", 15), ("staleAntivirus", 15))
            return (*(signal(*numbers) for numbers in points), signal("unknownDevice", 20))
        case "network":
            return (signal("countryNotAllowed", 40), signal("badReputation", 50), signal("anonymousNetwork", 20))
        case _:
            points = (("unusualTime", 25), ("unusualResource", 30), ("unusualVolume", 20), ("failedAttempts", 45))
            return tuple(signal(*numbers) for numbers in points)


def read_trust_model(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the model to `documents`."""
    del warnings
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "TrustModel.spec", _SPEC_FIELDS)
    seed = flag(reader, spec, "seedCompatible")
    documents.trust_models.append(
        TrustModelSpec(
            name=header.name,
            namespace=header.namespace,
            position=reader.position(header.document),
            selector=read_selector(header),
            components=_components(reader, spec, seed=seed),
            least_scores=_least_scores(reader, spec),
            sessions=_sessions(reader, spec),
            reverify=whole_seconds(reader, spec, "reverify", _DEFAULT_REVERIFY, LONGEST_SESSION),
            allowed_countries=_countries(reader, spec),
            least_reputation=whole_number(reader, spec, "leastReputation", 50, 0, 100),
            seed_compatible=seed,
        )
    )


def _countries(reader: Reader, spec: Mapping) -> frozenset[str]:
    node = spec.get("allowedCountries")
    countries = frozenset(texts(reader, spec, "allowedCountries"))
    wrong = sorted(country for country in countries if not COUNTRY.fullmatch(country))
    if node is not None and wrong:
        hint = "write ISO 3166-1 codes of two capital letters, like `DE`"
        reader.fault(node, f"`{wrong[0]}` in `allowedCountries` is not a country code", hint)
    return countries


def _components(reader: Reader, spec: Mapping, *, seed: bool) -> tuple[ComponentSpec, ...]:
    node = spec.get("components")
    written = None if node is None else reader.mapping(node, "components", COMPONENTS)
    at = reader.position(spec)
    components = []
    for name in COMPONENTS:
        below = None if written is None else written.get(name)
        floor = 0 if seed else DEFAULT_FLOOR
        default = ComponentSpec(name, _DEFAULT_WEIGHTS[name], floor * HUNDREDTHS, None, _default_signals(name, at))
        components.append(default if below is None else _component(reader, below, default))
    if not any(component.weight for component in components):
        reader.fault(node or spec, "every component has weight 0", "give at least one component a weight")
    return tuple(components)


def _component(reader: Reader, node: Node, default: ComponentSpec) -> ComponentSpec:
    name = default.name
    written = reader.mapping(node, f"components.{name}", _COMPONENT_FIELDS)
    if written is None:
        return default
    weight = whole_number(reader, written, "weight", default.weight, 0, 100)
    floor = whole_number(reader, written, "floor", default.floor // HUNDREDTHS, 0, 100) * HUNDREDTHS
    signals_node, assumed = written.get("signals"), written.get("assume")
    if assumed is not None:
        score = whole_number(reader, written, "assume", 0, 0, 100) * HUNDREDTHS
        if signals_node is not None:
            hint = "remove one of the two: `assume` is for a component that nothing measures"
            reader.fault(assumed, f"`components.{name}` has both `assume` and `signals`", hint)
        return ComponentSpec(name, weight, floor, score)
    if signals_node is None:
        return ComponentSpec(name, weight, floor, None, default.signals)
    return ComponentSpec(name, weight, floor, None, _signals(reader, signals_node, name))


def _signals(reader: Reader, node: Node, component: str) -> tuple[SignalSpec, ...]:
    items = reader.items(node, "signals", "signals")
    if len(items) > MAX_SIGNALS:
        reader.fault(node, f"{len(items)} signals, more than the limit of {MAX_SIGNALS} in one component", "merge some")
    signals = [signal for item in items[:MAX_SIGNALS] if (signal := _signal(reader, item, component)) is not None]
    lines: dict[str, int] = {}
    for signal in signals:
        if signal.name in lines:
            hint = "give each signal its own name"
            message = f"duplicate signal `{signal.name}` (first at line {lines[signal.name]})"
            reader.fault(node, message, hint)
        lines.setdefault(signal.name, signal.position.line)
    return tuple(signals)


def _signal(reader: Reader, node: Node, component: str) -> SignalSpec | None:
    entry = reader.mapping(node, "a signal", _SIGNAL_FIELDS)
    name_node = None if entry is None else reader.required(entry, "name", "a signal")
    name = None if name_node is None else reader.string(name_node, "name")
    if entry is None or name_node is None or name is None:
        return None
    if not SIGNAL_NAME.fullmatch(name):
        hint = "start with a letter; letters, digits, `-` and `_` may follow, at most 63 characters"
        reader.fault(name_node, f"`{name[:80]}` is not a signal's name", hint)
        return None
    sources = [field for field in ("when", "claimAge", "count") if entry.get(field) is not None]
    if len(sources) > 1:
        reader.fault(entry, f"signal `{name}` has {' and '.join(f'`{s}`' for s in sources)}", "keep one of them")
    if not sources and name not in BUILT_IN_SIGNALS[component]:
        listed = ", ".join(f"`{built_in}`" for built_in in BUILT_IN_SIGNALS[component])
        hint = f"add `when` (a condition), `claimAge` or `count`; built-in signals of `{component}`: {listed}"
        reader.fault(name_node, f"signal `{name}` does not say what it looks at", hint)
    when = entry.get("when")
    condition = None if when is None else reader.string(when, "when")
    points = _points(reader, entry, "points", required=True)
    most = _points(reader, entry, "most", required=False)
    if most is not None and "count" not in sources:
        reader.fault(entry, f"signal `{name}` has `most` without `count`", "remove `most`, or add `count`")
    return SignalSpec(
        name,
        reader.position(when if when is not None else name_node),
        points or 0,
        most,
        _caps(reader, entry),
        condition,
        _claim_age(reader, entry),
        _count(reader, entry),
    )


def _points(reader: Reader, entry: Mapping, field: str, *, required: bool) -> int | None:
    """The points that are taken, in hundredths; written as a negative number."""
    node = reader.required(entry, field, "a signal") if required else entry.get(field)
    if node is None:
        return None
    number = integer(node)
    if number is None or not -100 <= number <= -1:
        reader.fault(node, f"`{field}` is not a whole number from -100 to -1", "write the points it takes, like `-30`")
        return None
    return -number * HUNDREDTHS


def _caps(reader: Reader, entry: Mapping) -> TrustLevel | None:
    node = entry.get("caps")
    text = None if node is None else reader.string(node, "caps")
    if node is None or text is None:
        return None
    if text not in CAPS:
        reader.fault(node, f"`{text}` is not a level that can cap", f"one of {', '.join(CAPS)}")
        return None
    return TrustLevel[text]


def _claim_age(reader: Reader, entry: Mapping) -> ClaimAge | None:
    node = entry.get("claimAge")
    written = None if node is None else reader.mapping(node, "claimAge", ("claim", "below"))
    if written is None:
        return None
    path = _claim_path(reader, written, "claimAge")
    reader.required(written, "below", "`claimAge`")
    below = duration(reader, written, "below", 0.0, LONGEST_CLAIM_AGE)
    return None if path is None else ClaimAge(path, below)


def _count(reader: Reader, entry: Mapping) -> tuple[str, ...] | None:
    node = entry.get("count")
    written = None if node is None else reader.mapping(node, "count", ("claim",))
    return None if written is None else _claim_path(reader, written, "count")


def _claim_path(reader: Reader, node: Mapping, name: str) -> tuple[str, ...] | None:
    value = reader.required(node, "claim", f"`{name}`")
    text = None if value is None else reader.string(value, "claim")
    return None if text is None else tuple(text.split("."))


def _least_scores(reader: Reader, spec: Mapping) -> dict[TrustLevel, int]:
    node = spec.get("levels")
    written = None if node is None else reader.mapping(node, "levels", tuple(level.name for level in _LEVELS))
    scores = {
        level: (default if written is None else whole_number(reader, written, level.name, default, 0, 100)) * HUNDREDTHS
        for level, default in _DEFAULT_SCORES.items()
    }
    ordered = [scores[level] for level in _LEVELS]
    if node is not None and ordered != sorted(set(ordered)):
        reader.fault(node, "`levels` do not rise from LOW to HIGH", "write the least score of each, like `LOW: 40`")
    return scores


def _sessions(reader: Reader, spec: Mapping) -> dict[TrustLevel, int]:
    node = spec.get("sessions")
    written = None if node is None else reader.mapping(node, "sessions", tuple(level.name for level in _LEVELS))
    return {
        level: default if written is None else whole_seconds(reader, written, level.name, default, LONGEST_SESSION)
        for level, default in _DEFAULT_SESSIONS.items()
    }
