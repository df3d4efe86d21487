"""A slow reading of rules on facts, of trust models and of classifications, without code shared with the compiled ones.

It works on the output of `yaml.safe_load`, as `reference_evaluator` does, and on what a test knows about the caller.
A fact that is unknown is `None`. Scores are integers in hundredths of a point.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from msgspec import structs

from tests.property import reference_evaluator as reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from zta_authz.model.facts import DeviceFacts, NetworkFacts, SignalFacts

Document = dict[str, Any]
LEVELS = ("DENY", "LOW", "MEDIUM", "HIGH")
CLASSES = ("public", "internal", "confidential", "restricted")
_FACTORS = (
    {"kba", "pin", "pwd"},
    {"hwk", "otp", "pop", "sc", "sms", "swk", "tel"},
    {"face", "fpt", "iris", "retina", "vbm"},
)
_DEFAULTS: dict[str, tuple[int, list[dict[str, Any]]]] = {
    "user": (
        25,
        [
            {"name": "noMfa", "points": -30},
            {"name": "newAccount", "points": -20, "claimAge": {"claim": "account_created_at", "below": "720h"}},
            {"name": "violations", "points": -10, "most": -40, "count": {"claim": "security_violations"}},
        ],
    ),
    "device": (
        25,
        [
            {"name": "unmanaged", "points": -40},
            {"name": "unencrypted", "points": -30},
            {"name": "noFirewall", "points": -15},
            {"name": "staleAntivirus", "points": -15},
            {"name": "unknownDevice", "points": -20},
        ],
    ),
    "network": (
        15,
        [
            {"name": "countryNotAllowed", "points": -40},
            {"name": "badReputation", "points": -50},
            {"name": "anonymousNetwork", "points": -20},
        ],
    ),
    "behavior": (
        20,
        [
            {"name": "unusualTime", "points": -25},
            {"name": "unusualResource", "points": -30},
            {"name": "unusualVolume", "points": -20},
            {"name": "failedAttempts", "points": -45},
        ],
    ),
}
_DEVICE_FIELDS = {
    "unmanaged": "managed",
    "unencrypted": "encrypted",
    "noFirewall": "firewall",
    "staleAntivirus": "antivirus",
    "notCompliant": "compliant",
}
_SEED_SCORES = {"public": 10000, "internal": 7000, "confidential": 4000, "restricted": 2000, "": 5000}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about one request: its caller and facts at `now`, and the documents that assess them."""

    case: reference.Case
    network: NetworkFacts
    device: DeviceFacts
    now: float
    documents: tuple[Document, ...] = ()
    conditions: Mapping[str, Callable[[Known], bool | None]] = field(default_factory=dict)
    signals: SignalFacts | None = None

    @property
    def claims(self) -> Mapping[str, Any]:
        token = self.case.identity.token
        return {} if token is None else token.claims

    def remote(self, name: str) -> Any:
        """A fact of the network, None if it is unknown."""
        fact = getattr(self.network, name)
        return fact.value if fact.unknown is None else None

    def signal(self, name: str) -> Any:
        """What security events say about the caller, None if it is unknown."""
        fact = None if self.signals is None else getattr(self.signals, name)
        return fact.value if fact is not None and fact.unknown is None else None

    def field(self, name: str) -> Any:
        """A field of the device, None if it is unknown."""
        fact = (self.device.fields or {}).get(name)
        return fact.value if fact is not None and fact.unknown is None else None

    def of(self, kind: str) -> Document | None:
        """The spec of the one document of a kind."""
        return next((document["spec"] for document in self.documents if document["kind"] == kind), None)


@dataclass(frozen=True, slots=True)
class Trust:
    """A score, a level (0 to 3), the score of each component, and what each signal took."""

    score: int
    level: int
    components: Mapping[str, int]
    lost: Mapping[tuple[str, str], int]


def decide(known: Known) -> tuple[str, reference.RuleId | None]:
    """`allow` or `deny` and the rule that decided, None for the default or if the resource's class demands more."""
    policies = [
        document
        for document in known.documents
        if document["kind"].endswith("Policy") and "issuer" not in document["spec"]
    ]
    policies.sort(key=lambda document: document["metadata"]["name"])
    for action in ("DENY", "ALLOW"):
        for document in policies:
            if document["spec"].get("action", "ALLOW") == action:
                for number, rule in enumerate(document["spec"]["rules"]):
                    if _rule_holds(rule, known, deny=action == "DENY"):
                        place = f"default/{document['metadata']['name']}", number
                        return ("deny", place) if action == "DENY" else _after_class(known, place)
    return "deny", None


def _after_class(known: Known, place: reference.RuleId) -> tuple[str, reference.RuleId | None]:
    spec = known.of("ResourceClassification")
    demand = None if spec is None else spec.get("demands", {}).get(resource_class(known))
    return ("allow", place) if demand is None or meets(demand, trust(known)) else ("deny", None)


def meets(demand: Mapping[str, Any], seen: Trust | None) -> bool:
    """Whether an assessment reaches a demand. Nothing is reached without a model."""
    if seen is None or seen.level < LEVELS.index(demand.get("level", "DENY")):
        return False
    return all(seen.components[name] >= demand[name] * 100 for name in _DEFAULTS if name in demand)


def _rule_holds(rule: Mapping[str, Any], known: Known, *, deny: bool) -> bool:
    plain = {name: part for name, part in rule.items() if name in ("from", "to")}
    if not reference.rule_holds(plain, known.case, "default", deny=deny):
        return False
    if not all(_key_holds(condition, known, deny) for condition in rule.get("when", ())):
        return False
    text = rule.get("condition")
    value = True if text is None else known.conditions[text](known)
    if value is None:
        value = deny
    return value and all(_REQUIRED[name](wanted, known) for name, wanted in rule.get("require", {}).items())


def _key_holds(condition: Mapping[str, Any], known: Known, deny: bool) -> bool:
    value = key_value(condition["key"], known)
    if value is None:
        return deny
    text = str(value).lower() if isinstance(value, bool) else str(value)
    met = [any(_matches(pattern, text) for pattern in condition.get(name, ())) for name in ("values", "notValues")]
    return (met[0] or "values" not in condition) and not met[1]


def _matches(pattern: str, text: str) -> bool:
    if pattern == "*":
        return text != ""
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def key_value(key: str, known: Known) -> Any:
    """The value of a `zta.*` key, None if it is unknown."""
    _, group, name = key.split(".", 2)
    if group == "remote":
        return known.remote(name)
    if group == "signals":
        return known.signal(name)
    if key == "zta.device.id":
        return known.device.device_id or None
    if group == "device":
        return known.field(name)
    if group == "resource":
        return resource_class(known) or None
    seen = trust(known)
    return None if seen is None else LEVELS[seen.level]


# --- require ---


def _network(wanted: Mapping[str, Any], known: Known) -> bool:
    country, reputation = known.remote("country"), known.remote("reputation")
    return (
        ("countries" not in wanted or country in wanted["countries"])
        and ("notCountries" not in wanted or (country is not None and country not in wanted["notCountries"]))
        and ("asns" not in wanted or known.remote("asn") in wanted["asns"])
        and all(known.remote(name) is wanted[name] for name in ("anonymous", "corporate") if name in wanted)
        and (
            wanted.get("reputationAtLeast") is None
            or (reputation is not None and reputation >= wanted["reputationAtLeast"])
        )
    )


def _device(wanted: Mapping[str, Any], known: Known) -> bool:
    for name, value in wanted.items():
        if name == "seenWithin":
            seen = known.field("lastSeen")
            if type(seen) is not int or not -300 <= known.now - seen <= _seconds(value):
                return False
        elif name == "osAtLeast":
            system = {"darwin": "macos"}.get(str(known.field("os")).lower(), str(known.field("os")).lower())
            least = {system_.lower(): version for system_, version in value.items()}.get(system)
            if least is None or not _at_least(str(known.field("osVersion")), least):
                return False
        elif known.field(name) is not value:
            return False
    return True


def _at_least(text: str, least: str) -> bool:
    """Whether the first version in a text is at least another: number by number, with zeros behind the shorter one."""
    found = re.search(r"\d+(\.\d+)+", text) or re.search(r"\d+", text)
    if found is None:
        return False
    parts, wanted = ([int(part) for part in version.split(".")] for version in (found[0], least))
    width = max(len(parts), len(wanted))
    return parts + [0] * (width - len(parts)) >= wanted + [0] * (width - len(wanted))


def _authentication(wanted: Mapping[str, Any], known: Known) -> bool:
    claims = known.claims
    acr, methods, at = claims.get("acr"), claims.get("amr"), claims.get("auth_time")
    if "acr" in wanted and acr not in wanted["acr"]:
        return False
    if "acrAtLeast" in wanted:
        issuer = claims.get("iss", "")
        levels = next((d["spec"]["acrLevels"] for d in known.documents if d["spec"].get("issuer") == issuer), {})
        if not isinstance(acr, str) or acr not in levels or levels[acr] < wanted["acrAtLeast"]:
            return False
    if "amr" in wanted and not (
        isinstance(methods, list) and set(wanted["amr"]) & {m for m in methods if isinstance(m, str)}
    ):
        return False
    return "maxAge" not in wanted or (type(at) is int and -60 <= known.now - at <= _seconds(wanted["maxAge"]))


def _seconds(text: str) -> float:
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


_REQUIRED: dict[str, Callable[[Mapping[str, Any], Known], bool]] = {
    "network": _network,
    "device": _device,
    "authentication": _authentication,
    "trust": lambda wanted, known: meets(wanted, trust(known)),
}


# --- trust ---


def trust(known: Known, mended: Iterable[tuple[str, str]] = ()) -> Trust | None:
    """What the trust model says, None without a model. The signals of `mended` (component, name) take nothing."""
    spec = known.of("TrustModel")
    if spec is None:
        return None
    total = weights = 0
    components: dict[str, int] = {}
    lost: dict[tuple[str, str], int] = {}
    cap = 3
    seed, good = bool(spec.get("seedCompatible")), set(mended)
    for name, (default_weight, default_signals) in _DEFAULTS.items():
        component = spec.get("components", {}).get(name, {})
        score = component.get("assume", 100) * 100
        for signal in [] if "assume" in component else component.get("signals", default_signals):
            points = 0 if (name, signal["name"]) in good else _points(signal, spec, known)
            if points:
                score -= points
                lost[name, signal["name"]] = points
                cap = min(cap, LEVELS.index(signal.get("caps", "HIGH")))
        components[name] = max(score, 0)
        if components[name] < component.get("floor", 0 if seed else 40) * 100:
            cap = 0
        total += component.get("weight", default_weight) * components[name]
        weights += component.get("weight", default_weight)
    if seed:
        total += 15 * _SEED_SCORES[resource_class(known)]
        weights += 15
    score = total // weights
    least = {"LOW": 40, "MEDIUM": 60, "HIGH": 80} | spec.get("levels", {})
    level = max([0, *(LEVELS.index(name) for name, points in least.items() if score >= points * 100)])
    return Trust(score, min(level, cap), components, lost)


def smallest_lifts(known: Known, demand: Mapping[str, Any], most: int) -> set[frozenset[tuple[str, str]]]:
    """Every smallest set of signals without which the demand is met, by trying all sets of at most `most` signals."""
    seen = trust(known)
    assert seen is not None
    for size in range(min(most, len(seen.lost)) + 1):
        found = {frozenset(s) for s in combinations(sorted(seen.lost), size) if meets(demand, trust(known, s))}
        if found:
            return found
    return set()


def _points(signal: Mapping[str, Any], spec: Mapping[str, Any], known: Known) -> int:
    """What a signal takes: everything unless it is known to be off."""
    points = -signal["points"] * 100
    if "count" in signal:
        most = -signal.get("most", -100) * 100
        count = _claim(known, signal["count"]["claim"])
        return most if type(count) is not int or count < 0 else min(points * count, most)
    if "claimAge" in signal:
        at = _claim(known, signal["claimAge"]["claim"])
        usable = type(at) in (int, float) and abs(at) < 1e15
        return 0 if usable and at <= known.now and known.now - at >= _seconds(signal["claimAge"]["below"]) else points
    if "when" in signal:
        return 0 if known.conditions[signal["when"]](known) is False else points
    return 0 if _is_off(signal["name"], spec, known) else points


def _claim(known: Known, path: str) -> Any:
    value: Any = known.claims
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _is_off(name: str, spec: Mapping[str, Any], known: Known) -> bool:
    if name in _DEVICE_FIELDS:
        return known.field(_DEVICE_FIELDS[name]) is True
    if name == "unknownDevice":
        return known.device.device_id != ""
    if name in ("highRisk", "elevatedRisk"):
        return known.signal("risk") in (("LOW", "MEDIUM") if name == "highRisk" else ("LOW",))
    if name == "noMfa":
        methods = known.claims.get("amr")
        given = {method for method in methods if isinstance(method, str)} if isinstance(methods, list) else set()
        return "mfa" in given or sum(bool(given & factor) for factor in _FACTORS) > 1
    if known.remote("corporate") is True:
        return name in ("countryNotAllowed", "badReputation", "anonymousNetwork")
    if name == "countryNotAllowed":
        return known.remote("country") in spec.get("allowedCountries", ())
    if name == "badReputation":
        reputation = known.remote("reputation")
        return reputation is not None and reputation >= spec.get("leastReputation", 50)
    return name == "anonymousNetwork" and known.remote("anonymous") is False


# --- classes ---


def resource_class(known: Known) -> str:
    """The strictest class that any reading of the request may have, "" without a classification."""
    spec = known.of("ResourceClassification")
    if spec is None:
        return ""
    wide = [rule["class"] for rule in spec.get("rules", ()) if _is_about(rule, known.case, wide=True)]
    strict = [name for name in wide if CLASSES.index(name) >= CLASSES.index(spec["default"])]
    if strict:
        return max(strict, key=CLASSES.index)
    lax = [rule for rule in spec.get("rules", ()) if CLASSES.index(rule["class"]) < CLASSES.index(spec["default"])]
    if lax and all(any(_is_about(rule, case, wide=False) for rule in lax) for case in _readings(known.case)):
        return max(wide, key=CLASSES.index)
    return str(spec["default"])


def _is_about(rule: Mapping[str, Any], case: reference.Case, *, wide: bool) -> bool:
    return reference.rule_holds({"to": rule["to"]}, case, "default", deny=wide)


def _readings(case: reference.Case) -> Sequence[reference.Case]:
    """The request in each spelling of its path and host that an upstream may read."""
    hosts = reference.hosts_of(case, wide=True) or [case.request.host]
    return [
        replace(case, request=structs.replace(case.request, path=path, host=host))
        for path in reference.paths_of(case, wide=True)
        for host in hosts
    ]
