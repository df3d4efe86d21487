"""Which SPIFFE IDs may call."""

from __future__ import annotations

import pytest

from zta_authz.servers.allowed_callers import AllowedCallers

LISTED = "spiffe://other.example/sa/envoy"
OURS = AllowedCallers([LISTED], trust_domains=["cluster.local"], reserved="/zta-admin/uid/")


def test_listed_ids_may_call_and_nobody_else() -> None:
    callers = AllowedCallers.of([LISTED])
    assert LISTED in callers
    assert not [
        name for name in ("", f"{LISTED}/x", "spiffe://other.example", "spiffe://other.example/") if name in callers
    ]
    assert callers.trust_domains == ["other.example"]
    assert AllowedCallers.of(callers) is callers


@pytest.mark.parametrize("path", ["", "/ns/a/sa/b", "/zta-admin/uid", "/zta-admin/uidx/1", "/x/zta-admin/uid/1"])
def test_every_id_of_a_trust_domain_may_call(path: str) -> None:
    assert f"spiffe://cluster.local{path}" in OURS
    assert OURS.trust_domains == ["cluster.local", "other.example"]


@pytest.mark.parametrize(
    "name",
    [
        "spiffe://cluster.local/zta-admin/uid/0",
        "spiffe://other.example/sa/b",
        "spiffe://cluster.local.other.example/a",
        "spiffe://CLUSTER.LOCAL/a",
        "spiffe://cluster.local/../a",
        "spiffe://cluster.local//zta-admin/uid/0",
        "spiffe://cluster.local:443/a",
        "spiffe://x@cluster.local/a",
        "https://cluster.local/a",
        "",
    ],
)
def test_reserved_ids_and_those_of_other_trust_domains_may_not(name: str) -> None:
    assert name not in OURS
