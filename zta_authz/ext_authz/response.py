"""Encode a decision as the bytes of a CheckResponse: total, deny first. Nothing else here constructs a CheckResponse.

An absent or zero `status` means "let it through" to Envoy, whatever else the message says; so each denial carries an
explicit code, and an allow is written only for a decision whose verdict and reason both say so.

What Envoy does with the answer (measured with Envoy 1.40): a header needs `value` and `append: false` to overwrite;
removal comes last, so that a header both set and removed is gone (here no name is ever both); a denied body becomes
`grpc-message` for gRPC callers.

Nearly all answers differ only in their decision ID, which is always 32 characters. An answer is encoded once with a
placeholder in its place, cut there, and joined around each new ID; the bytes are those that protobuf itself writes.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import DENIAL_RESPONSES, DenialResponse, Reason
from zta_authz.ext_authz.challenges import login_redirect, step_up_challenge
from zta_authz.model.changed_headers import (
    DECISION_ID_HEADER,
    OWN_NAMES,
    PRINCIPAL_HEADER,
    REQUEST_ACCESS_HEADER,
    TRUST_HEADERS,
    is_reserved_on_denials,
    removable,
    removed_upstream,
    sendable,
    set_upstream,
)
from zta_authz.model.claims import is_header_value
from zta_authz.model.decision import NO_RESPONSE, Decision, Response, Verdict
from zta_authz.model.identity import NO_CHANGES, ApiClient, Changes
from zta_authz.model.trust import HUNDREDTHS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.struct_pb2 import Struct

    from zta_authz._proto.ext_authz_pb2 import DeniedHttpResponse, OkHttpResponse
    from zta_authz.model.changed_headers import GuardedNames
    from zta_authz.model.decision import DecisionFacts, Remedy
    from zta_authz.model.request import RequestAttributes
    from zta_authz.model.trust import TrustAssessment, TrustLevel

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
_EXPIRY_DIGITS: Final = 10
_EXPIRY: Final = secrets.token_hex(_EXPIRY_DIGITS // 2).encode()  # stands for the session's end in cached answers
MAX_CACHED_ANSWERS: Final = 4096
_CACHED_BYTES: Final = 4096
"""An answer with more in its headers is encoded each time, which bounds the cache's memory."""

_ShortKey = tuple[str, int | None, str]
"""Policy, rule and principal."""


class ResponseEncoder:
    """Encodes answers, and keeps those that repeat.

    An allow has two entries: under `_Allow`, all that it says; and under a `_ShortKey`, the last allow of one rule to
    one principal, which is compared by identity and so costs less to look up. An `_Allow` never equals a `_Deny`,
    because their reasons differ.
    """

    __slots__ = ("_answers", "_expires", "_expiry")

    def __init__(self) -> None:
        self._expires, self._expiry = 0, _expiry(0)  # the last end of a session, and its text
        self._answers: BoundedCache[_Allow | _Deny | _ShortKey, _LastAllow | list[bytes]] = BoundedCache(
            MAX_CACHED_ANSWERS
        )

    def encode(
        self, decision: Decision, decision_id: str, request: RequestAttributes | None, guarded: GuardedNames = OWN_NAMES
    ) -> bytes:
        """The CheckResponse for `decision`, which is final (`authorizer.finalize`).

        Raises ValueError for an allow that is not, and where `decision_id` is not 32 letters and digits.
        `request` is None where the bytes did not parse. `guarded` are the names that no client may send: they are
        removed from the request unless they are set here.
        """
        if decision.verdict is not Verdict.ALLOW:
            return self._deny(decision, decision_id, request)
        identity = decision.identity
        peer = identity.peer
        principal = "" if peer is None else peer.principal
        spoofed = guarded.spoofed(request.headers) if request is not None else ()
        facts = decision.facts
        trust = None if facts is None else facts.trust
        parts = None
        if not spoofed:
            last = self._answers[decision.policy, decision.rule, principal]
            if isinstance(last, _LastAllow) and last.fits(decision, guarded, trust):
                parts = last.parts
        if parts is None:
            parts = self._allow(decision, principal, spoofed, guarded)
        answer = _joined(parts, decision_id)
        if facts is None or trust is None:
            return answer
        if facts.session_expires != self._expires:
            self._expires, self._expiry = facts.session_expires, _expiry(facts.session_expires)
        return answer.replace(_EXPIRY, self._expiry)

    def _allow(
        self, decision: Decision, principal: str, spoofed: tuple[str, ...], guarded: GuardedNames
    ) -> list[bytes]:
        if decision.reason in DENIAL_RESPONSES or not is_header_value(principal):
            raise ValueError("this allow is not final")
        policy, rule, response = decision.policy, decision.rule, decision.response
        client, changes = decision.identity.api_client, decision.identity.changes
        label = _trust_label(decision.facts)
        allow = _Allow(
            decision.reason, policy, rule, principal, client, changes, response, spoofed, guarded.listed, label
        )
        if not allow.is_small():
            return _encode_allow(allow)
        parts = self._answers[allow]
        if not isinstance(parts, list):
            parts = _encode_allow(allow)
            self._answers.put(allow, parts)
        trust = None if decision.facts is None else decision.facts.trust
        shown = None if trust is None else (trust.level, trust.score)
        last = _LastAllow(decision.reason, client, changes, response, guarded, shown, parts)
        self._answers.put((policy, rule, principal), last)
        return parts

    def _deny(self, decision: Decision, decision_id: str, request: RequestAttributes | None) -> bytes:
        deny = _denial(decision, request)
        to_login = decision.remedy is not None and decision.remedy.login  # its address may have the request's path
        if to_login or sum(len(value) for _, value in deny.headers) > _CACHED_BYTES:
            return _joined(_encode_deny(deny), decision_id)
        parts = self._answers[deny]
        if not isinstance(parts, list):
            parts = _encode_deny(deny)
            self._answers.put(deny, parts)
        return _joined(parts, decision_id)


def _joined(parts: list[bytes], decision_id: str) -> bytes:
    if len(decision_id) != _ID_LENGTH or not decision_id.isalnum() or not decision_id.isascii():
        raise ValueError(f"a decision id is {_ID_LENGTH} letters and digits")
    return decision_id.encode().join(parts)


def _trust_label(facts: DecisionFacts | None) -> tuple[str, str] | None:
    """Level and score (two decimals) of an assessed request."""
    if facts is None or facts.trust is None:
        return None
    return facts.trust.level.name, f"{facts.trust.score / HUNDREDTHS:.2f}"


def _expiry(since_epoch: int) -> bytes:
    """A time as exactly as many digits as its placeholder has."""
    return str(min(max(since_epoch, 10 ** (_EXPIRY_DIGITS - 1)), 10**_EXPIRY_DIGITS - 1)).encode()


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
    trust: tuple[str, str] | None

    def is_small(self) -> bool:
        """False where a caller could fill the cache with what it sends."""
        if self.spoofed or len(self.principal) > _CACHED_BYTES:
            return False
        if self.changes is NO_CHANGES and self.response is NO_RESPONSE:
            return True
        return sum(len(value) for _, value in self.headers_to_set()) <= _CACHED_BYTES

    def headers_to_set(self) -> tuple[tuple[str, str], ...]:
        """The headers that the token and the policy set. The policy's come last, so they win."""
        return self.changes.set_headers + self.response.set_headers


class _LastAllow(NamedTuple):
    """The last allow of one rule to one principal: what else it depends on, and its bytes."""

    reason: Reason
    client: ApiClient | None
    changes: Changes
    response: Response
    guarded: GuardedNames
    trust: tuple[TrustLevel, int] | None
    parts: list[bytes]

    def fits(self, decision: Decision, guarded: GuardedNames, trust: TrustAssessment | None) -> bool:
        """Whether `decision`, an allow, is the same again. What is compared by identity is immutable."""
        return (
            decision.reason is self.reason
            and decision.identity.api_client is self.client
            and decision.identity.changes is self.changes
            and decision.response is self.response
            and guarded is self.guarded
            and (self.trust is None if trust is None else self.trust == (trust.level, trust.score))
        )


def _encode_allow(allow: _Allow) -> list[bytes]:
    """The encoded allow, cut where the decision id belongs."""
    message = CheckResponse()
    message.status.code = 0
    message.status.SetInParent()  # present although it is zero: an allow that was meant
    ok = message.ok_response
    to_set = set_upstream(allow.changes, allow.response)
    to_set[DECISION_ID_HEADER] = _PLACEHOLDER
    if allow.principal:
        to_set[PRINCIPAL_HEADER] = allow.principal
    if allow.trust is not None:
        to_set.update(zip(TRUST_HEADERS, (*allow.trust, _EXPIRY.decode()), strict=True))
    _set_headers(ok, to_set.items())
    to_remove = removable((*allow.spoofed, *removed_upstream(allow.changes, allow.response), *allow.listed))
    ok.headers_to_remove.extend(name for name in to_remove if name not in to_set)
    ok.query_parameters_to_remove.extend(dict.fromkeys(allow.changes.remove_query))
    _describe(message.dynamic_metadata, allow)
    return message.SerializeToString().split(_PLACEHOLDER.encode())


def _set_headers(where: OkHttpResponse | DeniedHttpResponse, headers: Iterable[tuple[str, str]]) -> None:
    for name, value in headers:
        option = where.headers.add()
        option.header.key = name
        option.header.value = value
        option.append.value = False
        option.append.SetInParent()


def _describe(metadata: Struct, answer: _Allow | _Deny) -> None:
    """Dynamic metadata for access logs and later filters; text throughout, absent where there is nothing to say."""
    fields = {
        "reason": answer.reason.value,
        "policy": answer.policy,
        "rule": "" if answer.rule is None else str(answer.rule),
        "principal": answer.principal,
        "api_client": "" if answer.client is None else answer.client.name,
        "decision_id": _PLACEHOLDER,
    }
    if answer.trust is not None:
        fields["trust_level"], fields["trust_score"] = answer.trust
        fields["session_expires"] = _EXPIRY.decode() if isinstance(answer, _Allow) else ""
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
    trust: tuple[str, str] | None
    challenge: str = ""
    components: tuple[str, ...] = ()
    entitlement: str = ""


def _denial(decision: Decision, request: RequestAttributes | None) -> _Deny:
    reason, response = decision.reason, decision.response
    if reason not in DENIAL_RESPONSES:
        reason = Reason.INTERNAL_ERROR  # a denial for a reason that allows is a bug, and is answered as one
    headers = tuple((name, value) for name, value in sendable(response.set_headers) if not is_reserved_on_denials(name))
    grpc = request is not None and _speaks_grpc(request)
    if grpc:
        headers = tuple((name, value) for name, value in headers if name != "location")
    status = _denied_status(reason, response.status, headers, grpc=grpc)
    principal = decision.identity.principal
    if len(principal) > _CACHED_BYTES or not is_header_value(principal):
        principal = ""
    client, trust = decision.identity.api_client, _trust_label(decision.facts)
    deny = _Deny(
        reason, decision.policy, decision.rule, principal, client, status, response.message, headers, grpc, trust
    )
    return deny if decision.remedy is None else _with_remedy(deny, decision.remedy, request)


def _with_remedy(deny: _Deny, remedy: Remedy, request: RequestAttributes | None) -> _Deny:
    """The denial with what the caller can do: a redirect for browsers, else a challenge; the components of trust."""
    if deny.reason is Reason.STEP_UP_REQUIRED:
        redirect = None if deny.grpc else login_redirect(remedy, request)
        if redirect is None:
            return deny._replace(challenge=step_up_challenge(remedy))
        status, address = redirect
        return deny._replace(status=status, headers=(*deny.headers, ("location", address)))
    if remedy.entitlement:
        return deny._replace(entitlement=remedy.entitlement)
    return deny._replace(components=remedy.components) if remedy.disclosed else deny


def _denied_status(reason: Reason, status: int, headers: tuple[tuple[str, str], ...], *, grpc: bool) -> int:
    """Return `status`, which the policy sets, if a denial can have it, else the reason's. Envoy would send a 200 as is.

    Callers that speak gRPC get only what Envoy has a gRPC status for; they can't be sent elsewhere.
    """
    if grpc:
        fits = status in _GRPC_STATUSES
    elif status in _REDIRECTS:
        fits = any(name == "location" for name, _ in headers)
    else:
        fits = 400 <= status <= 599
    return status if fits else DENIAL_RESPONSES[reason].status


def _speaks_grpc(request: RequestAttributes) -> bool:
    types = request.headers.all("content-type")
    return bool(types) and types[0].lower().startswith("application/grpc")


def _encode_deny(deny: _Deny) -> list[bytes]:
    """The encoded denial, cut where the decision id belongs."""
    message = CheckResponse()
    message.status.code = _RPC_CODES.get(deny.status, _PERMISSION_DENIED)
    message.status.message = deny.reason.value
    denied = message.denied_response
    denied.status.code = deny.status
    if deny.grpc:
        text = f": {deny.text}" if deny.text else ""
        denied.body = f"{deny.reason.value}{text} (decision {_PLACEHOLDER})"
    else:
        denied.body = _problem(deny)
    written = {name for name, _ in deny.headers}
    defaults = ((name, value) for name, value in _default_headers(deny).items() if name not in written)
    _set_headers(denied, (*defaults, *deny.headers, (DECISION_ID_HEADER, _PLACEHOLDER)))
    _describe(message.dynamic_metadata, deny)
    return message.SerializeToString().split(_PLACEHOLDER.encode())


def _default_headers(deny: _Deny) -> dict[str, str]:
    """The headers of a denial where the policy does not set them."""
    headers = {"cache-control": "no-store"}
    if deny.status == 401:
        headers["www-authenticate"] = deny.challenge or _challenge(DENIAL_RESPONSES[deny.reason])
    if deny.status == 503:
        headers["retry-after"] = _RETRY_AFTER_SECONDS
    if deny.entitlement:
        headers[REQUEST_ACCESS_HEADER] = deny.entitlement
    if not deny.grpc:
        headers["content-type"] = _PROBLEM_JSON
    return headers


def _challenge(answer: DenialResponse) -> str:
    """RFC 6750 section 3, RFC 9449 section 7.1. It does not say which check failed, which would help an attacker."""
    challenge = f'{answer.scheme} realm="{_REALM}"'
    return f'{challenge}, error="{answer.bearer_error}"' if answer.bearer_error else challenge


def _problem(deny: _Deny) -> str:
    """The body, RFC 9457. `text` is what the operator's policy says to the caller."""
    title = DENIAL_RESPONSES[deny.reason].title
    problem: dict[str, object] = {"type": "about:blank", "title": title, "status": deny.status}
    if deny.text:
        problem["detail"] = deny.text
    problem["reason"] = deny.reason.value
    if deny.components:
        problem["trust_components"] = list(deny.components)
    if deny.entitlement:
        problem["entitlement"] = deny.entitlement
    problem["decision_id"] = _PLACEHOLDER
    return json.dumps(problem)
