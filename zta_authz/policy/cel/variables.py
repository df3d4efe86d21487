"""The variables of conditions: their CEL types, and how each is read from a request."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cel_expr_python import cel

from zta_authz.policy.cel.fact_variables import FACT_VARIABLES, FACTS_OF_TOKENS
from zta_authz.policy.cel.variable import Variable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zta_authz.model.addresses import Ip
    from zta_authz.policy.rules.inputs import Inputs

_KUBERNETES: Final = re.compile(r"/ns/([^/]+)/sa/([^/]+)")
_TYPE: Final = cel.Type
_STRINGS: Final = _TYPE.Map(_TYPE.STRING, _TYPE.STRING)


def _kubernetes(group: int) -> Callable[[Inputs], str]:
    """A segment of the peer's SPIFFE ID if its path is `/ns/NS/sa/SA` as in Kubernetes, else ""."""

    def read(inputs: Inputs) -> str:
        peer = inputs.identity.peer
        path = peer.spiffe_id.path if peer is not None and peer.spiffe_id is not None else ""
        match = _KUBERNETES.fullmatch(path)
        return match[group] if match is not None else ""

    return read


def _principal(inputs: Inputs) -> str:
    peer = inputs.identity.peer
    return peer.principal if peer is not None else ""


def _trust_domain(inputs: Inputs) -> str:
    peer = inputs.identity.peer
    return peer.spiffe_id.trust_domain.name if peer is not None and peer.spiffe_id is not None else ""


def _headers(inputs: Inputs) -> dict[str, str]:
    return {name: ",".join(values) for name in inputs.header_names() if (values := inputs.header(name))}


def _subject(inputs: Inputs) -> str:
    return inputs.identity.token.subject if inputs.identity.token is not None else ""


def _issuer(inputs: Inputs) -> str:
    return inputs.identity.token.issuer if inputs.identity.token is not None else ""


def _client_name(inputs: Inputs) -> str:
    client = inputs.identity.api_client
    return client.name if client is not None else ""


def _client_scopes(inputs: Inputs) -> list[str]:
    client = inputs.identity.api_client
    return list(client.scopes) if client is not None else []


def _now(inputs: Inputs) -> datetime:
    return datetime.fromtimestamp(inputs.now, UTC)


def _source(inputs: Inputs) -> str | None:
    return _address(inputs.request.source.ip, inputs.source_ips)


def _destination(inputs: Inputs) -> str | None:
    return _address(inputs.request.destination.ip, inputs.destination_ips)


def _address(text: str, addresses: tuple[Ip, ...]) -> str | None:
    """The address as rules compare it, "" if absent, None (Unknown) if unreadable."""
    if addresses:
        return str(addresses[0])
    return None if text else ""


def _remote(inputs: Inputs) -> str | None:
    forwarded = inputs.request.headers.joined("x-forwarded-for")
    return _address(inputs.request.source.ip if forwarded is None else "unreadable", inputs.remote_ips)


VARIABLES: Final[Mapping[str, Variable]] = {
    "request.method": Variable(_TYPE.STRING, lambda i: i.method, "HTTP method"),
    "request.path": Variable(_TYPE.STRING, lambda i: i.path, "path without query"),
    "request.query": Variable(_TYPE.STRING, lambda i: i.query, "query, as it came"),
    "request.host": Variable(_TYPE.STRING, lambda i: i.host or "", "authority in lower case, with its port"),
    "request.scheme": Variable(_TYPE.STRING, lambda i: i.request.scheme, "`http` or `https`"),
    "request.headers": Variable(_STRINGS, _headers, "header values by lower-case name, repeats joined by `,`"),
    "source.principal": Variable(_TYPE.STRING, _principal, 'verified SPIFFE ID of the peer, "" without one'),
    "source.trustDomain": Variable(_TYPE.STRING, _trust_domain, "its trust domain"),
    "source.namespace": Variable(_TYPE.STRING, _kubernetes(1), "NS where its path is `/ns/NS/sa/SA`"),
    "source.serviceAccount": Variable(_TYPE.STRING, _kubernetes(2), "SA where its path is `/ns/NS/sa/SA`"),
    "source.ip": Variable(_TYPE.STRING, _source, "address of the proxy's direct peer; an error where it is unreadable"),
    "source.port": Variable(_TYPE.INT, lambda i: i.request.source.port, "its port"),
    "remote.ip": Variable(_TYPE.STRING, _remote, "client address, from trusted hops; an error where it is unreadable"),
    "destination.ip": Variable(_TYPE.STRING, _destination, "the proxy's local address"),
    "destination.port": Variable(_TYPE.INT, lambda i: i.port, "its port"),
    "destination.principal": Variable(
        _TYPE.STRING, lambda i: i.request.destination_principal, "the proxy's own SPIFFE ID, in its own words"
    ),
    "connection.sni": Variable(_TYPE.STRING, lambda i: i.sni, "server name of the TLS session, in lower case"),
    "claims": Variable(
        _TYPE.Map(_TYPE.STRING, _TYPE.DYN), lambda i: dict(i.claims or {}), "payload of the verified token, else empty"
    ),
    "token.subject": Variable(_TYPE.STRING, _subject, 'subject of the verified token, "" without one'),
    "token.issuer": Variable(_TYPE.STRING, _issuer, "its issuer"),
    "apiClient.name": Variable(
        _TYPE.STRING, _client_name, 'name of the client whose API key was presented, "" without'
    ),
    "apiClient.scopes": Variable(_TYPE.List(_TYPE.STRING), _client_scopes, "its scopes"),
    "context": Variable(
        _STRINGS, lambda i: dict(i.request.context_extensions), "context extensions of the proxy's route"
    ),
    "now": Variable(_TYPE.TIMESTAMP, _now, "time of the decision, UTC"),
    **FACT_VARIABLES,
}
"""All variables of conditions: a documented contract."""

OF_TOKENS: Final = frozenset(("claims", "token.subject", "token.issuer")) | FACTS_OF_TOKENS
"""Variables whose values depend on the token."""
