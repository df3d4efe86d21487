"""Creates credentials for tests: authorities, and X.509-SVIDs and JWTs with any defect.

All keys are generated at run time and protect nothing. `NOW` is the current time in tests.
"""

from __future__ import annotations

import base64
import datetime
import functools
import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from zta_authz.model.documents import Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NOW = 1_800_000_000.0
HOUR = 3600.0
HERE = Position("test.yaml", 7, 3)
FRONTEND = "spiffe://cluster.local/ns/default/sa/frontend"

Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@functools.cache
def private_key(kind: str = "P-256", number: int = 0) -> PrivateKey:
    """The `number`th key of `kind`: `P-256`, `P-384`, `P-521`, `P-224`, `Ed25519` or `RSA-<bits>`; cached, because RSA is slow."""
    del number  # only tells keys apart
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("RSA-"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))
    curves: dict[str, Callable[[], ec.EllipticCurve]]
    curves = {"P-224": ec.SECP224R1, "P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
    return ec.generate_private_key(curves[kind]())


@functools.cache
def long_exponent_key(bits: int = 3072) -> rsa.RSAPrivateKey:
    """A valid signing key, with a public exponent about as long as its modulus."""
    numbers = rsa.generate_private_key(65537, bits).private_numbers()
    p, q = numbers.p, numbers.q
    totient = (p - 1) * (q - 1)
    exponent = next(exponent for exponent in range(2 ** (bits - 2) + 1, 2**bits, 2) if math.gcd(exponent, totient) == 1)
    d = pow(exponent, -1, totient)
    public = rsa.RSAPublicNumbers(exponent, p * q)
    made = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), numbers.iqmp, public)
    return made.private_key(unsafe_skip_rsa_key_validation=True)


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def name(text: str) -> x509.Name:
    """A subject with the one common name `text`; an empty subject for ""."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def key_usage(**on: bool) -> x509.KeyUsage:
    """Key usage with only the bits named in `on`."""
    bits = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**(bits | on))


SIGNS = key_usage(digital_signature=True)
CERTIFIES = key_usage(key_cert_sign=True, crl_sign=True)
BOTH_SIDES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])


@dataclass(frozen=True)
class Profile:
    """The fields of a certificate. The default is a valid SVID of the frontend, an hour old and valid for another.

    `extra` are further extensions as (value, critical); `basic` None leaves basic constraints out, as does `usage`.
    """

    uris: tuple[str, ...] = (FRONTEND,)
    dns: tuple[str, ...] = ()
    subject: str | x509.Name = ""
    not_before: float = NOW - HOUR
    not_after: float = NOW + HOUR
    key: PrivateKey = field(default_factory=private_key)
    digest: Digest = field(default_factory=hashes.SHA256)
    basic: x509.BasicConstraints | None = x509.BasicConstraints(ca=False, path_length=None)  # noqa: RUF009
    usage: x509.KeyUsage | None = SIGNS
    purposes: x509.ExtendedKeyUsage | None = BOTH_SIDES
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()


CA_PROFILE = Profile(
    uris=(),
    not_after=NOW + 100 * HOUR,
    not_before=NOW - 100 * HOUR,
    basic=x509.BasicConstraints(ca=True, path_length=None),
    usage=CERTIFIES,
    purposes=None,
)


@dataclass(frozen=True)
class Authority:
    """A CA: its certificate and the key that signs. `above` are the intermediates between it and its root."""

    certificate: x509.Certificate
    key: PrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> str:
        """The certificate in PEM."""
        return pem(self.certificate)

    def issue(self, profile: Profile | None = None, **changed: Any) -> x509.Certificate:
        """Issue a certificate of `profile` (by default a valid SVID) with the fields in `changed`."""
        return _mint(replace(profile or Profile(), **changed), self.certificate.subject, self.key)

    def intermediate(self, label: str, **changed: Any) -> Authority:
        """A CA under this one."""
        key = changed.setdefault("key", private_key("P-256", hash(label)))
        certificate = self.issue(CA_PROFILE, **({"subject": label} | changed))
        return Authority(certificate, key, (certificate, *self.above))


def root(label: str = "root", **changed: Any) -> Authority:
    """A self-signed CA with the common name `label`; `changed` are fields of its profile."""
    profile = replace(CA_PROFILE, **({"subject": label, "key": private_key("P-256", hash(label))} | changed))
    subject = profile.subject if isinstance(profile.subject, x509.Name) else name(profile.subject)
    return Authority(_mint(profile, subject, profile.key), profile.key)


def _mint(profile: Profile, issuer: x509.Name, signer: PrivateKey) -> x509.Certificate:
    subject = profile.subject if isinstance(profile.subject, x509.Name) else name(profile.subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(profile.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(profile.not_before))
        .not_valid_after(_time(profile.not_after))
    )
    names = [*map(x509.UniformResourceIdentifier, profile.uris), *map(x509.DNSName, profile.dns)]
    extensions: list[tuple[x509.ExtensionType | None, bool]] = [
        (x509.SubjectAlternativeName(names) if names else None, not list(subject)),
        (profile.basic, True),
        (profile.usage, True),
        (profile.purposes, False),
        *profile.extra,
    ]
    for value, critical in extensions:
        if value is not None:
            builder = builder.add_extension(value, critical)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else profile.digest
    return builder.sign(signer, digest)


_RSA_SHA256 = bytes.fromhex("06092a864886f70d01010b")
_RSA_SHA1 = bytes.fromhex("06092a864886f70d010105")


def with_sha1(certificate: x509.Certificate, signer: PrivateKey) -> x509.Certificate:
    """Replace an RSA signature with SHA-256 by one with SHA-1, which no library creates."""
    assert isinstance(signer, rsa.RSAPrivateKey)
    der = certificate.public_bytes(Encoding.DER).replace(_RSA_SHA256, _RSA_SHA1)
    signed = x509.load_der_x509_certificate(der).tbs_certificate_bytes
    signature = signer.sign(signed, padding.PKCS1v15(), hashes.SHA1())
    return x509.load_der_x509_certificate(der[: -len(signature)] + signature)


def with_negative_serial(certificate: x509.Certificate) -> bytes:
    """The certificate in DER with a negative serial number, which RFC 5280 forbids."""
    der, number = certificate.public_bytes(Encoding.DER), certificate.serial_number
    encoded = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return der.replace(encoded, bytes((encoded[0] | 0x80,)) + encoded[1:], 1)


_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def twin(certificate: x509.Certificate) -> x509.Certificate:
    """The other encoding of a certificate signed by a P-256 key, with the signature (r, n - s)."""
    r, s = decode_dss_signature(certificate.signature)
    return _with_signature(certificate, encode_dss_signature(r, _P256_ORDER - s))


def with_unused_bits(certificate: x509.Certificate) -> x509.Certificate:
    """The certificate with its signature's last bit, which must be zero, declared unused."""
    assert certificate.signature[-1] % 2 == 0
    return _with_signature(certificate, certificate.signature, unused=1)


def _with_signature(certificate: x509.Certificate, signature: bytes, unused: int = 0) -> x509.Certificate:
    der, old = certificate.public_bytes(Encoding.DER), certificate.signature
    assert (der[1], len(signature) < 120) == (0x82, True), "only this form of the outer length is supported"
    body = der[4 : -len(old) - 3] + bytes((3, len(signature) + 1, unused)) + signature
    return x509.load_der_x509_certificate(b"\x30\x82" + len(body).to_bytes(2, "big") + body)


def pem(*certificates: x509.Certificate) -> str:
    """The certificates in PEM, concatenated."""
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def presented(*certificates: x509.Certificate) -> str:
    """The certificates as Envoy sends them in `source.certificate`: URL-encoded PEM."""
    return quote(pem(*certificates), safe="")


def xfcc(*chain: x509.Certificate) -> str:
    """An x-forwarded-client-cert value with `Chain`, as Envoy writes it."""
    return f'Hash={"0" * 64};Chain="{presented(*chain)}";Subject="";URI={FRONTEND}'


def b64(data: bytes | str) -> str:
    """base64url without padding."""
    raw = data if isinstance(data, bytes) else data.encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class Signer:
    """A token issuer's key with its `alg` and `kid` ("" for none)."""

    alg: str = "ES256"
    kid: str = "k1"
    kind: str = "P-256"
    number: int = 1000
    secret: bytes = b""

    @property
    def key(self) -> Any:
        """The private key or secret."""
        return self.secret or private_key(self.kind, self.number)

    def jwk(self, **changed: Any) -> dict[str, Any]:
        """The public JWK (for a secret, the secret JWK) with the members in `changed`; None removes a member."""
        if self.secret:
            jwk: dict[str, Any] = {"kty": "oct", "k": b64(self.secret)}
        else:
            public = private_key(self.kind, self.number).public_key()
            algorithm: Any = {"R": RSAAlgorithm, "E": OKPAlgorithm}.get(self.kind[0], ECAlgorithm)
            jwk = dict(algorithm.to_jwk(public, as_dict=True))
        jwk.pop("key_ops", None)
        if self.kid:
            jwk["kid"] = self.kid
        jwk |= changed
        return {member: value for member, value in jwk.items() if value is not None}

    def sign(self, message: bytes, alg: str = "") -> bytes:
        """The signature over `message`."""
        algorithm = jwt.get_algorithm_by_name(alg or self.alg)
        return algorithm.sign(message, self.key)

    def token(self, header: dict[str, Any] | str | None = None, **claims: Any) -> str:
        """A token with `default_claims`, changed by `claims` (None removes a claim), and header members `header`.

        A `header` given as text is used unchanged. The signature is valid for any header.
        """
        if not isinstance(header, str):
            members = {"alg": self.alg, "typ": "JWT"} | ({"kid": self.kid} if self.kid else {}) | (header or {})
            header = json.dumps({member: value for member, value in members.items() if value is not None})
        body = {claim: value for claim, value in (default_claims() | claims).items() if value is not None}
        return self.compact(header, json.dumps(body))

    def compact(self, header: str | bytes, payload: str | bytes) -> str:
        """Sign a token of exactly these texts."""
        message = f"{b64(header)}.{b64(payload)}"
        return f"{message}.{b64(self.sign(message.encode()))}"


ISSUER = "https://issuer.example"
AUDIENCE = "hatshop"


def default_claims() -> dict[str, Any]:
    """The claims of a token that is valid at `NOW`."""
    return {"iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "iat": NOW - 60, "exp": NOW + HOUR}


def jwks(keys: Iterable[dict[str, Any]] | Sequence[Signer] = (Signer(),)) -> str:
    """A JWKS document of these keys."""
    return json.dumps({"keys": [key.jwk() if isinstance(key, Signer) else key for key in keys]})
