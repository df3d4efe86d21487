from __future__ import annotations

import asyncio
import json
import threading
from typing import Any, ClassVar

import pytest

from tests.support.pki import Signer, jwks
from zta_authz.authn.keys import KeySlot
from zta_authz.keys.http_client import HttpDocument
from zta_authz.keys.jwks import FetchedKeys, JwksLoader, KeySource, read_keys
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome

ISSUER = "https://login.example"
SECRET = Signer(alg="HS256", kid="s", secret=b"x" * 32)


class FakeClient:
    """Answers from a table; a request for an unknown address hangs."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.requests: list[str] = []
        self.made: type[bytes] = bytes

    async def get(self, address: str) -> HttpDocument:
        self.requests.append(address)
        if address not in self.answers:
            await asyncio.Event().wait()
        return HttpDocument(self.made(self.answers[address].encode()), 77.0)

    async def close(self) -> None:
        self.requests.append("closed")


def read(text: str | bytes, *, strict: bool = True) -> FetchedKeys:
    body = text if isinstance(text, bytes) else text.encode()
    return read_keys(HttpDocument(body, None), strict=strict)


def outcome(text: str | bytes, *, strict: bool = True) -> FetchOutcome:
    with pytest.raises(FetchFailed) as caught:
        read(text, strict=strict)
    return caught.value.outcome


def kids(fetched: FetchedKeys) -> list[str]:
    return [key.kid for key in fetched.keys.keys]


def test_the_source_is_a_rules_jwks_uri_or_its_issuer() -> None:
    assert KeySource.of(KeySlot(ISSUER, "https://keys.example:8443/k")) == KeySource("https://keys.example:8443/k")
    assert KeySource.of(KeySlot(ISSUER, None)) == KeySource(ISSUER, discovered=True)
    assert KeySource("https://Keys.Example:8443/k").host == "keys.example"
    assert [KeySource(text).host for text in ("nobody", "https://[bad/")] == ["", ""]


async def test_keys_at_an_address_are_read() -> None:
    client = FakeClient({"https://keys.example/k": jwks([Signer(kid="a"), Signer(kid="b", number=2)])})
    fetched = await JwksLoader(client).load(KeySource("https://keys.example/k"), 5)
    assert (kids(fetched), fetched.max_age, fetched.faults) == (["a", "b"], 77, ())


async def test_keys_of_an_issuer_are_found_through_its_metadata() -> None:
    metadata = json.dumps({"issuer": ISSUER, "jwks_uri": "https://keys.example/k"})
    client = FakeClient({ISSUER + "/.well-known/openid-configuration": metadata, "https://keys.example/k": jwks()})
    assert kids(await JwksLoader(client).load(KeySource(ISSUER, discovered=True), 5)) == ["k1"]
    assert len(client.requests) == 2


class WatchedBytes(bytes):
    """Bytes that record which threads decode them."""

    readers: ClassVar[set[int]] = set()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        self.readers.add(threading.get_ident())
        return super().decode(encoding, errors)


async def test_fetched_documents_are_not_parsed_in_the_event_loop() -> None:
    metadata = json.dumps({"issuer": ISSUER, "jwks_uri": "https://keys.example/k"})
    client = FakeClient({ISSUER + "/.well-known/openid-configuration": metadata, "https://keys.example/k": jwks()})
    client.made = WatchedBytes
    WatchedBytes.readers.clear()
    await JwksLoader(client).load(KeySource(ISSUER, discovered=True), 5)
    assert WatchedBytes.readers
    assert threading.get_ident() not in WatchedBytes.readers


async def test_the_time_limit_covers_metadata_and_keys_together() -> None:
    metadata = json.dumps({"issuer": ISSUER, "jwks_uri": "https://keys.example/k"})
    client = FakeClient({ISSUER + "/.well-known/openid-configuration": metadata})
    with pytest.raises(FetchFailed) as caught:
        await JwksLoader(client).load(KeySource(ISSUER, discovered=True), 0.05)
    assert (caught.value.outcome, len(client.requests)) == (FetchOutcome.TIMEOUT, 2)


async def test_closing_closes_the_client() -> None:
    client = FakeClient({})
    await JwksLoader(client).close()
    assert client.requests == ["closed"]


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"keys": []}', '{"keys": 7}', "<html>", '{"keys": [1]}', b"\xff\xfe", "[" * 100_000, jwks()[:-1],
     jwks([Signer(kind="RSA-1024", alg="RS256").jwk()]), jwks([Signer().jwk(use="enc")]), '{"keys": [], "keys": []}'],
)  # fmt: skip
def test_a_document_without_a_usable_key_is_refused(text: str | bytes) -> None:
    assert outcome(text) is FetchOutcome.WRONG_CONTENT


def test_unusable_keys_are_ignored_and_reported() -> None:
    fetched = read(jwks([Signer(kid="good").jwk(), Signer(kid="bad").jwk(x="?"), Signer(kid="other").jwk(use="enc")]))
    assert (kids(fetched), len(fetched.faults)) == (["good"], 1)


def test_published_symmetric_and_private_keys_are_ignored_except_where_envoy_accepts_them() -> None:
    private: dict[str, Any] = Signer(kid="p").jwk(d="AAAA")
    text = jwks([SECRET.jwk(), private, Signer(kid="good").jwk()])
    assert kids(read(text)) == ["good"]
    assert len(read(text).faults) == 2
    assert "eHh4" not in str(read(text).faults)
    assert kids(read(text, strict=False)) == ["s", "p", "good"]
    assert outcome(jwks([SECRET.jwk()])) is FetchOutcome.WRONG_CONTENT


def test_the_same_text_has_the_same_digest() -> None:
    assert read(jwks()).digest == read(jwks()).digest != read(jwks() + " ").digest
