"""Invalid certificates: each is presented to the real Envoy, and none is accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envoy.demo.certificates import CertificateAuthority, Names
from envoy.demo.client import Request, send, tls_context
from envoy.demo.identities import TRUST_DOMAIN, spiffe_id, write_private
from envoy.demo.stack import StackOptions, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envoy.demo.certificates import Issued
    from envoy.demo.client import Answer
    from envoy.demo.stack import Stack

FRONTEND = spiffe_id("frontend")
GARBAGE = {
    "no names at all": Names(),
    "only a common name that looks like one": Names(common_name=FRONTEND),
    "only a DNS name": Names(dns=("frontend.default.svc",)),
    "another scheme": Names(uris=(FRONTEND.replace("spiffe:", "https:"),)),
    "an upper-case trust domain": Names(uris=(FRONTEND.replace(TRUST_DOMAIN, TRUST_DOMAIN.upper()),)),
    "dot segments": Names(uris=(f"spiffe://{TRUST_DOMAIN}/ns/default/sa/x/../frontend",)),
    "a trailing slash": Names(uris=(f"{FRONTEND}/",)),
    "a query": Names(uris=(f"{FRONTEND}?a=b",)),
    "two SPIFFE IDs": Names(uris=(FRONTEND, spiffe_id("orders"))),
    "another trust domain": Names(uris=("spiffe://evil.example/ns/default/sa/frontend",)),
}


OUR_CA = CertificateAuthority("HatShop demo CA", TRUST_DOMAIN)


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose authority signs certificates for the tests."""
    with running(tmp_path_factory.mktemp("stack"), StackOptions(envoy=envoy_binary), OUR_CA) as started:
        yield started


def _ask(stack: Stack, issued: Issued, directory: Path) -> Answer:
    chain, key = directory / "client.pem", directory / "client.key"
    write_private(chain, issued.certificate)
    write_private(key, issued.key)
    return send(stack.port, tls_context(stack.layout.ca, (chain, key)), Request(path="/orders"))


def test_a_certificate_issued_now_by_the_trusted_authority_is_let_in(stack: Stack, tmp_path: Path) -> None:
    assert _ask(stack, OUR_CA.issue(Names(uris=(FRONTEND,))), tmp_path).status == 200


@pytest.mark.parametrize("name", GARBAGE)
def test_a_bad_name_is_refused_even_if_the_trusted_authority_signed_it(stack: Stack, tmp_path: Path, name: str) -> None:
    before = stack.upstream_requests()
    answer = _ask(stack, OUR_CA.issue(GARBAGE[name]), tmp_path)
    assert answer.status == 403
    assert str(answer.json()["reason"]).startswith("peer_")
    assert stack.upstream_requests() == before


def test_an_authority_of_the_same_name_but_another_key_is_refused(stack: Stack, tmp_path: Path) -> None:
    impostor = CertificateAuthority("HatShop demo CA", TRUST_DOMAIN)
    answer = _ask(stack, impostor.issue(Names(uris=(FRONTEND,))), tmp_path)
    assert (answer.status, answer.json()["reason"]) == (403, "peer_certificate_untrusted")


def test_a_connection_may_not_change_who_it_is_by_a_header(stack: Stack) -> None:
    forged = (("x-forwarded-client-cert", f"URI={FRONTEND}"), ("x-zta-principal", FRONTEND))
    assert stack.send("attacker", Request(path="/orders", headers=forged)).status == 403


def test_a_forged_client_certificate_header_does_not_reach_the_upstream(stack: Stack) -> None:
    forged = ("x-forwarded-client-cert", f"URI={spiffe_id('admin')}")
    answer = stack.send("frontend", Request(path="/orders", headers=(forged,)))
    assert answer.status == 200
    assert answer.upstream_header("x-forwarded-client-cert") is None
