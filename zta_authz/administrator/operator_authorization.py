"""Who may do what with the administrator: AccessPolicies of the workload `zta-admin`, decided as any others.

There is no second system of permissions. A call becomes a request to the host `zta-admin`, is decided by the same core
as the requests of Envoy, and is recorded in the decision log. Without a policy nobody may do anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from msgspec import structs

from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.access_events import Actor
from zta_authz.errors import DENIAL_RESPONSES, Reason, Refused
from zta_authz.ext_authz.challenges import plain_challenge, step_up_challenge
from zta_authz.ext_authz.servicer import new_decision_id
from zta_authz.model.options import CertificateCheck, Workload
from zta_authz.model.request import Evidence, Headers, RequestAttributes
from zta_authz.pdp.decide import Caller, decide, identify
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.require_grant import subjects_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from zta_authz.model.access import Subject
    from zta_authz.model.decision import Decision
    from zta_authz.model.identity import Token
    from zta_authz.model.options import Options
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.ports import AuditSink, Clock, SnapshotSource

    Finish = Callable[[Decision, str, float], Decision]
    """Completes a decision before it is recorded: (decision, its ID, seconds since the epoch)."""
    FindUser = Callable[[Snapshot, float], Token]
    """Verifies a token with the documents in force at a time (seconds since the epoch). Raises `Refused`."""

HOST: Final = "zta-admin"
LABELS: Final = {"app": "zta-admin"}
MAX_NAME: Final = 2048
"""Callers with longer issuers, subjects or SPIFFE IDs are refused: their names are stored, published and logged."""


def operator_options(options: Options, labels: Mapping[str, str] = LABELS) -> Options:
    """The options by which the administrator decides: one workload, whose callers its own listeners have verified.

    Documents without a namespace are in the same one as for decision points, so that they name the same entitlements.
    An ALLOW policy has to select this workload by its label: one for all workloads lets nobody administer.
    """
    workload = Workload(
        options.root_namespace, labels, options.workload.trust_domain, options.workload.trust_domain_aliases
    )
    return replace(
        options,
        workload=workload,
        workloads=(),
        gateways=(),
        default_allow=False,
        accept_ambiguous_paths=False,
        document_namespace=options.document_namespace or options.workload.namespace,
        allow_by_selector=True,
        trust_proxy=True,
        verify_certificate=CertificateCheck.NEVER,
    )


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator. `method` and `path` name the operation, as REST does.

    `principal` is the SPIFFE ID of the caller's certificate or local user, which the listener has verified; "" without
    one. `authorization` is that header's value, with a token that nobody has verified yet. `headers` are others that
    rules may read.
    """

    method: str
    path: str
    principal: str = ""
    authorization: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Decided:
    """A recorded decision on a call, made at `now` (seconds since the epoch) by `snapshot`."""

    decision: Decision
    decision_id: str
    snapshot: Snapshot
    request: RequestAttributes
    now: float


@dataclass(frozen=True, slots=True)
class AuthorizedCaller:
    """A caller who may make the call. `inputs` are what rules read of the caller, for entitlements."""

    subjects: tuple[Subject, ...]
    inputs: Inputs
    actor: Actor
    policy_digest: str


class OperatorAuthorization:
    """Decides the calls of operators."""

    def __init__(self, snapshots: SnapshotSource, audit: AuditSink, clock: Clock) -> None:
        """`snapshots` are compiled with `operator_options`. `clock` returns seconds since the epoch."""
        self._snapshots = snapshots
        self._audit = audit
        self._clock = clock

    def authorize(self, call: Call) -> AuthorizedCaller:
        """Verify and decide `call`, and record the decision. Raises `OperationRefused`."""
        decided = self.decide(call)
        decision, decision_id, snapshot = decided.decision, decided.decision_id, decided.snapshot
        if not decision.allowed:
            raise _refusal(decision, decision_id)
        subjects = subjects_of(decision.identity)
        if not _are_names(subjects, decision.identity.token):
            raise OperationRefused(Refusal.UNAUTHENTICATED, f"the caller has no name (decision {decision_id})")
        inputs = Inputs(decided.request, decision.identity, snapshot.options, decided.now)
        return AuthorizedCaller(subjects, inputs, actor_of(decision, decision_id), snapshot.digest)

    def decide(self, call: Call, finish: Finish | None = None, user: FindUser | None = None) -> Decided:
        """Verify and decide `call`, and record the decision as `finish` returns it. Raises `OperationRefused`.

        `user` returns a token that it has verified itself, instead of one in the call.
        """
        snapshot, now, decision_id = self._snapshots.snapshot, self._clock(), new_decision_id()
        if snapshot is None:
            raise OperationRefused(Refusal.UNAVAILABLE, "the policies are not loaded yet")
        headers: dict[str, tuple[str, ...]] = {name: (value,) for name, value in call.headers}
        if call.authorization:
            headers["authorization"] = (call.authorization,)
        request = RequestAttributes(method=call.method, path=call.path, host=HOST, headers=Headers(headers, exact=True))
        caller = identify(snapshot, request, Evidence(call.principal), now)
        if user is not None and caller.refused is None:
            caller = _with_user(caller, snapshot, now, user)
        decision = decide(snapshot, request, caller, now)
        if finish is not None:
            decision = finish(decision, decision_id, now)
        if not self._audit.record(request, decision, decision_id, now, (), snapshot.digest):
            raise OperationRefused(Refusal.UNAVAILABLE, "the decision can't be recorded")
        return Decided(decision, decision_id, snapshot, request, now)


def _with_user(caller: Caller, snapshot: Snapshot, now: float, user: FindUser) -> Caller:
    try:
        token = user(snapshot, now)
    except Refused as refused:
        return structs.replace(caller, refused=refused)
    return structs.replace(caller, identity=replace(caller.identity, token=token, tokens=(token,)))


def _are_names(subjects: Sequence[Subject], token: Token | None) -> bool:
    """Whether the caller has names that a grant can be for.

    A token without a subject is not enough, because its holder would act under the name of the workload that sent it.
    """
    if not subjects or (token is not None and token.names is None):
        return False
    return all(len(name) <= MAX_NAME and name.isprintable() for subject in subjects for name in subject)


def actor_of(decision: Decision, decision_id: str) -> Actor:
    """Who made the call, for events."""
    token = decision.identity.token
    issuer, subject = ("", "") if token is None or token.names is None else token.names
    return Actor(decision.identity.principal, issuer, subject, decision_id)


def _refusal(decision: Decision, decision_id: str) -> OperationRefused:
    answer = DENIAL_RESPONSES.get(decision.reason, DENIAL_RESPONSES[Reason.INTERNAL_ERROR])
    message = f"{decision.reason} (decision {decision_id})"
    if answer.status == 503:  # an issuer's keys, for example
        return OperationRefused(Refusal.UNAVAILABLE, message)
    if answer.status != 401:
        return OperationRefused(Refusal.NOT_ALLOWED, message)
    login = decision.remedy if decision.reason is Reason.STEP_UP_REQUIRED else None
    challenge = plain_challenge(answer) if login is None else step_up_challenge(login)
    return OperationRefused(Refusal.UNAUTHENTICATED, message, challenge)
