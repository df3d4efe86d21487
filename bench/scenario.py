"""The scenario of the benchmarks: a policy set, a caller with an X.509-SVID and optionally a token, and its request.

Authorities, certificates and keys are made for each run.
"""

from __future__ import annotations

import datetime
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jwt.algorithms import RSAAlgorithm

from zta_authz._proto.ext_authz_pb2 import CheckRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FRONTEND = "spiffe://cluster.local/ns/default/sa/frontend"
ISSUER = "https://issuer.example"
CASES = ("principal", "svid", "token")
"""Caller identity: asserted by the proxy, by a verified certificate, or by a certificate and an RS256 token."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`config` is the service's settings file, `request` is the CheckRequest in bytes, which is allowed."""

    config: Path
    socket: Path
    request: bytes


def build(
    case: str, policies: int, directory: Path, server: str = "grpcio", claims: Mapping[str, object] | None = None
) -> Scenario:
    """Write settings for `server`, and `policies` policies including the deciding one, below `directory`.

    `claims` are added to those of the token.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    authority = certificate("authority", key, key)
    leaf = certificate(FRONTEND, ec.generate_private_key(ec.SECP256R1()), key)
    signing_key = rsa.generate_private_key(65537, 2048)
    documents = [policy(number) for number in range(policies - 1)] + [_deciding_policy(case)]
    documents.append(trust_bundle(authority))
    if case == "token":
        documents.append(request_authentication(signing_key))
    folder = directory / "policies"
    folder.mkdir()
    (folder / "policies.yaml").write_text("\n---\n".join(json.dumps(document) for document in documents))
    socket = directory / "authz.sock"
    config = directory / "config.yaml"
    config.write_text(json.dumps(_settings(case, folder, socket) | {"server": server}))
    presented = "" if case == "principal" else quote(leaf.public_bytes(Encoding.PEM).decode(), safe="")
    return Scenario(config, socket, _request(presented, _token(signing_key, claims or {}) if case == "token" else ""))


def _settings(case: str, folder: Path, socket: Path) -> dict[str, object]:
    return {
        "listen": [f"unix:{socket}"],
        "policies": [str(folder)],
        "workload": {"namespace": "default", "labels": {"app": "orders"}},
        "peer": {"trust_proxy": case == "principal"},
        "audit": {"sink": "stdout"},
        "health": {"listen": None},
    }


def policy(number: int) -> dict[str, object]:
    """Return a policy that does not decide: it has callers and paths of another team."""
    action = "DENY" if number % 5 == 0 else "ALLOW"
    principal = f"cluster.local/ns/team-{number}/sa/worker"
    to = [{"operation": {"methods": ["GET", "PUT"], "paths": [f"/team-{number}/*", f"/v{number}/orders"]}}]
    rule = {"from": [{"source": {"principals": [principal]}}], "to": to}
    return document("AuthorizationPolicy", f"team-{number}", {"action": action, "rules": [rule]})


def _deciding_policy(case: str) -> dict[str, object]:
    source: dict[str, list[str]] = {"principals": ["cluster.local/ns/default/sa/frontend"]}
    if case == "token":
        source["requestPrincipals"] = [f"{ISSUER}/alice"]
    rule = {"from": [{"source": source}], "to": [{"operation": {"methods": ["GET"], "paths": ["/orders/*"]}}]}
    return document("AuthorizationPolicy", "orders", {"action": "ALLOW", "rules": [rule]})


def request_authentication(key: rsa.RSAPrivateKey) -> dict[str, object]:
    """Return the JWT rule for tokens of `ISSUER` that are signed with `key`."""
    public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "1", "alg": "RS256", "use": "sig"}
    rule = {"issuer": ISSUER, "audiences": ["orders"], "jwks": json.dumps({"keys": [public]})}
    return document("RequestAuthentication", "orders", {"jwtRules": [rule]})


def document(kind: str, name: str, spec: dict[str, object]) -> dict[str, object]:
    """Return an Istio document for the orders workload."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "orders"}}} | spec,
    }


def trust_bundle(authority: x509.Certificate) -> dict[str, object]:
    """Return the bundle of cluster.local with one authority."""
    spec = {"trustDomain": "cluster.local", "x509Authorities": authority.public_bytes(Encoding.PEM).decode()}
    return {"apiVersion": "zta.dev/v1", "kind": "TrustBundle", "metadata": {"name": "cluster-local"}, "spec": spec}


def _token(key: rsa.RSAPrivateKey, more: Mapping[str, object]) -> str:
    claims = {"iss": ISSUER, "sub": "alice", "aud": "orders", "exp": int(time.time()) + 3600, "scope": "orders:read"}
    return jwt.encode({**claims, **more}, key, algorithm="RS256", headers={"kid": "1"})


def _request(certificate: str, token: str) -> bytes:
    """Return a CheckRequest as Envoy sends it with `encode_raw_headers`, padded by cookies to about 1.3 kB."""
    message = CheckRequest()
    attributes = message.attributes
    attributes.source.principal = FRONTEND
    attributes.source.certificate = certificate
    for peer, address, port in ((attributes.source, "10.0.0.1", 41234), (attributes.destination, "10.0.0.2", 8080)):
        peer.address.socket_address.address = address
        peer.address.socket_address.port_value = port
    attributes.destination.principal = "spiffe://cluster.local/ns/default/sa/orders"
    attributes.request.time.FromMilliseconds(int(time.time() * 1000))
    attributes.tls_session.sni = "orders.default.svc.cluster.local"
    http = attributes.request.http
    http.id, http.method, http.path, http.scheme = "1234567890123456789", "GET", "/orders/7?expand=items", "https"
    http.host, http.protocol = "orders.default.svc.cluster.local", "HTTP/2"
    headers = {
        ":authority": http.host,
        ":method": http.method,
        ":path": http.path,
        ":scheme": http.scheme,
        "accept": "*/*",
        "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0",
        "x-request-id": "5b3d6d5e-4f9b-4a84-9f0e-2b4d1d1b2c3d",
        "x-forwarded-proto": "https",
        "x-forwarded-for": "203.0.113.7,10.0.0.1",
        "cookie": "session=" + "c" * 400,
    }
    if token:
        headers["authorization"] = f"Bearer {token}"
    for name, value in headers.items():
        http.header_map.headers.add(key=name, raw_value=value.encode())
    return message.SerializeToString()


def certificate(name: str, key: ec.EllipticCurvePrivateKey, issuer_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Issue the authority if `key` signs itself, otherwise an X.509-SVID for the SPIFFE ID `name`."""
    is_authority = key is issuer_key
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(issuer if is_authority else x509.Name([]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_authority,
                key_cert_sign=is_authority,
                crl_sign=is_authority,
                decipher_only=False,
                **usage,
            ),
            critical=True,
        )
    )
    if not is_authority:
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False).add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), critical=True
        )
    else:
        trust_domain = x509.UniformResourceIdentifier("spiffe://cluster.local")
        builder = builder.add_extension(x509.SubjectAlternativeName([trust_domain]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
