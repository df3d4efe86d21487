"""Keys, tokens and certificates of the differential test, made when it runs: nothing secret is stored.

Issuer `a` signs with ES256 and gives its key a `kid`, issuer `b` with RS256 and gives none. In some of `a`'s key sets are
keys of other types, which then may sign, too.
"""

from __future__ import annotations

import base64
import datetime
import hmac
import ipaddress
import json
import secrets
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.differential.case import Peer

ISSUERS = {"a": "https://issuer-a.example", "b": "issuer-b"}
_SUBJECT_OIDS = {"CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int, size: int) -> str:
    return _b64(value.to_bytes(size, "big"))


_CURVES: dict[str, tuple[str, type[ec.EllipticCurve]]] = {"c": ("P-384", ec.SECP384R1), "d": ("P-521", ec.SECP521R1)}


@cache
def _ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(_CURVES.get(name, ("P-256", ec.SECP256R1))[1]())


@cache
def _ed25519_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@cache
def _secret() -> bytes:
    return secrets.token_bytes(64)


@cache
def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def ed25519_jwk() -> dict[str, Any]:
    """The public Ed25519 key, without `kid` and `alg`."""
    public = _ed25519_key().public_key()
    return {"kty": "OKP", "crv": "Ed25519", "x": _b64(public.public_bytes_raw())}


@cache
def ec_jwk(name: str) -> dict[str, Any]:
    """The public elliptic curve key `name` (P-256, or the curve of `_CURVES`), without `kid` and `alg`."""
    private = _ec_key(name)
    point, size = private.public_key().public_numbers(), (private.key_size + 7) // 8
    curve = _CURVES.get(name, ("P-256",))[0]
    return {"kty": "EC", "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}


def _every_key() -> list[dict[str, Any]]:
    """A key of each type and curve, all with `kid` but the RSA key."""
    return [
        rsa_jwk(),
        *({**ec_jwk(name), "kid": f"key-{name}"} for name in "acd"),
        {"kty": "oct", "k": _b64(_secret()), "kid": "key-h"},
        {**ed25519_jwk(), "kid": "key-o"},
    ]


@cache
def rsa_jwk() -> dict[str, Any]:
    """The public key of issuer `b`, without `kid` and `alg`."""
    public = _rsa_key().public_key().public_numbers()
    return {"kty": "RSA", "n": _number(public.n, 256), "e": _number(public.e, 3)}


@cache
def jwks(name: str) -> str:
    """The key set `name` (one of `KEY_SETS`) as JSON text: the issuer's letter, and what is special about the set."""
    keys = KEY_SETS[name]()
    return json.dumps(keys if isinstance(keys, dict) else {"keys": keys})


def _rsa_certificate() -> str:
    builder = _builder(_name((("CN", "issuer b"),))).public_key(_rsa_key().public_key())
    return _pem(builder.sign(_ec_key("ca"), hashes.SHA256()))


KEY_SETS: dict[str, Callable[[], list[Any] | dict[str, str]]] = {
    "a": lambda: [{**ec_jwk("a"), "kid": "key-a"}],
    "a-no-kid": lambda: [ec_jwk("a")],
    "a-alg": lambda: [{**ec_jwk("a"), "kid": "key-a", "alg": "ES256", "use": "sig", "key_ops": ["verify"]}],
    "a-empty-alg": lambda: [{**ec_jwk("a"), "kid": "", "alg": ""}],
    "a-same-kid": lambda: [{**ec_jwk("other"), "kid": "key-a"}, {**ec_jwk("a"), "kid": "key-a"}],
    "a-other-kid": lambda: [{**ec_jwk("a"), "kid": "another"}],
    "a-unknown-types": lambda: [{"kty": "LMS", "kid": "key-a"}, {**ec_jwk("a"), "kid": "key-a", "x-more": {"y": [1]}}],
    "a-x5c": lambda: [{**ec_jwk("a"), "kid": "key-a", "x5c": ["AAAA"], "x5t": "AAAA"}],
    "a-padded": lambda: [{**ec_jwk("a"), "kid": "key-a", "x": ec_jwk("a")["x"] + "="}],
    "a-every-key": _every_key,
    "a-every-key-without-kid": lambda: [
        {name: value for name, value in key.items() if name != "kid"} for key in _every_key()
    ],
    "a-all-types": lambda: [ed25519_jwk(), rsa_jwk(), ec_jwk("other"), ec_jwk("a")],
    "enc": lambda: [{**ec_jwk("a"), "kid": "key-a", "use": "enc"}, {**ec_jwk("other"), "kid": "key-o"}],
    "b": lambda: [rsa_jwk()],
    "b-kid": lambda: [{**rsa_jwk(), "kid": "key-b"}],
    "b-alg": lambda: [{**rsa_jwk(), "alg": "RS256"}],
    "b-other-alg": lambda: [{**rsa_jwk(), "alg": "PS256"}],
    "b-behind-okp": lambda: [ed25519_jwk(), rsa_jwk()],
    "b-behind-okp-alg": lambda: [{**ed25519_jwk(), "alg": "EdDSA"}, rsa_jwk()],
    "b-before-okp": lambda: [rsa_jwk(), ed25519_jwk()],
    "b-behind-ec": lambda: [ec_jwk("a"), rsa_jwk()],
    "b-certificates": lambda: {"key-b": _rsa_certificate(), "key-c": _rsa_certificate()},
}


_SIGNERS: dict[str, tuple[str, str | None]] = {
    "a": ("ES256", "key-a"),
    "b": ("RS256", None),
    "c": ("ES384", "key-c"),
    "d": ("ES512", "key-d"),
    "h": ("HS256", "key-h"),
    "o": ("EdDSA", "key-o"),
}
"""Who signs: by its letter, the algorithm and the `kid` that its tokens name."""
_BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}


def _signature(key: str, algorithm: str, signed: bytes) -> bytes:
    digest = _HASHES.get(algorithm[2:], hashes.SHA256)()
    if key == "o":
        return _ed25519_key().sign(signed)
    if key == "h":
        return hmac.digest(_secret(), signed, digest.name)
    if key == "b":
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
        return _rsa_key().sign(signed, pss if algorithm.startswith("PS") else padding.PKCS1v15(), digest)
    private = _ec_key(key)
    r, s = decode_dss_signature(private.sign(signed, ec.ECDSA(digest)))
    size = (private.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def sign(token: dict[str, Any]) -> str:
    """The JWT that `token` describes.

    `key` is whose key signs, `alg` with which algorithm where it is not the usual one; `header` is merged into the
    header (null removes); `claims` is the payload, in which `{"now": N}` stands for the time of signing plus N seconds;
    `text` is the whole token as it is; `damage` is "signature" or "truncated".

    How the JSON is written: `header_json` and `claims_json` are it instead; `header_more` and `claims_more` are members
    put behind the others, `header_frame` and `claims_frame` two texts around it; `style` is "escaped", "spaced" or
    "utf-8". In all of these characters stand for bytes (latin-1). `tails` are put behind the three segments, the
    signature being made over what stands there; in the segments of `slack` (numbers) the bits that are left over in the
    last character are set.
    """
    if "text" in token:
        return str(token["text"])
    key = token.get("key", "a")
    usual, kid = _SIGNERS[key]
    algorithm = token.get("alg", usual)
    head: dict[str, Any] = {"alg": algorithm, "kid": kid}
    head.update(token.get("header", {}))
    head = {name: value for name, value in head.items() if value is not None}
    claims = token.get("claims", {})
    if isinstance(claims, dict):
        claims = {name: _at(value) for name, value in claims.items()}
    tails, slack = token.get("tails", ("", "", "")), token.get("slack", ())
    texts = (_written(token, "header", head), _written(token, "claims", claims))
    segments = [_b64(text.encode("latin-1")) for text in texts]
    segments = [_with_slack(each) if number in slack else each for number, each in enumerate(segments)]
    signed = ".".join(segment + tail for segment, tail in zip(segments, tails[:2], strict=True))
    signature = bytearray(_signature(key, algorithm, signed.encode()))
    if token.get("damage") == "signature":
        signature[-5] ^= 1
    if token.get("damage") == "truncated":
        return signed
    last = _b64(bytes(signature))
    return f"{signed}.{_with_slack(last) if 2 in slack else last}{tails[2]}"


def _with_slack(segment: str) -> str:
    """The same bytes in base64url, with the left-over bits of the last character set; as it is where there are none."""
    spare = {2: 15, 3: 3}.get(len(segment) % 4, 0)
    last = _BASE64URL.index(segment[-1]) | spare if segment else 0
    return segment[:-1] + _BASE64URL[last] if segment else segment


def _written(token: dict[str, Any], part: str, value: Any) -> str:
    """The JSON of one part as text whose characters stand for bytes."""
    style = token.get("style")
    blanks = (" ,\t", "\r\n: ") if style == "spaced" else None
    text = (
        _escaped(value) if style == "escaped" else json.dumps(value, separators=blanks, ensure_ascii=style != "utf-8")
    )
    text = str(token.get(f"{part}_json", text.encode().decode("latin-1")))
    more = token.get(f"{part}_more")
    if more and text.endswith("}"):
        text = f"{text[:-1]}{'' if text == '{}' else ','}{more}}}"
    before, behind = token.get(f"{part}_frame", ("", ""))
    return f"{before}{text}{behind}"


def _escaped(value: Any) -> str:
    """`value` as JSON in which each character of each text is an escape."""
    if isinstance(value, str):
        units = value.encode("utf-16-be", "surrogatepass").hex()
        return '"' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + '"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{_escaped(name)}:{_escaped(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_escaped, value)) + "]"
    return json.dumps(value)


def _at(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"now"}:
        return int(time.time()) + int(value["now"])
    return value


_START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_END = datetime.datetime(2090, 1, 1, tzinfo=datetime.UTC)


def _builder(subject: x509.Name) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_name((("CN", "differential CA"),)))
        .serial_number(x509.random_serial_number())
        .not_valid_before(_START)
        .not_valid_after(_END)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(attributes: tuple[tuple[str, str], ...]) -> x509.Name:
    return x509.Name([x509.NameAttribute(_SUBJECT_OIDS[kind], value) for kind, value in attributes])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@cache
def ca_pem() -> str:
    """The certificate authority of servers and clients."""
    key = _ec_key("ca")
    builder = _builder(_name((("CN", "differential CA"),))).public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return _pem(builder.sign(key, hashes.SHA256()))


@cache
def key_pem() -> str:
    """The one private key behind every server and client certificate."""
    return (
        _ec_key("leaf")
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )


def certificate_pem(peer: Peer) -> str:
    """A leaf certificate with the names of `peer`, signed by the authority."""
    builder = _builder(_name(peer.subject)).public_key(_ec_key("leaf").public_key())
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in peer.uris]
    names += [x509.DNSName(name) for name in peer.dns]
    names += [x509.RFC822Name(name) for name in peer.emails]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in peer.ips]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not peer.subject)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    return _pem(builder.sign(_ec_key("ca"), hashes.SHA256()))
