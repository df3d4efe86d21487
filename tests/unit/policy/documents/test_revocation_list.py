"""RevocationList documents: their content, and every fault at its position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.policies import faults
from zta_authz.model.documents import Revocation, Revoked
from zta_authz.policy.documents.reader import read_all

if TYPE_CHECKING:
    from zta_authz.errors import Fault

HEAD = "apiVersion: zta.dev/v1\nkind: RevocationList\nmetadata: {name: l}\nspec:\n"


def entries(spec: str) -> list[Revocation]:
    reported: list[Fault] = []
    documents = read_all([("a.yaml", HEAD + spec)], "default", reported, reported, lambda _: None)
    assert reported == []
    return [entry for revocation_list in documents.revocations for entry in revocation_list.entries]


def test_every_section_is_read() -> None:
    digest = "AB" * 32
    spec = f"""
  comment: all
  tokens: [{{id: t1}}, {{id: t2, issuer: i, comment: own}}]
  keys: [{{id: k, issuer: i}}]
  subjects: [{{subject: s, issuer: i, before: 2026-01-01T00:00:00Z, effectiveFrom: 2026-02-01T00:00:00+01:00}}]
  certificates: [{{serial: "0a:1F"}}, {{serial: "10"}}, {{sha256: "{digest}"}}]
  spiffeIds: [{{id: "spiffe://a/b"}}, {{prefix: "spiffe://a/b/"}}, {{prefix: "spiffe://a/", before: 2026-01-01T00:00:00Z}}]
"""
    year = 1767225600.0
    assert entries(spec) == [
        Revocation(Revoked.TOKEN, "t1", comment="all"),
        Revocation(Revoked.TOKEN, "t2", "i", comment="own"),
        Revocation(Revoked.KEY, "k", "i", comment="all"),
        Revocation(Revoked.SUBJECT, "s", "i", year, year + 31 * 86400 - 3600, "all"),
        Revocation(Revoked.SERIAL, str(0x0A1F), comment="all"),
        Revocation(Revoked.SERIAL, "16", comment="all"),
        Revocation(Revoked.SHA256, digest.lower(), comment="all"),
        Revocation(Revoked.SPIFFE_ID, "spiffe://a/b", comment="all"),
        Revocation(Revoked.SPIFFE_PREFIX, "spiffe://a/b/", comment="all"),
        Revocation(Revoked.SPIFFE_PREFIX, "spiffe://a/", before=year, comment="all"),
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("  comment: x\n", "5:3: the list revokes nothing"),
        ("  tokens: []\n", "`tokens` is an empty list"),
        ("  tokens: [{issuer: i}]\n", "an entry has no `id`"),
        ("  tokens: [{id: x, before: 2026-01-01T00:00:00Z}]\n", "unknown field `before`"),
        ("  tokens: [{id: 7}]\n", "`id` has the integer `7` where a string is expected"),
        ("  tokens: [{id: x, effectiveFrom: tomorrow}]\n", "`effectiveFrom` is not a time"),
        ("  keys: [{id: k}]\n", "an entry of `keys` has no `issuer`"),
        ("  subjects: [{subject: s}]\n", "an entry of `subjects` has no `issuer`"),
        ("  certificates: [{}]\n", "neither `serial` nor `sha256`"),
        ('  certificates: [{serial: "1", sha256: "2"}]\n', "both `serial` and `sha256`"),
        ('  certificates: [{serial: "0x1"}]\n', "`serial` is not 1 to 40 hex digits"),
        (f'  certificates: [{{serial: "{"1" * 41}"}}]\n', "`serial` is not 1 to 40 hex digits"),
        (f'  certificates: [{{sha256: "{"a" * 63}"}}]\n', "`sha256` is not 64 hex digits"),
        ("  spiffeIds: [{id: spiffe://A/b}]\n", "`spiffe://A/b`: a trust domain is"),
        ("  spiffeIds: [{prefix: spiffe://a/b}]\n", "a prefix ends with `/`"),
        ("  spiffeIds: [{prefix: 'spiffe://'}]\n", "a trust domain is"),
        ("  spiffeIds: [{prefix: https://a/}]\n", "starts with `spiffe://`"),
        ("  spiffeIds: [{id: spiffe://a/b, prefix: spiffe://a/}]\n", "both `id` and `prefix`"),
        ("  users: [x]\n", "unknown field `users`"),
    ],
)
def test_an_invalid_entry_is_a_fault_and_not_skipped(spec: str, message: str) -> None:
    assert message in "\n".join(faults(HEAD + spec))


def test_a_prefix_must_end_with_a_whole_segment() -> None:
    assert faults(HEAD + '  spiffeIds: [{prefix: "spiffe://a/ns/x/"}]\n') == []
