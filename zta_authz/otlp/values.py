"""OTLP's common messages: values, attributes, resource and scope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.otlp.messages import Origin

SCOPE: Final = "zta_authz"


def any_value(value: str | int) -> AnyValue:
    """A text or an integer; what is no Unicode in a text is escaped: it would cost the whole request."""
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(string_value=value if value.isascii() else value.encode("utf-8", "backslashreplace").decode())


def pairs(attributes: Iterable[tuple[str, str | int]]) -> list[KeyValue]:
    """Attributes, in this order."""
    return [KeyValue(key=name, value=any_value(value)) for name, value in attributes]


def resource(origin: Origin) -> Resource:
    """Who says it."""
    told = (
        ("service.name", origin.name),
        ("service.version", origin.version),
        ("service.instance.id", origin.instance),
    )
    return Resource(attributes=pairs((name, text) for name, text in told if text))


def scope(origin: Origin) -> InstrumentationScope:
    """Which part of the program says it."""
    return InstrumentationScope(name=SCOPE, version=origin.version)
