"""`response` of an AccessPolicy: what an allow adds to the request, what a denial tells the caller.

A field that the policy's action never uses is a fault: `redirect` without `action: DENY` is an allow of everybody that
was meant as "log in first".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason
from zta_authz.model.changed_headers import is_reserved_on_denials
from zta_authz.model.decision import Response
from zta_authz.policy.yaml.header_names import read_changed_header
from zta_authz.policy.yaml.nodes import Mapping, Node, Scalar

if TYPE_CHECKING:
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.yaml.fields import Reader

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_DENIAL_FIELDS: Final = ("status", "redirect", "message", "tokenDenials")
_ANSWER_HEADERS: Final = frozenset(("location", "retry-after", "set-cookie", "www-authenticate"))
_REPEATED: Final = frozenset(("link", "set-cookie", "vary", "www-authenticate"))
MAX_MESSAGE: Final = 512
TOKEN_DENIALS: Final = frozenset(reason for reason in Reason if reason.startswith("token_"))
"""Why a request is denied for its token, before any rule is asked."""


@dataclass(frozen=True, slots=True)
class HeaderSource:
    """A header to set: to `literal`, or to the claim at `claim` where `literal` is None."""

    name: str
    literal: str | None
    claim: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResponseTemplate:
    """The answer's parts; claims are filled in for each request.

    Requests that are denied for their token get this answer too where `token_denials` has the reason.
    """

    headers: tuple[HeaderSource, ...] = ()
    remove: tuple[str, ...] = ()
    status: int = 0
    message: str = ""
    token_denials: frozenset[Reason] = frozenset()

    def resolve(self, inputs: Inputs) -> Response:
        """The response for one request.

        A header whose claim has no text (`zta_authz.model.claims`) is removed: its sender must not set it.
        """
        values: list[tuple[str, str]] = []
        missing: list[str] = []
        token = inputs.identity.token
        for header in self.headers:
            if header.literal is not None:
                values.append((header.name, header.literal))
            elif token is not None and (text := token.header_text(header.claim)):
                values.append((header.name, text))
            else:
                missing.append(header.name)
        return Response(tuple(values), (*self.remove, *missing), self.status, self.message)


def read_response(reader: Reader, node: Node, action: str) -> ResponseTemplate | None:
    """`response` with `headers` and what denials have; None, and faults, where it is not one.

    `action` is the policy's. A field that it never uses is a fault.
    """
    mapping = reader.mapping(node, "response", ("headers", *_DENIAL_FIELDS))
    if mapping is None:
        return None
    if not mapping.entries:
        reader.fault(mapping, "`response` asks for nothing", "add `headers`, or remove it")
    _check_action(reader, mapping, action)
    headers, remove = _headers(reader, mapping.get("headers"), action)
    status, redirect = mapping.get("status"), mapping.get("redirect")
    if status is not None and redirect is not None:
        reader.fault(redirect, "`response` has both `status` and `redirect`", "remove one of the two")
    code = 0 if status is None else _status(reader, status, range(400, 600), "an HTTP status from 400 to 599")
    if redirect is not None:
        code, location = _redirect(reader, redirect)
        if any(header.name == "location" for header in headers):
            hint = "write the address in `redirect.location` only"
            reader.fault(redirect, "`response` has both `redirect` and a header `location`", hint)
        headers.append(HeaderSource("location", location))
    message = mapping.get("message")
    text = None if message is None else _text(reader, message, "message", MAX_MESSAGE)
    denials = _token_denials(reader, mapping)
    return ResponseTemplate(tuple(headers), tuple(remove), code, text or "", denials)


def _token_denials(reader: Reader, response: Mapping) -> frozenset[Reason]:
    """The reasons in `tokenDenials`, where `*` stands for all that a token can be denied for."""
    node = response.get("tokenDenials")
    if node is None:
        return frozenset()
    if len(response.entries) == 1:
        reader.fault(node, "`tokenDenials` alone changes no answer", "add `redirect`, `status`, `headers` or `message`")
    found: set[Reason] = set()
    for item in reader.strings(node, "tokenDenials"):
        if item.value == "*":
            found |= TOKEN_DENIALS
        elif item.value in TOKEN_DENIALS:
            found.add(Reason(item.value))
        else:
            hint = f'write `"*"` or one of {", ".join(sorted(TOKEN_DENIALS))}'
            reader.fault(item, f"`{item.value}` is not a reason to deny a token", hint)
    return frozenset(found)


def _check_action(reader: Reader, response: Mapping, action: str) -> None:
    """Note every field of `response` that a policy with this action never uses."""
    if action == "AUDIT":
        hint = "remove it, or use action ALLOW or DENY"
        reader.fault(response, "a policy with action AUDIT never answers, so `response` would do nothing", hint)
    elif action == "ALLOW":
        for name in _DENIAL_FIELDS:
            if (node := response.get(name)) is not None:
                message = f"`{name}` is for denials, and this policy has action ALLOW: it lets callers through"
                reader.fault(node, message, "add `action: DENY`, or remove the field")


def _headers(reader: Reader, node: Node | None, action: str) -> tuple[list[HeaderSource], list[str]]:
    mapping = None if node is None else reader.mapping(node, "headers", ("set", "remove"))
    if mapping is None:
        return [], []
    if not mapping.entries:
        reader.fault(mapping, "`headers` asks for nothing", "add `set` or `remove`, or remove the field")
    to_set, to_remove = mapping.get("set"), mapping.get("remove")
    items = [] if to_set is None else reader.items(to_set, "set", "headers")
    read = [(item, header) for item in items if (header := _header(reader, item)) is not None]
    _check_set(reader, read, action)
    found = [header for _, header in read]
    return found, [] if to_remove is None else _removed(reader, to_remove, found, action)


def _check_set(reader: Reader, headers: list[tuple[Node, HeaderSource]], action: str) -> None:
    """Note names that stand twice, headers of answers that would be set on the request, and such as are not sent."""
    seen: set[str] = set()
    for node, header in headers:
        name = header.name
        if name in seen and not (action == "DENY" and name in _REPEATED):
            reader.fault(node, f"header `{name}` is set twice, and only one value can be sent", "remove one")
        seen.add(name)
        if action == "ALLOW" and name in _ANSWER_HEADERS:
            message = f"`{name}` is a header of answers, and a policy with action ALLOW sets headers of the request"
            reader.fault(node, message, "remove it, or use action DENY")
        if action == "DENY" and is_reserved_on_denials(name):
            message = f"`{name}` of a denial is not a policy's to set: its body is always `application/problem+json`"
            reader.fault(node, message, "remove it; what the caller should read belongs into `message`")


def _removed(reader: Reader, node: Node, found: list[HeaderSource], action: str) -> list[str]:
    """The names in `remove`. Those that are also set, or stand twice, are faults; so is `remove` on a denial."""
    if action == "DENY":
        message = "a denied request goes nowhere, so `headers.remove` would do nothing"
        reader.fault(node, message, "remove the field, or use action ALLOW")
    removed: list[str] = []
    for item in reader.strings(node, "remove"):
        name = read_changed_header(reader, item, "remove")
        if name is None:
            continue
        if any(header.name == name for header in found):
            reader.fault(item, f"header `{name}` is both set and removed", "Envoy removes last: keep one of the two")
        elif name in removed:
            reader.fault(item, f"header `{name}` is removed twice", "remove one of the two")
        removed.append(name)
    return removed


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
    if not text.isdigit() or len(text) > 3 or int(text) not in allowed:
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
