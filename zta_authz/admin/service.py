"""The admin API, `zta.admin.v1.Admin`: reports the service's state and explains decisions.

Handlers receive raw bytes, so that the server refuses callers before anything is parsed. `Explain` runs the same core
as a real check on the snapshot and the facts in force. It writes no decision record, counts in no metric and uses up no
DPoP proof.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import grpc
from google.protobuf.message import DecodeError

from zta_authz._proto import admin_pb2
from zta_authz.admin.state import KeyKind, KeyStatus
from zta_authz.errors import Reason, Refused
from zta_authz.model.request import Address, Evidence, Headers, RequestAttributes
from zta_authz.pdp.explain import Explanation, explain
from zta_authz.policy.rules.schedule import END_OF_TIME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from zta_authz.admin.state import ServiceState
    from zta_authz.errors import Fault
    from zta_authz.model.facts import FactViews
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.ports import FollowingStatus

SERVICE: Final = "zta.admin.v1.Admin"
MAX_HEADERS: Final = 4096

_KINDS: Final = {
    KeyKind.TRUST_BUNDLE: admin_pb2.KeyMaterial.TRUST_BUNDLE,
    KeyKind.JWKS: admin_pb2.KeyMaterial.JWKS,
}


class AdminService:
    """The admin API's methods. `parse` reads a serialized CheckRequest, so this package stays free of Envoy's protocol.

    `parse` raises `Refused`.
    """

    def __init__(self, state: ServiceState, parse: Callable[[bytes], tuple[RequestAttributes, Evidence]]) -> None:
        self._state = state
        self._parse = parse
        self._explain_lock = asyncio.Lock()

    def methods(self) -> Mapping[str, Mapping[str, Callable[[bytes, Any, str], Awaitable[bytes]]]]:
        """Return the service's methods, bytes in and out, in the form that the servers expect."""
        return {SERVICE: {"GetStatus": self.get_status, "Explain": self.explain}}

    async def get_status(self, payload: bytes, context: Any, _caller: str = "") -> bytes:
        """Answer a `GetStatusRequest` with a `GetStatusResponse`."""
        try:
            admin_pb2.GetStatusRequest.FromString(payload)
        except DecodeError:
            return await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "the bytes are not a GetStatusRequest")
        return status_message(self._state).SerializeToString()

    async def explain(self, payload: bytes, context: Any, _caller: str = "") -> bytes:
        """Answer an `ExplainRequest` with an `ExplainResponse`."""
        snapshot = self._state.snapshot
        if snapshot is None:
            return await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "no rules are loaded yet")
        try:
            async with self._explain_lock:  # in a thread: 4 MiB of headers or 100,000 rules must not delay proxies
                views, now = self._state.views(), self._state.now
                return await asyncio.to_thread(self._run_explain, payload, snapshot, views, now)
        except (DecodeError, Refused) as error:
            reason = str(error) if isinstance(error, Refused) else "the bytes are not an ExplainRequest"
            return await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, reason)

    def _run_explain(self, payload: bytes, snapshot: Snapshot, views: FactViews, now: float) -> bytes:
        """Explain the request in `payload`. Raises DecodeError and `Refused` for an invalid one."""
        query = admin_pb2.ExplainRequest.FromString(payload)
        request, evidence = self._subject(query)
        at = query.at_seconds if query.HasField("at_seconds") else now
        if not 0 <= at < END_OF_TIME:  # also refuses NaN
            raise Refused(Reason.REQUEST_MALFORMED, "at_seconds is not in the years 1970 to 9998")
        explanation = explain(snapshot, request, evidence, at, query.caller, views)
        return explanation_message(explanation, snapshot.digest).SerializeToString()

    def _subject(self, query: admin_pb2.ExplainRequest) -> tuple[RequestAttributes, Evidence]:
        if query.WhichOneof("subject") == "check_request":
            return self._parse(query.check_request)
        return readable_request(query.request)


async def _refuse(context: Any, code: grpc.StatusCode, message: str) -> bytes:
    await context.abort(code, message)  # raises
    return b""


def readable_request(fields: admin_pb2.Request) -> tuple[RequestAttributes, Evidence]:
    """Convert an operator's readable request to the form that a proxy would send.

    Raises `Refused` for more than `MAX_HEADERS` headers.
    """
    if len(fields.headers) > MAX_HEADERS:
        raise Refused(Reason.REQUEST_MALFORMED, f"{len(fields.headers)} headers, more than {MAX_HEADERS}")
    headers: dict[str, list[str]] = {}
    for header in fields.headers:
        headers.setdefault(header.name.lower(), []).append(header.value)
    request = RequestAttributes(
        method=fields.method,
        path=fields.path,
        host=fields.host,
        scheme=fields.scheme,
        headers=Headers({name: tuple(values) for name, values in headers.items()}, exact=True),
        source=Address(fields.source_ip, fields.source_port),
        destination=Address(fields.destination_ip, fields.destination_port),
        destination_principal=fields.destination_principal,
        sni=fields.sni,
    )
    return request, Evidence(fields.principal, quote(fields.certificate, safe=""))


def status_message(state: ServiceState) -> admin_pb2.GetStatusResponse:
    """Convert the service's state to the API's message."""
    snapshot = state.snapshot
    now = state.now
    message = admin_pb2.GetStatusResponse(
        version=state.version,
        uptime_seconds=max(0.0, now - state.started_at),
        ready=state.ready,
        loaded_at_seconds=state.loaded_at,
        load_errors=[_fault(fault) for fault in state.load_errors],
        keys=[_key(key, now) for key in state.keys_in_force()],
    )
    following = state.following()
    if following is not None:
        message.following.CopyFrom(_following(following))
    if snapshot is not None:
        message.table_digest = snapshot.digest
        message.sources.extend(snapshot.sources)
        message.warnings.extend(_fault(fault) for fault in snapshot.warnings)
    return message


def _fault(fault: Fault) -> admin_pb2.Fault:
    return admin_pb2.Fault(
        source=fault.source, line=fault.line, column=fault.column, message=fault.message, hint=fault.hint
    )


def _following(status: FollowingStatus) -> admin_pb2.Following:
    return admin_pb2.Following(
        address=status.address,
        connected=status.connected,
        age_seconds=status.age,
        stale=status.stale,
        revision=status.revision,
        items=status.items,
    )


def _key(key: KeyStatus, now: float) -> admin_pb2.KeyMaterial:
    return admin_pb2.KeyMaterial(
        kind=_KINDS[key.kind],
        name=key.name,
        count=key.count,
        age_seconds=max(0.0, now - key.since),
        expires_at_seconds=key.expires_at or 0.0,
    )


def explanation_message(explanation: Explanation, digest: str) -> admin_pb2.ExplainResponse:
    """Convert a decision, and what the nearest ALLOW rules lacked, to the API's message."""
    decision = explanation.decision
    token = decision.identity.token
    message = admin_pb2.ExplainResponse(
        allowed=decision.allowed,
        reason=decision.reason.value,
        policy=decision.policy,
        rule=decision.rule,
        principal=_text(decision.identity.principal),
        request_principal=_text(f"{token.issuer}/{token.subject}") if token is not None else "",
        detail=_text(decision.detail),
        table_digest=digest,
        matched=[_text(text) for text in explanation.matched],
        rule_name=decision.rule_name,
        facts=[_text(text) for text in explanation.facts],
    )
    for miss in explanation.nearest:
        failed = [_text(text) for text in miss.failed]
        message.nearest.add(policy=miss.policy, rule=miss.rule, failed=failed, line=miss.line, rule_name=miss.rule_name)
    return message


def _text(text: str) -> str:
    """Replace text that protobuf can't encode (bytes that were not UTF-8) by `?`."""
    return text.encode("utf-8", "replace").decode()
