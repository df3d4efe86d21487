"""DPoP: a proof for one request by one key, and every way to present another one in its place."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pki import NOW, Signer, b64
from tests.unit.authn.support import ISTIO, accept, refusal, request, rule, verifier
from zta_authz.authn.dpop import (
    AHEAD_SECONDS,
    WINDOW_SECONDS,
    Proof,
    ReplayMemory,
    normal_target,
)
from zta_authz.authn.keys import key_thumbprint
from zta_authz.errors import DENIAL_RESPONSES, Reason, Refused
from zta_authz.model.documents import FromHeader
from zta_authz.model.identity import Binding
from zta_authz.model.request import NO_EVIDENCE, Headers, RequestAttributes

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier

CLIENT = Signer(kid="", number=77)
OTHER = Signer(kid="", number=78)
RSA = Signer("PS256", "", "RSA-2048", 77)
ED = Signer("EdDSA", "", "Ed25519", 77)
TARGET = "https://shop.example/orders/7"


def token_of(client: Signer = CLIENT, **claims: Any) -> str:
    return Signer().token(cnf={"jkt": key_thumbprint(client.jwk())}, **claims)


TOKEN = token_of()


def proof(client: Signer = CLIENT, header: dict[str, Any] | None = None, token: str = TOKEN, **claims: Any) -> str:
    """A valid proof for the request of `asking`, changed by `header` and `claims`; None removes a member."""
    members = {"typ": "dpop+jwt", "alg": client.alg, "jwk": client.jwk()} | (header or {})
    body = {
        "jti": "j1",
        "htm": "GET",
        "htu": TARGET,
        "iat": NOW - 1,
        "ath": b64(hashlib.sha256(token.encode()).digest()),
    }
    kept = [{name: value for name, value in part.items() if value is not None} for part in (members, body | claims)]
    return client.compact(json.dumps(kept[0]), json.dumps(kept[1]))


def asking(*proofs: str, token: str = TOKEN, scheme: str = "DPoP", path: str = "/orders/7?x=1") -> RequestAttributes:
    values = {"authorization": (f"{scheme} {token}",)} | ({"dpop": proofs} if proofs else {})
    return RequestAttributes(
        method="GET", path=path, host="shop.example", scheme="https", headers=Headers(values, exact=True)
    )


def subject(**options: Any) -> IdentityVerifier:
    return verifier(rule(), **options)


def own_key(client: Signer, **changed: Any) -> RequestAttributes:
    """A proof by a key with the members in `changed`, for a token that is bound to that key."""
    jwk = client.jwk(**changed)
    token = Signer().token(cnf={"jkt": key_thumbprint(jwk)})
    return asking(proof(client, {"jwk": jwk}, token=token), token=token)


def slack(text: str) -> str:
    """Another base64url text for the same 32 bytes: the last character has two unused bits."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


GOOD = asking(proof())
UNBOUND = Signer().token()


@dataclass(frozen=True)
class Case:
    """`bad` is refused for `reason`; `good` is accepted."""

    reason: Reason
    bad: RequestAttributes
    good: RequestAttributes = GOOD


INVALID, MISMATCH, EXPIRED, BINDING = (
    Reason.DPOP_INVALID,
    Reason.DPOP_MISMATCH,
    Reason.DPOP_EXPIRED,
    Reason.TOKEN_BINDING,
)
HEAD, BODY, TAIL = proof().split(".")
PROOFS = {
    "none": Case(Reason.DPOP_MISSING, asking()),
    "two": Case(INVALID, asking(proof(), proof(jti="j2"))),
    "two joined by a comma": Case(INVALID, asking(f"{proof()},{proof(jti='j2')}")),
    "not a JWT": Case(INVALID, asking("proof")),
    "two segments": Case(INVALID, asking(f"{HEAD}.{BODY}")),
    "padding": Case(INVALID, asking(f"{HEAD}.{BODY}.{TAIL}==")),
    "not ASCII": Case(INVALID, asking(f"{HEAD}.{BODY}.ä")),
    "too long": Case(INVALID, asking(proof(pad="x" * 8192)), asking(proof(pad="x" * 4096))),
    "a header that is a list": Case(INVALID, asking(CLIENT.compact("[]", "{}"))),
    "a claim twice": Case(INVALID, asking(CLIENT.compact(json.dumps({"typ": "dpop+jwt"}), '{"jti":"a","jti":"b"}'))),
    "typ JWT": Case(INVALID, asking(proof(header={"typ": "JWT"}))),
    "no typ": Case(INVALID, asking(proof(header={"typ": None})), asking(proof(header={"typ": "application/DPoP+jwt"}))),
    "alg none": Case(INVALID, asking(proof(header={"alg": "none"}))),
    "an HMAC": Case(INVALID, asking(proof(Signer("HS256", "", secret=b"s" * 32), {"jwk": CLIENT.jwk()}))),
    "alg of another key": Case(INVALID, asking(proof(header={"alg": "RS256"}))),
    "crit": Case(INVALID, asking(proof(header={"crit": ["x"], "x": 1})), asking(proof(header={"x": 1}))),
    "b64 false": Case(INVALID, asking(proof(header={"b64": False})), asking(proof(header={"b64": True}))),
    "no key": Case(INVALID, asking(proof(header={"jwk": None}))),
    "a key by name only": Case(INVALID, asking(proof(header={"jwk": None, "kid": "k1"}))),
    "a private key": Case(INVALID, asking(proof(header={"jwk": CLIENT.jwk(d="AAAA")}))),
    "a secret": Case(INVALID, asking(proof(header={"jwk": {"kty": "oct", "k": b64(b"s" * 32)}}))),
    "a key off the curve": Case(INVALID, own_key(CLIENT, x=CLIENT.jwk()["y"]), own_key(CLIENT)),
    "a weak key": Case(INVALID, own_key(Signer("PS256", "", "RSA-1024", 77)), own_key(RSA)),
    "an exponent as long as the modulus": Case(INVALID, own_key(RSA, e=RSA.jwk()["n"]), own_key(RSA, e="AQAB")),
    "an even exponent": Case(INVALID, own_key(RSA, e="AQAA"), own_key(RSA)),
    "an exponent of 1": Case(INVALID, own_key(RSA, e="AQ"), own_key(RSA)),
    "a modulus of 20,000 bits": Case(INVALID, own_key(RSA, n=b64(b"\xff" * 2500)), own_key(RSA)),
    "no modulus": Case(INVALID, own_key(RSA, n=""), own_key(RSA)),
    "a key without a member": Case(INVALID, asking(proof(header={"jwk": CLIENT.jwk(y=None)}))),
    "a key with a number in it": Case(INVALID, asking(proof(header={"jwk": CLIENT.jwk(y=7)}))),
    "a key type that is a list": Case(INVALID, asking(proof(header={"jwk": CLIENT.jwk(kty=["EC"])}))),
    "another spelling of the key": Case(BINDING, asking(proof(header={"jwk": CLIENT.jwk(x=slack(CLIENT.jwk()["x"]))}))),
    "another's signature": Case(INVALID, asking(proof(OTHER, {"jwk": CLIENT.jwk()}))),
    "another payload": Case(INVALID, asking(f"{HEAD}.{proof(jti='j2').split('.')[1]}.{TAIL}")),
    "no jti": Case(INVALID, asking(proof(jti=None))),
    "an empty jti": Case(INVALID, asking(proof(jti=""))),
    "a jti too long": Case(INVALID, asking(proof(jti="j" * 257)), asking(proof(jti="j" * 256))),
    "a jti that is a number": Case(INVALID, asking(proof(jti=1)), asking(proof(jti="1"))),
    "no iat": Case(INVALID, asking(proof(iat=None))),
    "an iat in words": Case(INVALID, asking(proof(iat=str(NOW)))),
    "an iat that is true": Case(INVALID, asking(proof(iat=True))),
    "an iat of 400 digits": Case(INVALID, asking(proof(iat=10**400))),
    "an iat of 200 digits": Case(INVALID, asking(proof(iat=10**200))),
    "a negative iat": Case(INVALID, asking(proof(iat=-1))),
    "an iat that is NaN": Case(INVALID, asking(proof(iat=float("nan")))),
    "an infinite iat": Case(INVALID, asking(proof(iat=float("inf")))),
    "another method": Case(MISMATCH, asking(proof(htm="POST"))),
    "the method in lower case": Case(MISMATCH, asking(proof(htm="get"))),
    "no method": Case(MISMATCH, asking(proof(htm=None))),
    "another path": Case(MISMATCH, asking(proof(htu="https://shop.example/orders/8"))),
    "the path with a slash more": Case(MISMATCH, asking(proof(htu=TARGET + "/"))),
    "the path in upper case": Case(MISMATCH, asking(proof(htu="https://shop.example/Orders/7"))),
    "another host": Case(MISMATCH, asking(proof(htu="https://evil.example/orders/7"))),
    "the host as user": Case(MISMATCH, asking(proof(htu="https://shop.example@evil.example/orders/7"))),
    "another port": Case(
        MISMATCH,
        asking(proof(htu="https://shop.example:8443/orders/7")),
        asking(proof(htu="https://shop.example:443/orders/7")),
    ),
    "another scheme": Case(MISMATCH, asking(proof(htu="http://shop.example/orders/7"))),
    "a path without host": Case(MISMATCH, asking(proof(htu="/orders/7"))),
    "no address": Case(MISMATCH, asking(proof(htu=None))),
    "an address that is a list": Case(MISMATCH, asking(proof(htu=[TARGET]))),
    "another token's digest": Case(MISMATCH, asking(proof(token=token_of(sub="bob")))),
    "no token's digest": Case(MISMATCH, asking(proof(ath=None))),
    "too old": Case(EXPIRED, asking(proof(iat=NOW - WINDOW_SECONDS - 1)), asking(proof(iat=NOW - WINDOW_SECONDS))),
    "made in the future": Case(
        EXPIRED, asking(proof(iat=NOW + AHEAD_SECONDS + 1)), asking(proof(iat=NOW + AHEAD_SECONDS))
    ),
    "another key's": Case(BINDING, asking(proof(OTHER))),
    "a good one, for a bearer token": Case(BINDING, asking(proof(token=UNBOUND), token=UNBOUND)),
    "a good one, under Bearer": Case(BINDING, asking(proof(), scheme="Bearer"), asking(proof(), scheme="dpop")),
}


@pytest.mark.parametrize("case", PROOFS.values(), ids=PROOFS.keys())
def test_a_proof_with_one_defect_is_refused_for_it_and_its_twin_is_accepted(case: Case) -> None:
    one = subject()
    assert refusal(one, case.bad) is case.reason
    identity = accept(one, case.good)
    assert identity.binding is Binding.DPOP


def test_no_refusal_contains_the_token_or_proof() -> None:
    for case in PROOFS.values():
        with pytest.raises(Refused) as caught:
            subject().verify(case.bad, NO_EVIDENCE, NOW)
        assert BODY not in str(caught.value)
        assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("client", [RSA, ED, Signer("ES384", "", "P-384", 77)], ids=lambda client: client.alg)
def test_every_kind_of_key_can_sign_a_proof(client: Signer) -> None:
    token = token_of(client)
    assert accept(subject(), asking(proof(client, token=token), token=token)).binding is Binding.DPOP


def test_a_proof_is_valid_once() -> None:
    one = subject()
    assert accept(one, asking(proof())).binding is Binding.DPOP
    for now in (NOW, NOW + WINDOW_SECONDS - 2):
        assert refusal(one, asking(proof()), now=now) is Reason.DPOP_REPLAYED
    assert refusal(one, asking(proof()), now=NOW + WINDOW_SECONDS) is Reason.DPOP_EXPIRED
    again = proof(iat=NOW)  # another signature, the same name
    assert refusal(one, asking(again)) is Reason.DPOP_REPLAYED
    assert accept(one, asking(proof(jti="j2"))).binding is Binding.DPOP


def test_another_clients_proof_may_have_the_same_name() -> None:
    one, token = subject(), token_of(OTHER)
    assert accept(one, asking(proof())).token is not None
    assert accept(one, asking(proof(OTHER, token=token), token=token)).token is not None


def test_a_refused_request_does_not_use_up_its_proof() -> None:
    one = subject()
    stolen = asking(proof(), token=token_of(sub="bob"))
    assert refusal(one, stolen) is MISMATCH
    assert accept(one, asking(proof())).token is not None


def test_a_trial_neither_checks_nor_records_used_proofs() -> None:
    one, asked = subject(), asking(proof())
    assert one.verify(asked, NO_EVIDENCE, NOW, trial=True).binding is Binding.DPOP
    assert accept(one, asked).binding is Binding.DPOP
    assert one.verify(asked, NO_EVIDENCE, NOW, trial=True).binding is Binding.DPOP
    assert refusal(one, asked) is Reason.DPOP_REPLAYED


def test_a_reload_keeps_the_used_proofs() -> None:
    before, after = subject(), subject()
    assert accept(before, asking(proof())).token is not None
    after.inherit_state(before)
    assert refusal(after, asking(proof())) is Reason.DPOP_REPLAYED


def test_the_proof_is_removed_from_the_request_with_its_token() -> None:
    assert accept(subject(), asking(proof())).changes.remove_headers == ("authorization", "dpop")
    kept = verifier(rule(forward_original_token=True))
    assert accept(kept, asking(proof())).changes.remove_headers == ()
    bearer = asking("anything", token=Signer().token(), scheme="Bearer")
    assert accept(subject(), bearer).changes.remove_headers == ("authorization",)


def test_istio_semantics_know_only_the_bearer_scheme() -> None:
    assert accept(verifier(rule(), options=ISTIO), asking(proof())).token is None


def test_the_dpop_scheme_applies_in_authorization_only() -> None:
    custom = verifier(rule(from_headers=(FromHeader("x-token", "Bearer "),)))
    assert accept(custom, request(x_token=f"DPoP {TOKEN}")).token is None
    assert refusal(custom, request(x_token=f"Bearer {TOKEN}")) is BINDING


def test_a_full_memory_refuses_until_proofs_expire() -> None:
    memory = ReplayMemory(capacity=3)
    for number in range(3):
        memory.remember(Proof(f"t{number}", "j", NOW), NOW)
    with pytest.raises(Refused) as caught:
        memory.remember(Proof("t3", "j", NOW), NOW)
    assert caught.value.reason is Reason.OVERLOADED
    with pytest.raises(Refused) as caught:
        memory.remember(Proof("t1", "j", NOW), NOW)
    assert caught.value.reason is Reason.DPOP_REPLAYED
    later = NOW + WINDOW_SECONDS + 20
    memory.remember(Proof("t", "1", later), later)
    assert len(memory) == 1


def remembered(memory: ReplayMemory, key: str, proofs: int, now: float = NOW) -> int:
    """Count how many of `proofs` new proofs by `key` are accepted; all others are refused because memory is full."""
    accepted = 0
    for number in range(proofs):
        try:
            memory.remember(Proof(key, f"{now} {number}", now), now)
            accepted += 1
        except Refused as refused:
            if refused.reason is not Reason.OVERLOADED:
                raise
    return accepted


def test_a_key_uses_no_more_memory_than_it_leaves_to_others() -> None:
    memory = ReplayMemory(capacity=1200)
    assert remembered(memory, "greedy", 1200) == 600
    assert remembered(memory, "greedy too", 1200) == 300
    assert [remembered(memory, f"honest {number}", 10) for number in range(20)] == [10] * 20
    assert remembered(memory, "greedy", 1, NOW + 1) == 0
    later = NOW + WINDOW_SECONDS + 20
    assert remembered(memory, "greedy", 1200, later) == 600, "its share is free again when its proofs are over"


def test_a_busy_key_never_exceeds_its_share() -> None:
    memory = ReplayMemory(capacity=1000)
    for second in range(600):
        remembered(memory, "greedy", 20, NOW + second)
        assert remembered(memory, "honest", 1, NOW + second) == 1
        assert len(memory) <= 1000


@pytest.mark.parametrize("ahead", [0.0, AHEAD_SECONDS])
def test_a_proof_is_remembered_as_long_as_it_is_valid(ahead: float) -> None:
    memory, made = ReplayMemory(), NOW + ahead
    memory.remember(Proof("t", "j", made), NOW)
    for seconds in range(int(ahead + WINDOW_SECONDS) + 1):
        with pytest.raises(Refused):
            memory.remember(Proof("t", "j", made), NOW + seconds)


def test_memory_stays_bounded_over_many_proofs() -> None:
    memory = ReplayMemory(capacity=1000)
    for number in range(20_000):
        memory.remember(Proof("t", str(number), NOW + number), NOW + number)
    assert len(memory) < 100


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://A.example/x", "https://a.example/x"),
        ("HTTPS://a.example/x", "https://a.example/x"),
        ("https://a.example:443/x", "https://a.example/x"),
        ("https://a.example:/x", "https://a.example/x"),
        ("http://a.example:80", "http://a.example/"),
        ("https://a.example/%7euser", "https://a.example/~user"),
        ("https://a.example/%c3%a9", "https://a.example/%C3%A9"),
        ("https://a.example/x?y#z", "https://a.example/x"),
        ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]/"),
    ],
)
def test_spellings_of_one_address_are_normalised_to_one(one: str, other: str) -> None:
    assert normal_target(one) == normal_target(other) == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.example:80/", "https://a.example/"),
        ("https://a.example/a%2fb", "https://a.example/a/b"),
        ("https://a.example/a/../b", "https://a.example/b"),
        ("https://a.example//b", "https://a.example/b"),
        ("https://a.example/%2525", "https://a.example/%25"),
    ],
)
def test_addresses_that_a_server_may_distinguish_stay_different(one: str, other: str) -> None:
    assert normal_target(one) != normal_target(other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.example/",
        "ftp://a/",
        "https:///x",
        "https://u@a/",
        "https://a/ä",
        "https://a /",
        "https://a\\b/",
        "https://a/\n",
    ],
)
def test_text_that_is_not_an_address_is_not_normalised(text: str) -> None:
    assert normal_target(text) is None


def test_callers_receive_a_dpop_challenge() -> None:
    for reason in (reason for reason in Reason if reason.startswith("dpop_")):
        answer = DENIAL_RESPONSES[reason]
        assert (answer.status, answer.scheme, answer.bearer_error) == (401, "DPoP", "invalid_dpop_proof")


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        (asking(proof(htm="POST")), "`htm` is `POST`, and the request's method is `GET`"),
        (
            asking(proof(htu="https://evil.example/?access_token=secret")),
            f"`htu` is `https://evil.example/`, and the request's address is `{TARGET}`",
        ),
        (
            asking(proof(OTHER)),
            (
                f"the token is bound to the key `{key_thumbprint(CLIENT.jwk())}`, "
                f"and the DPoP proof is by `{key_thumbprint(OTHER.jwk())}`"
            ),
        ),
    ],
    ids=["method", "address", "key"],
)
def test_a_mismatch_names_the_proofs_target_and_the_requests(asked: RequestAttributes, detail: str) -> None:
    with pytest.raises(Refused) as caught:
        subject().verify(asked, NO_EVIDENCE, NOW)
    assert caught.value.detail == detail
