"""Requests that people write down, and recorded ones, as a proxy would have described them.

Two fields claim what a proxy can't: `principal` without a `certificate` and `claims` are an identity to be assumed,
which only `assumed` turns into one, and which every output marks as assumed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import ip_address
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from zta_authz.authn.jwt_limits import MAX_TIME
from zta_authz.cli.command_inputs import STDIN, as_text, read_small_file
from zta_authz.errors import Fault, FaultsError, Refused
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.model.request import NO_ADDRESS, NO_EVIDENCE, Address, Evidence, Headers, RequestAttributes
from zta_authz.policy.rules.schedule import END_OF_TIME
from zta_authz.policy.yaml.fields import Reader, entries, with_article
from zta_authz.policy.yaml.nodes import Mapping as MappingNode, Node, Scalar, read_documents, to_plain

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS: Final = (
    "method", "path", "host", "scheme", "headers", "source", "destination", "sni", "principal", "certificate", "token",
    "claims", "caller", "destinationPrincipal", "contextExtensions", "metadata",
)  # fmt: skip
_TEXTS: Final = {"method": "GET", "path": "/", "host": "", "scheme": "", "sni": "", "destinationPrincipal": ""}
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.6.2
_TIME_CLAIMS: Final = ("iat", "nbf", "exp")
_PEM: Final = "-----BEGIN "
_TOO_LARGE: Final = 1 << 1023
_MAX_PEM_BYTES: Final = 64 * 1024
# A CheckRequest of an HTTP request holds the tag 0x12; YAML holds no control characters but these.
_TEXT_CONTROLS: Final = frozenset(b"\t\n\r")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be decided. `principal` and `claims` are assumed to be verified, "" and None where nothing is."""

    request: RequestAttributes
    evidence: Evidence = NO_EVIDENCE
    caller: str = ""
    principal: str = ""
    claims: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def assumed(self) -> tuple[str, ...]:
        """Which parts of the identity are assumed."""
        return (("principal",) if self.principal else ()) + (("claims",) if self.claims is not None else ())


def load_request(name: str, *, binary: bool, caller: str = "") -> Subject:
    """The request in file `name` (`-`: standard input): YAML, or the bytes of a CheckRequest. Raises `FaultsError`.

    Bytes that no YAML text can hold are taken for a CheckRequest, also where `binary` is false.
    """
    content = read_small_file(name, "give a request in YAML, or a recorded CheckRequest")
    if binary or _is_binary(content):
        try:
            request, evidence = parse_check_request(content)
        except Refused as error:
            raise FaultsError([Fault(name, 0, 0, error.detail, "record what the proxy sends to `Check`")]) from None
        return Subject(request, evidence, caller)
    subject = request_in(name, as_text(name, content))
    return replace(subject, caller=caller or subject.caller)


def request_in(name: str, text: str) -> Subject:
    """The request that `text` of file `name` describes in YAML. Raises `FaultsError` with all that is wrong with it."""
    faults: list[Fault] = []
    reader = Reader(name, faults)
    documents = read_documents(name, text, faults)
    subject = None
    if len(documents) == 1:
        folder = Path() if name == STDIN else Path(name).parent
        subject = read_request(reader, documents[0], folder)
    elif not faults:
        message = f"the file holds {len(documents)} documents, not one request"
        faults.append(Fault(name, 1, 1, message, "write the request's fields, like `method: GET`"))
    if faults or subject is None:
        raise FaultsError(faults)
    return subject


def _is_binary(content: bytes) -> bool:
    return any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in content)


def read_request(reader: Reader, node: Node, folder: Path) -> Subject | None:
    """The request that `node` describes; None, or faults, where it is none. Files are looked for in `folder`."""
    fields = reader.mapping(node, "a request", FIELDS)
    if fields is None:
        return None
    texts = {name: _text(reader, fields, name, default) for name, default in _TEXTS.items()}
    claims = _claims(reader, fields)
    headers = _headers(reader, fields)
    _add_token(reader, fields, headers)
    principal, certificate = _text(reader, fields, "principal"), _certificate(reader, fields, folder)
    request = RequestAttributes(
        method=texts["method"],
        path=texts["path"],
        host=texts["host"],
        scheme=texts["scheme"],
        headers=Headers(headers, exact=True),
        source=_address(reader, fields, "source"),
        destination=_address(reader, fields, "destination"),
        destination_principal=texts["destinationPrincipal"],
        sni=texts["sni"],
        context_extensions=_string_map(reader, fields, "contextExtensions"),
        metadata=_metadata(reader, fields),
    )
    caller = _text(reader, fields, "caller")
    if certificate:  # the principal is the proxy's word then, and compared with it
        return Subject(request, Evidence(principal, certificate), caller, claims=claims)
    return Subject(request, NO_EVIDENCE, caller, principal, claims)


def parse_time(text: str) -> float:
    """An RFC 3339 time with its offset, in seconds since the epoch. Raises ValueError saying what is wrong."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or "T" not in text:
        raise ValueError("write a time with its offset (RFC 3339), like 2027-01-31T18:00:00Z")
    if not 0 <= moment.timestamp() < END_OF_TIME:  # in some time zone the others are in no year that can be written
        raise ValueError("write a time of the years 1970 to 9998")
    return moment.timestamp()


def _text(reader: Reader, fields: MappingNode, name: str, default: str = "") -> str:
    node = fields.get(name)
    return default if node is None else reader.string(node, name, empty=name in ("path", "host")) or ""


def _string_map(reader: Reader, fields: MappingNode, name: str) -> dict[str, str]:
    node = fields.get(name)
    return {} if node is None else reader.string_map(node, name)


def _headers(reader: Reader, fields: MappingNode) -> dict[str, tuple[str, ...]]:
    """Values by lower-case name; a list is a header that is repeated."""
    node = fields.get("headers")
    headers: dict[str, tuple[str, ...]] = {}
    if node is None:
        return headers
    if not isinstance(node, MappingNode):
        reader.fault(node, f"`headers` is {with_article(node.kind)} where a mapping is meant", "write `name: value`")
        return headers
    for name, (key, value) in node.entries.items():
        if not _HEADER_NAME.fullmatch(name):
            hint = "write it as `method`, `path`, `host` or `scheme`" if name.startswith(":") else "mend the name"
            reader.fault(key, f"`{name}` is not a header name", hint)
            continue
        items = [value] if isinstance(value, Scalar) else reader.items(value, name, "values")
        texts = [text for item in items if (text := reader.string(item, name, empty=True)) is not None]
        if texts:
            headers[name.lower()] = (*headers.get(name.lower(), ()), *texts)
    return headers


def _add_token(reader: Reader, fields: MappingNode, headers: dict[str, tuple[str, ...]]) -> None:
    """`token`, as the bearer token of `authorization`."""
    node = fields.get("token")
    token = None if node is None else reader.string(node, "token")
    if node is None or token is None:
        return
    if "authorization" in headers:
        reader.fault(node, "the request has both `token` and an `authorization` header", "remove one of the two")
    if fields.get("claims") is not None:
        reader.fault(node, "the request has both `token` and `claims`", "remove one of the two")
    headers["authorization"] = (f"Bearer {token}",)


def _claims(reader: Reader, fields: MappingNode) -> dict[str, Any] | None:
    node = fields.get("claims")
    if node is None:
        return None
    if not isinstance(node, MappingNode):
        reader.fault(node, f"`claims` is {with_article(node.kind)} where a mapping is meant", "write `name: value`")
        return None
    for name in ("iss", "sub", "jti"):
        value = node.get(name)
        if value is not None:
            reader.string(value, f"claims.{name}", empty=True)
    plain: dict[str, Any] = to_plain(node)
    for name in _TIME_CLAIMS:
        value = plain.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < MAX_TIME:
            hint = "write seconds since the epoch: such a token is refused"
            reader.fault(node.get(name) or node, f"`claims.{name}` is not a time", hint)
    for name, value in plain.items():
        if name not in _TIME_CLAIMS and not _is_json(value):
            hint = "write a number that a double can hold: such a token is refused"
            reader.fault(node.get(name) or node, f"`claims.{name}` has a number that no token has", hint)
    audience = plain.get("aud", "")
    if not all(isinstance(name, str) for name in (audience if isinstance(audience, list) else [audience])):
        hint = "write a string, or a list of strings: such a token is refused"
        reader.fault(node.get("aud") or node, "`claims.aud` is not an audience", hint)
    return plain


def _is_json(value: Any) -> bool:
    """Whether each number in `value` is one that JSON has and a double can hold."""
    if isinstance(value, (dict, list)):
        return all(map(_is_json, value.values() if isinstance(value, dict) else value))
    if isinstance(value, float):
        return isfinite(value)
    return not isinstance(value, int) or abs(value) < _TOO_LARGE


def _certificate(reader: Reader, fields: MappingNode, folder: Path) -> str:
    """PEM text, or the name of a file that holds it, as Envoy sends it: URL-encoded."""
    node = fields.get("certificate")
    text = None if node is None else reader.string(node, "certificate")
    if node is None or text is None:
        return ""
    if not text.startswith(_PEM):
        name = str(folder / text)
        try:
            text = as_text(name, read_small_file(name, "name a file with the certificate in PEM", _MAX_PEM_BYTES))
        except FaultsError as error:
            for fault in error.faults:
                reader.fault(node, f"`certificate`: `{fault.source}` {fault.message}", fault.hint)
            return ""
    return quote(text, safe="")


def _address(reader: Reader, fields: MappingNode, name: str) -> Address:
    node = fields.get(name)
    parts = None if node is None else reader.mapping(node, name, ("ip", "port"))
    if parts is None:
        return NO_ADDRESS
    ip_node = parts.get("ip")
    ip = "" if ip_node is None else reader.string(ip_node, f"{name}.ip") or ""
    if ip_node is not None and ip:
        try:
            ip_address(ip)
        except ValueError:
            reader.fault(ip_node, f"`{ip}` is not an IP address", "write it like 10.0.0.1 or 2001:db8::1")
    return Address(ip, _port(reader, parts, name))


def _port(reader: Reader, parts: MappingNode, name: str) -> int:
    node = parts.get("port")
    if node is None:
        return 0
    port = to_plain(node)
    if type(port) is not int or not 0 <= port <= 65535:
        reader.fault(node, f"`{name}.port` is not a port", "write a number from 0 to 65535, without quotes")
        return 0
    return port


def _metadata(reader: Reader, fields: MappingNode) -> dict[str, Any]:
    """Dynamic metadata by filter name."""
    node = fields.get("metadata")
    if node is None:
        return {}
    if not isinstance(node, MappingNode):
        reader.fault(
            node, f"`metadata` is {with_article(node.kind)} where a mapping is meant", "write `filter: {key: value}`"
        )
        return {}
    metadata: dict[str, Any] = {}
    for name, value in entries(node):
        if reader.mapping(value, f"metadata.{name}", list(getattr(value, "entries", ()))) is not None:
            metadata[name] = to_plain(value)
    return metadata
