"""Encode a decision as the bytes of a CheckResponse. No other module constructs a CheckResponse.

Envoy allows a request if `status` is absent or zero, whatever else the message contains. So each denial has an
explicit code, and an allow is encoded only for a decision whose verdict and reason are both those of an allow.

How Envoy applies the answer (measured with Envoy 1.40): a header needs `value` and `append: false` to overwrite.
Headers are removed last, so that a header that is both set and removed is gone; here no name is ever both. A denied
body becomes `grpc-message` for gRPC callers.

Nearly all answers differ only in their decision ID, which always has 32 characters. An answer is encoded once with a
placeholder for the ID, split there, and joined around each new ID. The bytes are those that protobuf itself writes; the
header of a minted token is appended to them.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import DENIAL_RESPONSES, Reason
from zta_authz.ext_authz.challenges import login_redirect, plain_challenge, speaks_grpc, step_up_challenge
from zta_authz.ext_authz.header_options import set_headers
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
    from google.protobuf.struct_pb2 import Struct

    from zta_authz.model.changed_headers import GuardedNames
    from zta_authz.model.decision import DecisionFacts, Remedy
    from zta_authz.model.minting import MintedToken
    from zta_authz.model.request import RequestAttributes
    from zta_authz.model.trust import TrustAssessment, TrustLevel

_RETRY_AFTER_SECONDS = "1"
_PROBLEM_JSON = "application/problem+json"  # RFC 9457

# google.rpc.Code by HTTP status. Envoy only checks whether it is 0.
_RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 500: 13, 503: 14}
_PERMISSION_DENIED = 7
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GRPC_STATUSES = frozenset({400, 401, 403, 404, 429, 502, 503, 504})  # Envoy maps all others to UNKNOWN

_ID_LENGTH = 32
_PLACEHOLDER = secrets.token_hex(_ID_LENGTH // 2)  # never sent, so that no client can put it into a header
_EXPIRY_DIGITS: Final = 10
_EXPIRY: Final = secrets.token_hex(
    _EXPIRY_DIGITS // 2
).encode()  # the placeholder for the end of the session in cached answers
MAX_CACHED_ANSWERS: Final = 4096
_CACHED_BYTES: Final = 4096
"""An answer with longer headers is encoded each time, which limits the memory of the cache."""

_ShortKey = tuple[str, int | None, str]
"""Policy, rule and principal."""


class ResponseEncoder:
    """Encodes answers, and caches those that repeat.

    An allow has two entries: one under its complete content (`_Allow`), and the last allow of one rule to one principal
    under a `_ShortKey`. The latter is compared by identity, so it costs less to look up. An `_Allow` never equals a
    `_Deny`, because their reasons differ.
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
        """Encode the CheckResponse for `decision`, which is final (`authorizer.finalize`).

        Raises ValueError for an allow that is not final, and if `decision_id` is not 32 letters and digits.
        `request` is None if the bytes did not parse. `guarded` are the names that no client may send: they are removed
        from the request unless they are set here.
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
        if facts is not None and trust is not None:
            if facts.session_expires != self._expires:
                self._expires, self._expiry = facts.session_expires, _expiry(facts.session_expires)
            answer = answer.replace(_EXPIRY, self._expiry)
        return answer if decision.minted is None else answer + _minted_header(decision.minted)

    def _allow(
        self, decision: Decision, principal: str, spoofed: tuple[str, ...], guarded: GuardedNames
    ) -> list[bytes]:
        if decision.reason in DENIAL_RESPONSES or not is_header_value(principal):
            raise ValueError("this allow is not final")
        policy, rule, response = decision.policy, decision.rule, decision.response
        client, changes = decision.identity.api_client, decision.identity.changes
        label, minted = _trust_label(decision.facts), decision.minted
        header = "" if minted is None else minted.header
        allow = _Allow(
            decision.reason, policy, rule, principal, client, changes, response, spoofed, guarded.listed, label, header
        )
        if not allow.is_small():
            return _encode_allow(allow)
        parts = self._answers[allow]
        if not isinstance(parts, list):
            parts = _encode_allow(allow)
            self._answers.put(allow, parts)
        trust = None if decision.facts is None else decision.facts.trust
        shown = None if trust is None else (trust.level, trust.score)
        last = _LastAllow(decision.reason, client, changes, response, guarded, shown, minted is not None, parts)
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
    """The content of an allow without the decision ID, and without the token in `minted_header`, "" for none."""

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
    minted_header: str

    def is_small(self) -> bool:
        """Whether to cache it. False if a caller could fill the cache with the content of its requests."""
        if self.spoofed or len(self.principal) > _CACHED_BYTES:
            return False
        if self.changes is NO_CHANGES and self.response is NO_RESPONSE:
            return True
        return sum(len(value) for _, value in self.headers_to_set()) <= _CACHED_BYTES

    def headers_to_set(self) -> tuple[tuple[str, str], ...]:
        """The headers that the token and the policy set. The policy's come last and win."""
        return self.changes.set_headers + self.response.set_headers


class _LastAllow(NamedTuple):
    """The last allow of one rule to one principal: everything else that it depends on, and its bytes."""

    reason: Reason
    client: ApiClient | None
    changes: Changes
    response: Response
    guarded: GuardedNames
    trust: tuple[TrustLevel, int] | None
    minted: bool
    parts: list[bytes]

    def fits(self, decision: Decision, guarded: GuardedNames, trust: TrustAssessment | None) -> bool:
        """Whether `decision`, an allow, has the same content. Objects compared by identity are immutable."""
        return (
            decision.reason is self.reason
            and decision.identity.api_client is self.client
            and decision.identity.changes is self.changes
            and decision.response is self.response
            and guarded is self.guarded
            and (decision.minted is not None) is self.minted
            and (self.trust is None if trust is None else self.trust == (trust.level, trust.score))
        )


def _encode_allow(allow: _Allow) -> list[bytes]:
    """Encode an allow, split at the decision ID."""
    message = CheckResponse()
    message.status.code = 0
    message.status.SetInParent()  # encode the zero, so that the allow is explicit
    ok = message.ok_response
    to_set = set_upstream(allow.changes, allow.response)
    to_set.pop(allow.minted_header, None)
    to_set[DECISION_ID_HEADER] = _PLACEHOLDER
    if allow.principal:
        to_set[PRINCIPAL_HEADER] = allow.principal
    if allow.trust is not None:
        to_set.update(zip(TRUST_HEADERS, (*allow.trust, _EXPIRY.decode()), strict=True))
    set_headers(ok, to_set.items())
    to_remove = removable((*allow.spoofed, *removed_upstream(allow.changes, allow.response), *allow.listed))
    kept = {*to_set, allow.minted_header}
    ok.headers_to_remove.extend(name for name in to_remove if name not in kept)
    ok.query_parameters_to_remove.extend(dict.fromkeys(allow.changes.remove_query))
    _describe(message.dynamic_metadata, allow)
    return message.SerializeToString().split(_PLACEHOLDER.encode())


def _minted_header(minted: MintedToken) -> bytes:
    """The header of a minted token, to append to an answer.

    Parsers of protobuf merge a message that occurs twice, so the appended header is one more of the answer's headers.
    """
    encoded = minted.derived.get("header")
    if not isinstance(encoded, bytes):
        message = CheckResponse()
        set_headers(message.ok_response, ((minted.header, minted.token),))
        encoded = minted.derived["header"] = message.SerializeToString()
    return encoded


def _describe(metadata: Struct, answer: _Allow | _Deny) -> None:
    """Add dynamic metadata for access logs and later filters: only texts. Empty ones are left out."""
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
    """The content of a denial without the decision ID. Policy, rule and principal are for the proxy only."""

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
        reason = Reason.INTERNAL_ERROR  # a denial with the reason of an allow is a bug
    headers = tuple((name, value) for name, value in sendable(response.set_headers) if not is_reserved_on_denials(name))
    grpc = request is not None and speaks_grpc(request)
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
    """Add the remedy to a denial: a redirect for browsers, a challenge for others, or the components of trust."""
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

    gRPC callers get only a status that Envoy maps to a gRPC status, and no redirect.
    """
    if grpc:
        fits = status in _GRPC_STATUSES
    elif status in _REDIRECTS:
        fits = any(name == "location" for name, _ in headers)
    else:
        fits = 400 <= status <= 599
    return status if fits else DENIAL_RESPONSES[reason].status


def _encode_deny(deny: _Deny) -> list[bytes]:
    """Encode a denial, split at the decision ID."""
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
    set_headers(denied, (*defaults, *deny.headers, (DECISION_ID_HEADER, _PLACEHOLDER)))
    _describe(message.dynamic_metadata, deny)
    return message.SerializeToString().split(_PLACEHOLDER.encode())


def _default_headers(deny: _Deny) -> dict[str, str]:
    """The headers of a denial that the policy does not set."""
    headers = {"cache-control": "no-store"}
    if deny.status == 401:
        headers["www-authenticate"] = deny.challenge or plain_challenge(DENIAL_RESPONSES[deny.reason])
    if deny.status == 503:
        headers["retry-after"] = _RETRY_AFTER_SECONDS
    if deny.entitlement:
        headers[REQUEST_ACCESS_HEADER] = deny.entitlement
    if not deny.grpc:
        headers["content-type"] = _PROBLEM_JSON
    return headers


def _problem(deny: _Deny) -> str:
    """The body (RFC 9457). `text` is the message of the operator's policy."""
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
