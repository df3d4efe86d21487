"""`response` of AccessPolicies: headers that are set from claims."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.policies import request, snapshot
from zta_authz.model.identity import Identity, Token
from zta_authz.pdp.decide import combine
from zta_authz.policy.rules.inputs import Inputs

POLICY = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: p}
spec:
  rules: [{response: {headers: {set: [{name: x-whole, claim: a.b}, {name: x-nested, claim: [a, b]}]}}}]
"""


@pytest.mark.parametrize(
    ("claims", "to_set", "to_remove"),
    [
        ({"a": {"b": "Zo\u00eb"}}, (("x-nested", "Zo\u00eb"),), ("x-whole",)),
        ({"a": {"b": ["r", 1]}}, (("x-nested", "WyJyIiwxXQ=="),), ("x-whole",)),
        ({"a": {"b": -7}, "a.b": 7.5}, (("x-whole", "7.500000"), ("x-nested", "-7.000000")), ()),
        ({"a": {"b": "x\ny"}, "a.b": ""}, (), ("x-whole", "x-nested")),
        ({"a": [{"b": "x"}], "a.b": None}, (), ("x-whole", "x-nested")),
    ],
)
def test_claims_are_formatted_as_in_output_claim_to_headers(
    claims: dict[str, Any], to_set: tuple[tuple[str, str], ...], to_remove: tuple[str, ...]
) -> None:
    compiled = snapshot(POLICY)
    token = Token("i", "s", claims)
    inputs = Inputs(request(), Identity(None, token, (token,)), compiled.options, 1000.0)
    response = combine(compiled.table.default_view, inputs, default_allow=False).response
    assert response.set_headers == to_set
    assert response.remove_headers == to_remove
