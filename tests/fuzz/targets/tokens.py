"""Whatever stands where tokens may stand is refused, or nobody's, or verifies as exactly the token that was made.

Texts that the issuer's key did sign are taken as they are: accepted only with the claims that were signed, and only if
those claims allow it; a proof of possession likewise.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from tests.fuzz import material
from tests.fuzz.oracle import known_claims
from tests.fuzz.target import Target, split_mode, text_of
from tests.support.pki import b64
from tests.unit.authn.support import ISTIO, STRICT, rule, verifier
from zta_authz.errors import Refused
from zta_authz.model.documents import FromHeader
from zta_authz.model.request import NO_EVIDENCE, Headers, RequestAttributes

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.model.identity import Identity

INVARIANT = "any bytes in any place of a token are refused, anonymous, or give exactly the claims that were signed"
NOW = 1_800_000_000.0
LEEWAY = 60.0
_MODES = 8


@functools.cache
def verifiers() -> tuple[IdentityVerifier, IdentityVerifier]:
    """One of each reading, with every kind of place."""
    places = rule(
        issuer=material.ISSUER,
        jwks=material.jwks(),
        audiences=(material.AUDIENCE,),
        from_headers=(FromHeader("authorization", "Bearer "), FromHeader("x-token")),
        from_params=("t",),
        from_cookies=("c",),
        output_payload_to_header="x-payload",
        forward_original_token=False,
    )
    return verifier(places, options=STRICT), verifier(places, options=ISTIO)


def check(data: bytes) -> None:
    """The first byte says where the rest stands, or what is signed."""
    mode, rest = split_mode(data, _MODES)
    text = text_of(rest)
    match mode:
        case 0:
            _raw(rest, authorization=text)
        case 1:
            _raw(rest, x_token=text)
        case 2:
            _raw(unquote_to_bytes(rest), path=f"/?{text}")
        case 3:
            _raw(rest, cookie=text)
        case 4:
            _raw(rest, authorization=f"Bearer {text}")
        case 5:
            _signed(json.dumps(material.HEADER).encode(), rest)
        case 6:
            header, _, payload = rest.partition(b"\x00")
            _signed(header, payload)
        case _:
            _proof(rest)


def _identities(**given: str) -> list[tuple[bool, Identity]]:
    """What each verifier makes of a request with these headers, none where it refuses; and whether it is strict."""
    path = given.pop("path", "/")
    headers = Headers({name.replace("_", "-"): (value,) for name, value in given.items()}, exact=True)
    request = RequestAttributes("GET", path, "shop.example", "https", headers=headers)
    found = []
    for strict, subject in zip((True, False), verifiers(), strict=True):
        with contextlib.suppress(Refused):
            found.append((strict, subject.verify(request, NO_EVIDENCE, NOW, trial=True)))
    return found


def _raw(data: bytes, **given: str) -> None:
    for strict, identity in _identities(**given):
        assert (identity.token is None) is (identity.tokens == ())
        for token in identity.tokens:
            assert dict(token.claims) in known_claims()
            if strict:
                assert any(each.encode() in data for each in (material.token(), material.bound_token()))


def _signed(header: bytes, payload: bytes) -> None:
    text = material.signed(header, payload)
    for strict, identity in _identities(authorization=f"Bearer {text}"):
        assert identity.token is not None, "a token was presented, and is passed over"
        said, claims = json.loads(header), json.loads(payload)
        assert dict(identity.token.claims) == claims
        assert said["alg"] == "EdDSA"
        assert "crit" not in said
        assert said.get("kid", "") in ("", "k1")
        _assert_acceptable(claims, strict=strict)
        assert all(value.isascii() for _, value in identity.changes.set_headers)


def _assert_acceptable(claims: dict[str, Any], *, strict: bool) -> None:
    audience = claims["aud"]
    audiences = [audience] if isinstance(audience, str) else audience
    assert any(
        each.removeprefix("http://").removeprefix("https://").rstrip("/") == material.AUDIENCE for each in audiences
    )
    assert claims["iss"] == material.ISSUER
    assert isinstance(claims.get("sub", ""), str)
    if strict or claims.get("exp"):
        assert int(claims["exp"]) + LEEWAY >= NOW - 1 or (not strict and int(claims["exp"]) == 0)
    assert claims.get("nbf", 0) - LEEWAY <= NOW + 1
    assert not (strict and "cnf" in claims), "a bound token is accepted from whoever has it"


def _proof(data: bytes) -> None:
    """A DPoP proof made by the holder's key of header and payload, or taken as it is."""
    header, separator, payload = data.partition(b"\x00")
    proof = material.signed(header, payload, "holder") if separator else text_of(data)
    for strict, identity in _identities(authorization=f"DPoP {material.bound_token()}", dpop=proof):
        if not strict or identity.token is None:
            assert identity.tokens == ()
            continue
        if not separator:
            assert proof.strip(" ") == sound_proof()
            continue
        said, claims = json.loads(header), json.loads(payload)
        assert said["typ"].lower().removeprefix("application/") == "dpop+jwt"
        assert said["jwk"]["x"] == material.public_jwk("holder")["x"]
        assert claims["htm"] == "GET"
        assert claims["htu"].lower().startswith("https://shop.example")
        assert -31 <= NOW - claims["iat"] <= 61
        assert identity.binding is not None


def proof_parts() -> tuple[bytes, bytes]:
    """Header and payload of a sound proof."""
    digest = b64(hashlib.sha256(material.bound_token().encode()).digest())
    header = {"typ": "dpop+jwt", "alg": "EdDSA", "jwk": material.public_jwk("holder")}
    claims = {"htm": "GET", "htu": "https://shop.example/", "iat": int(NOW), "jti": "1", "ath": digest}
    return json.dumps(header).encode(), json.dumps(claims).encode()


def sound_proof() -> str:
    """The proof of these parts."""
    return material.signed(*proof_parts(), "holder")


def seeds() -> dict[str, bytes]:
    """Sound tokens in every place, and signed texts with what makes readers disagree."""
    token = material.token().encode()
    header, claims = json.dumps(material.HEADER).encode(), json.dumps(material.CLAIMS).encode()
    proof_header, proof = proof_parts()
    exp = f'"exp": {material.END}'.encode()
    signed = {
        "payload": claims,
        "payload-huge-exp": claims.replace(exp, b'"exp": 1e308'),
        "payload-digits": claims.replace(exp, b'"exp": ' + b"9" * 5000),
        "payload-nan": claims.replace(exp, b'"exp": NaN'),
        "payload-digits-of-a-double": claims.replace(exp, b'"exp": ' + b"9" * 309),
        "payload-twice-inside": claims.replace(b'"alice"', b'{"a": 1, "\\u0061": 1}'),
        "payload-twice": claims.replace(exp, exp + b', "exp": 1'),
        "payload-surrogate": claims.replace(b"alice", b"\\ud800"),
        "payload-deep": claims.replace(b'"alice"', b'{"a":' * 40 + b"1" + b"}" * 40),
        "payload-deeper": b"[" * 8000,
        "payload-aud-list": claims.replace(b'"hatshop"', b'["x", "https://hatshop/"]'),
        "payload-bound": claims.replace(b'"iat"', b'"cnf": {"x5t#S256": "x"}, "iat"'),
    }
    return {
        "authorization": b"\x00Bearer " + token,
        "dpop-scheme": b"\x00DPoP " + material.bound_token().encode(),
        "custom-header": b"\x01" + token,
        "query": b"\x02a=b&t=" + token + b"&%74=x",
        "cookie": b'\x03a=b; c="' + token + b'"; d',
        "bearer": b"\x04" + token,
        "two-tokens": b"\x04" + token + b" " + token,
        **{name: b"\x05" + payload for name, payload in signed.items()},
        "header": b"\x06" + header + b"\x00" + claims,
        "header-none": b'\x06{"alg":"none"}\x00' + claims,
        "header-crit": b'\x06{"alg":"EdDSA","crit":["b64"],"b64":false}\x00' + claims,
        "proof": b"\x07" + proof_header + b"\x00" + proof,
        "proof-raw": b"\x07" + sound_proof().encode(),
    }


WORDS = (
    b'"alg"', b'"none"', b'"HS256"', b'"EdDSA"', b'"kid"', b'"crit"', b'"b64"', b'"typ"', b'"jwk"', b'"iss"', b'"aud"',
    b'"exp"', b'"nbf"', b'"iat"', b'"sub"', b'"cnf"', b'"jkt"', b'"x5t#S256"', b"null", b"true", b"[]", b"{}", b"1e400",
    b"-0", b"0", b"0.5", b"18446744073709551616", b"\\u0000", b"\\ud800", b"Bearer ", b"bearer ", b"DPoP ", b"t=", b"c=",
    b"&", b";", b"%", b"%2e", b"=", b".", b"..", b"htu", b"htm", b"ath", b"jti", b"https://", b":443", b"\xff", b"\t",
)  # fmt: skip

TARGET = Target("tokens", INVARIANT, check, seeds, WORDS)
