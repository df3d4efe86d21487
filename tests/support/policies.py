"""Policies, requests and identities for tests of the rule table: short to write, and with everything left out absent."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zta_authz.errors import DocumentErrors
from zta_authz.model.identity import Changes, Identity, Peer, PeerTrust, Token
from zta_authz.model.options import Options, Workload
from zta_authz.model.request import Address, Headers, RequestAttributes
from zta_authz.model.spiffe import SpiffeId
from zta_authz.pdp.decide import combine
from zta_authz.pdp.snapshot import SourceText, compile_snapshot
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from zta_authz.model.decision import Decision
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.rules.table import RuleTable

STRICT = Options()
ISTIO = Options.istio()
FRONTEND = "spiffe://cluster.local/ns/default/sa/frontend"


def policy(name: str, *rules: Mapping[str, Any], action: str = "ALLOW", **metadata: Any) -> dict[str, Any]:
    """An AuthorizationPolicy with these rules, as a mapping."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, **metadata},
        "spec": {"action": action, "rules": list(rules)},
    }


def when(key: str, *values: str, negated: Sequence[str] = ()) -> dict[str, Any]:
    """A rule of one condition."""
    condition: dict[str, Any] = {"key": key}
    if values:
        condition["values"] = list(values)
    if negated:
        condition["notValues"] = list(negated)
    return {"when": [condition]}


def source(**fields: Sequence[str]) -> dict[str, Any]:
    """A rule of one source."""
    return {"from": [{"source": {name: list(values) for name, values in fields.items()}}]}


def operation(**fields: Sequence[str]) -> dict[str, Any]:
    """A rule of one operation."""
    return {"to": [{"operation": {name: list(values) for name, values in fields.items()}}]}


def snapshot(*texts: str, options: Options = STRICT) -> Snapshot:
    """Everything compiled from texts that stand in files `a.yaml`, `b.yaml` and so on. Raises DocumentErrors."""
    return compile_snapshot([SourceText(f"{chr(97 + n)}.yaml", text) for n, text in enumerate(texts)], options)


def faults(*texts: str, options: Options = STRICT) -> list[str]:
    """Every fault of these texts, as an operator reads them."""
    try:
        snapshot(*texts, options=options)
    except DocumentErrors as error:
        return [str(fault) for fault in error.faults]
    return []


def warnings(*texts: str, options: Options = STRICT) -> list[str]:
    """Every warning of these texts, which are taken."""
    return [str(warning) for warning in snapshot(*texts, options=options).warnings]


def table(documents: Iterable[Mapping[str, Any]], options: Options = STRICT) -> RuleTable:
    """The rule table over policies given as mappings. Raises DocumentErrors."""
    texts = [json.dumps(document, ensure_ascii=False) for document in documents]
    return snapshot(*texts, options=options).table


def request(
    method: str = "GET",
    path: str = "/",
    host: str = "example.com",
    headers: Mapping[str, str | Sequence[str]] | None = None,
    *,
    exact: bool = True,
    source_ip: str = "10.0.0.1",
    destination_ip: str = "10.0.0.2",
    port: int = 8080,
    **rest: Any,
) -> RequestAttributes:
    """A request; header values are texts, or lists of texts for repeats."""
    values = {
        name: (value,) if isinstance(value, str) else tuple(value)
        for name, value in (headers or {}).items()
        if value or value == ""
    }
    return RequestAttributes(
        method=method,
        path=path,
        host=host,
        headers=Headers(values, exact=exact),
        source=Address(source_ip, 40000 if source_ip else 0),
        destination=Address(destination_ip, port),
        **rest,
    )


def identity(
    *names: str,
    claims: Mapping[str, Any] | None = None,
    spaced: tuple[str, ...] = (),
    changes: Changes | None = None,
) -> Identity:
    """A caller with these verified peer names and, where given, a token with these claims."""
    peer = None
    if names:
        try:
            spiffe_id = SpiffeId.parse(names[0])
        except ValueError:
            spiffe_id = None
        peer = Peer(tuple(names), spiffe_id, PeerTrust.CERTIFICATE)
    token = None
    if claims is not None:
        issuer, subject = str(claims.get("iss", "")), str(claims.get("sub", ""))
        token = Token(issuer, subject, dict(claims), space_delimited_claims=spaced)
    return Identity(peer, token, (token,) if token else (), changes or Changes())


def decided(
    documents: Iterable[Mapping[str, Any]],
    asked: RequestAttributes | None = None,
    caller: Identity | None = None,
    options: Options = STRICT,
) -> Decision:
    """The decision of these policies on a request whose caller is already verified."""
    inputs = Inputs(asked or request(), caller or Identity(), options)
    return combine(table(documents, options).default_view, inputs, default_allow=options.default_allow)


def matches(
    rule: Mapping[str, Any],
    asked: RequestAttributes | None = None,
    caller: Identity | None = None,
    options: Options = STRICT,
    *,
    deny: bool = False,
    **metadata: Any,
) -> bool:
    """Whether one rule, in an ALLOW or a DENY policy, matches."""
    decision = decided([policy("p", rule, action="DENY" if deny else "ALLOW", **metadata)], asked, caller, options)
    return bool(decision.policy)


def in_mesh(options: Options, trust_domain: str, *aliases: str, namespace: str = "default") -> Options:
    """The options for a workload of this mesh."""
    return replace(
        options, workload=Workload(namespace=namespace, trust_domain=trust_domain, trust_domain_aliases=aliases)
    )
