"""A disagreement made small: what can be left out of its documents and its request without losing it is left out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.differential.case import Case, Connection, Proxy
from tests.differential.compare import compare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.differential.case import PolicySet, Request
    from tests.differential.compare import Result

_MOST_STEPS = 60
_AT_ONCE = 60
_KEPT = frozenset({"kind", "apiVersion", "metadata", "name", "namespace", "issuer", "jwks", "key", "header", "claim"})
"""Keys that documents need."""


async def shrink(binary: Path, result: Result) -> Result:
    """The smallest case found that disagrees in the same way."""
    for _ in range(_MOST_STEPS):
        smaller = list(_smaller(result.case))[:_AT_ONCE]
        if not smaller:
            return result
        asked = await compare(binary, [(case.policies, [case.request]) for case in smaller])
        same = [one for (one,) in asked if not one.agrees and one.signature == result.signature]
        if not same:
            return result
        result = min(same, key=lambda one: len(str(one.case.data())))
    return result


def _smaller(case: Case) -> Iterator[Case]:
    """The cases that have one thing less, the largest things first."""
    policies, request = case.policies, case.request
    if len(policies.documents) > 1:
        for number in range(len(policies.documents)):
            kept = policies.documents[:number] + policies.documents[number + 1 :]
            yield Case(replace(policies, documents=kept), request)
    for number, document in enumerate(policies.documents):
        for changed in _without_one(document, _KEPT):
            documents = (*policies.documents[:number], changed, *policies.documents[number + 1 :])
            yield Case(replace(policies, documents=documents), request)
    yield from (Case(other, request) for other in _plainer_sets(policies))
    yield from (Case(policies, other) for other in _plainer_requests(request))


def _without_one(value: Any, needed: frozenset[str] = frozenset()) -> Iterator[Any]:
    """`value` without one entry of a list or one optional key, at any depth; no list becomes empty."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in needed and not (key == "spec" or len(value) == 1):
                yield {name: copy.deepcopy(item) for name, item in value.items() if name != key}
            for changed in _without_one(inner, needed):
                yield {**value, key: changed}
    elif isinstance(value, list):
        if len(value) > 1:
            for number in range(len(value)):
                yield value[:number] + value[number + 1 :]
        for number, inner in enumerate(value):
            for changed in _without_one(inner, needed):
                yield [*value[:number], changed, *value[number + 1 :]]


def _plainer_sets(policies: PolicySet) -> Iterator[PolicySet]:
    for plainer in (
        replace(policies, trust_domain_aliases=()),
        replace(policies, trust_domain="cluster.local"),
        replace(policies, proxy=Proxy()),
    ):
        if plainer != policies:
            yield plainer


def _plainer_requests(request: Request) -> Iterator[Request]:
    for number, (name, _) in enumerate(request.headers):
        if name != "host":
            yield replace(request, headers=request.headers[:number] + request.headers[number + 1 :])
    for connection in _plainer_connections(request.connection):
        if connection != request.connection:
            yield replace(request, connection=connection)
    for name, token in request.tokens.items():
        others = {other: inner for other, inner in request.tokens.items() if other != name}
        yield replace(request, tokens=others)
        for changed in _without_one(token):
            yield replace(request, tokens={**others, name: changed})
    for plainer in (
        replace(request, method="GET"),
        replace(request, path="/"),
        replace(request, path=request.path.partition("?")[0]),
    ):
        if plainer != request:
            yield plainer


def _plainer_connections(link: Connection) -> Iterator[Connection]:
    yield Connection()
    yield replace(link, peer=None)
    yield replace(link, sni="")
    yield replace(link, source_ip=Connection().source_ip, port=Connection().port)
    if link.peer is not None:
        for part in ("uris", "dns", "subject", "emails", "ips"):
            values = getattr(link.peer, part)
            for number in range(len(values)):
                peer = replace(link.peer, **{part: values[:number] + values[number + 1 :]})
                yield replace(link, peer=peer)
