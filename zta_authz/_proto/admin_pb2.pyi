from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "uptime_seconds", "ready", "table_digest", "loaded_at_seconds", "sources", "load_errors", "warnings", "keys", "following")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    TABLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LOADED_AT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    LOAD_ERRORS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    FOLLOWING_FIELD_NUMBER: _ClassVar[int]
    version: str
    uptime_seconds: float
    ready: bool
    table_digest: str
    loaded_at_seconds: float
    sources: _containers.RepeatedScalarFieldContainer[str]
    load_errors: _containers.RepeatedCompositeFieldContainer[Fault]
    warnings: _containers.RepeatedCompositeFieldContainer[Fault]
    keys: _containers.RepeatedCompositeFieldContainer[KeyMaterial]
    following: Following
    def __init__(self, version: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., ready: _Optional[bool] = ..., table_digest: _Optional[str] = ..., loaded_at_seconds: _Optional[float] = ..., sources: _Optional[_Iterable[str]] = ..., load_errors: _Optional[_Iterable[_Union[Fault, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[Fault, _Mapping]]] = ..., keys: _Optional[_Iterable[_Union[KeyMaterial, _Mapping]]] = ..., following: _Optional[_Union[Following, _Mapping]] = ...) -> None: ...

class Following(_message.Message):
    __slots__ = ("address", "connected", "age_seconds", "stale", "revision", "items")
    class ItemsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    address: str
    connected: bool
    age_seconds: float
    stale: bool
    revision: int
    items: _containers.ScalarMap[str, int]
    def __init__(self, address: _Optional[str] = ..., connected: _Optional[bool] = ..., age_seconds: _Optional[float] = ..., stale: _Optional[bool] = ..., revision: _Optional[int] = ..., items: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("source", "line", "column", "message", "hint")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    source: str
    line: int
    column: int
    message: str
    hint: str
    def __init__(self, source: _Optional[str] = ..., line: _Optional[int] = ..., column: _Optional[int] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class KeyMaterial(_message.Message):
    __slots__ = ("kind", "name", "count", "age_seconds", "expires_at_seconds")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[KeyMaterial.Kind]
        TRUST_BUNDLE: _ClassVar[KeyMaterial.Kind]
        JWKS: _ClassVar[KeyMaterial.Kind]
    KIND_UNSPECIFIED: KeyMaterial.Kind
    TRUST_BUNDLE: KeyMaterial.Kind
    JWKS: KeyMaterial.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    kind: KeyMaterial.Kind
    name: str
    count: int
    age_seconds: float
    expires_at_seconds: float
    def __init__(self, kind: _Optional[_Union[KeyMaterial.Kind, str]] = ..., name: _Optional[str] = ..., count: _Optional[int] = ..., age_seconds: _Optional[float] = ..., expires_at_seconds: _Optional[float] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("check_request", "request", "at_seconds", "caller")
    CHECK_REQUEST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    AT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    check_request: bytes
    request: Request
    at_seconds: float
    caller: str
    def __init__(self, check_request: _Optional[bytes] = ..., request: _Optional[_Union[Request, _Mapping]] = ..., at_seconds: _Optional[float] = ..., caller: _Optional[str] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("method", "path", "host", "scheme", "headers", "source_ip", "source_port", "destination_ip", "destination_port", "principal", "certificate", "sni", "destination_principal")
    class Header(_message.Message):
        __slots__ = ("name", "value")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        name: str
        value: str
        def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PORT_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_IP_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_PORT_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SNI_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    method: str
    path: str
    host: str
    scheme: str
    headers: _containers.RepeatedCompositeFieldContainer[Request.Header]
    source_ip: str
    source_port: int
    destination_ip: str
    destination_port: int
    principal: str
    certificate: str
    sni: str
    destination_principal: str
    def __init__(self, method: _Optional[str] = ..., path: _Optional[str] = ..., host: _Optional[str] = ..., scheme: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[Request.Header, _Mapping]]] = ..., source_ip: _Optional[str] = ..., source_port: _Optional[int] = ..., destination_ip: _Optional[str] = ..., destination_port: _Optional[int] = ..., principal: _Optional[str] = ..., certificate: _Optional[str] = ..., sni: _Optional[str] = ..., destination_principal: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("allowed", "reason", "policy", "rule", "principal", "request_principal", "detail", "nearest", "table_digest", "matched", "rule_name", "facts")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    NEAREST_FIELD_NUMBER: _ClassVar[int]
    TABLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    RULE_NAME_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    reason: str
    policy: str
    rule: int
    principal: str
    request_principal: str
    detail: str
    nearest: _containers.RepeatedCompositeFieldContainer[Miss]
    table_digest: str
    matched: _containers.RepeatedScalarFieldContainer[str]
    rule_name: str
    facts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, allowed: _Optional[bool] = ..., reason: _Optional[str] = ..., policy: _Optional[str] = ..., rule: _Optional[int] = ..., principal: _Optional[str] = ..., request_principal: _Optional[str] = ..., detail: _Optional[str] = ..., nearest: _Optional[_Iterable[_Union[Miss, _Mapping]]] = ..., table_digest: _Optional[str] = ..., matched: _Optional[_Iterable[str]] = ..., rule_name: _Optional[str] = ..., facts: _Optional[_Iterable[str]] = ...) -> None: ...

class Miss(_message.Message):
    __slots__ = ("policy", "rule", "failed", "line", "rule_name")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    RULE_NAME_FIELD_NUMBER: _ClassVar[int]
    policy: str
    rule: int
    failed: _containers.RepeatedScalarFieldContainer[str]
    line: int
    rule_name: str
    def __init__(self, policy: _Optional[str] = ..., rule: _Optional[int] = ..., failed: _Optional[_Iterable[str]] = ..., line: _Optional[int] = ..., rule_name: _Optional[str] = ...) -> None: ...
