"""Documents about credentials: what they say, and every fault at its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.policies import faults
from zta_authz.policy.documents import read_all

if TYPE_CHECKING:
    from zta_authz.errors import Fault
    from zta_authz.policy.spec import DocumentSet

ISSUER = "apiVersion: zta.dev/v1\nkind: IssuerPolicy\nmetadata: {name: i}\nspec:\n"


def documents(text: str) -> DocumentSet:
    found: list[Fault] = []
    read = read_all([("a.yaml", text)], "default", found, found, lambda _: None)
    assert found == []
    return read


def test_every_limit_of_an_issuer_is_read() -> None:
    spec = """
  issuer: https://i
  maxTokenAge: 1h30m
  allowMissingExp: true
  requireBound: true
  requireKid: true
  algorithms: [ES256, HS512]
  types: [at+jwt]
"""
    [policy] = documents(ISSUER + spec).issuer_policies
    assert (policy.issuer, policy.max_token_age, policy.allow_missing_exp) == ("https://i", 5400.0, True)
    assert (policy.require_bound, policy.require_kid) == (True, True)
    assert (policy.algorithms, policy.types) == (("ES256", "HS512"), ("at+jwt",))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("  issuer: i\n", "5:3: the policy limits nothing"),
        ("  requireKid: true\n", "IssuerPolicy.spec has no `issuer`"),
        ("  issuer: ''\n  requireKid: true\n", "`issuer` is empty"),
        ("  issuer: i\n  algorithms: [none]\n", "`none` is not an algorithm we accept"),
        ("  issuer: i\n  algorithms: []\n", "`algorithms` is an empty list"),
        ("  issuer: i\n  maxTokenAge: 9000h\n", "not a duration from 1ms to 8784h"),
        ("  issuer: i\n  requireBound: 'true'\n", "`requireBound`"),
        ("  issuer: i\n  maxAge: 1h\n", "unknown field `maxAge`"),
    ],
)
def test_a_wrong_limit_is_a_fault(spec: str, message: str) -> None:
    assert message in "\n".join(faults(ISSUER + spec))
