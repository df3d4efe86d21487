"""Make the first checks before the service reports ready, since the first check is far slower than later ones.

Libraries import parts of themselves on first use (`cryptography` its backend: 45 to 200 ms on few processors and a cold
page cache), and a proxy waits 200 ms. So each process decides a few requests with made-up keys and policies, and
without records or metrics. Everything that a check can reach should be reached here.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from zta_authz._proto.ext_authz_pb2 import CheckRequest
from zta_authz.authn.encoding import base64url_encode
from zta_authz.authorizer import Authorizer
from zta_authz.ext_authz.request import CheckRequestParser
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.ext_authz.servicer import CheckServicer
from zta_authz.model.options import Options, Workload
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zta_authz.model.decision import Decision
    from zta_authz.model.request import RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.ports import CheckEvent, Metadata

_DOMAIN: Final = "warm.example"
_ISSUER: Final = "https://issuer.warm.example"
_NAME: Final = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "warm")])
_POLICIES: Final = """
apiVersion: zta.dev/v1
kind: TrustBundle
metadata: {{name: warm, namespace: istio-system}}
spec: {{trustDomain: {domain}, x509Authorities: {authority}}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: warm, namespace: default}}
spec: {{jwtRules: [{{issuer: "{issuer}", jwks: {keys}, outputClaimToHeaders: [{{header: x-sub, claim: sub}}]}}]}}
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: warm, namespace: default}}
spec:
  action: ALLOW
  rules:
  - from: [{{source: {{requestPrincipals: ["{issuer}/*"], principals: ["{domain}/*"]}}}}]
    to: [{{operation: {{methods: [GET], paths: ["/warm/*"]}}}}]
    condition: request.path.startsWith("/warm") && request.headers["x-warm"].matches("^[a-z]+$")
"""


class _NullObserver:
    """Neither records nor observes."""

    def record(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
        table_digest: str = "",
    ) -> bool:
        """Report the record as written."""
        return True

    def begin(self, metadata: Sequence[tuple[str, str | bytes]]) -> Stages | None:
        """Measure nothing."""
        return None

    def observe(self, event: CheckEvent) -> None:
        """Count nothing."""


class _Fixture:
    """Made-up policies, and the credentials of a caller that they allow."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)
        authority, leaf, self._signer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        root = self._certificate(authority, authority, x509.UniformResourceIdentifier(f"spiffe://{_DOMAIN}"), ca=True)
        uri = x509.UniformResourceIdentifier(f"spiffe://{_DOMAIN}/ns/default/sa/warm")
        self._peer = quote(_pem(self._certificate(leaf, authority, uri, ca=False)))
        policies = _POLICIES.format(
            domain=_DOMAIN, issuer=_ISSUER, authority=json.dumps(_pem(root)), keys=json.dumps(json.dumps(self._keys()))
        )
        self.snapshot: Snapshot | None = compile_snapshot([SourceText("warm", policies)], Options(workload=Workload()))

    def _certificate(
        self,
        key: ec.EllipticCurvePrivateKey,
        issuer: ec.EllipticCurvePrivateKey,
        uri: x509.UniformResourceIdentifier,
        *,
        ca: bool,
    ) -> x509.Certificate:
        hour = timedelta(hours=1)
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        return (
            x509.CertificateBuilder(_NAME, _NAME, key.public_key(), x509.random_serial_number())
            .not_valid_before(self._now - hour)
            .not_valid_after(self._now + hour)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
            .add_extension(usage, critical=True)
            .sign(issuer, hashes.SHA256())
        )

    def _keys(self) -> dict[str, object]:
        numbers = self._signer.public_key().public_numbers()
        x, y = (base64url_encode(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        return {"keys": [{"kty": "EC", "crv": "P-256", "kid": "warm", "use": "sig", "alg": "ES256", "x": x, "y": y}]}

    def _token(self) -> str:
        claims = {"iss": _ISSUER, "sub": "warm", "exp": int(time.time()) + 60}
        head, body = (
            base64url_encode(json.dumps(part).encode())
            for part in ({"alg": "ES256", "kid": "warm", "typ": "JWT"}, claims)
        )
        signed = self._signer.sign(f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(signed)
        return f"{head}.{body}.{base64url_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def requests(self) -> Iterator[bytes]:
        """Yield a request that is allowed, one without credentials, and one that can't be parsed."""
        for path, token, peer in (("/warm/a", self._token(), self._peer), ("/", "", "")):
            request = CheckRequest()
            request.attributes.source.certificate = peer
            request.attributes.request.http.method = "GET"
            request.attributes.request.http.path = path
            request.attributes.request.http.host = "warm.example"
            request.attributes.request.http.scheme = "https"
            request.attributes.request.http.headers["x-warm"] = "yes"
            if token:
                request.attributes.request.http.headers["authorization"] = f"Bearer {token}"
            yield request.SerializeToString()
        yield b"\xff"


def warm_up() -> list[bytes]:
    """Make the first checks and return their answers, in about 20 ms if warm. Raises the exceptions of bugs in it."""
    fixture, observer = _Fixture(), _NullObserver()
    servicer = CheckServicer(
        Authorizer(CheckRequestParser().parse, ResponseEncoder().encode, fixture, observer, observer)
    )
    return [servicer.check(request) for request in fixture.requests()]


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
