"""Read requests from YAML files and recorded CheckRequests.

`principal` without `certificate`, and `claims`, describe an identity that is assumed to be verified. A proxy can't send
these fields. `Subject.assumed` lists them, and every output marks them as assumed.
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
from zta_authz.cli.fact_arguments import AssumedFacts, read_facts
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
    "claims", "facts", "caller", "destinationPrincipal", "contextExtensions", "metadata",
)  # fmt: skip
_TEXTS: Final = {"method": "GET", "path": "/", "host": "", "scheme": "", "sni": "", "destinationPrincipal": ""}
HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.6.2
TIME_CLAIMS: Final = ("iat", "nbf", "exp")
_PEM: Final = "-----BEGIN "
_TOO_LARGE: Final = 1 << 1023
_MAX_PEM_BYTES: Final = 64 * 1024
# A CheckRequest of an HTTP request contains the tag byte 0x12; YAML text has no control characters but these.
_TEXT_CONTROLS: Final = frozenset(b"\t\n\r")


@dataclass(frozen=True, slots=True)
class Subject:
    """The request to decide. `principal` ("" if none) and `claims` (None if none) are assumed to be verified."""

    request: RequestAttributes
    evidence: Evidence = NO_EVIDENCE
    caller: str = ""
    principal: str = ""
    claims: Mapping[str, Any] | None = field(default=None, repr=False)
    facts: AssumedFacts | None = None

    @property
    def assumed(self) -> tuple[str, ...]:
        """The names of the fields whose identity is assumed."""
        given = (
            ("principal", bool(self.principal)),
            ("claims", self.claims is not None),
            ("facts", self.facts is not None),
        )
        return tuple(name for name, assumed in given if assumed)


def load_request(name: str, *, binary: bool, caller: str = "") -> Subject:
    """Read a request from file `name` (`-` is standard input): YAML or the bytes of a CheckRequest.

    Content with bytes that YAML does not permit is read as a CheckRequest even if `binary` is false.
    Raises `FaultsError`.
    """
    content = read_small_file(name, "name a file with a request in YAML or a recorded CheckRequest")
    if binary or _is_binary(content):
        try:
            request, evidence = parse_check_request(content)
        except Refused as error:
            raise FaultsError([Fault(name, 0, 0, error.detail, "record what the proxy sends to `Check`")]) from None
        return Subject(request, evidence, caller)
    subject = request_in(name, as_text(name, content))
    return replace(subject, caller=caller or subject.caller)


def request_in(name: str, text: str) -> Subject:
    """Read the request in the YAML `text` of file `name`. Raises `FaultsError` with all faults."""
    faults: list[Fault] = []
    reader = Reader(name, faults)
    documents = read_documents(name, text, faults)
    subject = None
    if len(documents) == 1:
        folder = Path() if name == STDIN else Path(name).parent
        subject = read_request(reader, documents[0], folder)
    elif not faults:
        message = f"the file has {len(documents)} documents instead of one request"
        faults.append(Fault(name, 1, 1, message, "write the fields of one request, for example `method: GET`"))
    if faults or subject is None:
        raise FaultsError(faults)
    return subject


def _is_binary(content: bytes) -> bool:
    return any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in content)


def read_request(reader: Reader, node: Node, folder: Path) -> Subject | None:
    """Read the request in `node`, or report faults. Relative file names start at `folder`."""
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
    facts_node = fields.get("facts")
    facts = None if facts_node is None else read_facts(reader, facts_node)
    if certificate:  # then `principal` is what the proxy claims, and is compared with the certificate
        return Subject(request, Evidence(principal, certificate), caller, claims=claims, facts=facts)
    return Subject(request, NO_EVIDENCE, caller, principal, claims, facts)


def parse_time(text: str) -> float:
    """Parse an RFC 3339 time with an offset into seconds since the epoch. Raises ValueError with what to write."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or "T" not in text:
        raise ValueError("write an RFC 3339 time with an offset, for example 2027-01-31T18:00:00Z")
    if not 0 <= moment.timestamp() < END_OF_TIME:  # other times have no valid year in some time zone
        raise ValueError("write a time in the years 1970 to 9998")
    return moment.timestamp()


def _text(reader: Reader, fields: MappingNode, name: str, default: str = "") -> str:
    node = fields.get(name)
    return default if node is None else reader.string(node, name, empty=name in ("path", "host")) or ""


def _string_map(reader: Reader, fields: MappingNode, name: str) -> dict[str, str]:
    node = fields.get(name)
    return {} if node is None else reader.string_map(node, name)


def _headers(reader: Reader, fields: MappingNode) -> dict[str, tuple[str, ...]]:
    """Read the headers: values by lower-case name. A list is a repeated header."""
    node = fields.get("headers")
    headers: dict[str, tuple[str, ...]] = {}
    if node is None:
        return headers
    if not isinstance(node, MappingNode):
        reader.fault(node, f"`headers` is {with_article(node.kind)} instead of a mapping", "write `name: value`")
        return headers
    for name, (key, value) in node.entries.items():
        if not HEADER_NAME.fullmatch(name):
            hint = "write it as `method`, `path`, `host` or `scheme`" if name.startswith(":") else "correct the name"
            reader.fault(key, f"`{name}` is not a valid header name", hint)
            continue
        items = [value] if isinstance(value, Scalar) else reader.items(value, name, "values")
        texts = [text for item in items if (text := reader.string(item, name, empty=True)) is not None]
        if texts:
            headers[name.lower()] = (*headers.get(name.lower(), ()), *texts)
    return headers


def _add_token(reader: Reader, fields: MappingNode, headers: dict[str, tuple[str, ...]]) -> None:
    """Add `token` to `headers` as the bearer token of `authorization`."""
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
        reader.fault(node, f"`claims` is {with_article(node.kind)} instead of a mapping", "write `name: value`")
        return None
    for name in ("iss", "sub", "jti"):
        value = node.get(name)
        if value is not None:
            reader.string(value, f"claims.{name}", empty=True)
    plain: dict[str, Any] = to_plain(node)
    for name in TIME_CLAIMS:
        value = plain.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < MAX_TIME:
            hint = "write seconds since the epoch; a token with this value would be refused"
            reader.fault(node.get(name) or node, f"`claims.{name}` is not a time", hint)
    for name, value in plain.items():
        if name not in TIME_CLAIMS and not _is_json(value):
            hint = "write a number in the range of a double; a token with this value would be refused"
            reader.fault(node.get(name) or node, f"`claims.{name}` has a number that is not valid in a token", hint)
    audience = plain.get("aud", "")
    if not all(isinstance(name, str) for name in (audience if isinstance(audience, list) else [audience])):
        hint = "write a string or a list of strings; a token with this value would be refused"
        reader.fault(node.get("aud") or node, "`claims.aud` is not a valid audience", hint)
    return plain


def _is_json(value: Any) -> bool:
    """Return whether all numbers in `value` are valid in JSON and in the range of a double."""
    if isinstance(value, (dict, list)):
        return all(map(_is_json, value.values() if isinstance(value, dict) else value))
    if isinstance(value, float):
        return isfinite(value)
    return not isinstance(value, int) or abs(value) < _TOO_LARGE


def _certificate(reader: Reader, fields: MappingNode, folder: Path) -> str:
    """Return the certificate URL-encoded as Envoy sends it. The field is PEM text or the name of a PEM file."""
    node = fields.get("certificate")
    text = None if node is None else reader.string(node, "certificate")
    if node is None or text is None:
        return ""
    if not text.startswith(_PEM):
        name = str(folder / text)
        try:
            text = as_text(name, read_small_file(name, "name a file with a certificate in PEM format", _MAX_PEM_BYTES))
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
            reader.fault(ip_node, f"`{ip}` is not an IP address", "write for example 10.0.0.1 or 2001:db8::1")
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
    """Read the dynamic metadata, by filter name."""
    node = fields.get("metadata")
    if node is None:
        return {}
    if not isinstance(node, MappingNode):
        reader.fault(
            node, f"`metadata` is {with_article(node.kind)} instead of a mapping", "write `filter: {key: value}`"
        )
        return {}
    metadata: dict[str, Any] = {}
    for name, value in entries(node):
        if reader.mapping(value, f"metadata.{name}", list(getattr(value, "entries", ()))) is not None:
            metadata[name] = to_plain(value)
    return metadata
