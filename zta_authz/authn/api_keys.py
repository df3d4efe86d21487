"""API keys: long random texts that name a client program, known here by their digests only.

A key has at least 128 random bits, so a fast digest is enough: nobody can go through the keys that might be behind one.
It is found by its digest, and how long that takes tells about digests, not about keys: who could aim a digest could
invert the hash.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault, Reason, Refused
from zta_authz.model.identity import ApiClient, Changes, Identity, RefusedCaller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from zta_authz.authn.token_verifier import TokenVerifier
    from zta_authz.model.documents import ApiKeySet, Position
    from zta_authz.model.identity import Peer
    from zta_authz.model.request import Headers, RequestAttributes

MAX_KEY_CHARACTERS: Final = 512
_DIGESTS: Final[Mapping[int, Callable[[bytes], bytes]]] = {
    32: lambda key: hashlib.sha256(key).digest(),
    64: lambda key: hashlib.sha512(key).digest(),
}


@dataclass(frozen=True, slots=True)
class _Key:
    """One key of a client: for which time it counts (seconds since the epoch, `expires` no more) and where it goes."""

    digest: bytes
    client: ApiClient
    not_before: float
    expires: float
    forward: bool


class ApiKeys:
    """The keys of the sets that apply to one workload, by the header they come in."""

    __slots__ = ("_headers",)

    def __init__(self, sets: Iterable[ApiKeySet]) -> None:
        self._headers: dict[str, dict[bytes, _Key]] = {}
        for each in sets:
            keys = self._headers.setdefault(each.header, {})
            for client in each.clients:
                named = ApiClient(client.name, client.scopes)
                for key in client.keys:
                    keys[key.digest] = _Key(key.digest, named, key.not_before, key.expires, each.forward)

    def __bool__(self) -> bool:
        return bool(self._headers)

    def find(self, headers: Headers, now: float) -> tuple[ApiClient | None, tuple[str, ...]]:
        """The client behind the keys presented, None without any, and the headers to take out of the request.

        Raises `Refused` for a key that is unknown or out of its time, and for keys of two clients.
        """
        client: ApiClient | None = None
        consumed: list[str] = []
        for header, keys in self._headers.items():
            values = headers.all(header)
            if not values:
                continue
            key = _look_up(values, keys)
            try:
                _check_time(key, now)
            except Refused as refused:
                raise RefusedCaller(refused, api_client=key.client) from None
            if client is not None and client != key.client:
                raise Refused(Reason.API_KEY_INVALID, "keys of two clients")
            client = key.client
            if not key.forward:
                consumed.append(header)
        return client, tuple(consumed)


def _check_time(key: _Key, now: float) -> None:
    if now >= key.expires:
        raise Refused(Reason.API_KEY_EXPIRED, f"a key of `{key.client.name}` expired")
    if now < key.not_before:
        raise Refused(Reason.API_KEY_INVALID, f"a key of `{key.client.name}` is not valid yet")


def _look_up(values: tuple[str, ...], keys: Mapping[bytes, _Key]) -> _Key:
    if len(values) > 1:
        raise Refused(Reason.API_KEY_INVALID, f"{len(values)} keys in one header")
    text = values[0].strip(" \t")
    if not text or len(text) > MAX_KEY_CHARACTERS or not text.isascii():
        raise Refused(Reason.API_KEY_INVALID, "not the form of a key")
    presented = text.encode("ascii")
    for compute in _DIGESTS.values():
        digest = compute(presented)
        key = keys.get(digest)
        if key is not None and hmac.compare_digest(key.digest, digest):
            return key
    raise Refused(Reason.API_KEY_INVALID, "no client has this key")


class ApiKeyVerifier:
    """Verifies API keys beside the tokens that `tokens` verifies."""

    def __init__(self, tokens: TokenVerifier, keys: ApiKeys) -> None:
        self.tokens = tokens
        self._keys = keys

    def verify(
        self,
        request: RequestAttributes,
        peer: Peer | None,
        now: float,
        *,
        trial: bool = False,
        assumed_issuer: str | None = None,
    ) -> Identity:
        """The identity of `peer` with the tokens and the API key of `request`. Raises `Refused` for what is bad."""
        client, consumed = self._keys.find(request.headers, now)
        try:
            identity = self.tokens.verify(request, peer, now, trial=trial, assumed_issuer=assumed_issuer)
        except Refused as refused:
            raise RefusedCaller(refused, api_client=client) from None
        if client is None:
            return identity
        changes = identity.changes
        if consumed:
            kept = {name for name, _ in changes.set_headers}
            removed = tuple(sorted({*changes.remove_headers, *(name for name in consumed if name not in kept)}))
            changes = Changes(changes.set_headers, removed, changes.remove_query)
        return Identity(peer, identity.token, identity.tokens, changes, identity.binding, client)


def check_key_sets(sets: Iterable[ApiKeySet], faults: list[Fault]) -> None:
    """Note each key that stands in two places: nobody could tell whose it is, or revoke one of them."""
    seen: dict[bytes, Position] = {}
    for each in sets:
        for client in each.clients:
            for key in client.keys:
                at = key.position
                first = seen.setdefault(key.digest, at)
                if first is not at:
                    message = f"the hash of a key that stands at {first.source}:{first.line} too"
                    faults.append(Fault(at.source, at.line, at.column, message, "make a key for each client and use"))
