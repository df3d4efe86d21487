"""Random policies, and requests aimed at them. The vocabulary is small, so that rules share values and requests match.

Everything is drawn from one `random.Random`, so that hypothesis can shrink it and a seed can repeat it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support import policies as build
from zta_authz.model.identity import Changes

if TYPE_CHECKING:
    from random import Random

    from zta_authz.model.identity import Identity
    from zta_authz.model.request import RequestAttributes

Rule = dict[str, Any]

NAMESPACES = ("default", "istio-system", "other")
_SPACES = ("foo", "bar", "foo-prod", "default")
_ACCOUNTS = ("sleep", "web", "admin")
_DOMAINS = ("cluster.local", "td1", "old-td", "td2")
_ISSUERS = ("https://iss.example", "https://b.example/r", "issuer")
_SUBJECTS = ("alice", "bob", "svc", "")
_TEXTS = ("admin", "read", "write", "v1", "v1,v2", "a b")
_NAMES = tuple(f"x-h{number}" for number in range(14))
_CLAIMS = ("sub", "iss", "aud", "azp", "groups", "scope", "realm", *(f"c{number}" for number in range(12)))
_HEADS = ("/", "/api", "/api/items", "/static", "/v1/a", "/files/x.html")

VALUES: dict[str, tuple[str, ...]] = {
    "principals": (
        *(f"{d}/ns/{n}/sa/{a}" for d in _DOMAINS for n in _SPACES for a in _ACCOUNTS),
        "*", "*/sa/sleep", "cluster.local/ns/foo/*", "td1/*", "*web", "spiffe://x", "td1", "*b/ns/foo/sa/web",
    ),
    "namespaces": (*_SPACES, "*", "foo*", "*-prod", "f*o", "o", "a/b"),
    "serviceAccounts": (*_ACCOUNTS, *(f"{n}/{a}" for n in _SPACES for a in _ACCOUNTS)),
    "trustDomains": (*_DOMAINS, "*", "td*", "*-td", "c*l", "*1"),
    "requestPrincipals": (
        *(f"{i}/{s}" for i in _ISSUERS for s in _SUBJECTS if s), *(f"{i}/*" for i in _ISSUERS),
        *_ISSUERS, "*", "*/*", "*/alice", "*alice", "*e/alice", "https://iss.example/al*", "issuer*", "https*", "*r/bob",
    ),
    "ipBlocks": (
        "10.0.0.0/8", "10.0.0.1", "10.1.0.0/16", "10.1.2.3/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:db8::1",
        "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "192.0.2.7/31",
    ),
    "ports": ("80", "8080", "443", "0", "65535"),
    "hosts": (
        "example.com", "api.example.com", "*.example.com", "example.com:*", "API.example.com", "example.com:80", "*",
        "[2001:db8::1]", "local*", "example.com.", "[2001:db8::1]:80", "k.example.com",
    ),
    "methods": ("GET", "POST", "DELETE", "*", "P*", "*T", "get"),
    "paths": (
        *_HEADS, *(f"{head}/*" for head in _HEADS[1:]), "*", "*.html", "*items", "/api*", "*foo*", "/a/*/b",
        "/{*}", "/{**}", "/api/{*}", "/api/{**}", "/{*}/items", "/{**}/items", "/api/{*}/x/{**}/end", "/api/{**}/",
        "/v1/{*}", "/v1/{*}/{*}", "/static/{**}/a/b",
    ),
    "header": (*_TEXTS, "*", "v*", "*n", "*1", "*v*", "re*"),
    "claim": (*_TEXTS, "*", "a*", "*d", "alice", "7"),
    "metadata": (*_TEXTS, "*", "a*", "*d"),
    "listed": ("[admin]", "[re*]", "[*]", "[*e]"),
    "connection.sni": ("example.com", "*", "*.example.com", "api*", "Example.com"),
}  # fmt: skip
VALUES["remoteIpBlocks"] = VALUES["destination.ip"] = VALUES["ipBlocks"]

_SOURCE = (
    "principals", "namespaces", "serviceAccounts", "trustDomains", "requestPrincipals", "ipBlocks", "remoteIpBlocks",
)  # fmt: skip
_OPERATION = ("hosts", "ports", "methods", "paths")
_KEYS = {
    "source.ip": "ipBlocks", "remote.ip": "ipBlocks", "destination.ip": "ipBlocks", "source.namespace": "namespaces",
    "source.principal": "principals", "source.serviceAccount": "serviceAccounts", "source.trustDomain": "trustDomains",
    "request.auth.principal": "requestPrincipals", "destination.port": "ports", "connection.sni": "connection.sni",
    "request.auth.audiences": "claim", "request.auth.presenter": "claim",
}  # fmt: skip


@dataclass(slots=True)
class Draft:
    """A request and its caller under construction."""

    method: str = "GET"
    path: str = "/"
    host: str = "example.com"
    headers: dict[str, list[str]] = field(default_factory=dict)
    exact: bool = True
    ips: dict[str, str] = field(default_factory=dict)
    port: int = 8080
    sni: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    claims: dict[str, Any] | None = None
    set_headers: tuple[tuple[str, str], ...] = ()
    remove_headers: tuple[str, ...] = ()

    def request(self) -> RequestAttributes:
        headers = {n: v if self.exact else [",".join(v)] for n, v in self.headers.items()}
        return build.request(
            self.method, self.path, self.host, headers, exact=self.exact, source_ip=self.ips.get("source", ""),
            destination_ip=self.ips.get("destination", ""), port=self.port, sni=self.sni, metadata=self.metadata,
        )  # fmt: skip

    def identity(self) -> Identity:
        changes = Changes(self.set_headers, self.remove_headers)
        return build.identity(*self.names, claims=self.claims, spaced=("c0",), changes=changes)


class Shapes:
    """Draws policies and requests."""

    def __init__(self, random: Random, *, strict: bool) -> None:
        self.random = random
        self.strict = strict

    def some(self, values: tuple[str, ...], at_most: int = 3) -> list[str]:
        return [self.random.choice(values) for _ in range(self.random.randint(1, at_most))]

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def document(self, number: int, rules: list[Rule]) -> dict[str, Any]:
        """A policy, in most cases in force for the workload."""
        action = self.random.choice(("ALLOW", "ALLOW", "DENY", "DENY", "AUDIT"))
        metadata: dict[str, Any] = {"namespace": self.random.choice((*NAMESPACES, "default", "default"))}
        if self.chance(0.05):
            metadata["annotations"] = {"istio.io/dry-run": self.random.choice(("true", "false"))}
            action = "DENY"
        document = build.policy(f"p{number:03}", *rules, action=action, **metadata)
        if self.chance(0.2):
            document["spec"]["selector"] = {"matchLabels": {"app": self.random.choice(("web", "other"))}}
        return document

    def documents(self, rules: int) -> list[dict[str, Any]]:
        """Policies with about this many rules in total, of one shape or mixed."""
        shape = self.random.choice(("mixed", "mixed", *SHAPES))
        policies: list[dict[str, Any]] = []
        while rules > 0:
            count = self.random.randint(1, max(1, min(rules, 20)))
            rules -= count
            policies.append(self.document(len(policies), [self.rule(shape) for _ in range(count)]))
        if self.chance(0.1):
            policies.append(build.policy("none", namespace="default"))
        return policies

    def rule(self, shape: str) -> Rule:
        if shape != "mixed":
            return SHAPES[shape](self)
        rule: Rule = {}
        if self.chance(0.5):
            rule["from"] = [{"source": self.party(_SOURCE)} for _ in range(self.random.choice((1, 1, 2, 3)))]
        if self.chance(0.6):
            rule["to"] = [{"operation": self.party(_OPERATION)} for _ in range(self.random.choice((1, 1, 2, 3)))]
        if self.chance(0.5):
            rule["when"] = [self.condition() for _ in range(self.random.randint(1, 2))]
        return rule

    def party(self, names: tuple[str, ...]) -> dict[str, list[str]]:
        drawn: dict[str, list[str]] = {}
        for name in self.random.sample(names, self.random.choice((1, 1, 2))):
            label = f"not{name[0].upper()}{name[1:]}" if self.chance(0.25) else name
            drawn[label] = self.some(VALUES[name])
        if {"serviceAccounts", "notServiceAccounts"} & set(drawn):
            for label in ("principals", "notPrincipals", "namespaces", "notNamespaces"):
                drawn.pop(label, None)
        return drawn

    def condition(self, key: str = "") -> dict[str, Any]:
        kind = _KEYS.get(key, "header" if key.startswith("request.headers") else "claim")
        if not key:
            key, kind = self._key()
        drawn: dict[str, Any] = {"key": key}
        if self.chance(0.8):
            drawn["values"] = self.some(VALUES[kind])
        if "values" not in drawn or self.chance(0.2):
            drawn["notValues"] = self.some(VALUES[kind])
        return drawn

    def _key(self) -> tuple[str, str]:
        match self.random.randrange(4):
            case 0:
                name = self.random.choice((*_NAMES[:4], "X-H1", "x_h1", ":path", "host", ":method"))
                return f"request.headers[{name}]", "header"
            case 1:
                nested = self.random.choice(("[realm][roles]", "[realm]", "[a.b]", "[a]b]", "[a]]]", ""))
                return f"request.auth.claims{nested or '[' + self.random.choice(_CLAIMS) + ']'}", "claim"
            case 2:
                return "experimental.envoy.filters.f[k]", self.random.choice(("metadata", "listed"))
        return self.random.choice(tuple(_KEYS.items()))

    def draft(self) -> Draft:
        """A random request, not aimed at a rule."""
        r = self.random
        draft = Draft(
            r.choice(("GET", "POST", "PUT", "DELETE", "get")), r.choice((*_HEADS, "/api?x=/static", "/x#y", "")),
            r.choice(("example.com", "API.example.com:80", "example.com.", "[2001:db8::1]:80", "", "\u212a.example.com")),
            exact=self.chance(0.6), port=r.choice((80, 8080, 0)), sni=r.choice(("", "example.com", "API.example.com")),
        )  # fmt: skip
        for end in ("source", "destination"):
            draft.ips[end] = r.choice(
                ("10.0.0.1", "10.1.2.9", "2001:db8::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a01:203::1", "", "x")
            )
        for name in r.sample(_NAMES, r.choice((0, 1, 3))):
            spelled = name.replace("-", r.choice(("-", "-", "-", "_", ".")))
            draft.headers[spelled] = [r.choice((*_TEXTS, "", "v")) for _ in range(r.choice((1, 1, 2)))]
        if self.chance(0.3):
            draft.headers["x-forwarded-for"] = [
                r.choice(("10.0.0.1", "1.1.1.1, 10.1.2.3", "10.0.0.1:80", "", "a,,", "::ffff:10.1.2.3"))
            ]
        if self.chance(0.7):
            draft.names = [f"spiffe://{self._spiffe()}"]
            if not self.strict and self.chance(0.4):
                draft.names += r.sample(("spiffe://td1/ns/foo/sa/web", "client.example", "CN=a/ns/foo/b"), 2)
        if self.chance(0.6):
            draft.claims = {"iss": r.choice(_ISSUERS), "sub": r.choice((*_SUBJECTS, 7))}
            for name in r.sample(_CLAIMS[2:], r.choice((0, 1, 4))):
                draft.claims[name] = r.choice((*_TEXTS, ["read", "admin"], [7, "v1"], 7, None, {"roles": ["admin"]}))
        if self.chance(0.2):
            draft.set_headers = ((r.choice(_NAMES[:4]), r.choice(_TEXTS)),)
        if self.chance(0.2):
            draft.remove_headers = (r.choice(_NAMES[:4]),)
        return draft

    def _spiffe(self) -> str:
        r = self.random
        domain, space, account = r.choice(_DOMAINS), r.choice(_SPACES), r.choice(_ACCOUNTS)
        return r.choice((
            f"{domain}/ns/{space}/sa/{account}", f"{domain}/ns/{space}/sa/{account}", f"{domain}/ns/{space}/x/sa/{account}/y",
            f"{domain}/ns/{space}", domain, f"{domain}/sa/{account}/ns/{space}/z", f"{domain}/ns/{space}/saas/sa/{account}x",
        ))  # fmt: skip

    def aimed(self, rules: list[Rule]) -> Draft:
        """A request aimed at one of `rules`: it has most of the values that the rule requires."""
        draft = self.draft()
        if not rules or self.chance(0.1):
            return draft
        rule = self.random.choice(rules)
        fields: list[tuple[str, list[str]]] = []
        for section, inner in (("from", "source"), ("to", "operation")):
            if section in rule:
                fields += self.random.choice(rule[section])[inner].items()
        fields += [(c["key"], c["values"]) for c in rule.get("when", ()) if "values" in c]
        for name, values in fields:
            if not name.startswith("not") and self.chance(0.95):
                _put(draft, name, self._meet(self.random.choice(values)), self)
        return draft

    def _meet(self, value: str) -> str:
        """A text that `value` matches, or nearly."""
        filler = self.random.choice(("x", "x", "items", "a/b", ""))
        return value.replace("{**}", filler).replace("{*}", filler).replace("*", filler)


_ONE_NAME = {
    "principals": "spiffe://{}",
    "source.principal": "spiffe://{}",
    "namespaces": "spiffe://td1/ns/{}/sa/web",
    "source.namespace": "spiffe://td1/ns/{}/sa/web",
    "trustDomains": "spiffe://{}/ns/foo/sa/web",
    "source.trustDomain": "spiffe://{}/ns/foo/sa/web",
}


def _put(draft: Draft, name: str, text: str, shapes: Shapes) -> None:
    if name in _ONE_NAME:
        draft.names = [_ONE_NAME[name].format(text)]
    elif name in ("serviceAccounts", "source.serviceAccount"):
        space, _, account = text.rpartition("/")
        draft.names = [f"spiffe://td1/ns/{space or 'default'}/sa/{account}"]
    elif name in ("ipBlocks", "source.ip"):
        draft.ips["source"] = text.partition("/")[0]
    elif name in ("remoteIpBlocks", "remote.ip"):
        draft.headers["x-forwarded-for"] = [text.partition("/")[0]]
    elif name == "destination.ip":
        draft.ips["destination"] = text.partition("/")[0]
    elif "[" in name:
        _put_keyed(draft, name, text, shapes)
    elif "request" in name:
        _put_claims(draft, name, text)
    else:
        _put_operation(draft, name, text, shapes)


def _put_operation(draft: Draft, name: str, text: str, shapes: Shapes) -> None:
    match name:
        case "ports" | "destination.port":
            draft.port = int(text)
        case "hosts":
            draft.host = text + shapes.random.choice(("", "", ":80", ".", ".:80"))
        case "methods":
            draft.method = text
        case "paths":
            draft.path = text + shapes.random.choice(("", "", "?q=1", "/"))
        case _:
            assert name == "connection.sni", name
            draft.sni = text


def _put_claims(draft: Draft, name: str, text: str) -> None:
    issuer, _, subject = text.rpartition("/")
    claims = {
        "request.auth.audiences": {"aud": text},
        "request.auth.presenter": {"azp": text},
    }.get(name, {"iss": issuer or text, "sub": subject})
    draft.claims = {**(draft.claims or {}), **claims}


def _put_keyed(draft: Draft, name: str, text: str, shapes: Shapes) -> None:
    kind, _, key = name[:-1].partition("[")
    if kind == "request.headers":
        draft.headers[key.lower()] = [text, *(("v1",) if shapes.chance(0.3) else ())]
    elif kind == "request.auth.claims" and key == "realm][roles":
        draft.claims = {**(draft.claims or {}), "realm": {"roles": [text]}}
    elif kind == "request.auth.claims":
        draft.claims = {**(draft.claims or {}), key: shapes.random.choice((text, [text], [7, text], f"a {text}"))}
    else:
        draft.metadata = {"envoy.filters.f": {"k": [text.strip("[]")] if text.startswith("[") else text}}


def _many_headers(shapes: Shapes) -> Rule:
    rule: Rule = {"when": [shapes.condition(f"request.headers[{shapes.random.choice(_NAMES)}]") for _ in range(2)]}
    return rule | ({"to": [{"operation": {"methods": ["GET"]}}]} if shapes.chance(0.3) else {})


def _many_claims(shapes: Shapes) -> Rule:
    return {"when": [shapes.condition(f"request.auth.claims[{shapes.random.choice(_CLAIMS)}]") for _ in range(2)]}


def _only(*names: str, section: str, inner: str, negated: float = 0.0) -> Any:
    def rule(shapes: Shapes) -> Rule:
        party = {}
        for name in names:
            label = f"not{name[0].upper()}{name[1:]}" if shapes.chance(negated) else name
            party[label] = shapes.some(VALUES[name], 2 if not negated else 5)
        return {section: [{inner: party} for _ in range(1)]}

    return rule


def _groups(shapes: Shapes) -> Rule:
    return {
        "from": [{"source": shapes.party(_SOURCE)} for _ in range(2)],
        "to": [{"operation": shapes.party(_OPERATION)} for _ in range(2)],
    }


def _same_key(shapes: Shapes) -> Rule:
    rule: Rule = {"to": [{"operation": {"paths": ["/api"], "methods": shapes.some(VALUES["methods"])}}]}
    rule |= {"from": [{"source": {"principals": shapes.some(VALUES["principals"])}}]} if shapes.chance(0.7) else {}
    return rule | ({"when": [shapes.condition()]} if shapes.chance(0.5) else {})


def _mixed_depth(shapes: Shapes) -> Rule:
    return shapes.rule("mixed") | {"to": [{"operation": {"paths": shapes.some(VALUES["paths"][-12:], 2)}}]}


SHAPES: dict[str, Any] = {
    "headers": _many_headers,
    "claims": _many_claims,
    "groups": _groups,
    "same key": _same_key,
    "templates": _mixed_depth,
    "addresses": _only("ipBlocks", "remoteIpBlocks", section="from", inner="source"),
    "accounts": _only("serviceAccounts", section="from", inner="source"),
    "namespaces": _only("namespaces", "trustDomains", section="from", inner="source"),
    "principals": _only("principals", "requestPrincipals", section="from", inner="source"),
    "hosts": _only("hosts", "methods", section="to", inner="operation"),
    "negations": _only("paths", "hosts", "methods", section="to", inner="operation", negated=0.9),
    "no sources": _only("principals", "namespaces", "ipBlocks", section="from", inner="source", negated=0.9),
}
"""Sets of similar rules, so that each kind of lookup has many entries."""
