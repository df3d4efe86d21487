"""OTLP's common messages: values, attributes, resources and scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.otlp.messages import Origin

SCOPE: Final = "zta_authz"


def any_value(value: str | int) -> AnyValue:
    """Encode a text or an integer. Lone surrogates are escaped, because they would invalidate the whole request."""
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(string_value=value if value.isascii() else value.encode("utf-8", "backslashreplace").decode())


def pairs(attributes: Iterable[tuple[str, str | int]]) -> list[KeyValue]:
    """Encode attributes in this order."""
    return [KeyValue(key=name, value=any_value(value)) for name, value in attributes]


def resource(origin: Origin) -> Resource:
    """Encode the exporting process as a resource."""
    attributes = (
        ("service.name", origin.name),
        ("service.version", origin.version),
        ("service.instance.id", origin.instance),
    )
    return Resource(attributes=pairs((name, text) for name, text in attributes if text))


def scope(origin: Origin) -> InstrumentationScope:
    """Return the instrumentation scope."""
    return InstrumentationScope(name=SCOPE, version=origin.version)
