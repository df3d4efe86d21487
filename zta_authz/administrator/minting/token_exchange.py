"""Token exchange (RFC 8693): a workload gets a token for another application, for the subject of a token that it holds.

AccessPolicies of the workload `zta-token` decide: the rule that allows the exchange also says what the token is
(`response.mint`), so no rule gives a token by accident. The subject's token is verified as any other; it is not one of
the operators' API, whose workload is another. The caller is authenticated by its certificate or as a local user.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.access_events import AccessEvent, EventKind, EventObject, encode_event
from zta_authz.administrator.minting.exchange_form import (
    JWT,
    TRANSACTION_TOKEN,
    ExchangeError,
    ExchangeRefused,
    read_exchange,
)
from zta_authz.administrator.minting.own_tokens import names_issuer, verify_minted
from zta_authz.administrator.operator_authorization import Call, actor_of
from zta_authz.administrator.rest_api import TokenReply
from zta_authz.administrator.store.port import Change
from zta_authz.errors import Reason
from zta_authz.model.decision import NO_RESPONSE, Verdict
from zta_authz.model.minting import TokenKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from zta_authz.administrator.access_events import Value
    from zta_authz.administrator.minting.exchange_form import ExchangeRequest
    from zta_authz.administrator.operations import Origin
    from zta_authz.administrator.operator_authorization import Decided, OperatorAuthorization
    from zta_authz.administrator.store.port import Committed, Store
    from zta_authz.minting.minter import Minter
    from zta_authz.model.decision import Decision
    from zta_authz.model.identity import Token
    from zta_authz.model.minting import MintedToken, MintTerms
    from zta_authz.pdp.snapshot import Snapshot

PATH: Final = "/token"
LABELS: Final = {"app": "zta-token"}
"""The labels of the workload whose AccessPolicies decide. Operators' tokens and those of users never mix."""
AUDIENCE_HEADER: Final = "zta-audience"
SCOPE_HEADER: Final = "zta-scope"
"""Headers of the request that is decided: what the caller asks for, for `when` and conditions."""
_STATUS: Final = {ExchangeError.INVALID_CLIENT: 401, ExchangeError.UNAVAILABLE: 503}
_ISSUED: Final = {
    TokenKind.SESSION: {"issued_token_type": JWT, "token_type": "Bearer"},
    TokenKind.TRANSACTION: {"issued_token_type": TRANSACTION_TOKEN, "token_type": "N_A"},
}


class TokenExchange:
    """Answers `POST /token`: a `TokenEndpoint` of the REST API."""

    def __init__(
        self,
        authorization: OperatorAuthorization,
        minter: Minter,
        store: Store,
        settle: Callable[[Committed], Awaitable[None]],
        log_failure: Callable[[], str] = str,
    ) -> None:
        """`settle` waits until a commit is in the access log. `log_failure` says why that can't be written."""
        self._authorization = authorization
        self._minter = minter
        self._store = store
        self._settle = settle
        self._log_failure = log_failure

    async def exchange(self, origin: Origin, form: Mapping[str, str]) -> TokenReply:
        """Answer a form. The token leaves only after its event is in the access log. Raises `StoreError`."""
        try:
            asked = read_exchange(form)
            decided = self._decide(origin, asked)
            minted = decided.decision.minted
            if minted is None:
                raise _refusal(decided)
            await self._record(decided, minted)
        except ExchangeRefused as refused:
            fields = {"error": str(refused.error), "error_description": str(refused)}
            return TokenReply(_STATUS.get(refused.error, 400), fields)
        except OperationRefused as refused:
            if refused.refusal is not Refusal.UNAVAILABLE:
                raise
            return TokenReply(503, {"error": str(ExchangeError.UNAVAILABLE), "error_description": str(refused)})
        return TokenReply(200, _issued(decided, minted))

    def _decide(self, origin: Origin, asked: ExchangeRequest) -> Decided:
        """Decide the exchange, mint, and record the decision. Raises `ExchangeRefused` and `OperationRefused`."""
        if not origin.principal:
            message = "a workload authenticates by its client certificate, or on the Unix socket"
            raise ExchangeRefused(ExchangeError.INVALID_CLIENT, message)
        if origin.authorization:
            message = "the subject's token is in the form, and the caller has no other"
            raise ExchangeRefused(ExchangeError.INVALID_REQUEST, message)
        if self._log_failure():
            raise ExchangeRefused(ExchangeError.UNAVAILABLE, "the access log can't be written")
        headers = ((AUDIENCE_HEADER, asked.audience), *(((SCOPE_HEADER, asked.scope),) if asked.scope else ()))
        text, minter, principal = asked.subject_token, self._minter, origin.principal
        own = names_issuer(text, minter.issuer)
        call = Call("POST", PATH, principal, "" if own else f"Bearer {text}", headers)

        def user(snapshot: Snapshot, now: float) -> Token:
            return verify_minted(text, minter, principal, snapshot.verifier.revocations, now)

        def finish(decision: Decision, decision_id: str, now: float) -> Decision:
            if not decision.allowed:
                return decision
            terms = decision.response.mint
            objection = _objection(terms, decision.identity.token, principal, asked)
            if objection or terms is None:
                return _denied(decision, objection)
            narrowed = terms if asked.scope is None else replace(terms, scope=asked.scope)
            response = replace(decision.response, mint=narrowed)
            return minter.issue(structs.replace(decision, response=response), decision_id, now)

        return self._authorization.decide(call, finish, user if own else None)

    async def _record(self, decided: Decided, minted: MintedToken) -> None:
        fields: dict[str, Value] = {"audience": minted.audience, "key_id": minted.key_id, "expires": minted.expires}
        terms = decided.decision.response.mint
        if terms is not None and terms.scope:
            fields["scope"] = terms.scope
        event = AccessEvent(
            EventKind.TOKEN_ISSUED,
            EventObject("token", minted.token_id, fields),
            actor_of(decided.decision, decided.decision_id),
            policy_digest=decided.snapshot.digest,
        )
        await self._settle(await self._store.commit(Change(events=[encode_event(event)])))


def _objection(terms: MintTerms | None, token: Token | None, principal: str, asked: ExchangeRequest) -> str:
    """Why an allowed exchange gives no token, "" if it does."""
    if terms is None:
        return "the rule that allows it has no `mint`"
    if token is None or token.names is None:
        return "no rule verifies the subject's token"
    if terms.audience != asked.audience:
        return "the rule that allows it mints for another audience"
    if asked.kind not in (None, terms.kind):
        return "the rule that allows it mints another kind of token"
    if asked.scope is not None and not set(asked.scope.split()) <= set(terms.scope.split()):
        return _SCOPE_TOO_WIDE
    if "may_act" in token.claims and not _may_act(token.claims["may_act"], principal):
        return "`may_act` of the subject's token names another actor"
    return ""


_SCOPE_TOO_WIDE: Final = "the rule that allows it has a narrower `scope`"


def _may_act(claim: Any, principal: str) -> bool:
    """Whether `may_act` (RFC 8693 section 4.4) names the caller, and nothing that can't be compared with it."""
    return isinstance(claim, dict) and claim == {"sub": principal}


def _denied(decision: Decision, why: str) -> Decision:
    return structs.replace(
        decision, verdict=Verdict.DENY, reason=Reason.NO_MATCHING_POLICY, response=NO_RESPONSE, detail=why
    )


def _refusal(decided: Decided) -> ExchangeRefused:
    """The answer to a denied exchange. The decision log says more."""
    reason, where = decided.decision.reason, f"(decision {decided.decision_id})"
    if reason is Reason.MINTING_UNAVAILABLE:
        return ExchangeRefused(ExchangeError.UNAVAILABLE, f"no token can be minted now {where}")
    if reason.startswith(("token_", "dpop_")):
        return ExchangeRefused(ExchangeError.INVALID_REQUEST, f"subject_token is not accepted: {reason} {where}")
    if decided.decision.detail == _SCOPE_TOO_WIDE:
        return ExchangeRefused(ExchangeError.INVALID_SCOPE, f"scope is more than a policy allows {where}")
    return ExchangeRefused(ExchangeError.INVALID_TARGET, f"no policy allows a token for this audience {where}")


def _issued(decided: Decided, minted: MintedToken) -> dict[str, Any]:
    """The answer of RFC 8693 section 2.2.1."""
    terms = decided.decision.response.mint
    kind = TokenKind.SESSION if terms is None else terms.kind
    scope = {"scope": terms.scope} if terms is not None and terms.scope else {}
    expires_in = max(0, int(minted.expires - decided.now))
    return {"access_token": minted.token, **_ISSUED[kind], "expires_in": expires_in, **scope}
