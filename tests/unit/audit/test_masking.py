"""Masking: configured fields do not reach the log."""

from __future__ import annotations

import pytest

from tests.support.check_requests import DECISION_ID, deny
from zta_authz.audit.masking import Maskable, MaskAction, Masker, MaskRule
from zta_authz.audit.record import DecisionRecord, make_record
from zta_authz.audit.sinks import capture
from zta_authz.model.request import Address, RequestAttributes

KEY = bytes(range(32))


def record(path: str = "/patients/4711", source: str = "10.1.2.3") -> DecisionRecord:
    request = RequestAttributes(method="GET", host="clinic", path=path, source=Address(source, 40000))
    return make_record(capture(request, deny(), DECISION_ID, 0.0))


def masked(field: Maskable, how: MaskAction, made: DecisionRecord | None = None, key: bytes = KEY) -> DecisionRecord:
    return Masker([MaskRule(field, how)], key).mask(made or record())


def test_a_dropped_field_is_empty() -> None:
    assert masked(Maskable.PATH, MaskAction.DROP).path == ""


def test_a_hash_is_the_same_for_the_same_text_and_key_only() -> None:
    one = masked(Maskable.PATH, MaskAction.HASH).path
    assert one.startswith("hmac-sha256:")
    assert len(one) == len("hmac-sha256:") + 32
    assert masked(Maskable.PATH, MaskAction.HASH).path == one
    assert masked(Maskable.PATH, MaskAction.HASH, record("/patients/4712")).path != one
    assert masked(Maskable.PATH, MaskAction.HASH, key=bytes(32)).path != one


def test_a_hash_needs_a_key() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Masker([MaskRule(Maskable.PATH, MaskAction.HASH)], bytes(31))


def test_a_truncated_text_keeps_its_beginning() -> None:
    assert masked(Maskable.PATH, MaskAction.TRUNCATE).path == "/patient..."
    assert masked(Maskable.HOST, MaskAction.TRUNCATE).host == "clinic"


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("10.1.2.3", "10.1.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("::ffff:10.1.2.3", "10.1.2.0/24"),
        ("2002:a01:203::7", "10.1.2.0/24"),  # whose first 48 bits are all of the client's address
        ("x", ""),
    ],
)
def test_an_address_is_truncated_to_its_network(ip: str, network: str) -> None:
    assert masked(Maskable.SOURCE, MaskAction.TRUNCATE, record(source=ip)).source == network


def test_the_detail_may_quote_any_field_and_is_dropped_with_it() -> None:
    assert record().detail == "secret detail"
    assert masked(Maskable.PATH, MaskAction.DROP).detail == ""
    rules = [MaskRule(Maskable.PATH, MaskAction.DROP), MaskRule(Maskable.DETAIL, MaskAction.TRUNCATE)]
    assert Masker(rules).mask(record()).detail == "secret d..."


def test_an_empty_field_stays_empty() -> None:
    assert masked(Maskable.API_CLIENT, MaskAction.HASH).api_client == ""


def test_without_rules_nothing_changes() -> None:
    assert Masker(()).mask(record()) == record()


def test_invalid_unicode_is_hashed_too() -> None:
    assert masked(Maskable.PATH, MaskAction.HASH, record("/\udcff")).path.startswith("hmac-sha256:")


def test_every_maskable_field_is_a_field_of_the_record() -> None:
    assert {field.value for field in Maskable} <= set(DecisionRecord.__struct_fields__)
