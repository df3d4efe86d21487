"""API keys: long random texts that identify a client program. Only their digests are known here.

A key has at least 128 random bits, so a fast digest suffices: brute force is infeasible. Keys are looked up by digest.
The timing of a lookup reveals something about digests but not about keys, because nobody can choose a key's digest
without inverting the hash.
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
    """One key of a client, valid from `not_before` until before `expires` (seconds since the epoch)."""

    digest: bytes
    client: ApiClient
    not_before: float
    expires: float
    forward: bool


class ApiKeys:
    """The keys of one workload, by the header that carries them."""

    __slots__ = ("_headers",)

    def __init__(self, sets: Iterable[ApiKeySet]) -> None:
        self._headers: dict[str, dict[bytes, _Key]] = {}
        for key_set in sets:
            keys = self._headers.setdefault(key_set.header, {})
            for client in key_set.clients:
                api_client = ApiClient(client.name, client.scopes)
                for key in client.keys:
                    keys[key.digest] = _Key(key.digest, api_client, key.not_before, key.expires, key_set.forward)

    def __bool__(self) -> bool:
        return bool(self._headers)

    def find(self, headers: Headers, now: float) -> tuple[ApiClient | None, tuple[str, ...]]:
        """Return the client of the presented keys, None without any, and the headers to remove from the request.

        Raises `Refused` for a key that is unknown, expired or not yet valid, and for keys of two clients.
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
        raise Refused(Reason.API_KEY_INVALID, "not in the form of a key")
    presented = text.encode("ascii")
    for compute in _DIGESTS.values():
        digest = compute(presented)
        key = keys.get(digest)
        if key is not None and hmac.compare_digest(key.digest, digest):
            return key
    raise Refused(Reason.API_KEY_INVALID, "no client has this key")


class ApiKeyVerifier:
    """Verifies API keys, in addition to the tokens that `tokens` verifies."""

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
        """Verify the tokens and the API key of `request` for `peer`. Raises `Refused` if one is invalid."""
        client, consumed = self._keys.find(request.headers, now)
        try:
            identity = self.tokens.verify(request, peer, now, trial=trial, assumed_issuer=assumed_issuer)
        except Refused as refused:
            raise RefusedCaller(refused, api_client=client) from None
        if client is None:
            return identity
        changes = identity.changes
        if consumed:
            set_names = {name for name, _ in changes.set_headers}
            removed = tuple(sorted({*changes.remove_headers, *(name for name in consumed if name not in set_names)}))
            changes = Changes(changes.set_headers, removed, changes.remove_query)
        return Identity(peer, identity.token, identity.tokens, changes, identity.binding, client)


def check_key_sets(sets: Iterable[ApiKeySet], faults: list[Fault]) -> None:
    """Report each key that is listed twice: its owner would be ambiguous, and neither entry could be revoked alone."""
    first_positions: dict[bytes, Position] = {}
    for key_set in sets:
        for client in key_set.clients:
            for key in client.keys:
                at = key.position
                first = first_positions.setdefault(key.digest, at)
                if first is not at:
                    message = f"the hash of a key that is also at {first.source}:{first.line}"
                    faults.append(
                        Fault(at.source, at.line, at.column, message, "create a separate key for each client and use")
                    )
