"""What claims say reaches the upstream through Envoy, whose ext_authz filter refuses header values it could not write."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
import yaml

from envoy.demo.client import Request
from envoy.demo.stack import StackOptions, running
from tests.support.pki import Signer, jwks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envoy.demo.stack import Stack

ISSUER = "https://claims.example"
CLAIMS = {
    "name": "Zo\u00eb \U0001f600",
    "tabs": "a\tb",
    "groups": ["a", {"b": 1}],
    "level": -7,
    "long": "x" * 9000,
    "blanks": " a ",
    "evil": "a\r\nx-admin: 1",
}


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The demo's stack with a policy for whoever has a token of `ISSUER`, which sets each claim as a header."""
    root = tmp_path_factory.mktemp("stack")
    outputs = [{"header": f"x-{claim}", "claim": claim} for claim in CLAIMS]
    rule = {"issuer": ISSUER, "jwks": jwks(), "outputClaimToHeaders": outputs}
    documents = [
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": "claims", "namespace": "default"},
            "spec": {"jwtRules": [rule]},
        },
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "claims", "namespace": "default"},
            "spec": {"rules": [{"from": [{"source": {"requestPrincipals": [f"{ISSUER}/*"]}}]}]},
        },
    ]
    own = tmp_path_factory.mktemp("policies") / "claims.yaml"
    own.write_text(yaml.safe_dump_all(documents))
    options = StackOptions(envoy=envoy_binary, settings={"policies": [str(own), str(root / "policies")]})
    with running(root, options) as started:
        yield started


def test_claims_arrive_in_headers_as_the_table_says(stack: Stack) -> None:
    token = Signer().token(iss=ISSUER, exp=time.time() + 600, nbf=None, iat=None, **CLAIMS)
    forged = tuple((f"x-{claim}", "forged") for claim in CLAIMS)
    answer = stack.send("frontend", Request(path="/", headers=(("authorization", f"Bearer {token}"), *forged)))
    assert answer.status == 200, json.dumps(answer.body)
    reached = answer.upstream_headers()
    seen = {name: value.strip(" ") for name, value in reached if name.removeprefix("x-") in CLAIMS}
    assert seen == {
        "x-name": CLAIMS["name"].encode().decode("latin-1"),
        "x-tabs": "a\tb",
        "x-groups": "WyJhIix7ImIiOjF9XQ==",
        "x-level": "-7.000000",
        "x-long": CLAIMS["long"],
        "x-blanks": "a",  # what an HTTP/1 server makes of the blanks is its own affair
    }
