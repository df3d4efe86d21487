"""Read `response.mint`: the token that an allowed request carries to the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.model.changed_headers import folded_name
from zta_authz.model.minting import (
    MAX_LIFETIME,
    RESERVED_CLAIMS,
    SESSION_HEADER,
    TRANSACTION_HEADER,
    ClaimSource,
    MintTerms,
    TokenKind,
)
from zta_authz.policy.yaml.header_names import read_changed_header, read_header_name
from zta_authz.policy.yaml.values import claim_path, duration, one_line, word

if TYPE_CHECKING:
    from collections.abc import Collection

    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Mapping, Node

MINT_FIELDS: Final = ("audience", "header", "kind", "lifetime", "scope", "claims")
CLAIM_FIELDS: Final = ("name", "value", "claim")
MAX_AUDIENCE: Final = 256
MAX_SCOPE: Final = 1024
MAX_CLAIMS: Final = 16
MAX_CLAIM_NAME: Final = 64
MAX_CLAIM_VALUE: Final = 256
LEAST_LIFETIME: Final = 5.0
_DEFAULT_HEADERS: Final = {TokenKind.SESSION: SESSION_HEADER, TokenKind.TRANSACTION: TRANSACTION_HEADER}
_CREDENTIALS: Final = frozenset(("authorization", "proxy-authorization", "cookie"))


def read_mint(reader: Reader, node: Node, taken: Collection[str]) -> MintTerms | None:
    """Read `mint`; None, with a fault, if it can't be read. `taken` are the headers that the policy changes besides."""
    mapping = reader.mapping(node, "mint", MINT_FIELDS)
    if mapping is None:
        return None
    audience_node = reader.required(mapping, "audience", "`mint`")
    audience = None if audience_node is None else one_line(reader, audience_node, "audience", MAX_AUDIENCE)
    kind = TokenKind(word(reader, mapping, "kind", TokenKind, TokenKind.SESSION))
    header = _header(reader, mapping, kind)
    if header is not None and folded_name(header) in set(map(folded_name, taken)):
        message = f"header `{header}` has the minted token, and `headers` changes it too"
        reader.fault(mapping, message, "remove it from `headers`, or name another in `mint.header`")
    lifetime = _lifetime(reader, mapping)
    scope = _scope(reader, mapping, kind)
    claims = _claims(reader, mapping)
    if audience is None or header is None:
        return None
    return MintTerms(audience, header, kind, lifetime, scope, claims)


def _header(reader: Reader, mint: Mapping, kind: TokenKind) -> str | None:
    node = mint.get("header")
    if node is None:
        return _DEFAULT_HEADERS[kind]
    name = read_header_name(reader, node, "header")
    if name is None or name == SESSION_HEADER:
        return name
    if name in _CREDENTIALS:
        message = f"`{name}` is for the caller's own credentials"
        reader.fault(node, message, f"leave `header` out to use `{_DEFAULT_HEADERS[kind]}`, or name another header")
        return None
    return read_changed_header(reader, node, "header")


def _lifetime(reader: Reader, mint: Mapping) -> float:
    lifetime = duration(reader, mint, "lifetime", MintTerms("", "").lifetime, MAX_LIFETIME)
    node = mint.get("lifetime")
    if node is not None and lifetime < LEAST_LIFETIME:
        reader.fault(node, f"`lifetime` is less than {LEAST_LIFETIME:.0f}s", "write at least 5s: clocks differ")
    return lifetime


def _scope(reader: Reader, mint: Mapping, kind: TokenKind) -> str:
    node = mint.get("scope")
    if node is None:
        if kind is TokenKind.TRANSACTION:
            reader.fault(mint, "a token of kind `transaction` needs a `scope`", "add `scope`, such as `orders.refund`")
        return ""
    scope = one_line(reader, node, "scope", MAX_SCOPE) or ""
    if scope != " ".join(scope.split()):
        reader.fault(node, "`scope` has a space too many", "put one space between two values")
    return scope


def _claims(reader: Reader, mint: Mapping) -> tuple[ClaimSource, ...]:
    node = mint.get("claims")
    items = [] if node is None else reader.items(node, "claims", "claims")
    if node is not None and len(items) > MAX_CLAIMS:
        reader.fault(node, f"`claims` has more than {MAX_CLAIMS} entries", "remove some")
    sources: dict[str, ClaimSource] = {}
    for item in items:
        source = _claim(reader, item)
        if source is not None and source.name in sources:
            reader.fault(item, f"claim `{source.name}` is set twice", "remove one of the two")
        elif source is not None:
            sources[source.name] = source
    return tuple(sources.values())


def _claim(reader: Reader, node: Node) -> ClaimSource | None:
    mapping = reader.mapping(node, "a claim", CLAIM_FIELDS)
    name_node = None if mapping is None else reader.required(mapping, "name", "a claim")
    name = None if name_node is None else one_line(reader, name_node, "name", MAX_CLAIM_NAME)
    if mapping is None or name_node is None or name is None:
        return None
    if name in RESERVED_CLAIMS:
        reader.fault(name_node, f"a policy can't set claim `{name}`", "use another name")
        return None
    value, claim = mapping.get("value"), mapping.get("claim")
    if (value is None) == (claim is None):
        reader.fault(mapping, f"claim `{name}` needs either `value` or `claim`", "write one of the two")
        return None
    if value is not None:
        text = one_line(reader, value, "value", MAX_CLAIM_VALUE)
        return None if text is None else ClaimSource(name, text)
    path = None if claim is None else claim_path(reader, claim)
    return None if path is None else ClaimSource(name, None, path)
