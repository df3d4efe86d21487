"""What transmitters publish and answer: where it is, and what is not believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.security_events import IDP, source
from zta_authz.administrator.signals.transmitters import (
    MAX_VERIFICATION_SECONDS,
    Metadata,
    Stream,
    TransmitterError,
    metadata_urls,
    parse_metadata,
    parse_stream,
    parse_streams,
    requested_events,
    stream_request,
)  # fmt: skip
from zta_authz.model.signal_documents import Delivery, EventKind, SignalAction


@pytest.mark.parametrize(
    ("issuer", "first"),
    [
        ("https://idp.example.com", "https://idp.example.com/.well-known/ssf-configuration"),
        ("https://idp.example.com/", "https://idp.example.com/.well-known/ssf-configuration"),
        ("https://idp.example.com:8443/realms/shop", "https://idp.example.com:8443/.well-known/ssf-configuration/realms/shop"),
        ("https://idp.example.com/a/", "https://idp.example.com/.well-known/ssf-configuration/a"),
    ],
)  # fmt: skip
def test_the_well_known_path_is_inserted_before_that_of_the_issuer(issuer: str, first: str) -> None:
    newer, older = metadata_urls(source(issuer=issuer))
    assert newer == first
    assert older == first.replace("ssf-configuration", "risc-configuration")


def test_the_document_may_name_the_address_of_the_metadata() -> None:
    assert metadata_urls(source(discovery="https://x.example/ssf")) == ("https://x.example/ssf",)


def metadata(**changed: Any) -> bytes:
    return json.dumps({"issuer": IDP, "jwks_uri": IDP + "keys", "configuration_endpoint": IDP + "c"} | changed).encode()


def test_metadata_are_parsed() -> None:
    parsed = parse_metadata(metadata(verification_endpoint=IDP + "v", critical_subject_members=["user", 7]), IDP)
    assert parsed == Metadata(IDP + "keys", IDP + "c", IDP + "v", ("user",))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{", metadata(issuer=IDP.rstrip("/")), metadata(issuer=None), metadata(jwks_uri=7),
        metadata(jwks_uri="http://idp.example.com/keys"), metadata(configuration_endpoint="http://idp.example.com/c"),
        metadata(jwks_uri="https://" + "x" * 3000),
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_trusted_are_refused(data: bytes) -> None:
    with pytest.raises(TransmitterError):
        parse_metadata(data, IDP)


def stream(**changed: Any) -> dict[str, Any]:
    delivery = {"method": "urn:ietf:rfc:8936", "endpoint_url": IDP + "poll"}
    return {"iss": IDP, "stream_id": "s", "aud": "a", "delivery": delivery, "min_verification_interval": 90} | changed


def test_a_stream_is_parsed() -> None:
    parsed = parse_stream(json.dumps(stream(events_requested=["x"])).encode(), IDP)
    assert parsed == Stream("s", ("a",), "urn:ietf:rfc:8936", IDP + "poll", 90.0, frozenset(("x",)))
    assert parse_stream(json.dumps(stream(aud=["a", "b"])).encode(), IDP).audiences == ("a", "b")


@pytest.mark.parametrize("seconds", [None, "60", True, -1, float("1e400")])
def test_a_verification_interval_that_makes_no_sense_is_the_default(seconds: Any) -> None:
    text = json.dumps(stream(min_verification_interval=seconds)).encode()
    if b"Infinity" in text:
        with pytest.raises(TransmitterError):
            parse_stream(text, IDP)
    else:
        assert parse_stream(text, IDP).verification_seconds == 60.0
    assert parse_stream(json.dumps(stream(min_verification_interval=1e12)).encode(), IDP).verification_seconds == (
        MAX_VERIFICATION_SECONDS
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://other.example"}, {"iss": None}, {"stream_id": ""}, {"stream_id": 7}, {"delivery": None},
        {"delivery": {"method": "urn:ietf:rfc:8936", "endpoint_url": "http://idp.example.com/poll"}},
    ],
)  # fmt: skip
def test_a_stream_that_cannot_be_trusted_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(TransmitterError):
        parse_stream(json.dumps(stream(**changed)).encode(), IDP)


def test_a_list_of_streams_leaves_out_those_that_cannot_be_read() -> None:
    both = json.dumps([stream(), stream(iss="x"), 7]).encode()
    assert [one.stream_id for one in parse_streams(both, IDP)] == ["s"]
    assert [one.stream_id for one in parse_streams(json.dumps(stream()).encode(), IDP)] == ["s"]
    assert parse_streams(b"", IDP) == ()


def test_only_events_that_do_something_are_requested() -> None:
    quiet = source(actions={**source().actions, EventKind.SESSION_REVOKED: SignalAction.IGNORE})
    assert not any(uri.endswith("/session-revoked") for uri in requested_events(quiet))
    assert any(uri.endswith("/session-revoked") for uri in requested_events(source()))
    assert not any("/ssf/" in uri or uri.endswith("account-enabled") for uri in requested_events(source()))


def test_the_secret_of_a_push_stream_is_in_its_request_only() -> None:
    pushed = stream_request(source(delivery=Delivery.PUSH), "https://zta.example/signals/a/b", "Bearer s")
    assert pushed["delivery"] == {
        "method": "urn:ietf:rfc:8935",
        "endpoint_url": "https://zta.example/signals/a/b",
        "authorization_header": "Bearer s",
    }
    assert stream_request(source(), "https://zta.example", "Bearer s")["delivery"] == {"method": "urn:ietf:rfc:8936"}
