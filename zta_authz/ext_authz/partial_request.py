"""A CheckRequest taken apart just so far that what repeats from call to call is known again by its bytes.

Every request on one connection has the same `source` and `destination`, a certificate among them. `PartialCheckRequest`
is protobuf's own CheckRequest, but for these two: they are left as bytes, so that what was made of the same bytes
before can be used again. They are declared as repeated, because protobuf merges the occurrences of a message that comes
more than once: such a request is read in full, like everything else that is not quite as usual.

It is protobuf's parser that splits: unknown fields, order and encoding are its affair in either form. The type is made
from the generated one, so that the two can't drift apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from zta_authz._proto import ext_authz_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

_PACKAGE: Final = "zta.parts"
_CONTEXT: Final = "AttributeContext"
_REQUEST: Final = "CheckRequest"
LEFT_AS_BYTES: Final = frozenset(("source", "destination"))
"""The fields of an AttributeContext that stay bytes."""

_Field = descriptor_pb2.FieldDescriptorProto


def _parts_type() -> type[Message]:
    original = ext_authz_pb2.DESCRIPTOR
    file = descriptor_pb2.FileDescriptorProto(
        name="zta_authz/parts.proto", package=_PACKAGE, syntax="proto3", dependency=[original.name]
    )
    types = original.message_types_by_name
    context = file.message_type.add(name=_CONTEXT)
    for field in _fields(types[_CONTEXT]):
        added = context.field.add()
        added.CopyFrom(field)
        if field.name in LEFT_AS_BYTES:
            added.type, added.label = _Field.TYPE_BYTES, _Field.LABEL_REPEATED
            added.ClearField("type_name")
    request = file.message_type.add(name=_REQUEST)
    for field in _fields(types[_REQUEST]):
        if field.type_name == f".{types[_CONTEXT].full_name}":
            field.type_name = f".{_PACKAGE}.{_CONTEXT}"
        request.field.append(field)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{_REQUEST}"))


def _fields(message: Any) -> list[descriptor_pb2.FieldDescriptorProto]:
    """Copies of a message type's fields."""
    described = descriptor_pb2.DescriptorProto()
    message.CopyToProto(described)
    return list(described.field)


PartialCheckRequest: Final[Any] = _parts_type()
"""`attributes.source` and `.destination` are lists of bytes here, one entry for each occurrence."""
