"""CheckRequests as a proxy sends them, and decisions as the core makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz._proto.ext_authz_pb2 import CheckRequest
from zta_authz.authorizer import finalize
from zta_authz.errors import Reason
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.model.changed_headers import OWN_NAMES, GuardedNames
from zta_authz.model.decision import NO_RESPONSE, Decision, Response, Verdict
from zta_authz.model.identity import NO_CHANGES, Changes, Identity, Peer, PeerTrust
from zta_authz.model.request import Headers, RequestAttributes
from zta_authz.model.spiffe import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Iterable

FRONTEND = "spiffe://cluster.local/ns/default/sa/frontend"
ENCODER = ResponseEncoder()
DECISION_ID = "0123456789abcdef0123456789abcdef"


def check_request(headers: Iterable[tuple[str, bytes]] = (), *, method: str = "GET", path: str = "/") -> CheckRequest:
    """A request from the frontend, its headers as `encode_raw_headers` sends them."""
    message = CheckRequest()
    attributes = message.attributes
    attributes.source.principal = FRONTEND
    attributes.source.address.socket_address.address = "10.0.0.1"
    attributes.source.address.socket_address.port_value = 41234
    attributes.destination.address.socket_address.address = "10.0.0.2"
    attributes.destination.address.socket_address.port_value = 8080
    http = attributes.request.http
    http.id, http.method, http.path, http.host, http.scheme = "7", method, path, "orders:8080", "http"
    for name, value in headers:
        http.header_map.headers.add(key=name, raw_value=value)
    return message


def attributes(**headers: str) -> RequestAttributes:
    """A request with these headers, names unchanged."""
    return RequestAttributes(
        method="GET",
        path="/orders/7?access_token=secret#x",
        host="orders:8080",
        headers=Headers({name: (value,) for name, value in headers.items()}, exact=True),
    )


def identity(principal: str = FRONTEND, changes: Changes = NO_CHANGES) -> Identity:
    """The frontend or another caller; a principal that is not a SPIFFE ID is one with Istio semantics."""
    spiffe_id = SpiffeId.parse(principal) if principal == FRONTEND else None
    return Identity(peer=Peer((principal,), spiffe_id, PeerTrust.CERTIFICATE), changes=changes)


def allow(changes: Changes = NO_CHANGES, response: Response = NO_RESPONSE, principal: str = FRONTEND) -> Decision:
    """An allow by the first rule of a policy."""
    who = identity(principal, changes)
    return Decision(Verdict.ALLOW, Reason.ALLOW_POLICY, "default/hatshop-policy", 0, who, response=response)


def deny(reason: Reason = Reason.DENY_POLICY, response: Response = NO_RESPONSE) -> Decision:
    """A denial by the second rule of a policy, with a detail that must not reach the caller."""
    return Decision(Verdict.DENY, reason, "default/secret-policy", 1, identity(), "secret detail", response)


def answer(
    decision: Decision, decision_id: str, request: RequestAttributes | None, guarded: GuardedNames = OWN_NAMES
) -> bytes:
    """The encoded response for `decision`."""
    return ENCODER.encode(finalize(decision), decision_id, request, guarded)
