"""Random policy sets over the whole schema of AuthorizationPolicy and RequestAuthentication, by seed.

Only documents that Istio's own validation takes are made; what zta-authz refuses to load beyond that is listed in
`docs/differential.md` and not made either.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tests.differential import vocabulary as words
from tests.differential.case import Document, PolicySet, Proxy
from tests.differential.credentials import ISSUERS
from tests.differential.envoy_config import metadata_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Json = dict[str, Any]
_PLAIN_SETS = 0.5
"""How many sets have one policy of one rule with one section, where nothing else can hide a wrong match."""

_ISTIO = ("security.istio.io/v1", "security.istio.io/v1beta1")


def policy_set(seed: int, number: int) -> PolicySet:
    """The set `number` of the run `seed`; the same for the same arguments, whatever the others are."""
    return _Sets(random.Random(f"{seed}/{number}")).make(f"{seed}/{number}")


class _Sets:
    """Draws policy sets from one source of randomness."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._plain = False

    def make(self, name: str) -> PolicySet:
        rng = self._rng
        self._plain = rng.random() < _PLAIN_SETS
        counts = (1,) if self._plain else (1, 2, 2, 3, 4)
        documents = [self._policy(number) for number in range(rng.choice(counts))]
        if rng.random() < (0.95 if _reads_tokens(documents) else 0.5):
            documents += [self._authentication(number) for number in range(rng.choice((1, 1, 1, 2)))]
        rng.shuffle(documents)
        return PolicySet(
            documents=tuple(documents),
            trust_domain=rng.choice(("cluster.local", "td1")),
            trust_domain_aliases=rng.choice(words.ALIASES),
            proxy=Proxy(
                use_remote_address=rng.random() < 0.25,
                xff_num_trusted_hops=rng.choice((0, 0, 0, 1, 2)),
                normalize_path=rng.random() < 0.8,
                merge_slashes=rng.random() < 0.1,
            ),
            name=name,
        )

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _some(self, values: Sequence[str], most: int = 3) -> list[str]:
        count = self._rng.choice([1, 1, 2, most])
        return self._rng.sample(values, min(count, len(values)))

    def _metadata(self, name: str) -> Json:
        namespace = self._rng.choices(("foo", "istio-system", "bar"), (8, 3, 1))[0]
        return {"name": name, "namespace": namespace}

    def _selector(self, spec: Json) -> None:
        if self._chance(0.3):
            labels = self._rng.choices(words.LABELS, (6, 3, 1, 1))[0]
            spec["selector"] = {"matchLabels": dict(labels)}

    def _policy(self, number: int) -> Document:
        metadata = self._metadata(f"p{number}")
        action = self._rng.choices(("ALLOW", "DENY", "AUDIT"), (11, 5, 1))[0]
        if action != "AUDIT" and self._chance(0.08):
            metadata["annotations"] = {"istio.io/dry-run": self._rng.choice(("true", "true", "false"))}
        spec: Json = {}
        self._selector(spec)
        if action != "ALLOW" or self._chance(0.5):
            spec["action"] = action
        if action != "ALLOW" or self._chance(0.95):
            counts = (1,) if self._plain else (1, 1, 2, 3)
            spec["rules"] = [self._rule() for _ in range(self._rng.choice(counts))]
        return {
            "apiVersion": self._rng.choice(_ISTIO),
            "kind": "AuthorizationPolicy",
            "metadata": metadata,
            "spec": spec,
        }

    def _rule(self) -> Json:
        rule: Json = {}
        if self._chance(0.03):
            return rule
        parts: tuple[str, ...] = self._rng.choice(
            (("from",), ("to",), ("when",), ("from", "to"), ("to", "when"), ("from", "when"))
        )
        if self._plain:
            parts = (self._rng.choice(("from", "to", "when")),)
        elif self._chance(0.15):
            parts = ("from", "to", "when")
        if "from" in parts:
            rule["from"] = [{"source": self._source()} for _ in range(self._rng.choice((1, 1, 2)))]
        if "to" in parts:
            rule["to"] = [{"operation": self._operation()} for _ in range(self._rng.choice((1, 1, 2)))]
        if "when" in parts:
            rule["when"] = [self._condition() for _ in range(self._rng.choice((1, 1, 2)))]
        return rule

    def _put(self, entry: Json, name: str, draw: Callable[[], list[str]]) -> None:
        """A field, its `not` form, or both."""
        form = self._rng.choices(("is", "not", "both"), (7, 2, 1))[0]
        if form != "not":
            entry[name] = draw()
        if form != "is":
            entry[f"not{name[0].upper()}{name[1:]}"] = draw()

    def _source(self) -> Json:
        draws: dict[str, Callable[[], list[str]]] = {
            "principals": self._principals,
            "requestPrincipals": lambda: self._some(words.REQUEST_PRINCIPALS),
            "namespaces": lambda: self._some(words.NAMESPACE_PATTERNS),
            "serviceAccounts": lambda: self._some(words.SERVICE_ACCOUNTS),
            "trustDomains": lambda: self._some(words.TRUST_DOMAIN_PATTERNS),
            "ipBlocks": lambda: self._some(words.SOURCE_BLOCKS),
            "remoteIpBlocks": lambda: self._some(words.REMOTE_BLOCKS),
        }
        names = self._rng.sample(sorted(draws), self._rng.choice((1, 1, 1, 2)))
        if "serviceAccounts" in names:
            names = [name for name in names if name not in ("principals", "namespaces")]
        source: Json = {}
        for name in names:
            self._put(source, name, draws[name])
        return source

    def _principals(self) -> list[str]:
        return [self._pattern(value, "/") for value in self._some(words.PRINCIPALS)]

    def _pattern(self, value: str, cut: str) -> str:
        """`value`, or a prefix or suffix of it with a star, or a star."""
        form = self._rng.choices(("exact", "prefix", "suffix", "star", "inner"), (8, 4, 4, 1, 1))[0]
        place = self._rng.choice([index for index, char in enumerate(value) if char == cut] or [len(value) // 2])
        if form == "prefix":
            return value[: place + self._rng.choice((0, 1, 2))] + "*"
        if form == "suffix":
            return "*" + value[place:]
        if form == "star":
            return "*"
        if form == "inner":
            return value[:place] + "*" + value[place + 1 :]
        return value

    def _operation(self) -> Json:
        draws: dict[str, Callable[[], list[str]]] = {
            "hosts": lambda: self._some(words.HOSTS),
            "ports": lambda: self._some(words.PORTS),
            "methods": lambda: self._some(words.METHODS),
            "paths": lambda: self._some(words.PATHS + words.TEMPLATES),
        }
        weighted = ["hosts", "ports", "methods", "methods", "paths", "paths", "paths"]
        operation: Json = {}
        for name in {self._rng.choice(weighted) for _ in range(self._rng.choice((1, 1, 2, 3)))}:
            operation[name] = []
        for name in sorted(operation):
            del operation[name]
            self._put(operation, name, draws[name])
        return operation

    def _condition(self) -> Json:
        draws: dict[str, Callable[[], list[str]]] = {
            "source.ip": lambda: self._some(words.SOURCE_BLOCKS),
            "remote.ip": lambda: self._some(words.REMOTE_BLOCKS),
            "source.namespace": lambda: self._some(words.NAMESPACE_PATTERNS),
            "source.principal": self._principals,
            "source.serviceAccount": lambda: self._some(words.SERVICE_ACCOUNTS),
            "source.trustDomain": lambda: self._some(words.TRUST_DOMAIN_PATTERNS),
            "request.auth.principal": lambda: self._some(words.REQUEST_PRINCIPALS),
            "request.auth.audiences": lambda: self._some((*words.AUDIENCES, "aud*", "*-b", "*")),
            "request.auth.presenter": lambda: self._some(("admin", "*min", "*")),
            "destination.ip": lambda: self._some(words.DESTINATION_BLOCKS),
            "destination.port": lambda: self._some(words.PORTS),
            "connection.sni": lambda: self._some(words.SNIS),
            metadata_key("fact"): lambda: self._some(self._rng.choice((words.FACTS, words.FACTS, words.LISTED_FACTS))),
            metadata_key("facts"): lambda: self._some(self._rng.choice((words.FACTS, words.LISTED_FACTS))),
        }
        claim = f"request.auth.claims{self._rng.choice(words.CLAIM_KEYS)}"
        name = self._rng.choice(words.RARE_HEADERS if self._chance(0.25) else words.HEADERS)
        draws |= {claim: lambda: self._some(words.CLAIM_VALUES)}
        header = f"request.headers[{name}]"
        values = words.HEADER_VALUES
        if name.startswith("x-jwt"):
            values = (*words.HEADER_VALUES, *words.CLAIM_HEADER_VALUES)
        draws |= {header: lambda: self._some(values)}
        key = self._rng.choices((claim, header, self._rng.choice(sorted(draws))), (3, 3, 8))[0]
        condition: Json = {"key": key}
        form = self._rng.choices(("is", "not", "both"), (7, 2, 1))[0]
        if form != "not":
            condition["values"] = draws[key]()
        if form != "is":
            condition["notValues"] = draws[key]()
        return condition

    def _authentication(self, number: int) -> Document:
        issuers = self._rng.choice((("a",), ("b",), ("a", "b")))
        spec: Json = {"jwtRules": [self._jwt_rule(issuer) for issuer in issuers]}
        self._selector(spec)
        return {
            "apiVersion": self._rng.choice(_ISTIO),
            "kind": "RequestAuthentication",
            "metadata": self._metadata(f"r{number}"),
            "spec": spec,
        }

    def _jwt_rule(self, issuer: str) -> Json:
        keys = self._rng.choice(words.ISSUER_KEY_SETS[issuer]) if self._chance(0.4) else issuer
        rule: Json = {"issuer": ISSUERS[issuer], "jwks": f"{{jwks:{keys}}}"}
        if self._chance(0.06):
            del rule["issuer"]
        if self._chance(0.3):
            rule["audiences"] = self._some(words.AUDIENCES)
        if self._chance(0.12):
            rule["presence"] = self._rng.choice(("REQUIRED", "REQUIRED", "OPTIONAL"))
        self._places(rule)
        if self._chance(0.2):
            rule["outputPayloadToHeader"] = "x-jwt-payload"
        outputs = [{"header": "x-jwt-sub", "claim": "sub"}] if self._chance(0.3) else []
        if self._chance(0.35):
            outputs.append({"header": "x-jwt-claim", "claim": self._rng.choice(words.CLAIM_OUTPUTS)})
        if outputs:
            rule["outputClaimToHeaders"] = outputs
        if self._chance(0.3):
            rule["forwardOriginalToken"] = self._chance(0.8)
        if self._chance(0.15):
            rule["spaceDelimitedClaims"] = ["roles"]
        return rule

    def _places(self, rule: Json) -> None:
        """Where the rule's tokens stand, where it says so."""
        if self._chance(0.3):
            headers: tuple[Json, ...] = (
                {"name": "x-token"},
                {"name": "x-token", "prefix": self._rng.choice(words.PREFIXES)},
                {"name": "x-token", "prefix": self._rng.choice(words.PREFIXES)},
                {"name": "Authorization", "prefix": self._rng.choice(words.PREFIXES)},
                {"name": "Authorization", "prefix": "Bearer "},
            )
            rule["fromHeaders"] = self._rng.sample(headers, self._rng.choice((1, 1, 2)))
        if self._chance(0.15):
            rule["fromParams"] = self._some(words.PARAMS, 2)
        if self._chance(0.12):
            rule["fromCookies"] = self._some(words.COOKIES, 2)


def _reads_tokens(documents: list[Document]) -> bool:
    text = str(documents)
    return "equestPrincipals" in text or "request.auth" in text or "x-jwt" in text
