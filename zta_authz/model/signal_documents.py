"""`zta.dev/v1` SignalSource as written: a transmitter of security events, and what each kind of event does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.documents import Position

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
SSF: Final = "https://schemas.openid.net/secevent/ssf/event-type/"


class EventKind(StrEnum):
    """The event types that have a meaning here. A value is the end of the type's URI."""

    # CAEP 1.0
    SESSION_REVOKED = "session-revoked"
    TOKEN_CLAIMS_CHANGE = "token-claims-change"  # noqa: S105 - an event type
    CREDENTIAL_CHANGE = "credential-change"
    ASSURANCE_LEVEL_CHANGE = "assurance-level-change"
    DEVICE_COMPLIANCE_CHANGE = "device-compliance-change"
    SESSION_ESTABLISHED = "session-established"
    SESSION_PRESENTED = "session-presented"
    RISK_LEVEL_CHANGE = "risk-level-change"

    # RISC 1.0
    ACCOUNT_CREDENTIAL_CHANGE_REQUIRED = "account-credential-change-required"
    ACCOUNT_PURGED = "account-purged"
    ACCOUNT_DISABLED = "account-disabled"
    ACCOUNT_ENABLED = "account-enabled"
    IDENTIFIER_CHANGED = "identifier-changed"
    IDENTIFIER_RECYCLED = "identifier-recycled"
    CREDENTIAL_COMPROMISE = "credential-compromise"
    OPT_IN = "opt-in"
    OPT_OUT_INITIATED = "opt-out-initiated"
    OPT_OUT_CANCELLED = "opt-out-cancelled"
    OPT_OUT_EFFECTIVE = "opt-out-effective"
    RECOVERY_ACTIVATED = "recovery-activated"
    RECOVERY_INFORMATION_CHANGED = "recovery-information-changed"
    SESSIONS_REVOKED = "sessions-revoked"

    # SSF 1.0: about the stream itself
    VERIFICATION = "verification"
    STREAM_UPDATED = "stream-updated"


_CAEP_KINDS: Final = tuple(EventKind)[: tuple(EventKind).index(EventKind.RISK_LEVEL_CHANGE) + 1]
STREAM_KINDS: Final = frozenset((EventKind.VERIFICATION, EventKind.STREAM_UPDATED))
EVENT_KINDS: Final[Mapping[str, EventKind]] = {
    (SSF if kind in STREAM_KINDS else CAEP if kind in _CAEP_KINDS else RISC) + kind: kind for kind in EventKind
}
"""The kind of event by the URI of its type."""


class SignalAction(StrEnum):
    """What an event does."""

    REVOKE = "revoke"  # end the subject's tokens
    TRUST = "trust"  # keep the level as a signal of the subject
    DEVICE = "device"  # keep the compliance as a signal of the device
    IGNORE = "ignore"  # only record the event


DEFAULT_ACTIONS: Final[Mapping[EventKind, SignalAction]] = {
    EventKind.SESSION_REVOKED: SignalAction.REVOKE,
    EventKind.TOKEN_CLAIMS_CHANGE: SignalAction.REVOKE,
    EventKind.CREDENTIAL_CHANGE: SignalAction.REVOKE,
    EventKind.ASSURANCE_LEVEL_CHANGE: SignalAction.TRUST,
    EventKind.DEVICE_COMPLIANCE_CHANGE: SignalAction.DEVICE,
    EventKind.RISK_LEVEL_CHANGE: SignalAction.TRUST,
    EventKind.ACCOUNT_CREDENTIAL_CHANGE_REQUIRED: SignalAction.REVOKE,
    EventKind.ACCOUNT_PURGED: SignalAction.REVOKE,
    EventKind.ACCOUNT_DISABLED: SignalAction.REVOKE,
    EventKind.IDENTIFIER_CHANGED: SignalAction.REVOKE,
    EventKind.IDENTIFIER_RECYCLED: SignalAction.REVOKE,
    EventKind.CREDENTIAL_COMPROMISE: SignalAction.REVOKE,
    EventKind.SESSIONS_REVOKED: SignalAction.REVOKE,
}
"""What an event does unless the document says otherwise. Kinds that are not here are only recorded."""


def permitted_actions(kind: EventKind) -> tuple[SignalAction, ...]:
    """What a document may let this kind of event do."""
    default = DEFAULT_ACTIONS.get(kind)
    return (SignalAction.IGNORE,) if default is None else (default, SignalAction.IGNORE)


CHANGE_TYPES: Final = ("create", "revoke", "update", "delete")
"""The `change_type` of a credential-change."""


class RiskLevel(StrEnum):
    """The risk of a CAEP risk-level-change. It is the transmitter's view, not a trust level."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


class Delivery(StrEnum):
    """How security events arrive."""

    POLL = "poll"  # RFC 8936: the administrator asks for them
    PUSH = "push"  # RFC 8935: the transmitter posts them


class OpaqueAs(StrEnum):
    """What an identifier of format `opaque` names."""

    SESSION = "session"
    SUBJECT = "subject"


@dataclass(frozen=True, slots=True)
class SubjectMapping:
    """How a source's subjects join to tokens.

    `token_issuers` issue the tokens that the events are about. `email_claim`, `session_claim` and `device_inventory`
    (`namespace/name`) are "" where these subjects join to nothing. `opaque` is what a simple subject of that format
    names, None if the event's type decides. `spiffe_ids` lets the source revoke SPIFFE IDs.
    """

    token_issuers: tuple[str, ...]
    email_claim: str = ""
    session_claim: str = "sid"
    device_inventory: str = ""
    opaque: OpaqueAs | None = None
    spiffe_ids: bool = False


@dataclass(frozen=True, slots=True)
class SignalSource:
    """One SignalSource. Durations are in seconds.

    The keys are at `jwks_uri` or, if that is "", where the metadata at `discovery` says; `discovery` "" means the
    well-known address of `issuer`. `endpoint` is the address to poll, "" if the administrator creates the stream.
    `actions` has all kinds that do something; a credential-change counts for `change_types` only. `tenant` is the
    identifier of this installation's tenant, "" where events for whole tenants do nothing.
    """

    name: str
    namespace: str
    position: Position
    issuer: str
    subjects: SubjectMapping
    actions: Mapping[EventKind, SignalAction]
    audiences: tuple[str, ...] = ()
    jwks_uri: str = ""
    discovery: str = ""
    delivery: Delivery = Delivery.POLL
    endpoint: str = ""
    change_types: frozenset[str] = frozenset(("update", "revoke", "delete"))
    max_silence: float = 600.0
    max_token_life: float = 30 * 86400.0
    max_subjects: int = 1000
    tenant: str = ""

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"
