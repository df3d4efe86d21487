"""Requests aimed at the clauses of a policy set: just inside one of its rules, then often just outside.

A request starts from one rule that is in force: for each of its clauses a value is made that meets it. Then up to
three mutations of the request's own values follow. Nothing here needs to be right about what matches: Envoy says.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.differential import vocabulary as words
from tests.differential.clause_satisfier import ClauseSatisfier
from tests.differential.credentials import ISSUERS
from tests.differential.draft import Draft
from tests.differential.mutations import Change, mutate, mutate_token
from tests.differential.rbac import selected

if TYPE_CHECKING:
    from tests.differential.case import Connection, PolicySet, Request

Json = dict[str, Any]
_MOST_CONNECTIONS = 6
_NEGATED_MET = 0.4
_AT_AN_EDGE = 0.65
_SIGNED_IN = 0.5
_TOKEN_AT_AN_EDGE = 0.4


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
        draft = Draft(self._rng, sorted({rule["issuer"] for rule in self._jwt_rules if "issuer" in rule}))
        edges: list[Change] = []
        if self._rng.random() < (_SIGNED_IN if self._jwt_rules else 0.2):
            draft.claims = self._claims()
        if self._rules:
            edges = self._meet_rule(draft, *self._rng.choice(self._rules))
        for _ in range(self._rng.choice((0, 0, 1, 1, 1, 2, 3))):
            if edges and self._rng.random() < _AT_AN_EDGE:
                self._rng.choice(edges)(draft, self._rng)
            else:
                mutate(draft, self._rng)
        if self._jwt_rules and draft.claims is not None and self._rng.random() < _TOKEN_AT_AN_EDGE:
            mutate_token(draft, self._rng)
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

    def _meet_rule(self, draft: Draft, rule: Json, document: Json) -> list[Change]:
        """Meet every clause; now and then a negated one, which then should not match."""
        satisfier = ClauseSatisfier(self._rng, draft, document["metadata"]["namespace"])
        for part, inner in (("from", "source"), ("to", "operation")):
            entries = rule.get(part)
            if entries:
                for name, values in self._rng.choice(entries)[inner].items():
                    if not name.startswith("not"):
                        satisfier.field(name, self._rng.choice(values))
                    elif self._rng.random() < _NEGATED_MET:
                        satisfier.field(name[3].lower() + name[4:], self._rng.choice(values))
        for condition in rule.get("when", ()):
            if condition.get("values"):
                satisfier.condition(condition["key"], self._rng.choice(condition["values"]))
            elif self._rng.random() < _NEGATED_MET:
                satisfier.condition(condition["key"], self._rng.choice(condition["notValues"]))
        return satisfier.edges
