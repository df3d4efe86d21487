"""Hostile API keys and the reasons of their refusal; each has a valid twin."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pki import HERE, NOW, Signer
from tests.unit.authn.support import ISTIO, STRICT, accept, refusal, request, rule, verifier
from zta_authz.authn.verify import compile_verifier
from zta_authz.errors import Fault, Reason, Refused
from zta_authz.model.documents import ApiKey, ApiKeyClient, ApiKeySet, ClaimToHeader, Position, Selector
from zta_authz.model.identity import ApiClient, RefusedCaller
from zta_authz.model.options import NamedWorkload, Workload
from zta_authz.model.request import NO_EVIDENCE

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.model.request import RequestAttributes

SECRET = "bq7C0mUuVJ0mE8m0pX3v6yW2nS5kR9tLhZ1aQ4dFgYo"
NEXT, OTHERS = SECRET[::-1], SECRET[1:] + "x"
ACME = ApiClient("acme", ("orders:read",))


def digest(secret: str, algorithm: str = "sha256") -> bytes:
    return hashlib.new(algorithm, secret.encode()).digest()


def key(secret: str = SECRET, algorithm: str = "sha256", **times: float) -> ApiKey:
    return ApiKey(digest(secret, algorithm), HERE, **times)


def keys(*clients: ApiKeyClient, namespace: str = "default", **more: Any) -> ApiKeySet:
    labels = more.pop("labels", {})
    return ApiKeySet("partners", "shop", HERE, Selector(namespace, labels), clients, **more)


def acme(*api_keys: ApiKey) -> ApiKeyClient:
    return ApiKeyClient("acme", ("orders:read",), api_keys or (key(),))


def subject(*sets: ApiKeySet, **more: Any) -> IdentityVerifier:
    return verifier(api_keys=sets or (keys(acme()),), **more)


@dataclass(frozen=True)
class Case:
    """`bad` is refused for `reason`; `good` is accepted, as of acme."""

    bad: RequestAttributes
    reason: Reason = Reason.API_KEY_INVALID
    good: RequestAttributes = request(x_api_key=SECRET)  # noqa: RUF009 - immutable
    sets: tuple[ApiKeySet, ...] = ()
    good_sets: tuple[ApiKeySet, ...] = ()


KEYS = {
    "an unknown key": Case(request(x_api_key=OTHERS)),
    "an empty key": Case(request(x_api_key="")),
    "blanks": Case(request(x_api_key=" \t")),
    "a character more": Case(request(x_api_key=SECRET + "x")),
    "a character less": Case(request(x_api_key=SECRET[:-1])),
    "another case": Case(request(x_api_key=SECRET.swapcase())),
    "its digest": Case(request(x_api_key=digest(SECRET).hex())),
    "its digest as written in the document": Case(request(x_api_key=f"sha256:{digest(SECRET).hex()}")),
    "a newline behind it": Case(request(x_api_key=SECRET + "\n")),
    "a NUL behind it": Case(request(x_api_key=SECRET + "\x00")),
    "a scheme before it": Case(request(x_api_key=f"Bearer {SECRET}")),
    "not ASCII": Case(request(x_api_key="ä")),
    "a surrogate": Case(request(x_api_key="\udc80")),
    "too long": Case(request(x_api_key="x" * 513)),
    "twice": Case(request(x_api_key=(SECRET, SECRET))),
    "twice, joined": Case(request(x_api_key=f"{SECRET},{SECRET}", exact=False)),
    "a bad one beside a good one": Case(request(x_api_key=(SECRET, OTHERS))),
    "expired": Case(
        request(x_api_key=SECRET),
        Reason.API_KEY_EXPIRED,
        sets=(keys(acme(key(expires=NOW))),),
        good_sets=(keys(acme(key(expires=NOW + 1))),),
    ),
    "not valid yet": Case(
        request(x_api_key=SECRET),
        sets=(keys(acme(key(not_before=NOW + 1))),),
        good_sets=(keys(acme(key(not_before=NOW))),),
    ),
    "removed from the set": Case(request(x_api_key=SECRET), sets=(keys(acme(key(NEXT))),), good_sets=(keys(acme()),)),
    "a bad one in a second header": Case(
        request(x_api_key=SECRET, x_partner=OTHERS),
        sets=(keys(acme()), keys(ApiKeyClient("b", (), (key(NEXT),)), header="x-partner")),
    ),
    "two clients' keys": Case(
        request(x_api_key=SECRET, x_partner=NEXT),
        sets=(keys(acme()), keys(ApiKeyClient("b", (), (key(NEXT),)), header="x-partner")),
    ),
}


@pytest.mark.parametrize("case", KEYS.values(), ids=KEYS.keys())
@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_a_key_with_one_defect_is_refused_for_it_and_its_twin_is_accepted(case: Case, reading: Any) -> None:
    assert refusal(subject(*case.sets, options=reading), case.bad) is case.reason
    good = subject(*(case.good_sets or case.sets), options=reading)
    assert accept(good, case.good).api_client == ACME


def test_without_a_key_there_is_no_client_and_nothing_to_refuse() -> None:
    assert accept(subject(), request()).api_client is None
    assert accept(subject(), request(x_other=SECRET)).api_client is None


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_both_digests_are_accepted(algorithm: str) -> None:
    one = subject(keys(acme(key(SECRET, algorithm))))
    assert accept(one, request(x_api_key=SECRET)).api_client == ACME
    assert refusal(one, request(x_api_key=OTHERS)) is Reason.API_KEY_INVALID


def test_two_keys_overlap_during_a_rotation() -> None:
    one = subject(keys(acme(key(expires=NOW + 100), key(NEXT, not_before=NOW + 50))))
    for at, old, new in ((0, True, False), (50, True, True), (99, True, True), (100, False, True)):
        for secret, good in ((SECRET, old), (NEXT, new)):
            try:
                client = one.verify(request(x_api_key=secret), NO_EVIDENCE, NOW + at).api_client
            except Refused:
                client = None
            assert (client == ACME) is good, (at, secret)


def test_the_key_is_removed_from_the_request_unless_it_is_forwarded() -> None:
    asked = request(x_api_key=SECRET)
    assert accept(subject(), asked).changes.remove_headers == ("x-api-key",)
    assert accept(subject(keys(acme(), forward=True)), asked).changes.remove_headers == ()


def test_a_key_and_a_token_are_both_verified_and_both_removed() -> None:
    outputs = rule(output_claim_to_headers=(ClaimToHeader("x-user", "sub"),))
    one = verifier(outputs, api_keys=(keys(acme()),))
    identity = accept(one, request(x_api_key=SECRET, authorization=f"Bearer {Signer().token()}"))
    assert identity.api_client == ACME
    assert identity.token is not None
    assert identity.changes.remove_headers == ("authorization", "x-api-key")
    assert identity.changes.set_headers == (("x-user", "alice"),)
    assert refusal(one, request(x_api_key=OTHERS, authorization=f"Bearer {Signer().token()}")) is Reason.API_KEY_INVALID
    assert refusal(one, request(x_api_key=SECRET, authorization="Bearer x")) is Reason.TOKEN_MALFORMED
    assert accept(one, request(x_api_key=SECRET)).changes.remove_headers == ("x-api-key", "x-user")


def test_one_client_may_present_keys_in_two_headers() -> None:
    one = subject(keys(acme()), keys(acme(key(NEXT)), header="x-partner"))
    assert accept(one, request(x_api_key=SECRET, x_partner=NEXT)).api_client == ACME


def test_keys_are_for_the_workloads_that_their_set_selects() -> None:
    orders, stock = Workload("shop", {"app": "orders"}), Workload("shop", {"app": "stock"})
    options = replace(STRICT, workload=orders, workloads=(NamedWorkload("spiffe://a/b", stock),))
    sets = [keys(acme(), namespace="shop", labels={"app": "orders"})]
    one = compile_verifier([], [], options, [], api_keys=sets)
    asked = request(x_api_key=SECRET)
    assert one.verify(asked, NO_EVIDENCE, NOW, orders).api_client == ACME
    assert one.verify(asked, NO_EVIDENCE, NOW, stock).api_client is None


def test_a_digest_listed_twice_is_a_fault_at_the_second_position() -> None:
    faults: list[Fault] = []
    second = replace(key(), position=Position("other.yaml", 3, 4))
    subject(keys(acme()), keys(ApiKeyClient("b", (), (second,)), namespace="elsewhere"), faults=faults)
    assert [str(fault) for fault in faults] == [
        "other.yaml:3:4: the hash of a key that is also at test.yaml:7; create a separate key for each client and use"
    ]


@pytest.mark.parametrize("times", [{"expires": NOW}, {"not_before": NOW + 1}])
def test_an_expired_or_future_key_still_names_its_client_in_the_record(times: dict[str, float]) -> None:
    with pytest.raises(RefusedCaller) as caught:
        subject(keys(acme(key(**times)))).verify(request(x_api_key=SECRET), NO_EVIDENCE, NOW)
    assert caught.value.api_client == ACME
    with pytest.raises(RefusedCaller) as caught:
        subject().verify(request(x_api_key=OTHERS), NO_EVIDENCE, NOW)
    assert caught.value.api_client is None


def test_no_refusal_contains_the_key() -> None:
    for case in KEYS.values():
        with pytest.raises(Refused) as caught:
            subject(*case.sets).verify(case.bad, NO_EVIDENCE, NOW)
        assert SECRET not in f"{caught.value} {caught.value.detail}"
    assert digest(SECRET).hex() not in repr(keys(acme()))
