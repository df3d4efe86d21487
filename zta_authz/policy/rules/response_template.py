"""`response` of an AccessPolicy: headers that an allow sets on the request, and the response that a denial gives.

A field that the policy's action never uses is a fault. For example, `redirect` without `action: DENY` would allow
callers who were meant to log in first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason
from zta_authz.model.changed_headers import is_reserved_on_denials
from zta_authz.model.decision import Response
from zta_authz.policy.rules.response_mint import read_mint
from zta_authz.policy.yaml.header_names import read_changed_header
from zta_authz.policy.yaml.nodes import Mapping, Node, Scalar
from zta_authz.policy.yaml.values import claim_path, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.model.minting import MintTerms
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.yaml.fields import Reader

REDIRECTS: Final = (301, 302, 303, 307, 308)
_DENIAL_FIELDS: Final = ("status", "redirect", "message", "tokenDenials")
_RESPONSE_HEADERS: Final = frozenset(("location", "retry-after", "set-cookie", "www-authenticate"))
_REPEATED: Final = frozenset(("link", "set-cookie", "vary", "www-authenticate"))
MAX_MESSAGE: Final = 512
MAX_HEADER_VALUE: Final = 4096
MAX_LOCATION: Final = 2048
TOKEN_DENIALS: Final = frozenset(reason for reason in Reason if reason.startswith("token_"))
"""Reasons to deny a request for its token, before any rule is evaluated."""


@dataclass(frozen=True, slots=True)
class HeaderSource:
    """A header to set: to `literal`, or, if that is None, to the claim at path `claim`."""

    name: str
    literal: str | None
    claim: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResponseTemplate:
    """A response in which each request fills in its claims.

    A request that is denied for its token also gets this response if `token_denials` has the reason.
    """

    headers: tuple[HeaderSource, ...] = ()
    remove: tuple[str, ...] = ()
    status: int = 0
    message: str = ""
    token_denials: frozenset[Reason] = frozenset()
    mint: MintTerms | None = None
    _fixed: Response | None = field(init=False, repr=False, compare=False, default=None)
    """The response, if no claim is part of it: one object for all requests."""

    def __post_init__(self) -> None:
        literals = [(header.name, header.literal) for header in self.headers if header.literal is not None]
        if len(literals) == len(self.headers):
            object.__setattr__(self, "_fixed", self._response(literals))

    @property
    def output_headers(self) -> tuple[str, ...]:
        """All headers (lower case) that it may set."""
        names = tuple(header.name for header in self.headers)
        return names if self.mint is None else (*names, self.mint.header)

    def resolve(self, inputs: Inputs) -> Response:
        """The response for one request.

        A header whose claim has no text (`zta_authz.model.claims`) is removed, so that the client can't set it. So is
        that of the token to mint, which is set later.
        """
        if self._fixed is not None:
            return self._fixed
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
        return self._response(values, missing)

    def _response(self, values: Iterable[tuple[str, str]], missing: Iterable[str] = ()) -> Response:
        minted = () if self.mint is None else (self.mint.header,)
        return Response(tuple(values), (*self.remove, *missing, *minted), self.status, self.message, self.mint)


def read_response(reader: Reader, node: Node, action: str) -> ResponseTemplate | None:
    """Read `response`; None, with a fault, if it is not a mapping.

    `action` is the policy's action. A field that it never uses is a fault.
    """
    mapping = reader.mapping(node, "response", ("headers", "mint", *_DENIAL_FIELDS))
    if mapping is None:
        return None
    if not mapping.entries:
        reader.fault(mapping, "`response` is empty", "add `headers` or `mint`, or remove it")
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
    text = None if message is None else one_line(reader, message, "message", MAX_MESSAGE)
    denials = _token_denials(reader, mapping)
    order = mapping.get("mint")
    mint = None if order is None else read_mint(reader, order, {*remove, *(header.name for header in headers)})
    return ResponseTemplate(tuple(headers), tuple(remove), code, text or "", denials, mint)


def _token_denials(reader: Reader, response: Mapping) -> frozenset[Reason]:
    """Read the reasons in `tokenDenials`; `*` stands for all reasons in `TOKEN_DENIALS`."""
    node = response.get("tokenDenials")
    if node is None:
        return frozenset()
    if len(response.entries) == 1:
        reader.fault(node, "`tokenDenials` alone changes no answer", "add `redirect`, `status`, `headers` or `message`")
    reasons: set[Reason] = set()
    for item in reader.strings(node, "tokenDenials"):
        if item.value == "*":
            reasons |= TOKEN_DENIALS
        elif item.value in TOKEN_DENIALS:
            reasons.add(Reason(item.value))
        else:
            hint = f'write `"*"` or one of {", ".join(sorted(TOKEN_DENIALS))}'
            reader.fault(item, f"`{item.value}` is not a token denial reason", hint)
    return frozenset(reasons)


def _check_action(reader: Reader, response: Mapping, action: str) -> None:
    """Report every field of `response` that a policy with this action never uses."""
    if action == "AUDIT":
        hint = "remove it, or use action ALLOW or DENY"
        reader.fault(response, "a policy with action AUDIT never decides, so `response` would do nothing", hint)
    elif action == "ALLOW":
        for name in _DENIAL_FIELDS:
            if (node := response.get(name)) is not None:
                message = f"`{name}` is for denials, but this policy has action ALLOW"
                reader.fault(node, message, "add `action: DENY`, or remove the field")
    elif (node := response.get("mint")) is not None:
        message = "`mint` is for allowed requests, but this policy has action DENY"
        reader.fault(node, message, "remove the field, or use action ALLOW")


def _headers(reader: Reader, node: Node | None, action: str) -> tuple[list[HeaderSource], list[str]]:
    mapping = None if node is None else reader.mapping(node, "headers", ("set", "remove"))
    if mapping is None:
        return [], []
    if not mapping.entries:
        reader.fault(mapping, "`headers` is empty", "add `set` or `remove`, or remove the field")
    to_set, to_remove = mapping.get("set"), mapping.get("remove")
    items = [] if to_set is None else reader.items(to_set, "set", "headers")
    read = [(item, header) for item in items if (header := _header(reader, item)) is not None]
    _check_set(reader, read, action)
    sources = [header for _, header in read]
    return sources, [] if to_remove is None else _removed(reader, to_remove, sources, action)


def _check_set(reader: Reader, headers: list[tuple[Node, HeaderSource]], action: str) -> None:
    """Report duplicate names, response headers on an allow, and headers that a denial can't carry."""
    seen: set[str] = set()
    for node, header in headers:
        name = header.name
        if name in seen and not (action == "DENY" and name in _REPEATED):
            reader.fault(node, f"header `{name}` is set twice, and only one value can be sent", "remove one")
        seen.add(name)
        if action == "ALLOW" and name in _RESPONSE_HEADERS:
            message = f"`{name}` is a response header, and a policy with action ALLOW sets request headers"
            reader.fault(node, message, "remove it, or use action DENY")
        if action == "DENY" and is_reserved_on_denials(name):
            message = f"a policy can't set `{name}` on a denial: its body is always `application/problem+json`"
            reader.fault(node, message, "remove it; put text for the caller into `message`")


def _removed(reader: Reader, node: Node, set_headers: list[HeaderSource], action: str) -> list[str]:
    """Read the names in `remove`. Names that are also set, duplicates, and `remove` on a denial are faults."""
    if action == "DENY":
        message = "a denied request is not forwarded, so `headers.remove` would do nothing"
        reader.fault(node, message, "remove the field, or use action ALLOW")
    removed: list[str] = []
    for item in reader.strings(node, "remove"):
        name = read_changed_header(reader, item, "remove")
        if name is None:
            continue
        if any(header.name == name for header in set_headers):
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
        reader.fault(mapping, f"header `{name}` needs either `value` or `claim`", "write one of the two")
        return None
    if value is not None:
        text = one_line(reader, value, "value", MAX_HEADER_VALUE)
        return None if text is None else HeaderSource(name, text)
    path = None if claim is None else claim_path(reader, claim)
    return None if path is None else HeaderSource(name, None, path)


def _status(reader: Reader, node: Node, allowed: range | tuple[int, ...], expected: str) -> int:
    text = node.value if isinstance(node, Scalar) and node.kind == "integer" else ""
    if not text.isdigit() or len(text) > 3 or int(text) not in allowed:
        reader.fault(node, f"`status` is not {expected}", "write it as a number")
        return 0
    return int(text)


def _redirect(reader: Reader, node: Node) -> tuple[int, str]:
    mapping = reader.mapping(node, "redirect", ("status", "location"))
    location = None if mapping is None else reader.required(mapping, "location", "redirect")
    if not isinstance(mapping, Mapping) or location is None:
        return 0, ""
    text = one_line(reader, location, "location", MAX_LOCATION) or ""
    if not text.startswith(("https://", "http://", "/")) or text.startswith("//"):
        reader.fault(location, "`location` is not a URL or a path", "write `https://…` or `/…`")
    status = mapping.get("status")
    code = 302 if status is None else _status(reader, status, REDIRECTS, f"one of {REDIRECTS}")
    return code, text
