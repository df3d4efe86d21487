"""Several workloads in one process: each accepts only the issuers of its own rules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pki import AUDIENCE, ISSUER, NOW, Signer, jwks
from tests.unit.authn.support import ISTIO, STRICT, authentication, bearer, request, rule
from zta_authz.authn import token_verifier as rules
from zta_authz.authn.accepted_tokens import MAX_CACHED_RESULTS
from zta_authz.authn.jwt_registry import MAX_VIEWS, compile_rules
from zta_authz.authn.keys import KeySet
from zta_authz.authn.verify import compile_verifier
from zta_authz.errors import Reason, Refused
from zta_authz.model.documents import ClaimToHeader
from zta_authz.model.options import NamedWorkload, Workload
from zta_authz.model.request import NO_EVIDENCE

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.errors import Fault
    from zta_authz.model.identity import Identity
    from zta_authz.model.options import Options

ORDERS = Workload("shop", {"app": "orders"})
STOCK = Workload("shop", {"app": "stock"})
OTHER_ISSUER = "https://other.example"
SHARED = replace(STRICT, workload=ORDERS, workloads=(NamedWorkload("spiffe://cluster.local/ns/shop/sa/stock", STOCK),))
DOCUMENTS = (
    authentication(rule(output_claim_to_headers=(ClaimToHeader("x-user", "sub"),)), namespace="shop", app="orders"),
    authentication(rule(issuer=OTHER_ISSUER, audiences=("stock",)), namespace="shop", app="stock"),
)
FIRST, SECOND = Signer().token(), Signer().token(iss=OTHER_ISSUER, aud="stock")


@pytest.fixture
def shared() -> IdentityVerifier:
    return compile_verifier(DOCUMENTS, (), SHARED, [])


def verified(subject: IdentityVerifier, token: str, workload: Workload | None) -> Identity | Reason:
    try:
        return subject.verify(bearer(token), NO_EVIDENCE, NOW, workload)
    except Refused as refused:
        return refused.reason


def subjects(answer: Identity | Reason) -> object:
    return answer if isinstance(answer, Reason) else [token.issuer for token in answer.tokens]


def test_an_issuer_is_accepted_only_if_a_rule_of_the_workload_names_it(shared: IdentityVerifier) -> None:
    for _ in range(2):  # the second time, results of signature checks are cached
        assert subjects(verified(shared, FIRST, ORDERS)) == [ISSUER]
        assert subjects(verified(shared, FIRST, STOCK)) is Reason.TOKEN_ISSUER_UNKNOWN
        assert subjects(verified(shared, SECOND, STOCK)) == [OTHER_ISSUER]
        assert subjects(verified(shared, SECOND, ORDERS)) is Reason.TOKEN_ISSUER_UNKNOWN


def test_a_workload_without_rules_accepts_no_token(shared: IdentityVerifier) -> None:
    for token in (FIRST, SECOND, "garbage"):
        assert subjects(verified(shared, token, Workload("shop", {"app": "web"}))) == []


def test_without_a_workload_the_rules_of_the_settings_workload_apply(shared: IdentityVerifier) -> None:
    assert subjects(verified(shared, FIRST, None)) == [ISSUER]
    assert subjects(verified(shared, SECOND, None)) is Reason.TOKEN_ISSUER_UNKNOWN


def test_one_issuer_may_have_another_audience_for_each_workload() -> None:
    documents = (
        authentication(rule(audiences=(AUDIENCE,)), namespace="shop", app="orders"),
        authentication(rule(audiences=("stock",)), namespace="shop", app="stock"),
    )
    subject = compile_verifier(documents, (), SHARED, [])
    for _ in range(2):
        assert subjects(verified(subject, FIRST, ORDERS)) == [ISSUER]
        assert subjects(verified(subject, FIRST, STOCK)) is Reason.TOKEN_AUDIENCE


def test_a_header_that_one_workloads_rule_sets_is_removed_before_every_workload(shared: IdentityVerifier) -> None:
    assert shared.strip_headers == {"x-user"}
    for workload in (ORDERS, STOCK, Workload("elsewhere")):
        identity = shared.verify(request(x_user="spoofed"), NO_EVIDENCE, NOW, workload)
        assert identity.changes.remove_headers == ("x-user",)


def test_keys_of_every_workloads_issuers_are_fetched_only_in_a_shared_process() -> None:
    documents = (*DOCUMENTS, authentication(rule(issuer="https://third", jwks=None), namespace="elsewhere"))
    shared = compile_verifier(documents, (), SHARED, [])
    assert shared.issuers == (ISSUER, OTHER_ISSUER, "https://third")
    assert [(slot.issuer, slot.fetched) for slot in shared.key_slots] == [
        (ISSUER, False),
        (OTHER_ISSUER, False),
        ("https://third", True),
    ]
    alone = compile_verifier(documents, (), replace(SHARED, workloads=()), [])
    assert alone.issuers == (ISSUER,)
    assert len(alone.key_slots) == 1


def test_workloads_with_the_same_rules_share_a_verifier_and_the_number_of_verifiers_is_limited() -> None:
    book = compile_rules(DOCUMENTS, SHARED, [])
    first = book.verifier(ORDERS)
    assert book.default is first
    assert book.verifier(Workload("shop", {"app": "orders", "version": "v1"})) is first
    assert book.verifier(STOCK) is not first
    for number in range(3 * MAX_VIEWS):
        assert book.verifier(Workload(f"team-{number}")).rules == ()
    assert len(book._by_workload) <= MAX_VIEWS


def test_the_key_set_of_a_rule_without_workloads_is_checked_too() -> None:
    faults: list[object] = []
    unused = authentication(rule(jwks="{"), namespace="elsewhere")
    compile_verifier((unused,), (), STRICT, faults)  # type: ignore[arg-type]
    assert len(faults) == 1


def test_two_key_sets_of_one_issuer_never_verify_each_others_tokens() -> None:
    documents = (
        authentication(rule(), namespace="shop", app="orders"),
        authentication(rule(jwks=jwks([Signer(number=2000)])), namespace="shop", app="stock"),
    )
    subject = compile_verifier(documents, (), SHARED, [])
    for _ in range(2):
        assert subjects(verified(subject, FIRST, ORDERS)) == [ISSUER]
        assert subjects(verified(subject, FIRST, STOCK)) is Reason.TOKEN_SIGNATURE


def test_results_of_two_key_sets_are_cached_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two workloads write one issuer's keys differently: they must not evict each other's results."""
    counted: list[int] = []
    real = rules.verify_signature

    def counting(*given: Any) -> Any:
        counted.append(1)
        return real(*given)

    monkeypatch.setattr(rules, "verify_signature", counting)
    other_keys = jwks([Signer(), Signer(kid="k9", number=9)])
    documents = (
        authentication(rule(), namespace="shop", app="orders"),
        authentication(rule(jwks=jwks([Signer(number=2000)])), rule(jwks=other_keys), namespace="shop", app="stock"),
    )
    subject = compile_verifier(documents, (), SHARED, [])
    for _ in range(5):
        assert subjects(verified(subject, FIRST, ORDERS)) == [ISSUER]
        assert subjects(verified(subject, FIRST, STOCK)) == [ISSUER]
    assert len(counted) == 3


def test_a_token_that_never_verified_is_not_cached(shared: IdentityVerifier) -> None:
    forged = Signer(number=2000).token()
    for _ in range(3):
        assert subjects(verified(shared, forged, ORDERS)) is Reason.TOKEN_SIGNATURE
    assert len(shared._registry._context.cache) == 0


def test_replaced_keys_leave_no_results_behind() -> None:
    subject = compile_verifier(DOCUMENTS[:1], (), SHARED, [])
    [slot] = subject.key_slots
    for _ in range(50):
        slot.current = KeySet(slot.current.keys)
        assert subjects(verified(subject, FIRST, ORDERS)) == [ISSUER]
        slot.current = KeySet(slot.current.keys)
        assert subjects(verified(subject, FIRST, ORDERS)) == [ISSUER]
    [cached] = subject._registry._context.cache.values()
    assert cached is not None
    assert len(cached.results) <= MAX_CACHED_RESULTS


@pytest.mark.parametrize("options", [STRICT, ISTIO])
def test_tokens_that_were_minted_here_are_refused_even_by_a_rule_for_any_issuer(options: Options) -> None:
    """The upstream that a token is for could otherwise use it to call others as its caller."""
    anybody = compile_verifier([authentication(rule(issuer=""))], (), options, [])
    own = compile_verifier([authentication(rule(issuer=""))], (), replace(options, token_issuer=ISSUER), [])
    assert not isinstance(verified(anybody, FIRST, None), Reason)
    assert verified(own, FIRST, None) is Reason.TOKEN_ISSUER_UNKNOWN
    assert not isinstance(verified(own, SECOND, None), Reason)


def test_a_rule_for_the_issuer_of_minted_tokens_is_a_fault() -> None:
    faults: list[Fault] = []
    compile_verifier([authentication(rule())], (), replace(STRICT, token_issuer=ISSUER), faults)
    [fault] = faults
    assert "is the issuer of the tokens that zta-authz mints" in fault.message


def test_without_an_issuer_of_our_own_a_token_without_iss_is_accepted_as_before() -> None:
    subject = compile_verifier([authentication(rule(issuer=""))], (), STRICT, [])
    assert not isinstance(verified(subject, Signer().token(iss=""), None), Reason)
