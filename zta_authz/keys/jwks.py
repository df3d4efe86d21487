"""One fetch of an issuer's keys: the address that a rule names, or the one that the issuer's metadata names."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from zta_authz.authn.keys import KeySet, parse_jwks
from zta_authz.keys.discovery import jwks_url, metadata_url
from zta_authz.keys.outcomes import FetchFailed, Outcome

if TYPE_CHECKING:
    from zta_authz.authn.keys import KeySlot
    from zta_authz.keys.http import HttpDocument


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where keys come from: `address` is their own, or with `discovered` the issuer whose metadata names it."""

    address: str
    discovered: bool = False

    @classmethod
    def of(cls, slot: KeySlot) -> KeySource:
        """The source of a rule's fetched keys."""
        return cls(slot.issuer, discovered=True) if slot.jwks_uri is None else cls(slot.jwks_uri)

    @property
    def host(self) -> str:
        """The host that is asked first, for logs and metrics; "" where the address has none."""
        try:
            return urlsplit(self.address).hostname or ""
        except ValueError:
            return ""


@dataclass(frozen=True, slots=True)
class FetchedKeys:
    """`keys` has at least one; `wrong` says of each other what keeps it from use; `digest` is of the text."""

    keys: KeySet
    digest: bytes
    max_age: float | None = None
    wrong: tuple[str, ...] = ()


class Client(Protocol):
    """What fetches documents."""

    async def get(self, address: str) -> HttpDocument:
        """The document at `address`. Raises `FetchFailed`."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class JwksLoader:
    """Fetches key sets with `client`. `strict` takes no secrets and no private keys: what is published is neither."""

    def __init__(self, client: Client, *, strict: bool = True) -> None:
        self._client = client
        self._strict = strict

    async def close(self) -> None:
        """Close what is open."""
        await self._client.close()

    async def load(self, source: KeySource, timeout_seconds: float) -> FetchedKeys:
        """The keys of `source`, everything within `timeout_seconds`. Raises `FetchFailed`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                address = source.address
                if source.discovered:
                    metadata = await self._client.get(metadata_url(source.address))
                    address = await asyncio.to_thread(jwks_url, source.address, metadata.body)
                document = await self._client.get(address)
                # in threads: what the other side wrote takes longer to read than a request may wait
                return await asyncio.to_thread(read_keys, document, strict=self._strict)
        except TimeoutError:
            raise FetchFailed(Outcome.TIMEOUT, f"not there within {timeout_seconds:g} s") from None


def read_keys(document: HttpDocument, *, strict: bool) -> FetchedKeys:
    """The key set in `document`. Raises `FetchFailed` where it has no key that can verify tokens."""
    try:
        text = document.body.decode("utf-8")
    except UnicodeDecodeError:
        raise FetchFailed(Outcome.WRONG_CONTENT, "the key set is not UTF-8") from None
    keys, wrong = parse_jwks(text, allow_private=not strict)
    if strict:
        secrets = [key for key in keys.keys if isinstance(key.material, bytes)]
        if secrets:
            keys = KeySet(tuple(key for key in keys.keys if key not in secrets))
            wrong = (*wrong, f"the key set has {len(secrets)} secrets, which are none once they are published")
    if not keys.keys:
        raise FetchFailed(Outcome.WRONG_CONTENT, "; ".join(wrong[:3]) or "the key set has no key that can be used")
    return FetchedKeys(keys, hashlib.sha256(document.body).digest(), document.max_age, wrong)
