"""One fetch of an issuer's keys, from the address in a JWT rule or from the one in the issuer's metadata."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from zta_authz.authn.keys import KeySet, parse_jwks
from zta_authz.keys.discovery import jwks_url, metadata_url
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome

if TYPE_CHECKING:
    from zta_authz.authn.keys import KeySlot
    from zta_authz.keys.http_client import HttpDocument


@dataclass(frozen=True, slots=True)
class KeySource:
    """The source of keys: `address` is the URL of a key set, or with `discovered` the issuer whose metadata has it."""

    address: str
    discovered: bool = False

    @classmethod
    def of(cls, slot: KeySlot) -> KeySource:
        """Return the source that fills `slot`."""
        return cls(slot.issuer, discovered=True) if slot.jwks_uri is None else cls(slot.jwks_uri)

    @property
    def host(self) -> str:
        """The host that is contacted first, for logs and metrics; "" if the address has none."""
        try:
            return urlsplit(self.address).hostname or ""
        except ValueError:
            return ""


@dataclass(frozen=True, slots=True)
class FetchedKeys:
    """A fetched key set with at least one key.

    `digest` is the SHA-256 of its text, `max_age` its lifetime in seconds (None: unknown); `faults` says for each
    ignored key why it can't be used.
    """

    keys: KeySet
    digest: bytes
    max_age: float | None = None
    faults: tuple[str, ...] = ()


class Client(Protocol):
    """Fetches documents."""

    async def get(self, address: str) -> HttpDocument:
        """Fetch the document at `address`. Raises `FetchFailed`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class JwksLoader:
    """Fetches key sets with `client`. `strict` ignores symmetric and private keys, which must not be published."""

    def __init__(self, client: Client, *, strict: bool = True) -> None:
        self._client = client
        self._strict = strict

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    async def load(self, source: KeySource, timeout_seconds: float) -> FetchedKeys:
        """Fetch the keys of `source`; `timeout_seconds` limits discovery and fetch together. Raises `FetchFailed`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                address = source.address
                if source.discovered:
                    metadata = await self._client.get(metadata_url(source.address))
                    address = await asyncio.to_thread(jwks_url, source.address, metadata.body)
                document = await self._client.get(address)
                # in threads: parsing untrusted documents would block requests for too long
                return await asyncio.to_thread(read_keys, document, strict=self._strict)
        except TimeoutError:
            raise FetchFailed(FetchOutcome.TIMEOUT, f"no complete response within {timeout_seconds:g} s") from None


def read_keys(document: HttpDocument, *, strict: bool) -> FetchedKeys:
    """Read the key set in `document`. Raises `FetchFailed` if it has no key that can verify tokens."""
    try:
        text = document.body.decode("utf-8")
    except UnicodeDecodeError:
        raise FetchFailed(FetchOutcome.WRONG_CONTENT, "the key set is not UTF-8") from None
    keys, faults = parse_jwks(text, allow_private=not strict)
    if strict:
        secrets = [key for key in keys.keys if isinstance(key.material, bytes)]
        if secrets:
            keys = KeySet(tuple(key for key in keys.keys if key not in secrets))
            faults = (*faults, f"the key set has {len(secrets)} symmetric keys, which must not be published")
    if not keys.keys:
        raise FetchFailed(FetchOutcome.WRONG_CONTENT, "; ".join(faults[:3]) or "the key set has no usable key")
    return FetchedKeys(keys, hashlib.sha256(document.body).digest(), document.max_age, faults)
