"""Hostile tokens and the reasons of their refusal; each has a valid twin that lacks only the one defect."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.pki import (
    AUDIENCE,
    FRONTEND,
    HOUR,
    ISSUER,
    NOW,
    Signer,
    b64,
    default_claims,
    jwks,
    presented,
    private_key,
    root,
)
from tests.unit.authn.support import (
    ISTIO,
    STRICT,
    accept,
    authentication,
    bearer,
    bundle,
    refusal,
    request,
    rule,
    verifier,
)
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.authn.jwt import ISTIO as ISTIO_READING, STRICT as STRICT_READING
from zta_authz.authn.keys import NO_KEYS
from zta_authz.authn.verify import compile_verifier
from zta_authz.errors import Fault, Reason, Refused
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.model.decision import Decision, Verdict
from zta_authz.model.documents import ClaimToHeader, FromHeader
from zta_authz.model.options import Workload
from zta_authz.model.request import NO_EVIDENCE, Evidence

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.model.options import Options

SIGNER = Signer()
SECRET = Signer("HS256", "s1", secret=b"s" * 32)
RSA = Signer("RS256", "r1", "RSA-2048")
SUBJECT = verifier(rule(audiences=(AUDIENCE,)))
LENIENT = verifier(rule(audiences=(AUDIENCE,)), options=ISTIO)
LEEWAY = STRICT_READING.leeway


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def padded(size: int) -> str:
    """A token of exactly `size` characters; `size` must leave whole base64 groups."""
    for extra in range(size):
        token = SIGNER.token(pad="x" * (size * 3 // 4 - 400 + extra))
        if len(token) >= size:
            return token
    raise AssertionError


def unsigned(header: dict[str, Any]) -> str:
    return f"{b64(json.dumps(header))}.{b64(json.dumps(default_claims()))}."


def with_payload(text: str | bytes) -> str:
    message = f"{b64(json.dumps({'alg': 'ES256', 'kid': 'k1'}))}.{b64(text)}"
    return f"{message}.{b64(SIGNER.sign(message.encode()))}"


def claims_text(**raw: str) -> str:
    """The default claims as JSON text, followed by members of raw text."""
    return json.dumps(default_claims())[:-1] + "".join(f', "{name}": {text}' for name, text in raw.items()) + "}"


def signed_by(other: Signer) -> str:
    """A token that claims to be of `SIGNER` but is signed by `other`."""
    message = SIGNER.token().rpartition(".")[0]
    return f"{message}.{b64(other.sign(message.encode()))}"


GOOD = SIGNER.token()
HEAD, BODY, TAIL = GOOD.split(".")


@dataclass(frozen=True)
class Case:
    """`bad` is refused for `reason`, `good` is accepted. `istio` is Istio's reason for `bad`, None if it accepts."""

    reason: Reason
    bad: str
    good: str = GOOD
    istio: Reason | bool | None = True  # True: the same

    @property
    def istio_reason(self) -> Reason | None:
        return self.reason if self.istio is True else self.istio or None


TOKENS = {
    "not three segments": Case(Reason.TOKEN_MALFORMED, f"{HEAD}.{BODY}"),
    "four segments": Case(Reason.TOKEN_MALFORMED, f"{GOOD}.{TAIL}"),
    "empty": Case(Reason.TOKEN_MALFORMED, ""),
    "an empty segment more": Case(Reason.TOKEN_MALFORMED, GOOD.replace(".", "..", 1), istio=None),
    "no signature": Case(Reason.TOKEN_MALFORMED, f"{HEAD}.{BODY}.+"),
    "padding": Case(Reason.TOKEN_MALFORMED, f"{GOOD}==", istio=None),
    "a blank inside": Case(Reason.TOKEN_MALFORMED, f"{HEAD}. {BODY}.{TAIL}"),
    "two tokens": Case(Reason.TOKEN_MALFORMED, f"{GOOD},{GOOD}"),
    "standard base64": Case(Reason.TOKEN_MALFORMED, f"{HEAD}.{BODY}.{TAIL[:-1]}/"),
    "not ASCII": Case(Reason.TOKEN_MALFORMED, f"{HEAD}.{BODY}.{TAIL[:-1]}ä"),
    "a surrogate": Case(Reason.TOKEN_MALFORMED, f"{HEAD}.{BODY}.\udc80"),
    "header is no JSON": Case(Reason.TOKEN_MALFORMED, SIGNER.token("{")),
    "header is a list": Case(Reason.TOKEN_MALFORMED, SIGNER.token("[]")),
    "payload is no JSON": Case(Reason.TOKEN_MALFORMED, with_payload("{")),
    "payload is a string": Case(Reason.TOKEN_MALFORMED, with_payload('"x"')),
    "payload is not UTF-8": Case(Reason.TOKEN_MALFORMED, with_payload(b'{"a": "\xff"}')),
    "payload is UTF-16": Case(Reason.TOKEN_MALFORMED, with_payload(claims_text().encode("utf-16"))),
    "NaN": Case(Reason.TOKEN_MALFORMED, with_payload(claims_text(x="NaN")), with_payload(claims_text(x="null"))),
    "infinity": Case(Reason.TOKEN_MALFORMED, with_payload(claims_text(x="1e999")), with_payload(claims_text(x="1e99"))),
    "lone surrogate": Case(
        Reason.TOKEN_MALFORMED, with_payload(claims_text(x=r'"\ud800"')), with_payload(claims_text(x=r'"\ud83d\ude00"'))
    ),
    "surrogate as a name": Case(Reason.TOKEN_MALFORMED, with_payload(claims_text(**{r"\udc00": "1"}))),
    "nested too deeply": Case(Reason.TOKEN_MALFORMED, SIGNER.token(x=deep(32)), SIGNER.token(x=deep(31)), istio=None),
    "nested too deeply for Envoy": Case(Reason.TOKEN_MALFORMED, SIGNER.token(x=deep(100))),
    "nested 5000 levels deep": Case(Reason.TOKEN_MALFORMED, with_payload('{"a":' + "[" * 5000 + "]" * 5000 + "}")),
    "an iat of 400 digits": Case(Reason.TOKEN_MALFORMED, SIGNER.token(iat=10**400)),
    "an iat of 300 digits": Case(Reason.TOKEN_CLAIM_INVALID, SIGNER.token(iat=10**300)),
    "a number of 5000 digits": Case(Reason.TOKEN_MALFORMED, with_payload(claims_text(x="9" * 5000))),
    "a number of 400 digits": Case(Reason.TOKEN_MALFORMED, with_payload(claims_text(x="-" + "9" * 400))),
    "a number of 309 digits": Case(
        Reason.TOKEN_MALFORMED, with_payload(claims_text(x="9" * 309)), with_payload(claims_text(x="9" * 308))
    ),
    "a number of 400 digits in the header": Case(
        Reason.TOKEN_MALFORMED, SIGNER.token('{"alg":"ES256","kid":"k1","x":%s}' % ("1" * 400))
    ),
    "a claim twice": Case(Reason.TOKEN_MALFORMED, with_payload(claims_text(sub='"bob"'))),
    "the issuer twice, the same": Case(Reason.TOKEN_MALFORMED, with_payload(claims_text(iss=f'"{ISSUER}"'))),
    "a claim twice, once escaped": Case(Reason.TOKEN_MALFORMED, with_payload(claims_text(**{r"s\u0075b": '"bob"'}))),
    "a name twice inside": Case(
        Reason.TOKEN_MALFORMED,
        with_payload(claims_text(x='[{"y": {"a": 1, "a": 1}}]')),
        with_payload(claims_text(x='[{"y": {"a": 1, "b": {"a": 1}}}]')),
    ),
    "a header member twice": Case(Reason.TOKEN_MALFORMED, SIGNER.token('{"alg":"ES256","kid":"k1","kid":"k1"}')),
    "the algorithm twice": Case(Reason.TOKEN_MALFORMED, SIGNER.token('{"alg":"ES256","kid":"k1","alg":"ES256"}')),
    "the algorithm twice, once escaped": Case(
        Reason.TOKEN_MALFORMED,
        SIGNER.token(r'{"alg":"ES256","kid":"k1","\u0061lg":"ES256"}'),
        SIGNER.token(r'{"\u0061lg":"ES\u003256","kid":"k1"}'),
    ),
    "a byte order mark": Case(Reason.TOKEN_MALFORMED, with_payload("\ufeff" + claims_text())),
    "text after the object": Case(Reason.TOKEN_MALFORMED, with_payload(claims_text() + "{}")),
    "an overlong character": Case(Reason.TOKEN_MALFORMED, with_payload(b'{"a": "\xc0\x80"}')),
    "over 16 KiB": Case(Reason.TOKEN_TOO_LARGE, padded(16 * 1024 + 1), istio=None),
    "over 64 KiB": Case(Reason.TOKEN_TOO_LARGE, "a" * (64 * 1024 + 1)),
    "alg none": Case(Reason.TOKEN_ALGORITHM, unsigned({"alg": "none"}) + "e"),
    "alg nOnE": Case(Reason.TOKEN_ALGORITHM, unsigned({"alg": "nOnE", "kid": "k1"}) + "e"),
    "no alg": Case(Reason.TOKEN_ALGORITHM, SIGNER.token({"alg": None})),
    "alg is not a string": Case(Reason.TOKEN_ALGORITHM, SIGNER.token({"alg": ["ES256"]})),
    "alg in lower case": Case(Reason.TOKEN_ALGORITHM, SIGNER.token({"alg": "es256"})),
    "alg of another key type": Case(Reason.TOKEN_ALGORITHM, SIGNER.token({"alg": "RS256"})),
    "alg of another curve": Case(Reason.TOKEN_ALGORITHM, SIGNER.token({"alg": "ES384"})),
    "alg ES256K": Case(Reason.TOKEN_ALGORITHM, SIGNER.token({"alg": "ES256K"})),
    "HMAC with an asymmetric key": Case(Reason.TOKEN_ALGORITHM, Signer("HS256", "k1", secret=b"x" * 32).token()),
    "crit": Case(Reason.TOKEN_HEADER, SIGNER.token({"crit": ["exp"], "exp": 1}), SIGNER.token({"exp": 1})),
    "empty crit": Case(Reason.TOKEN_HEADER, SIGNER.token({"crit": []})),
    "b64 false": Case(Reason.TOKEN_HEADER, SIGNER.token({"b64": False}), SIGNER.token({"b64": True})),
    "kid is not a string": Case(Reason.TOKEN_HEADER, SIGNER.token({"kid": 1})),
    "unknown kid": Case(Reason.TOKEN_KEY_UNKNOWN, SIGNER.token({"kid": "k2"})),
    "kid of a path": Case(Reason.TOKEN_KEY_UNKNOWN, SIGNER.token({"kid": "../../dev/null"})),
    "key in the header": Case(
        Reason.TOKEN_SIGNATURE,
        Signer(number=2000).token({"jwk": Signer(number=2000).jwk(), "jku": "https://evil.example/jwks"}),
        SIGNER.token({"jwk": Signer(number=2000).jwk(), "x5u": "https://evil.example"}),
    ),
    "another key": Case(Reason.TOKEN_SIGNATURE, signed_by(Signer(number=2000))),
    "signature of zeros": Case(Reason.TOKEN_SIGNATURE, f"{HEAD}.{BODY}.{b64(bytes(64))}"),
    "short signature": Case(Reason.TOKEN_SIGNATURE, f"{HEAD}.{BODY}.AAAA"),
    "another payload": Case(Reason.TOKEN_SIGNATURE, f"{HEAD}.{b64(claims_text(admin='true'))}.{TAIL}"),
    "another issuer": Case(Reason.TOKEN_ISSUER_UNKNOWN, SIGNER.token(iss="https://evil.example")),
    "no issuer": Case(Reason.TOKEN_ISSUER_UNKNOWN, SIGNER.token(iss=None)),
    "issuer with a slash more": Case(Reason.TOKEN_ISSUER_UNKNOWN, SIGNER.token(iss=ISSUER + "/")),
    "issuer is a list": Case(Reason.TOKEN_CLAIM_INVALID, SIGNER.token(iss=[ISSUER])),
    "sub is a number": Case(Reason.TOKEN_CLAIM_INVALID, SIGNER.token(sub=1), SIGNER.token(sub="1")),
    "jti is a number": Case(Reason.TOKEN_CLAIM_INVALID, SIGNER.token(jti=1), SIGNER.token(jti="1")),
    "exp is text": Case(Reason.TOKEN_CLAIM_INVALID, SIGNER.token(exp=str(NOW + 1))),
    "exp is true": Case(Reason.TOKEN_CLAIM_INVALID, SIGNER.token(exp=True)),
    "exp is null": Case(Reason.TOKEN_CLAIM_INVALID, with_payload(claims_text().replace(f"{NOW + HOUR}", "null"))),
    "exp is negative": Case(Reason.TOKEN_CLAIM_INVALID, SIGNER.token(exp=-1)),
    "exp is too large": Case(Reason.TOKEN_CLAIM_INVALID, SIGNER.token(exp=2**64), SIGNER.token(exp=2**63)),
    "exp is too large a double": Case(Reason.TOKEN_CLAIM_INVALID, SIGNER.token(exp=2**64 - 1)),
    "nbf is text": Case(Reason.TOKEN_CLAIM_INVALID, SIGNER.token(nbf="0"), SIGNER.token(nbf=0)),
    "aud is an object": Case(Reason.TOKEN_CLAIM_INVALID, SIGNER.token(aud={AUDIENCE: 1})),
    "aud has a number": Case(
        Reason.TOKEN_CLAIM_INVALID, SIGNER.token(aud=[AUDIENCE, 1]), SIGNER.token(aud=["b", AUDIENCE])
    ),
    "another audience": Case(Reason.TOKEN_AUDIENCE, SIGNER.token(aud="other")),
    "no audience": Case(Reason.TOKEN_AUDIENCE, SIGNER.token(aud=None)),
    "part of the audience": Case(Reason.TOKEN_AUDIENCE, SIGNER.token(aud=AUDIENCE[:-1])),
    "expired": Case(
        Reason.TOKEN_EXPIRED, SIGNER.token(exp=NOW - LEEWAY - 1), SIGNER.token(exp=NOW - LEEWAY), istio=None
    ),
    "long expired": Case(Reason.TOKEN_EXPIRED, SIGNER.token(exp=NOW - 61)),
    "expired in 1970": Case(Reason.TOKEN_EXPIRED, SIGNER.token(exp=0), istio=None),
    "not yet valid": Case(
        Reason.TOKEN_NOT_YET_VALID, SIGNER.token(nbf=NOW + LEEWAY + 1), SIGNER.token(nbf=NOW + LEEWAY), istio=None
    ),
    "not yet valid for a long time": Case(Reason.TOKEN_NOT_YET_VALID, SIGNER.token(nbf=NOW + 61)),
    "without exp": Case(Reason.TOKEN_EXPIRY_MISSING, SIGNER.token(exp=None), istio=None),
}


@pytest.mark.parametrize("case", TOKENS.values(), ids=TOKENS.keys())
def test_a_token_with_one_defect_is_refused_for_it_and_its_twin_is_accepted(case: Case) -> None:
    assert refusal(SUBJECT, bearer(case.bad)) is case.reason
    token = accept(SUBJECT, bearer(case.good)).token
    assert token is not None
    assert token.issuer == ISSUER


@pytest.mark.parametrize("case", TOKENS.values(), ids=TOKENS.keys())
def test_istio_refuses_and_accepts_what_jwt_authn_does(case: Case) -> None:
    assert accept(LENIENT, bearer(case.good)).token is not None
    if case.istio_reason is None:
        assert accept(LENIENT, bearer(case.bad)).token is not None
    else:
        assert refusal(LENIENT, bearer(case.bad)) is case.istio_reason


@pytest.mark.parametrize(
    "text",
    [
        "{'iss': 'x'}", "{iss: 1}", '{"x": [1,]}', '{"x": 1,}', r'{"x": "\U0041"}', r'{"x": "\'"}', '{"x": "a\nb"}',
        '{"x": "a\x00b"}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("subject", [SUBJECT, LENIENT], ids=["strict", "istio"])
def test_json_that_only_protobuf_accepts_is_refused(subject: IdentityVerifier, text: str) -> None:
    assert refusal(subject, bearer(with_payload(text))) is Reason.TOKEN_MALFORMED


def test_an_ed25519_key_without_alg_ends_envoys_search_at_a_longer_signature() -> None:
    ed25519 = Signer("EdDSA", "", "Ed25519")
    first = jwks([ed25519.jwk(alg=None), RSA])
    token = bearer(RSA.token())
    assert refusal(verifier(rule(jwks=first), options=ISTIO), token) is Reason.TOKEN_ALGORITHM
    for keys in (jwks([RSA, ed25519.jwk(alg=None)]), jwks([ed25519.jwk(alg="EdDSA"), RSA])):
        assert accept(verifier(rule(jwks=keys), options=ISTIO), token).token is not None
    as_long = bearer(SIGNER.token())
    assert accept(verifier(rule(jwks=jwks([ed25519.jwk(alg=None), SIGNER])), options=ISTIO), as_long).token is not None
    assert accept(verifier(rule(jwks=first)), token).token is not None


def test_no_refusal_contains_the_token() -> None:
    for case in TOKENS.values():
        with pytest.raises(Refused) as caught:
            SUBJECT.verify(bearer(case.bad), NO_EVIDENCE, NOW)
        message = f"{caught.value} {caught.value.detail}"
        assert not [segment for segment in case.bad.split(".") if len(segment) > 12 and segment in message]


ALGORITHMS = [
    *(Signer(alg, "x", "RSA-2048") for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    *(Signer(f"ES{bits}", "x", kind) for bits, kind in ((256, "P-256"), (384, "P-384"), (512, "P-521"))),
    Signer("EdDSA", "x", "Ed25519"),
    *(Signer(f"HS{bits}", "x", secret=b"k" * 64) for bits in (256, 384, 512)),
]


@pytest.mark.parametrize("signer", ALGORITHMS, ids=lambda signer: signer.alg)
@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_every_algorithm_of_envoy_works_with_its_key_and_with_no_other(signer: Signer, reading: Options) -> None:
    subject = verifier(rule(jwks=jwks([signer])), options=reading)
    assert accept(subject, bearer(signer.token())).token is not None
    for other in ALGORITHMS:
        if other != signer:
            forged = replace(other, number=3000, secret=b"z" * 64 if other.secret else b"").token()
            assert refusal(subject, bearer(forged)) in {Reason.TOKEN_ALGORITHM, Reason.TOKEN_SIGNATURE}
    pinned = verifier(rule(jwks=jwks([signer.jwk(alg=signer.alg)])), options=reading)
    assert accept(pinned, bearer(signer.token())).token is not None


def test_a_public_key_is_not_an_hmac_secret() -> None:
    public = RSA.key.public_key()
    subject = verifier(rule(jwks=jwks([RSA])))
    assert accept(subject, bearer(RSA.token())).token is not None
    for encoding, form in ((Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), (Encoding.DER, PublicFormat.PKCS1)):
        confused = RSA.compact('{"alg":"HS256","kid":"r1"}', json.dumps(default_claims()))
        message = confused.rpartition(".")[0]
        mac = hmac.new(public.public_bytes(encoding, form), message.encode(), hashlib.sha256).digest()
        assert refusal(subject, bearer(f"{message}.{b64(mac)}")) is Reason.TOKEN_ALGORITHM


def test_a_key_pinned_to_an_algorithm_verifies_no_other() -> None:
    pinned = verifier(rule(jwks=jwks([RSA.jwk(alg="RS512")])))
    assert refusal(pinned, bearer(RSA.token())) is Reason.TOKEN_ALGORITHM
    assert accept(pinned, bearer(replace(RSA, alg="RS512").token())).token is not None


def test_without_kid_strict_uses_the_only_key_that_fits_and_istio_tries_all() -> None:
    one, two = Signer(), Signer(kid="k2", number=1001)
    bare = replace(two, kid="").token()
    pair = rule(jwks=jwks([one, two]))
    assert refusal(verifier(pair), bearer(bare)) is Reason.TOKEN_KEY_UNKNOWN
    assert accept(verifier(pair, options=ISTIO), bearer(bare)).token is not None
    assert accept(verifier(rule(jwks=jwks([RSA, two]))), bearer(bare)).token is not None
    nameless = rule(jwks=jwks([two.jwk(kid=None)]))
    assert refusal(verifier(nameless), bearer(two.token())) is Reason.TOKEN_KEY_UNKNOWN
    assert accept(verifier(nameless, options=ISTIO), bearer(two.token())).token is not None
    stranger = Signer(kid="", number=1002).token()
    assert refusal(verifier(pair, options=ISTIO), bearer(stranger)) is Reason.TOKEN_SIGNATURE


def test_fetched_keys_are_unknown_until_they_are_in_their_slot() -> None:
    fetched = verifier(rule(jwks=None, jwks_uri="https://issuer.example/jwks"))
    assert refusal(fetched, bearer(GOOD)) is Reason.TOKEN_KEY_UNKNOWN
    [slot] = fetched.key_slots
    assert (slot.issuer, slot.jwks_uri) == (ISSUER, "https://issuer.example/jwks")
    slot.current = SUBJECT.key_slots[0].current
    assert accept(fetched, bearer(GOOD)).token is not None
    slot.current = verifier(rule(jwks=jwks([Signer(number=2000)]))).key_slots[0].current
    assert refusal(fetched, bearer(GOOD)) is Reason.TOKEN_SIGNATURE


@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_time_is_checked_again_on_every_call(reading: Options) -> None:
    leeway = (STRICT_READING if reading.strict else ISTIO_READING).leeway
    subject = verifier(rule(), options=reading)
    asked = bearer(SIGNER.token(nbf=NOW))
    assert accept(subject, asked).token is not None
    assert accept(subject, asked, now=NOW + HOUR + leeway).token is not None
    assert refusal(subject, asked, now=NOW + HOUR + leeway + 1) is Reason.TOKEN_EXPIRED
    assert refusal(subject, asked, now=NOW - leeway - 1) is Reason.TOKEN_NOT_YET_VALID
    assert accept(subject, asked, now=NOW - leeway).token is not None


@pytest.mark.parametrize("audience", ["a.example", "http://a.example", "https://a.example/", "a.example/"])
@pytest.mark.parametrize("configured", ["a.example", "https://a.example", "http://a.example/"])
def test_audiences_are_compared_without_scheme_and_trailing_slash(audience: str, configured: str) -> None:
    for reading in (STRICT, ISTIO):
        subject = verifier(rule(audiences=("x", configured)), options=reading)
        assert accept(subject, bearer(SIGNER.token(aud=audience))).token is not None
        assert refusal(subject, bearer(SIGNER.token(aud=f"{audience}/b"))) is Reason.TOKEN_AUDIENCE


def test_a_rule_without_audiences_accepts_any() -> None:
    assert accept(verifier(rule()), bearer(SIGNER.token(aud="whatever"))).token is not None


def test_a_verified_token_has_its_claims_and_the_policy_that_verified_it() -> None:
    token = accept(verifier(rule(policy="a/b", space_delimited_claims=("groups",))), bearer(SIGNER.token(x=1))).token
    assert token is not None
    assert (token.issuer, token.subject, token.policy) == (ISSUER, "alice", "a/b")
    assert token.claims["x"] == 1
    assert token.space_delimited_claims == ("groups",)
    with pytest.raises(TypeError):
        token.claims["x"] = 2  # type: ignore[index]


OUTPUTS = rule(
    output_payload_to_header="X-Payload",
    output_claim_to_headers=tuple(
        ClaimToHeader(f"x-{claim.replace('.', '-')}", claim)
        for claim in ("sub", "n", "user.name", "dotted.name", "list", "empty", "evil", "absent", "big", "both.ways")
    ),
)
CLAIMS: dict[str, Any] = {
    "n": -7,
    "user": {"name": "Zo\u00eb"},
    "dotted.name": "whole",
    "list": ["a"],
    "empty": "",
    "evil": "a\r\nx-admin: 1",
    "big": "x" * 9000,
    "both": {"ways": "nested"},
    "both.ways": "whole",
}


@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_claims_become_headers_and_headers_without_a_value_are_removed(reading: Options) -> None:
    token = SIGNER.token(**CLAIMS)
    changes = accept(verifier(OUTPUTS, options=reading), bearer(token, x_sub="spoofed")).changes
    dotted = {"x-dotted-name": "whole"} if reading is STRICT else {}
    assert dict(changes.set_headers) == {
        "x-payload": token.split(".")[1],
        "x-sub": "alice",
        "x-n": "-7.000000",
        "x-user-name": "Zo\u00eb",
        "x-list": "WyJhIl0=",
        "x-big": "x" * 9000,
        "x-both-ways": "nested",
        "x-evil": CLAIMS["evil"],  # for rules; never sent, see below
        **dotted,
    }
    absent = {"authorization", "x-empty", "x-absent", "x-dotted-name"}
    assert set(changes.remove_headers) == absent - dotted.keys()


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\x00b", "a\x7f"])
def test_a_value_that_no_header_can_carry_is_never_sent_and_neither_is_the_clients(value: str) -> None:
    identity = accept(verifier(OUTPUTS), bearer(SIGNER.token(sub=value), x_sub="spoofed"))
    decision = Decision(Verdict.ALLOW, Reason.ALLOW_POLICY, "default/p", 0, identity=identity)
    answer = CheckResponse.FromString(
        ResponseEncoder().encode(decision, "0" * 32, request(x_sub="spoofed"))
    ).ok_response
    assert "x-sub" not in [option.header.key for option in answer.headers]
    assert "x-sub" in answer.headers_to_remove


def test_without_a_token_every_header_that_rules_may_set_is_removed() -> None:
    subject = verifier(OUTPUTS)
    changes = accept(subject, request()).changes
    assert set(changes.remove_headers) == subject.strip_headers
    assert "x-payload" in subject.strip_headers
    assert changes.set_headers == ()


def test_the_original_token_is_forwarded_only_if_the_rule_says_so() -> None:
    by_query = request(path=f"/?access_token={GOOD}")
    dropped = verifier(rule())
    assert accept(dropped, bearer(GOOD)).changes.remove_headers == ("authorization",)
    assert accept(dropped, by_query).changes.remove_query == ("access_token",)
    kept = verifier(rule(forward_original_token=True))
    assert accept(kept, bearer(GOOD)).changes.remove_headers == ()
    assert accept(kept, by_query).changes.remove_query == ()


def test_rules_that_do_not_select_the_workload_do_not_apply() -> None:
    def compiled(document: Any, **labels: str) -> IdentityVerifier:
        faults: list[Fault] = []
        return compile_verifier([document], [], replace(STRICT, workload=Workload("default", labels)), faults)

    for document in (authentication(rule(), app="other"), authentication(rule(), namespace="elsewhere")):
        ignoring = compiled(document, app="hatshop")
        assert accept(ignoring, bearer("garbage")).tokens == ()
        assert ignoring.issuers == ()
    for document in (authentication(rule(), app="hatshop"), authentication(rule(), namespace="istio-system")):
        applying = compiled(document, app="hatshop")
        assert refusal(applying, bearer("garbage")) is Reason.TOKEN_MALFORMED
        assert applying.issuers == (ISSUER,)


KEY = SIGNER.jwk()
RSA_KEY = RSA.jwk()
BAD_KEY_SETS = {
    "no JSON": "{",
    "a name twice": '{"keys": [], "keys": []}',
    "no keys": "{}",
    "keys no list": '{"keys": {}}',
    "empty": '{"keys": []}',
    "key no object": '{"keys": [1]}',
    "no kty": jwks([SIGNER.jwk(kty=None)]),
    "kid no string": jwks([SIGNER.jwk(kid=1)]),
    "key_ops no list": jwks([SIGNER.jwk(key_ops="verify")]),
    "a point off the curve": jwks([SIGNER.jwk(x=KEY["y"])]),
    "a foreign character": jwks([SIGNER.jwk(x=KEY["x"][:-1] + "!")]),
    "x missing": jwks([SIGNER.jwk(x=None)]),
    "x a number": jwks([SIGNER.jwk(x=1)]),
    "RSA of 1024 bits": jwks([Signer("RS256", "x", "RSA-1024")]),
    "an RSA exponent as long as its modulus": jwks([RSA_KEY | {"e": RSA_KEY["n"]}]),
    "an even RSA exponent": jwks([RSA_KEY | {"e": "AQAA"}]),
    "an RSA modulus without end": jwks([RSA_KEY | {"n": b64(b"\xff" * 100_000)}]),
    "RSA without an exponent": jwks([RSA_KEY | {"e": ""}]),
    "a short secret": jwks([Signer("HS256", "x", secret=b"short")]),
    "a secret that is none": jwks([SECRET.jwk(k=None)]),
    "a private key": jwks([SIGNER.jwk(d="AAAA")]),
    "only keys for encryption": jwks([SIGNER.jwk(use="enc")]),
    "only keys that sign": jwks([SIGNER.jwk(key_ops=["sign"])]),
    "only unknown types": jwks([{"kty": "LMS"}]),
    "an algorithm that does not fit": jwks([SIGNER.jwk(alg="RS256")]),
    "alg none": jwks([SIGNER.jwk(alg="none")]),
    "too many keys": jwks([KEY] * 101),
    "too much text": jwks([KEY]) + " " * 1_100_000,
}


CERTIFIED = root(key=RSA.key)
BAD_KEY_SETS |= {
    "an RSA exponent that Envoy does not take": jwks([RSA.jwk(e="EQ")]),
    "a number of 400 digits": jwks([KEY])[:-1] + ', "x": ' + "9" * 400 + "}",
    "a certificate without name": json.dumps({"": CERTIFIED.pem}),
    "a certificate of an EC key": json.dumps({"r1": CERTIFIED.pem, "k1": root().pem}),
    "a certificate of a small key": json.dumps({"r1": root(key=private_key("RSA-1024")).pem}),
    "a certificate that is none": json.dumps({"r1": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}),
    "a certificate beside text": json.dumps({"r1": CERTIFIED.pem, "x": "y"}),
    "too many certificates": json.dumps({f"r{number}": CERTIFIED.pem for number in range(101)}),
}


@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_a_key_set_may_map_key_ids_to_certificates(reading: Options) -> None:
    text = json.dumps({"other": root(key=private_key("RSA-2048", 7)).pem, "r1": CERTIFIED.pem})
    subject = verifier(rule(jwks=text), options=reading)
    assert accept(subject, bearer(RSA.token())).token is not None
    assert refusal(subject, bearer(RSA.token({"kid": "other"}))) is Reason.TOKEN_SIGNATURE
    assert refusal(subject, bearer(RSA.token({"kid": "r2"}))) is Reason.TOKEN_KEY_UNKNOWN
    expired = root(key=RSA.key, not_before=NOW - 2 * HOUR, not_after=NOW - HOUR)
    of_old = verifier(rule(jwks=json.dumps({"r1": expired.pem})), options=reading)
    assert accept(of_old, bearer(RSA.token())).token is not None


@pytest.mark.parametrize("text", BAD_KEY_SETS.values(), ids=BAD_KEY_SETS.keys())
def test_an_invalid_key_set_is_a_fault_at_its_position_and_verifies_nothing(text: str) -> None:
    faults: list[Fault] = []
    subject = verifier(rule(jwks=text), faults=faults)
    [fault] = faults
    assert (fault.source, fault.line, fault.column) == ("test.yaml", 7, 3)
    assert fault.hint
    assert refusal(subject, bearer(GOOD)) is Reason.TOKEN_KEY_UNKNOWN


def test_unusable_keys_are_ignored_and_every_bad_one_is_reported() -> None:
    mixed = [SIGNER.jwk(use="enc", kid="e"), {"kty": "LMS"}, KEY, SIGNER.jwk(use="sig", key_ops=["verify"], kid="v")]
    assert accept(verifier(rule(jwks=jwks(mixed))), bearer(GOOD)).token is not None
    faults: list[Fault] = []
    verifier(rule(jwks=jwks([{}, KEY, SIGNER.jwk(x="?")])), rule(jwks="{"), faults=faults)
    assert len(faults) == 3


def test_one_token_in_two_places_by_turns_is_taken_out_of_the_place_where_it_is() -> None:
    subject = verifier(rule(from_headers=(FromHeader("x-a"), FromHeader("x-b"))))
    token = Signer().token()
    for _ in range(3):
        assert accept(subject, request(x_a=token)).changes.remove_headers == ("x-a",)
        assert accept(subject, request(x_b=token)).changes.remove_headers == ("x-b",)


def test_a_token_of_one_peer_does_not_carry_that_peer_to_the_next() -> None:
    authority = root()
    subject = verifier(rule(), bundles=(bundle(authority.pem),))
    asked, other = bearer(Signer().token()), "spiffe://cluster.local/ns/default/sa/other"
    leaves = {name: Evidence(name, presented(authority.issue(uris=(name,)))) for name in (FRONTEND, other)}
    for _ in range(3):
        for name, evidence in leaves.items():
            assert accept(subject, asked, evidence).principal == name
        assert accept(subject, asked).principal == ""


def test_a_repeated_token_ends_with_its_keys_and_its_time() -> None:
    subject = verifier(rule())
    [slot] = subject.key_slots
    asked, keys = bearer(Signer().token(exp=NOW + 10)), slot.current
    for _ in range(2):
        assert accept(subject, asked).token is not None
        assert refusal(subject, asked, now=NOW + HOUR) is Reason.TOKEN_EXPIRED
        slot.current = NO_KEYS
        assert refusal(subject, asked) is Reason.TOKEN_KEY_UNKNOWN
        slot.current = keys
