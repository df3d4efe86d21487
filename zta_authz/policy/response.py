"""`response` of an AccessPolicy: what an allow adds to the request, what a denial tells the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from zta_authz.model.decision import Response
from zta_authz.policy.header_names import read_changed_header
from zta_authz.policy.yaml_reader import Mapping, Node, Scalar

if TYPE_CHECKING:
    from zta_authz.policy.fields import Reader
    from zta_authz.policy.inputs import Inputs

_REDIRECTS: Final = (301, 302, 303, 307, 308)
MAX_MESSAGE: Final = 512


@dataclass(frozen=True, slots=True)
class HeaderSource:
    """A header to set: to `literal`, or to the claim at `claim` where `literal` is None."""

    name: str
    literal: str | None
    claim: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResponseTemplate:
    """The answer's parts; claims are filled in for each request."""

    headers: tuple[HeaderSource, ...] = ()
    remove: tuple[str, ...] = ()
    status: int = 0
    message: str = ""

    def resolve(self, inputs: Inputs) -> Response:
        """The response for one request. A header whose claim is absent is removed: its sender must not set it."""
        values: list[tuple[str, str]] = []
        missing: list[str] = []
        for header in self.headers:
            text = header.literal if header.literal is not None else _claim_text(inputs, header.claim)
            if text is None:
                missing.append(header.name)
            else:
                values.append((header.name, text))
        return Response(tuple(values), (*self.remove, *missing), self.status, self.message)


def _claim_text(inputs: Inputs, path: tuple[str, ...]) -> str | None:
    """A claim as header text: strings, integers, booleans; None for everything else."""
    value: Any = inputs.claims
    for step in path:
        if not hasattr(value, "get"):
            return None
        value = value.get(step)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) else None


def read_response(reader: Reader, node: Node) -> ResponseTemplate | None:
    """`response` with `headers`, `status`, `redirect` and `message`; None, and faults, where it is none."""
    mapping = reader.mapping(node, "response", ("headers", "status", "redirect", "message"))
    if mapping is None:
        return None
    headers, remove = _headers(reader, mapping.get("headers"))
    status, redirect = mapping.get("status"), mapping.get("redirect")
    if status is not None and redirect is not None:
        reader.fault(redirect, "`response` has both `status` and `redirect`", "remove one of the two")
    code = 0 if status is None else _status(reader, status, range(400, 600), "an HTTP status from 400 to 599")
    if redirect is not None:
        code, location = _redirect(reader, redirect)
        headers.append(HeaderSource("location", location))
    message = mapping.get("message")
    text = None if message is None else _text(reader, message, "message", MAX_MESSAGE)
    return ResponseTemplate(tuple(headers), tuple(remove), code, text or "")


def _headers(reader: Reader, node: Node | None) -> tuple[list[HeaderSource], list[str]]:
    mapping = None if node is None else reader.mapping(node, "headers", ("set", "remove"))
    if mapping is None:
        return [], []
    to_set, to_remove = mapping.get("set"), mapping.get("remove")
    items = [] if to_set is None else reader.items(to_set, "set", "headers")
    found = [header for item in items if (header := _header(reader, item)) is not None]
    names = [] if to_remove is None else reader.strings(to_remove, "remove")
    removed = [name for item in names if (name := read_changed_header(reader, item, "remove")) is not None]
    for item, name in zip(names, removed, strict=False):
        if any(header.name == name for header in found):
            reader.fault(item, f"header `{name}` is both set and removed", "Envoy removes last: keep one of the two")
    return found, removed


def _header(reader: Reader, node: Node) -> HeaderSource | None:
    mapping = reader.mapping(node, "a header", ("name", "value", "claim"))
    name_node = None if mapping is None else reader.required(mapping, "name", "a header")
    name = None if name_node is None else read_changed_header(reader, name_node, "name")
    if mapping is None or name is None:
        return None
    value, claim = mapping.get("value"), mapping.get("claim")
    if (value is None) == (claim is None):
        reader.fault(mapping, f"header `{name}` needs `value` or `claim`, one of the two", "write where it comes from")
        return None
    if value is not None:
        text = _text(reader, value, "value", 4096)
        return None if text is None else HeaderSource(name, text)
    path = None if claim is None else _claim_path(reader, claim)
    return None if path is None else HeaderSource(name, None, path)


def _claim_path(reader: Reader, node: Node) -> tuple[str, ...] | None:
    """A claim's name, or a list of names for a nested one."""
    if isinstance(node, Scalar):
        name = reader.string(node, "claim")
        return None if name is None else (name,)
    return tuple(item.value for item in reader.strings(node, "claim")) or None


def _text(reader: Reader, node: Node, name: str, limit: int) -> str | None:
    text = reader.string(node, name)
    if text is not None and (len(text) > limit or not text.isprintable()):
        reader.fault(node, f"`{name}` must be one line of at most {limit} printable characters", "shorten it")
        return None
    return text


def _status(reader: Reader, node: Node, allowed: range | tuple[int, ...], what: str) -> int:
    text = node.value if isinstance(node, Scalar) and node.kind == "integer" else ""
    if not text.isdigit() or int(text) not in allowed:
        reader.fault(node, f"`status` is not {what}", "write it as a number")
        return 0
    return int(text)


def _redirect(reader: Reader, node: Node) -> tuple[int, str]:
    mapping = reader.mapping(node, "redirect", ("status", "location"))
    location = None if mapping is None else reader.required(mapping, "location", "redirect")
    if not isinstance(mapping, Mapping) or location is None:
        return 0, ""
    text = _text(reader, location, "location", 2048) or ""
    if not text.startswith(("https://", "http://", "/")) or text.startswith("//"):
        reader.fault(location, "`location` is not an address or a path", "write `https://…` or `/…`")
    status = mapping.get("status")
    code = 302 if status is None else _status(reader, status, _REDIRECTS, f"one of {_REDIRECTS}")
    return code, text
