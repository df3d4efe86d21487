"""Random policies on facts, models of trust and classes, and what is known about the callers that they are asked about.

Everything is drawn from one `random.Random`, so that hypothesis can shrink it and a seed or bytes can repeat it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from tests.property.reference_evaluator import Case
from tests.property.reference_facts import Known, key_value, resource_class, trust
from tests.support.policies import STRICT, identity, request
from zta_authz.model.facts import ABSENT, DeviceFacts, Fact, FactViews, NetworkFacts, SignalFacts, Unknown, known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

    from zta_authz.model.identity import Identity
    from zta_authz.model.request import RequestAttributes

Document = dict[str, Any]
NOW: Final = 1_800_000_000.0
ISSUERS: Final = ("https://a", "https://b")
_ACR = ("pwd", "phr", "phrh", "gold")
_COUNTRIES = ("DE", "FR", "KP")
_CLASSES = ("public", "internal", "confidential", "restricted")
_METHODS = ("GET", "POST")
_PATTERNS = ("/", "/a", "/a/*", "/a/{*}", "/b/*", "/caf\u00e9", "*/x", "/a/{**}/x")
_PLAIN_PATHS = ("/", "/a", "/a/x", "/a/b", "/b/x", "/c?x=/a")
_PATHS = (
    "/", "/a", "/a/x", "/a/b", "/b/x", "/%61", "/%61/x", "/a/%78", "/caf%c3%a9", "/caf%e9", "/a%2Fx", "/b/x%20", "/c?x=/a", "/a/x?y",
    "/%2561", "/a/b%2Fx", "/a/%2F",
)  # fmt: skip
_HOSTS = ("example.com", "vault.example", "vault.example:8443", "VAULT.example.", "example.com.")
_HOST_PATTERNS = ("vault.example", "*.example", "example.com", "example.com:*")
_NETWORK: dict[str, tuple[Any, ...]] = {
    "country": _COUNTRIES, "asn": (1, 64500), "anonymous": (False, True), "reputation": (100, 50, 49, 0), "corporate": (False, True),
}  # fmt: skip
_DEVICE: dict[str, tuple[Any, ...]] = {
    "managed": (True, False), "encrypted": (True, False), "firewall": (True, False), "antivirus": (True, False),
    "compliant": (True, False), "os": ("macOS", "darwin", "Windows", "rolling"),
    "osVersion": ("26.1", "26.1.0", "26", "9.20", "26.10", "macOS 26.2", "10.0.22631", ""),
    "lastSeen": (int(NOW), int(NOW) - 3600, int(NOW) - 3601, int(NOW) + 301),
}  # fmt: skip
_SIGNALS: dict[str, tuple[Any, ...]] = {"risk": ("LOW", "MEDIUM", "HIGH"), "assurance": ("aal/2", "aal/1", "")}
_CLAIMS: dict[str, tuple[Any, ...]] = {
    "acr": ("phr", "pwd", "gold", "phrh", "", 2, None),
    "amr": (["pwd", "hwk"], ["mfa"], ["pwd"], ["pwd", "pin"], ["face", 7], "mfa", []),
    "auth_time": (int(NOW), int(NOW) - 300, int(NOW) - 9000, int(NOW) + 900, str(int(NOW)), NOW),
    "account_created_at": (int(NOW) - 400 * 86400, NOW - 5.5, int(NOW) + 60, "x", 10**400, True),
    "security_violations": (0, 1, 3, -1, True, "0", 2**80),
    "role": ("admin", "user"),
}
_KEYS: dict[str, tuple[str, ...]] = {
    "zta.remote.country": (*_COUNTRIES, "*"), "zta.remote.asn": ("1", "64500"), "zta.remote.reputation": ("0", "50", "100"), "zta.remote.anonymous": ("true", "false"),
    "zta.remote.corporate": ("true", "false"), "zta.device.id": ("laptop-1", "lap*", "*"), "zta.device.managed": ("true", "false"),
    "zta.device.os": ("macOS", "mac*", "*s"), "zta.device.compliant": ("true",), "zta.resource.class": _CLASSES,
    "zta.signals.risk": ("LOW", "MEDIUM", "HIGH"), "zta.signals.assurance": ("aal/2", "aal/*", "*"),
}  # fmt: skip
_LEVEL_SETS = (["HIGH"], ["MEDIUM", "HIGH"], ["LOW", "MEDIUM", "HIGH"])
_LOW_SETS = (["DENY"], ["DENY", "LOW"], ["DENY", "LOW", "MEDIUM"])


def _either(one: bool | None, other: bool | None) -> bool | None:
    """`||` of three values."""
    return True if one is True or other is True else None if one is None or other is None else False


def _compared(read: Callable[[Known], Any], compare: Callable[[Any], bool]) -> Callable[[Known], bool | None]:
    def value(seen: Known) -> bool | None:
        found = read(seen)
        return None if found is None else compare(found)

    return value


def _score(seen: Known) -> int | None:
    assessed = trust(seen)
    return None if assessed is None else assessed.score


def _boolean(name: str) -> Callable[[Known], bool | None]:
    return lambda seen: value if isinstance(value := seen.field(name), bool) else None


CONDITIONS: dict[str, Callable[[Known], bool | None]] = {
    "remote.country == 'DE'": _compared(lambda seen: seen.remote("country"), lambda value: value == "DE"),
    "remote.country != 'KP'": _compared(lambda seen: seen.remote("country"), lambda value: value != "KP"),
    "!(remote.country in ['KP', 'FR'])": _compared(lambda seen: seen.remote("country"), lambda value: value == "DE"),
    "remote.asn != 1": _compared(lambda seen: seen.remote("asn"), lambda value: value != 1),
    "!remote.anonymous": _compared(lambda seen: seen.remote("anonymous"), lambda value: value is False),
    "remote.anonymous": _compared(lambda seen: seen.remote("anonymous"), lambda value: value is True),
    "remote.reputation < 50": _compared(lambda seen: seen.remote("reputation"), lambda value: value < 50),
    "remote.reputation >= 50": _compared(lambda seen: seen.remote("reputation"), lambda value: value >= 50),
    "device.managed || device.encrypted": lambda seen: _either(_boolean("managed")(seen), _boolean("encrypted")(seen)),
    "!device.managed": _compared(_boolean("managed"), lambda value: not value),
    "device.id == 'laptop-1'": _compared(lambda seen: seen.device.device_id or None, lambda value: value == "laptop-1"),
    "device.fields.os != 'Windows'": _compared(lambda seen: seen.field("os"), lambda value: value != "Windows"),
    "resource.class != 'public'": _compared(lambda seen: resource_class(seen) or None, lambda value: value != "public"),
    "signals.risk != 'HIGH'": _compared(lambda seen: seen.signal("risk"), lambda value: value != "HIGH"),
    "signals.assurance == 'aal/2'": _compared(lambda seen: seen.signal("assurance"), lambda value: value == "aal/2"),
    "request.method == 'GET' || remote.corporate": lambda seen: _either(
        seen.case.request.method == "GET", seen.remote("corporate")
    ),
}
"""Conditions, and what each means."""
ON_TRUST: dict[str, Callable[[Known], bool | None]] = {
    "trust.score >= 60.0": _compared(_score, lambda value: value >= 6000),
    "trust.level == 'HIGH'": _compared(lambda seen: key_value("zta.trust.level", seen), lambda value: value == "HIGH"),
    "trust.score < 60.0": _compared(_score, lambda value: value < 6000),
    "trust.level == 'DENY'": _compared(lambda seen: key_value("zta.trust.level", seen), lambda value: value == "DENY"),
}
"""Conditions on trust: the first two hold for more trust, the others for less."""
MEANINGS: Final = {**CONDITIONS, **ON_TRUST}


@dataclass(frozen=True)
class State:
    """One request with its caller, and what is known about both."""

    request: RequestAttributes
    claims: dict[str, Any] | None
    network: NetworkFacts
    device: DeviceFacts
    documents: tuple[Document, ...] = field(default=(), compare=False)
    signals: SignalFacts = field(default_factory=SignalFacts)

    @property
    def identity(self) -> Identity:
        return identity(claims=self.claims)

    @property
    def views(self) -> FactViews:
        return FactViews(assumed_network=self.network, assumed_device=self.device, assumed_signals=self.signals)

    @property
    def known(self) -> Known:
        case = Case(self.request, self.identity, STRICT)
        return Known(case, self.network, self.device, NOW, self.documents, MEANINGS, self.signals)

    def losing(self) -> Iterator[State]:
        """The same with one signal less: a fact that becomes unknown, or a claim that is missing."""
        for name in _NETWORK:
            if getattr(self.network, name).unknown is None:
                for state in Unknown:
                    yield replace(self, network=replace(self.network, **{name: Fact(None, state)}))
        yield from self._losing_signals()
        fields = self.device.fields or {}
        for name, fact in fields.items():
            if fact.unknown is None:
                yield replace(self, device=replace(self.device, fields={**fields, name: Fact(None, Unknown.STALE)}))
        if self.device.device_id:
            yield replace(self, device=DeviceFacts(inventory="default/fleet"))
        for name in ("amr", "auth_time", "account_created_at", "security_violations", "acr"):
            if self.claims is not None and name in self.claims:
                yield replace(self, claims={key: value for key, value in self.claims.items() if key != name})

    def _losing_signals(self) -> Iterator[State]:
        for name in _SIGNALS:
            if getattr(self.signals, name).unknown is None:
                yield replace(self, signals=replace(self.signals, **{name: Fact(None, Unknown.STALE)}))


class FactShapes:
    """Draws documents and states. `monotone`: no rule allows less trusted requests only."""

    def __init__(self, random: Random, *, monotone: bool = False) -> None:
        self.random = random
        self._monotone = monotone

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def some(self, values: Sequence[Any], most: int = 2) -> list[Any]:
        return self.random.sample(values, min(len(values), self.random.randint(1, most)))

    def documents(self) -> tuple[Document, ...]:
        """Policies, and perhaps a trust model, a classification and levels of `acr`."""
        found = [self._policy("p0", "ALLOW")]
        if self.chance(0.5):
            found.append(self._policy("p1", "DENY"))
        if self.chance(0.3):
            found.append(self._policy("p2", "ALLOW"))
        if self.chance(0.7):
            found.append(_document("TrustModel", "model", self._model()))
        if self.chance(0.5):
            found.append(_document("ResourceClassification", "classes", self._classes()))
        for number, issuer in enumerate(ISSUERS):
            if self.chance(0.5):
                levels = {name: self.random.randint(0, 3) for name in self.some(_ACR, 4)}
                found.append(_document("IssuerPolicy", f"i{number}", {"issuer": issuer, "acrLevels": levels}))
        return tuple(found)

    def _policy(self, name: str, action: str) -> Document:
        rules = [
            self._rule(deny=action == "DENY")
            for _ in range(self.random.choice((1, 2) if action == "DENY" else (1, 2, 4)))
        ]
        return _document("AccessPolicy", name, {"action": action, "rules": rules})

    def _rule(self, *, deny: bool) -> Document:
        rule: Document = {}
        if self.chance(0.4):
            rule["to"] = [self._operation()]
        if self.chance(0.5 if deny else 0.35):
            rule["when"] = [self._key(deny=deny) for _ in range(self.random.choice((1, 1, 2)))]
        if self.chance(0.35):
            on_trust = tuple(ON_TRUST) if not self._monotone else tuple(ON_TRUST)[2:] if deny else tuple(ON_TRUST)[:2]
            rule["condition"] = self.random.choice((*CONDITIONS, *on_trust))
        if not deny and self.chance(0.6):
            required = {
                "network": self._network_required, "device": self._device_required, "trust": self._demand,
                "authentication": self._login,
            }  # fmt: skip
            rule["require"] = {
                name: required[name]() for name in self.some(tuple(required), self.random.choice((1, 1, 3)))
            }
        return rule or {"to": [self._operation()]}

    def _operation(self) -> Document:
        operation: dict[str, list[str]] = {}
        if self.chance(0.7):
            operation["notPaths" if self.chance(0.3) else "paths"] = self.some(_PATTERNS)
        if self.chance(0.25):
            operation["hosts"] = self.some(_HOST_PATTERNS, 1)
        if not operation or self.chance(0.2):
            operation["notMethods" if self.chance(0.3) else "methods"] = self.some(_METHODS, 1)
        return {"operation": operation}

    def _key(self, *, deny: bool) -> Document:
        if self.chance(0.25):
            names = _LOW_SETS if deny else _LEVEL_SETS
            others = _LEVEL_SETS if deny else _LOW_SETS
            if not self._monotone:
                names = others = (*_LEVEL_SETS, *_LOW_SETS)
            field_, sets = self.random.choice((("values", names), ("notValues", others)))
            return {"key": "zta.trust.level", field_: list(self.random.choice(sets))}
        key = self.random.choice(tuple(_KEYS))
        condition: Document = {"key": key}
        if self.chance(0.65):
            condition["values"] = self.some(_KEYS[key])
        if "values" not in condition or self.chance(0.15):
            condition["notValues"] = self.some(_KEYS[key])
        return condition

    def _network_required(self) -> Document:
        fields: Document = {
            "countries": self.some(_COUNTRIES), "notCountries": self.some(_COUNTRIES), "asns": self.some((1, 64500)),
            "anonymous": self.chance(0.2), "corporate": self.chance(0.5), "reputationAtLeast": self.random.choice((0, 50, 100)),
        }  # fmt: skip
        return {name: fields[name] for name in self.some(tuple(fields))}

    def _device_required(self) -> Document:
        fields: Document = {
            "managed": self.chance(0.8), "encrypted": self.chance(0.8), "compliant": self.chance(0.8), "seenWithin": "1h",
            "osAtLeast": self.random.choice(({"macOS": "26.1"}, {"Windows": "10.0.22631"}, {"macOS": "26", "Windows": "10.0"})),
        }  # fmt: skip
        return {name: fields[name] for name in self.some(tuple(fields))}

    def _demand(self) -> Document:
        demand: Document = {} if self.chance(0.3) else {"level": self.random.choice(("LOW", "MEDIUM", "HIGH"))}
        for name in ("user", "device", "network", "behavior"):
            if self.chance(0.15):
                demand[name] = self.random.choice((0, 40, 60, 80, 100))
        return demand or {"user": 70}

    def _login(self) -> Document:
        fields: Document = {
            "acr": self.some(_ACR), "acrAtLeast": self.random.randint(1, 3), "amr": self.some(("hwk", "mfa"), 1),
            "maxAge": self.random.choice(("1m", "10m", "2h")),
        }  # fmt: skip
        return {name: fields[name] for name in self.some(tuple(fields))}

    def _model(self) -> Document:
        spec: Document = {"allowedCountries": self.some(_COUNTRIES)}
        if self.chance(0.3):
            spec["leastReputation"] = self.random.choice((0, 49, 50, 100))
        if self.chance(0.2):
            spec["seedCompatible"] = True
        if self.chance(0.2):
            spec["levels"] = {"LOW": 30, "MEDIUM": 61, "HIGH": 90}
        components = {name: part for name in ("user", "device", "network") if (part := self._component(name))}
        components["behavior"] = {"assume": self.random.choice((100, 100, 70, 0))}
        return spec | {"components": components}

    def _component(self, name: str) -> Document:
        part: Document = {}
        if self.chance(0.3):
            part["weight"] = self.random.choice((0, 1, 33, 100) if name != "user" else (1, 33))
        if self.chance(0.5):
            part["floor"] = self.random.choice((0, 0, 50, 100))
        if self.chance(0.4):
            part["signals"] = [self._signal(name, number) for number in range(self.random.randint(1, 4))]
        elif self.chance(0.1):
            part["assume"] = self.random.choice((0, 65, 100))
        return part

    def _signal(self, component: str, number: int) -> Document:
        built_in = {
            "user": ("noMfa", "highRisk", "elevatedRisk"),
            "device": ("unmanaged", "notCompliant", "noFirewall", "unknownDevice"),
            "network": ("countryNotAllowed", "badReputation", "anonymousNetwork"),
        }[component]  # fmt: skip
        signal: Document = {"name": f"s{number}", "points": -self.random.choice((1, 5, 30, 30, 100))}
        if self.chance(0.15):
            signal["caps"] = self.random.choice(("DENY", "LOW", "MEDIUM"))
        match self.random.randrange(4):
            case 0 if number < len(built_in):
                signal["name"] = built_in[number]
            case 1:
                signal["claimAge"] = {"claim": "account_created_at", "below": "720h"}
            case 2:
                signal["count"] = {"claim": "security_violations"}
                if self.chance(0.5):
                    signal["most"] = -40
            case _:
                signal["when"] = self.random.choice([text for text in CONDITIONS if "resource" not in text])
        return signal

    def _classes(self) -> Document:
        rules = [
            {
                "class": self.random.choice(_CLASSES),
                "to": [self._operation() for _ in range(self.random.choice((1, 1, 2)))],
            }
            for _ in range(self.random.randint(0, 4))
        ]
        spec: Document = {"default": self.random.choice(_CLASSES), "rules": rules}
        if not rules:
            del spec["rules"]
        if self.chance(0.8):
            spec["demands"] = {name: self._demand() for name in self.some(_CLASSES, 4)}
        return spec

    def state(self, documents: Sequence[Document] = ()) -> State:
        """A request, often with most facts good."""
        good = self.random.choice((0.98, 0.9, 0.5))
        network = NetworkFacts(**{name: self._fact(values, good) for name, values in _NETWORK.items()})
        fields = {name: self._fact(values, good) for name, values in _DEVICE.items() if self.chance(0.9)}
        device = DeviceFacts("laptop-1", "certificate", "default/fleet", fields)
        if self.chance(0.15):
            device = DeviceFacts(inventory="default/fleet")
        claims: dict[str, Any] | None = None
        if self.chance(0.9):
            claims = {"iss": self.random.choice(ISSUERS), "sub": "ann"}
            claims |= {name: self._value(values, good) for name, values in _CLAIMS.items() if self.chance(0.85)}
        path = self.random.choice(_PLAIN_PATHS if self.chance(0.6) else _PATHS)
        asked = request(self.random.choice(_METHODS), path, self.random.choice(_HOSTS))
        signals = SignalFacts(**{name: self._fact(values, good) for name, values in _SIGNALS.items()})
        return State(asked, claims, network, device, tuple(documents), signals)

    def _value(self, values: Sequence[Any], good: float) -> Any:
        return values[0] if self.chance(good) else self.random.choice(values)

    def _fact(self, values: Sequence[Any], good: float) -> Fact:
        if not self.chance(good) and self.chance(0.5):
            return self.random.choice((ABSENT, Fact(None, Unknown.STALE), Fact(None, Unknown.CONFLICTING, NOW)))
        return known(self._value(values, good), NOW - 60, "test")


def _document(kind: str, name: str, spec: Document) -> Document:
    return {"apiVersion": "zta.dev/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def texts_of(documents: Sequence[Document]) -> list[str]:
    """The documents as files."""
    return [json.dumps(document, ensure_ascii=False) for document in documents]
