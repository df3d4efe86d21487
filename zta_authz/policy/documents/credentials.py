"""Read `zta.dev/v1` IssuerPolicy (limits on one issuer's tokens) and ApiKeySet (client programs and their keys)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from zta_authz.model.documents import ApiKey, ApiKeyClient, ApiKeySet, IssuerPolicy
from zta_authz.policy.documents.authorization_policy import read_selector
from zta_authz.policy.rules.require import LONGEST_AGE
from zta_authz.policy.rules.require_authentication import read_acr_levels
from zta_authz.policy.yaml.values import duration, flag, header_name, moment, optional_text, texts

if TYPE_CHECKING:
    from zta_authz.errors import Fault
    from zta_authz.policy.documents.spec import DocumentHeader, DocumentSet
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node

LIMITS: Final = (
    "maxTokenAge", "allowMissingExp", "requireBound", "requireKid", "algorithms", "types", "audiences", "acrLevels",
)  # fmt: skip
_ASYMMETRIC: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
KEY_HASH: Final = re.compile(r"sha256:([0-9A-Fa-f]{64})|sha512:([0-9A-Fa-f]{128})")
_NO_KEY_HEADERS: Final = ("authorization", "cookie", "host", "content-length", "transfer-encoding", "dpop")
ALGORITHMS: Final = (*_ASYMMETRIC, "HS256", "HS384", "HS512")


def read_issuer_policy(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the policy to `documents`."""
    del warnings
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "IssuerPolicy.spec", ("issuer", *LIMITS))
    reader.required(spec, "issuer", "IssuerPolicy.spec")
    if not any(spec.get(name) is not None for name in LIMITS):
        reader.fault(spec, "the policy sets no limit", f"add one of {', '.join(LIMITS)}")
    node, levels = spec.get("algorithms"), spec.get("acrLevels")
    for item in [] if node is None else reader.strings(node, "algorithms"):
        if item.value not in ALGORITHMS:
            reader.fault(item, f"`{item.value}` is not an accepted algorithm", f"one of {', '.join(ALGORITHMS)}")
    documents.issuer_policies.append(
        IssuerPolicy(
            name=header.name,
            namespace=header.namespace,
            position=reader.position(header.document),
            issuer=optional_text(reader, spec, "issuer") or "",
            max_token_age=duration(reader, spec, "maxTokenAge", float("inf"), LONGEST_AGE),
            allow_missing_exp=flag(reader, spec, "allowMissingExp"),
            require_bound=flag(reader, spec, "requireBound"),
            require_kid=flag(reader, spec, "requireKid"),
            algorithms=texts(reader, spec, "algorithms") if node is not None else (),
            types=texts(reader, spec, "types"),
            audiences=texts(reader, spec, "audiences"),
            acr_levels=() if levels is None else read_acr_levels(reader, levels),
        )
    )


def read_api_key_set(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the keys to `documents`."""
    del warnings
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "ApiKeySet.spec", ("selector", "header", "forward", "clients"))
    node, at = spec.get("clients"), spec.get("header")
    name = header_name(reader, spec, "header") or "x-api-key"
    if at is not None and name in _NO_KEY_HEADERS:
        reader.fault(at, f"keys can't be read from the header `{name}`", "use a separate header like `x-api-key`")
    if node is None:
        reader.required(spec, "clients", "ApiKeySet.spec")
    clients = [client for item in _items(reader, node, "clients") if (client := _client(reader, item)) is not None]
    names = [client.name for client in clients]
    for duplicate in sorted({client.name for client in clients if names.count(client.name) > 1}):
        reader.fault(node or spec, f"duplicate client `{duplicate}`", "list all its keys in one entry")
    documents.api_keys.append(
        ApiKeySet(
            name=header.name,
            namespace=header.namespace,
            position=reader.position(header.document),
            selector=read_selector(header),
            clients=tuple(clients),
            header=name,
            forward=flag(reader, spec, "forward"),
        )
    )


def _items(reader: Reader, node: Node | None, name: str) -> list[Node]:
    return [] if node is None else reader.items(node, name, name)


def _client(reader: Reader, node: Node) -> ApiKeyClient | None:
    entry = reader.mapping(node, "a client", ("name", "scopes", "keys"))
    if entry is None:
        return None
    name = reader.required(entry, "name", "a client")
    text = None if name is None else reader.string(name, "name")
    scopes = entry.get("scopes")
    for item in [] if scopes is None else reader.strings(scopes, "scopes"):
        if any(character.isspace() for character in item.value):
            reader.fault(item, f"scope `{item.value}` contains a blank", "list each scope on its own")
    keys = reader.required(entry, "keys", "a client")
    api_keys = [key for item in _items(reader, keys, "keys") if (key := _key(reader, item)) is not None]
    return None if text is None else ApiKeyClient(text, texts(reader, entry, "scopes"), tuple(api_keys))


def _key(reader: Reader, node: Node) -> ApiKey | None:
    entry = reader.mapping(node, "a key", ("hash", "notBefore", "expiresAt", "comment"))
    value = None if entry is None else reader.required(entry, "hash", "a key")
    text = None if value is None else reader.string(value, "hash")
    if entry is None or value is None or text is None:
        return None
    optional_text(reader, entry, "comment")
    not_before = moment(reader, entry, "notBefore", float("-inf"))
    expires = moment(reader, entry, "expiresAt", float("inf"))
    last = entry.get("expiresAt")
    if last is not None and not_before >= expires:
        reader.fault(last, "`expiresAt` is not after `notBefore`", "it would never be in force")
    match = KEY_HASH.fullmatch(text)
    if match is None:
        hint = "write the digest of a key of 128 random bits or more, never the key"
        reader.fault(value, "`hash` is not `sha256:` and 64 hex digits, or `sha512:` and 128", hint)
        return None
    digest = bytes.fromhex(match[1] or match[2])
    if digest in (hashlib.sha256().digest(), hashlib.sha512().digest()):
        reader.fault(value, "`hash` is the digest of an empty text", "hash the key itself, without a newline")
    return ApiKey(digest, reader.position(value), not_before, expires)
