"""A CheckRequest parsed only in part, so that the parts that repeat from call to call can be found by their bytes.

All requests of a connection have the same `source` and `destination`, which contain a certificate.
`PartialCheckRequest` is protobuf's CheckRequest with these two fields as bytes, so that the result for the same bytes
can be used again. They are declared as repeated, because protobuf merges several occurrences of a message field. A
request with several of them is parsed in full.

protobuf's parser splits the message, so it handles unknown fields, order and encoding the same way in both forms. The
type is built from the generated one, so that the two can't differ.
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
    """Copy the fields of a message type."""
    described = descriptor_pb2.DescriptorProto()
    message.CopyToProto(described)
    return list(described.field)


PartialCheckRequest: Final[Any] = _parts_type()
"""`attributes.source` and `.destination` are lists of bytes here, one entry for each occurrence."""
