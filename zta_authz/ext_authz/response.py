"""Decision -> CheckResponse bytes: total, deny first. Nothing else in this project constructs a CheckResponse.

An absent or zero `status` means "let it through" to Envoy, whatever else the message says; so each denial carries an
explicit code, and an allow is written only for a decision whose verdict and reason both say so.

What Envoy does with the answer (measured with Envoy 1.40): a header needs `value` and `append: false` to overwrite;
removal comes last, so that a header both set and removed is gone (here no name is ever both); a denied body becomes
`grpc-message` for gRPC callers.

Speed: nearly all answers differ only in their decision id, which is always 32 characters. An answer is encoded once
with a placeholder in its place, cut there, and from then on joined around each new id; the bytes are those that
protobuf itself would write.
"""

from __future__ import annotations

import json
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.errors import ANSWERS, Answer, Reason
from zta_authz.model.changed_headers import (
    PRINCIPAL_HEADER,
    is_reserved_on_denials,
    removable,
    removed_upstream,
    sendable,
    set_upstream,
)
from zta_authz.model.claims import is_header_value
from zta_authz.model.decision import NO_RESPONSE, Decision, Response, Verdict
from zta_authz.model.guarded_names import DECISION_ID_HEADER, OWN_NAMES
from zta_authz.model.identity import NO_CHANGES, ApiClient, Changes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.struct_pb2 import Struct

    from zta_authz._proto.ext_authz_pb2 import DeniedHttpResponse, OkHttpResponse
    from zta_authz.model.guarded_names import GuardedNames
    from zta_authz.model.request import RequestAttributes

_REALM = "zta-authz"
_RETRY_AFTER_SECONDS = "1"
_PROBLEM_JSON = "application/problem+json"  # RFC 9457

# google.rpc.Code, by HTTP status; Envoy's only question is whether it is 0
_RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 500: 13, 503: 14}
_PERMISSION_DENIED = 7
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GRPC_STATUSES = frozenset({400, 401, 403, 404, 429, 502, 503, 504})  # to Envoy all others are UNKNOWN

_ID_LENGTH = 32
_PLACEHOLDER = secrets.token_hex(_ID_LENGTH // 2)  # never sent; nobody can put it into a header on purpose
_CACHED_ANSWERS = 2048
_CACHED_BYTES = 4096  # an answer with more in its headers is encoded each time, which bounds the cache's memory


def encode_response(
    decision: Decision, decision_id: str, request: RequestAttributes | None, guarded: GuardedNames = OWN_NAMES
) -> bytes:
    """The CheckResponse for `decision`, which is final (`authorizer.finalize`).

    Raises ValueError for an allow that is not, and where `decision_id` is not 32 letters and digits.
    `request` is None where the bytes did not parse. `guarded` are the names that no client may send: they are removed
    from the request unless they are set here.
    """
    if decision.verdict is not Verdict.ALLOW:
        return _deny(decision, decision_id, request)
    spoofed = guarded.spoofed(request.headers) if request is not None else ()
    principal, changes = decision.identity.principal, decision.identity.changes
    usual = None if spoofed else _usual.get((decision.policy, decision.rule, principal))
    if usual is not None and usual.fits(decision, guarded):
        return _joined(usual.parts, decision_id)
    if decision.reason in ANSWERS or not is_header_value(principal):
        raise ValueError("this allow is not final")
    response = decision.response
    client = decision.identity.api_client
    said = _Allow(
        decision.reason, decision.policy, decision.rule, principal, client, changes, response, spoofed, guarded.listed
    )
    if not said.is_small():
        return _joined(_encode_allow.__wrapped__(said), decision_id)
    parts = _encode_allow(said)
    if len(_usual) >= _CACHED_ANSWERS:
        _usual.clear()
    _usual[said.policy, said.rule, principal] = _CachedAllow(said.reason, client, changes, response, guarded, parts)
    return _joined(parts, decision_id)


def _joined(parts: list[bytes], decision_id: str) -> bytes:
    if len(decision_id) != _ID_LENGTH or not decision_id.isalnum() or not decision_id.isascii():
        raise ValueError(f"a decision id is {_ID_LENGTH} letters and digits")
    return decision_id.encode().join(parts)


# --- allow ---


class _Allow(NamedTuple):
    """All that an allow says but the decision id."""

    reason: Reason
    policy: str
    rule: int | None
    principal: str
    client: ApiClient | None
    changes: Changes
    response: Response
    spoofed: tuple[str, ...]
    listed: tuple[str, ...]

    def is_small(self) -> bool:
        """False where a caller could fill the cache with what it sends."""
        if self.spoofed or len(self.principal) > _CACHED_BYTES:
            return False
        if self.changes is NO_CHANGES and self.response is NO_RESPONSE:
            return True
        return sum(len(value) for _, value in self.wanted_headers()) <= _CACHED_BYTES

    def wanted_headers(self) -> tuple[tuple[str, str], ...]:
        """What token and policy want set, the policy's word last."""
        return self.changes.set_headers + self.response.set_headers


class _CachedAllow(NamedTuple):
    """The last allow of one rule to one principal: what else it depends on, and its bytes."""

    reason: Reason
    client: ApiClient | None
    changes: Changes
    response: Response
    guarded: GuardedNames
    parts: list[bytes]

    def fits(self, decision: Decision, guarded: GuardedNames) -> bool:
        """Whether `decision`, an allow, is the same again. What is compared by identity is immutable."""
        return (
            decision.reason is self.reason
            and decision.identity.api_client is self.client
            and decision.identity.changes is self.changes
            and decision.response is self.response
            and guarded is self.guarded
        )


_usual: dict[tuple[str, int | None, str], _CachedAllow] = {}
"""By policy, rule and principal."""


@lru_cache(maxsize=_CACHED_ANSWERS)
def _encode_allow(said: _Allow) -> list[bytes]:
    """The encoded allow, cut where the decision id belongs."""
    message = CheckResponse()
    message.status.code = 0
    message.status.SetInParent()  # present although it is zero: an allow that was meant
    ok = message.ok_response
    to_set = set_upstream(said.changes, said.response)
    to_set[DECISION_ID_HEADER] = _PLACEHOLDER
    if said.principal:
        to_set[PRINCIPAL_HEADER] = said.principal
    _set_headers(ok, to_set.items())
    to_remove = removable((*said.spoofed, *removed_upstream(said.changes, said.response), *said.listed))
    ok.headers_to_remove.extend(name for name in to_remove if name not in to_set)
    ok.query_parameters_to_remove.extend(dict.fromkeys(said.changes.remove_query))
    _describe(message.dynamic_metadata, said)
    return message.SerializeToString().split(_PLACEHOLDER.encode())


def _set_headers(where: OkHttpResponse | DeniedHttpResponse, headers: Iterable[tuple[str, str]]) -> None:
    for name, value in headers:
        option = where.headers.add()
        option.header.key = name
        option.header.value = value
        option.append.value = False
        option.append.SetInParent()


def _describe(metadata: Struct, said: _Allow | _Deny) -> None:
    """Dynamic metadata for access logs and later filters; text throughout, absent where there is nothing to say."""
    fields = {
        "reason": said.reason.value,
        "policy": said.policy,
        "rule": "" if said.rule is None else str(said.rule),
        "principal": said.principal,
        "api_client": "" if said.client is None else said.client.name,
        "decision_id": _PLACEHOLDER,
    }
    for name, value in fields.items():
        if value:
            metadata.fields[name].string_value = value


# --- deny ---


class _Deny(NamedTuple):
    """All that a denial says but the decision id. Policy, rule and principal go to the proxy only."""

    reason: Reason
    policy: str
    rule: int | None
    principal: str
    client: ApiClient | None
    status: int
    text: str
    headers: tuple[tuple[str, str], ...]
    grpc: bool


def _deny(decision: Decision, decision_id: str, request: RequestAttributes | None) -> bytes:
    reason, response = decision.reason, decision.response
    if reason not in ANSWERS:
        reason = Reason.INTERNAL_ERROR  # a denial for a reason that allows is a bug, and is told as one
    headers = tuple((name, value) for name, value in sendable(response.set_headers) if not is_reserved_on_denials(name))
    grpc = request is not None and _speaks_grpc(request)
    if grpc:
        headers = tuple((name, value) for name, value in headers if name != "location")
    status = _denied_status(reason, response.status, headers, grpc=grpc)
    principal = decision.identity.principal
    if len(principal) > _CACHED_BYTES or not is_header_value(principal):
        principal = ""
    client = decision.identity.api_client
    said = _Deny(reason, decision.policy, decision.rule, principal, client, status, response.message, headers, grpc)
    small = sum(len(value) for _, value in headers) <= _CACHED_BYTES
    return _joined((_encode_deny if small else _encode_deny.__wrapped__)(said), decision_id)


def _denied_status(reason: Reason, wanted: int, headers: tuple[tuple[str, str], ...], *, grpc: bool) -> int:
    """The policy's status where a denial can have it, else the reason's: Envoy would send a 200 as it is.

    Callers that speak gRPC get only what Envoy has a gRPC status for; they can't be sent elsewhere.
    """
    if grpc:
        fits = wanted in _GRPC_STATUSES
    elif wanted in _REDIRECTS:
        fits = any(name == "location" for name, _ in headers)
    else:
        fits = 400 <= wanted <= 599
    return wanted if fits else ANSWERS[reason].status


def _speaks_grpc(request: RequestAttributes) -> bool:
    types = request.headers.all("content-type")
    return bool(types) and types[0].lower().startswith("application/grpc")


@lru_cache(maxsize=_CACHED_ANSWERS)
def _encode_deny(said: _Deny) -> list[bytes]:
    """The encoded denial, cut where the decision id belongs."""
    message = CheckResponse()
    message.status.code = _RPC_CODES.get(said.status, _PERMISSION_DENIED)
    message.status.message = said.reason.value
    denied = message.denied_response
    denied.status.code = said.status
    if said.grpc:
        text = f": {said.text}" if said.text else ""
        denied.body = f"{said.reason.value}{text} (decision {_PLACEHOLDER})"
    else:
        denied.body = _problem(said)
    written = {name for name, _ in said.headers}
    usual = ((name, value) for name, value in _usual_headers(said).items() if name not in written)
    _set_headers(denied, (*usual, *said.headers, (DECISION_ID_HEADER, _PLACEHOLDER)))
    _describe(message.dynamic_metadata, said)
    return message.SerializeToString().split(_PLACEHOLDER.encode())


def _usual_headers(said: _Deny) -> dict[str, str]:
    """What a denial says unless the policy has a word of its own for it."""
    headers = {"cache-control": "no-store"}
    if said.status == 401:
        headers["www-authenticate"] = _challenge(ANSWERS[said.reason])
    if said.status == 503:
        headers["retry-after"] = _RETRY_AFTER_SECONDS
    if not said.grpc:
        headers["content-type"] = _PROBLEM_JSON
    return headers


def _challenge(answer: Answer) -> str:
    """RFC 6750 section 3, RFC 9449 section 7.1. Which check failed is not told: it helps whoever is trying tokens."""
    challenge = f'{answer.scheme} realm="{_REALM}"'
    return f'{challenge}, error="{answer.bearer_error}"' if answer.bearer_error else challenge


def _problem(said: _Deny) -> str:
    """The body, RFC 9457. `text` is what the operator's policy says to the caller."""
    title = ANSWERS[said.reason].title
    problem: dict[str, object] = {"type": "about:blank", "title": title, "status": said.status}
    if said.text:
        problem["detail"] = said.text
    problem["reason"] = said.reason.value
    problem["decision_id"] = _PLACEHOLDER
    return json.dumps(problem)
