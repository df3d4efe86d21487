"""Requests made to meet the clauses of a rule, one value at a time.

Nothing here needs to be right about what matches: Envoy says.
"""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any

from tests.differential import vocabulary as words
from tests.differential.case import Peer
from tests.differential.credentials import ISSUERS
from tests.differential.envoy_config import PORTS
from tests.differential.mutations import CROSSINGS, claim_crossing, header_crossing
from tests.differential.rbac import claim_path

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.differential.draft import Draft
    from tests.differential.mutations import Change


class ClauseSatisfier:
    """Changes a draft so that one value of a clause is met.

    `edges` collects what was met: for each clause a change that is likely to cross its edge.
    """

    def __init__(self, rng: random.Random, draft: Draft, namespace: str) -> None:
        self._rng = rng
        self._draft = draft
        self._namespace = namespace
        self.edges: list[Change] = []

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
        self.edges.append(CROSSINGS[name])

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
            self._draft.set_connection(tls=True, sni=self._instance(value).strip(".").replace("/", "-"))
            self.edges.append(CROSSINGS["sni"])
        elif key.startswith("request.headers"):
            self._header(key[key.index("[") + 1 : -1], value)
        elif key.startswith("experimental."):
            self._fact(key, value)
        elif key != "destination.ip":
            self._claim_condition(key, value)

    def _fact(self, key: str, value: str) -> None:
        text = self._instance(value.strip("[]"))
        if key.endswith("[fact]"):
            self._draft.set_header("x-fact", text)
        else:
            self._draft.set_fact([text, "other"] if value.startswith("[") else text)
        self.edges.append(CROSSINGS["facts"])

    def _claim_condition(self, key: str, value: str) -> None:
        paths = {"request.auth.audiences": ["aud"], "request.auth.presenter": ["azp"]}
        path = paths.get(key) or claim_path(key.removeprefix("request.auth.claims"))
        text = self._instance(value)
        shapes: tuple[Any, ...] = (text, text, [text], ["other", text], [text, 7], [[text]], {text: text})
        self._draft.claim(path, self._rng.choice(shapes))
        self.edges.append(claim_crossing(path))

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
        self._draft.set_connection(tls=True, peer=Peer(uris=uris))

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
        self._draft.set_connection(source_ip=value if value in words.SOURCE_IPS else self._rng.choice(words.SOURCE_IPS))

    def _remote_ip(self, value: str) -> None:
        self._draft.set_header("x-forwarded-for", self._forwarded(value))

    def _forwarded(self, value: str) -> str:
        address = value.partition("/")[0] if self._rng.random() < 0.6 else self._rng.choice(words.REMOTE_IPS)
        hops = [self._rng.choice(words.REMOTE_IPS) for _ in range(self._rng.choice((0, 0, 1, 2)))]
        hops.insert(self._rng.randrange(len(hops) + 1), address)
        return self._rng.choice((", ", ",")).join(hops)

    def _port(self, value: str) -> None:
        if int(value) in PORTS:
            self._draft.set_connection(port=int(value))

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
            self.edges.append(header_crossing(name.lower()))
