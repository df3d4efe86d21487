"""Requests aimed at the clauses of a policy set: just inside one of its rules, then often just outside.

A request starts from one rule that is in force: for each of its clauses a value is made that meets it. Then up to
three mutations of the request's own values follow. Nothing here needs to be right about what matches: Envoy says.
"""

from __future__ import annotations

import random
import urllib.parse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.differential import vocabulary as words
from tests.differential.case import Connection, Peer, PolicySet, Request
from tests.differential.credentials import ISSUERS
from tests.differential.draft import Draft
from tests.differential.envoy_config import PORTS
from tests.differential.mutations import mutate
from tests.differential.rbac import claim_path, selected

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]
_MOST_CONNECTIONS = 6


def requests_for(policies: PolicySet, seed: int, count: int) -> list[Request]:
    """`count` requests for the set, the same for the same arguments."""
    return _Aim(random.Random(f"{seed}/{policies.name}/requests"), policies).make(count)


class _Aim:
    """Draws the requests of one set; few connections, so that most requests share one."""

    def __init__(self, rng: random.Random, policies: PolicySet) -> None:
        self._rng = rng
        self._policies = policies
        documents = selected(policies, "AuthorizationPolicy")
        self._rules = [
            (rule, document)
            for document in documents
            for rule in document["spec"].get("rules", ())
            for _ in range(3 if document["spec"].get("action", "ALLOW") == "ALLOW" else 1)
        ]
        self._jwt_rules = [
            rule for document in selected(policies, "RequestAuthentication") for rule in document["spec"]["jwtRules"]
        ]
        self._connections: list[Connection] = []

    def make(self, count: int) -> list[Request]:
        return [self._request() for _ in range(count)]

    def _request(self) -> Request:
        draft = Draft(self._rng)
        if self._rng.random() < 0.2:
            draft.claims = self._claims()
        if self._rules:
            self._meet_rule(draft, *self._rng.choice(self._rules))
        for _ in range(self._rng.choice((0, 0, 1, 1, 2, 3))):
            mutate(draft, self._rng)
        draft.place_token(self._jwt_rules)
        return replace(draft.request(), connection=self._connection(draft))

    def _connection(self, draft: Draft) -> Connection:
        """The draft's connection, or a like one where there are enough of them."""
        wanted = draft.connection
        if wanted in self._connections:
            return wanted
        if len(self._connections) < _MOST_CONNECTIONS:
            self._connections.append(wanted)
            return wanted
        alike = [other for other in self._connections if other.peer == wanted.peer and other.tls == wanted.tls]
        return self._rng.choice(alike or self._connections)

    def _claims(self) -> Json:
        issuer = self._rng.choice(words.ISSUER_NAMES)
        return {"iss": ISSUERS[issuer], "sub": self._rng.choice(words.SUBJECTS)}

    def _meet_rule(self, draft: Draft, rule: Json, document: Json) -> None:
        meet = _Meet(self._rng, draft, document["metadata"]["namespace"])
        for part, inner in (("from", "source"), ("to", "operation")):
            entries = rule.get(part)
            if entries:
                for name, values in self._rng.choice(entries)[inner].items():
                    if not name.startswith("not"):
                        meet.field(name, self._rng.choice(values))
        for condition in rule.get("when", ()):
            if condition.get("values"):
                meet.condition(condition["key"], self._rng.choice(condition["values"]))


class _Meet:
    """Changes a draft so that one value of a clause is met."""

    def __init__(self, rng: random.Random, draft: Draft, namespace: str) -> None:
        self._rng = rng
        self._draft = draft
        self._namespace = namespace

    def field(self, name: str, value: str) -> None:
        """Meet `value` of a field of a source or an operation."""
        meets: dict[str, Callable[[str], None]] = {
            "principals": self._principal,
            "requestPrincipals": self._request_principal,
            "namespaces": self._source_namespace,
            "serviceAccounts": self._service_account,
            "trustDomains": self._trust_domain,
            "ipBlocks": self._source_ip,
            "remoteIpBlocks": self._remote_ip,
            "hosts": lambda text: self._draft.set_header("host", self._instance(text).replace("/", ".")),
            "ports": self._port,
            "methods": self._method,
            "paths": self._path,
        }
        meets[name](value)

    def condition(self, key: str, value: str) -> None:
        """Meet `value` of a `when` key."""
        fields = {
            "source.ip": "ipBlocks",
            "remote.ip": "remoteIpBlocks",
            "source.namespace": "namespaces",
            "source.principal": "principals",
            "source.serviceAccount": "serviceAccounts",
            "source.trustDomain": "trustDomains",
            "request.auth.principal": "requestPrincipals",
            "destination.port": "ports",
        }
        if key in fields:
            self.field(fields[key], value)
        elif key == "connection.sni":
            self._draft.link(tls=True, sni=self._instance(value).strip(".").replace("/", "-"))
        elif key == "request.auth.audiences":
            self._draft.claim(["aud"], self._rng.choice((self._instance(value), [self._instance(value), "aud-b"])))
        elif key == "request.auth.presenter":
            self._draft.claim(["azp"], self._instance(value))
        elif key.startswith("request.auth.claims"):
            self._claim(claim_path(key.removeprefix("request.auth.claims")), value)
        elif key.startswith("request.headers"):
            self._header(key[key.index("[") + 1 : -1], value)
        elif key.endswith("[fact]"):
            self._draft.set_header("x-fact", self._instance(value))
        elif key.endswith("[facts]"):
            listed = value.startswith("[")
            text = self._instance(value.strip("[]"))
            self._draft.set_fact([text, "other"] if listed else text)

    def _instance(self, pattern: str) -> str:
        """A text that the pattern matches, more or less."""
        if pattern == "*":
            return self._rng.choice(("x", "v1", "admin"))
        if pattern.startswith("*"):
            return self._rng.choice(("", "x", "1.2-")) + pattern[1:]
        if pattern.endswith("*"):
            return pattern[:-1] + self._rng.choice(("", "x", "/y"))
        return pattern

    def _peer(self, uri: str) -> None:
        others = ((), (), ("spiffe://td9/ns/other/sa/other",))
        more = self._rng.choice(others)
        uris = (*more, uri) if self._rng.random() < 0.5 else (uri, *more)
        self._draft.link(tls=True, peer=Peer(uris=uris))

    def _principal(self, value: str) -> None:
        self._peer("spiffe://" + self._instance(value if value != "*" else "td1/ns/foo/sa/sleep").lstrip("/"))

    def _source_namespace(self, value: str) -> None:
        space = value.replace("*", self._rng.choice(("", "o", "a-b")))
        self._peer(f"spiffe://{self._rng.choice(words.TRUST_DOMAINS)}/ns/{space}/sa/sleep")

    def _service_account(self, value: str) -> None:
        space, slash, account = value.partition("/")
        if not slash:
            space, account = self._namespace, value
        middle = self._rng.choice(("", "", "cluster/c1/"))
        tail = self._rng.choice(("", "", "/pod/p", "x"))
        self._peer(f"spiffe://{self._rng.choice(words.TRUST_DOMAINS)}/ns/{space}/{middle}sa/{account}{tail}")

    def _trust_domain(self, value: str) -> None:
        domain = value.replace("*", self._rng.choice(("", "x", "1", "luster."))) or "td1"
        self._peer(f"spiffe://{domain}/ns/foo/sa/sleep")

    def _request_principal(self, value: str) -> None:
        issuer, _, subject = value.rpartition("/")
        known = [text for text in ISSUERS.values() if text.startswith(issuer.strip("*")) or issuer.startswith("*")]
        self._draft.claim(["iss"], self._rng.choice(known or list(ISSUERS.values())))
        self._draft.claim(["sub"], self._instance(subject) if subject else self._rng.choice(words.SUBJECTS))

    def _source_ip(self, value: str) -> None:
        self._draft.link(source_ip=value if value in words.SOURCE_IPS else self._rng.choice(words.SOURCE_IPS))

    def _remote_ip(self, value: str) -> None:
        self._draft.set_header("x-forwarded-for", self._forwarded(value))

    def _forwarded(self, value: str) -> str:
        address = value.partition("/")[0] if self._rng.random() < 0.6 else self._rng.choice(words.REMOTE_IPS)
        hops = [self._rng.choice(words.REMOTE_IPS) for _ in range(self._rng.choice((0, 0, 1, 2)))]
        hops.insert(self._rng.randrange(len(hops) + 1), address)
        return self._rng.choice((", ", ",")).join(hops)

    def _port(self, value: str) -> None:
        if int(value) in PORTS:
            self._draft.link(port=int(value))

    def _method(self, value: str) -> None:
        self._draft.method = {"*": "GET", "P*": "PUT", "*T": "POST", "get": "GET"}.get(value, value)

    def _path(self, value: str) -> None:
        text = value
        if "{" in value:
            while "{*}" in text or "{**}" in text:
                text = text.replace(
                    "{*}", self._rng.choice(("x", "a.b", "..", "a=b", "%2F", "~'()", "a*b", "x;v=1")), 1
                )
                text = text.replace("{**}", self._rng.choice(("", "x", "x/y", "x//y", "a[b]", "/")), 1)
        else:
            text = self._instance(value)
        text = urllib.parse.quote(text, safe="".join(map(chr, range(0x21, 0x7F))))
        self._draft.path = text if text.startswith("/") else f"/{text}"

    def _header(self, name: str, value: str) -> None:
        if not name.startswith(":"):
            self._draft.set_header(name.lower(), self._instance(value).encode().decode("latin-1"))

    def _claim(self, path: list[str], value: str) -> None:
        text = self._instance(value)
        shapes: tuple[Any, ...] = (text, text, [text], ["other", text], [text, 7], [[text]], {text: text})
        self._draft.claim(path, self._rng.choice(shapes))
