from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FollowRequest(_message.Message):
    __slots__ = ("node", "epoch", "revision")
    NODE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    node: str
    epoch: str
    revision: int
    def __init__(self, node: _Optional[str] = ..., epoch: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class ViewUpdate(_message.Message):
    __slots__ = ("epoch", "revision", "full", "complete", "put", "removed", "sent_at")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    revision: int
    full: bool
    complete: bool
    put: _containers.RepeatedCompositeFieldContainer[Item]
    removed: _containers.RepeatedScalarFieldContainer[str]
    sent_at: float
    def __init__(self, epoch: _Optional[str] = ..., revision: _Optional[int] = ..., full: _Optional[bool] = ..., complete: _Optional[bool] = ..., put: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ..., sent_at: _Optional[float] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("key", "grant", "revocation", "signal", "source")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    REVOCATION_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    key: str
    grant: Grant
    revocation: Revocation
    signal: Signal
    source: SignalSourceState
    def __init__(self, key: _Optional[str] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ..., revocation: _Optional[_Union[Revocation, _Mapping]] = ..., signal: _Optional[_Union[Signal, _Mapping]] = ..., source: _Optional[_Union[SignalSourceState, _Mapping]] = ...) -> None: ...

class Subject(_message.Message):
    __slots__ = ("issuer", "subject", "spiffe_id")
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    issuer: str
    subject: str
    spiffe_id: str
    def __init__(self, issuer: _Optional[str] = ..., subject: _Optional[str] = ..., spiffe_id: _Optional[str] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("id", "entitlement", "subject", "start", "until", "request_id", "break_glass", "state", "reason", "review_due")
    ID_FIELD_NUMBER: _ClassVar[int]
    ENTITLEMENT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BREAK_GLASS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVIEW_DUE_FIELD_NUMBER: _ClassVar[int]
    id: str
    entitlement: str
    subject: Subject
    start: float
    until: float
    request_id: str
    break_glass: bool
    state: str
    reason: str
    review_due: float
    def __init__(self, id: _Optional[str] = ..., entitlement: _Optional[str] = ..., subject: _Optional[_Union[Subject, _Mapping]] = ..., start: _Optional[float] = ..., until: _Optional[float] = ..., request_id: _Optional[str] = ..., break_glass: _Optional[bool] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., review_due: _Optional[float] = ...) -> None: ...

class Revocation(_message.Message):
    __slots__ = ("id", "what", "value", "issuer", "before", "until", "reason", "source", "created_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    what: str
    value: str
    issuer: str
    before: float
    until: float
    reason: str
    source: str
    created_at: float
    def __init__(self, id: _Optional[str] = ..., what: _Optional[str] = ..., value: _Optional[str] = ..., issuer: _Optional[str] = ..., before: _Optional[float] = ..., until: _Optional[float] = ..., reason: _Optional[str] = ..., source: _Optional[str] = ..., created_at: _Optional[float] = ...) -> None: ...

class Signal(_message.Message):
    __slots__ = ("id", "what", "issuer", "subject", "kind", "value", "observed_at", "source", "jti")
    ID_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    JTI_FIELD_NUMBER: _ClassVar[int]
    id: str
    what: str
    issuer: str
    subject: str
    kind: str
    value: str
    observed_at: float
    source: str
    jti: str
    def __init__(self, id: _Optional[str] = ..., what: _Optional[str] = ..., issuer: _Optional[str] = ..., subject: _Optional[str] = ..., kind: _Optional[str] = ..., value: _Optional[str] = ..., observed_at: _Optional[float] = ..., source: _Optional[str] = ..., jti: _Optional[str] = ...) -> None: ...

class SignalSourceState(_message.Message):
    __slots__ = ("name", "heard_at", "max_silence", "issuers", "kinds", "inventory", "spiffe_ids")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HEARD_AT_FIELD_NUMBER: _ClassVar[int]
    MAX_SILENCE_FIELD_NUMBER: _ClassVar[int]
    ISSUERS_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_IDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    heard_at: float
    max_silence: float
    issuers: _containers.RepeatedScalarFieldContainer[str]
    kinds: _containers.RepeatedScalarFieldContainer[str]
    inventory: str
    spiffe_ids: bool
    def __init__(self, name: _Optional[str] = ..., heard_at: _Optional[float] = ..., max_silence: _Optional[float] = ..., issuers: _Optional[_Iterable[str]] = ..., kinds: _Optional[_Iterable[str]] = ..., inventory: _Optional[str] = ..., spiffe_ids: _Optional[bool] = ...) -> None: ...

class RequestAccessRequest(_message.Message):
    __slots__ = ("entitlement", "duration_seconds", "reason", "start")
    ENTITLEMENT_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    entitlement: str
    duration_seconds: float
    reason: str
    start: float
    def __init__(self, entitlement: _Optional[str] = ..., duration_seconds: _Optional[float] = ..., reason: _Optional[str] = ..., start: _Optional[float] = ...) -> None: ...

class AccessRequest(_message.Message):
    __slots__ = ("id", "entitlement", "requester", "duration_seconds", "reason", "state", "requested_at", "pending_until", "approvals", "approvals_needed", "grant_id", "scope_sha256", "start")
    ID_FIELD_NUMBER: _ClassVar[int]
    ENTITLEMENT_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_AT_FIELD_NUMBER: _ClassVar[int]
    PENDING_UNTIL_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_SHA256_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    id: str
    entitlement: str
    requester: Subject
    duration_seconds: float
    reason: str
    state: str
    requested_at: float
    pending_until: float
    approvals: _containers.RepeatedCompositeFieldContainer[Approval]
    approvals_needed: int
    grant_id: str
    scope_sha256: str
    start: float
    def __init__(self, id: _Optional[str] = ..., entitlement: _Optional[str] = ..., requester: _Optional[_Union[Subject, _Mapping]] = ..., duration_seconds: _Optional[float] = ..., reason: _Optional[str] = ..., state: _Optional[str] = ..., requested_at: _Optional[float] = ..., pending_until: _Optional[float] = ..., approvals: _Optional[_Iterable[_Union[Approval, _Mapping]]] = ..., approvals_needed: _Optional[int] = ..., grant_id: _Optional[str] = ..., scope_sha256: _Optional[str] = ..., start: _Optional[float] = ...) -> None: ...

class Approval(_message.Message):
    __slots__ = ("approver", "at", "comment")
    APPROVER_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    approver: Subject
    at: float
    comment: str
    def __init__(self, approver: _Optional[_Union[Subject, _Mapping]] = ..., at: _Optional[float] = ..., comment: _Optional[str] = ...) -> None: ...

class ApproveRequestRequest(_message.Message):
    __slots__ = ("id", "scope_sha256", "duration_seconds", "comment")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_SHA256_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    scope_sha256: str
    duration_seconds: float
    comment: str
    def __init__(self, id: _Optional[str] = ..., scope_sha256: _Optional[str] = ..., duration_seconds: _Optional[float] = ..., comment: _Optional[str] = ...) -> None: ...

class DenyRequestRequest(_message.Message):
    __slots__ = ("id", "comment")
    ID_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    comment: str
    def __init__(self, id: _Optional[str] = ..., comment: _Optional[str] = ...) -> None: ...

class WithdrawRequestRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetRequestRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ListRequestsRequest(_message.Message):
    __slots__ = ("state", "page_size", "page_token")
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    state: str
    page_size: int
    page_token: str
    def __init__(self, state: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRequestsResponse(_message.Message):
    __slots__ = ("requests", "next_page_token")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[AccessRequest]
    next_page_token: str
    def __init__(self, requests: _Optional[_Iterable[_Union[AccessRequest, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class BreakGlassRequest(_message.Message):
    __slots__ = ("entitlement", "duration_seconds", "reason")
    ENTITLEMENT_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    entitlement: str
    duration_seconds: float
    reason: str
    def __init__(self, entitlement: _Optional[str] = ..., duration_seconds: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class GetGrantRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RevokeGrantRequest(_message.Message):
    __slots__ = ("id", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class EndGrantRequest(_message.Message):
    __slots__ = ("id", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ReviewGrantRequest(_message.Message):
    __slots__ = ("id", "comment")
    ID_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    comment: str
    def __init__(self, id: _Optional[str] = ..., comment: _Optional[str] = ...) -> None: ...

class ListGrantsRequest(_message.Message):
    __slots__ = ("state", "page_size", "page_token")
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    state: str
    page_size: int
    page_token: str
    def __init__(self, state: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListGrantsResponse(_message.Message):
    __slots__ = ("grants", "next_page_token")
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    next_page_token: str
    def __init__(self, grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("what", "value", "issuer", "before", "until", "reason")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    what: str
    value: str
    issuer: str
    before: float
    until: float
    reason: str
    def __init__(self, what: _Optional[str] = ..., value: _Optional[str] = ..., issuer: _Optional[str] = ..., before: _Optional[float] = ..., until: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class LiftRevocationRequest(_message.Message):
    __slots__ = ("id", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListRevocationsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRevocationsResponse(_message.Message):
    __slots__ = ("revocations", "next_page_token")
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    revocations: _containers.RepeatedCompositeFieldContainer[Revocation]
    next_page_token: str
    def __init__(self, revocations: _Optional[_Iterable[_Union[Revocation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class HeldEvent(_message.Message):
    __slots__ = ("id", "source", "issuer", "jti", "event_type", "why", "happened_at", "held_at", "revocations", "signals")
    ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    JTI_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    HAPPENED_AT_FIELD_NUMBER: _ClassVar[int]
    HELD_AT_FIELD_NUMBER: _ClassVar[int]
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    id: str
    source: str
    issuer: str
    jti: str
    event_type: str
    why: str
    happened_at: float
    held_at: float
    revocations: _containers.RepeatedCompositeFieldContainer[Revocation]
    signals: _containers.RepeatedCompositeFieldContainer[Signal]
    def __init__(self, id: _Optional[str] = ..., source: _Optional[str] = ..., issuer: _Optional[str] = ..., jti: _Optional[str] = ..., event_type: _Optional[str] = ..., why: _Optional[str] = ..., happened_at: _Optional[float] = ..., held_at: _Optional[float] = ..., revocations: _Optional[_Iterable[_Union[Revocation, _Mapping]]] = ..., signals: _Optional[_Iterable[_Union[Signal, _Mapping]]] = ...) -> None: ...

class ListHeldEventsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListHeldEventsResponse(_message.Message):
    __slots__ = ("held", "next_page_token")
    HELD_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    held: _containers.RepeatedCompositeFieldContainer[HeldEvent]
    next_page_token: str
    def __init__(self, held: _Optional[_Iterable[_Union[HeldEvent, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ReleaseHeldEventRequest(_message.Message):
    __slots__ = ("id", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DiscardHeldEventRequest(_message.Message):
    __slots__ = ("id", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
