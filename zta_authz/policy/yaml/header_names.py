"""Names of headers that policies may set or remove; reserved names are faults."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zta_authz.model.changed_headers import folded_name

if TYPE_CHECKING:
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node

HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.6.2
# Headers that rules match or that frame the message: a change would forward a request that was not decided on.
_RESERVED: Final = frozenset(("host", "content-length", "transfer-encoding", "connection", "te", "upgrade"))
_OWN: Final = "x-zta-"


def read_header_name(reader: Reader, node: Node, field: str) -> str | None:
    """The header name in `node`, in lower case; None, with a fault, if it is not a header name."""
    name = reader.string(node, field)
    if name is None:
        return None
    if not HEADER_NAME.fullmatch(name):
        reader.fault(node, f"`{name}` in `{field}` is not a header name", "use letters, digits and `-`")
        return None
    return name.lower()


def read_changed_header(reader: Reader, node: Node, field: str) -> str | None:
    """A header name that a policy may set or remove.

    Reserved names are faults in every spelling that an upstream may read as the same name.
    """
    name = read_header_name(reader, node, field)
    if name is None:
        return None
    folded = folded_name(name)
    if folded in _RESERVED or folded.startswith(_OWN):
        reader.fault(node, f"a policy can't change header `{name}`", "use another name")
        return None
    return name
