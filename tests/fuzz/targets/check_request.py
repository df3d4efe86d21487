"""Any bytes put to `Check` give a CheckResponse with an explicit status, never an allow that deciding the request does
not allow, and never an exception.

More is asserted on the way: rules decide like the reference evaluator, nobody is authenticated by anything but what was
made for it, and none of our own headers passes in from the client.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from cryptography.hazmat.primitives import hashes
from google.protobuf.message import DecodeError

from tests.fakes.check import RecordingObserver
from tests.fakes.snapshots import FixedSnapshot
from tests.fuzz import material
from tests.fuzz.oracle import agrees_with_reference, identity_is_original, known_claims, read_answer
from tests.fuzz.target import Target
from tests.support.check_requests import check_request
from tests.support.pki import FRONTEND, presented
from zta_authz._proto.ext_authz_pb2 import CheckRequest
from zta_authz.authorizer import Authorizer
from zta_authz.errors import Reason, Refused
from zta_authz.ext_authz.request import CheckRequestParser, parse_check_request
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.ext_authz.servicer import CheckServicer
from zta_authz.model.decision import Decision, Verdict
from zta_authz.model.options import Gateway, NamedWorkload, Options, Workload
from zta_authz.pdp.decide import evaluate
from zta_authz.pdp.explain import explain
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot

if TYPE_CHECKING:
    from random import Random

    from tests.fuzz.target import Change
    from zta_authz.model.request import RequestAttributes
    from zta_authz.ports import Metadata

INVARIANT = (
    "any bytes give a CheckResponse with an explicit status, an allow only where deciding the request allows, and "
    "never an exception"
)
_RECORDED = Path(__file__).parents[2] / "e2e" / "recorded"

RULES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: ["/admin", "/admin/*", "/vault/{**}"]}}]
  - to: [{operation: {hosts: ["secret.example.com"], notMethods: ["HEAD"]}}]
  - when: [{key: "request.headers[x-role]", values: ["banned", "root*"]}]
  - when: [{key: "request.auth.claims[groups]", values: ["suspended"]}]
  - from: [{source: {ipBlocks: ["192.0.2.0/24"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow}
spec:
  rules:
  - from: [{source: {principals: ["cluster.local/ns/default/sa/frontend"]}}]
    to: [{operation: {methods: ["GET", "POST"], paths: ["/orders", "/orders/*", "/{*}/items"]}}]
  - from: [{source: {requestPrincipals: ["https://issuer.example/alice"], remoteIpBlocks: ["10.0.0.0/8"]}}]
  - from: [{source: {namespaces: ["default"]}}]
    when: [{key: "connection.sni", values: ["*.example.com"]}]
  - when:
    - {key: "request.headers[x-a]", values: ["v1"], notValues: ["v2"]}
    - {key: "experimental.envoy.filters.f[k]", values: ["[admin]", "[re*]"]}
"""
_KEYS = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt}}
spec:
  jwtRules:
  - issuer: {material.ISSUER}
    jwks: '{material.jwks()}'
    fromHeaders: [{{name: authorization, prefix: "Bearer "}}, {{name: x-token}}]
    fromParams: [t]
    fromCookies: [c]
    outputClaimToHeaders: [{{header: x-user, claim: sub}}]
---
apiVersion: zta.dev/v1
kind: TrustBundle
metadata: {{name: local}}
spec:
  trustDomain: cluster.local
  x509Authorities: |
{material.trust_bundle().replace("-----BEGIN", "    -----BEGIN", 1).replace(chr(10), chr(10) + "    ").rstrip()}
"""


@dataclass(frozen=True)
class Service:
    """One configuration of the whole decision path; `slow` are its rules where the reference evaluator can decide by them."""

    snapshot: Snapshot
    slow: list[dict[str, Any]] | None
    observer: RecordingObserver = field(default_factory=RecordingObserver)

    @functools.cached_property
    def servicer(self) -> CheckServicer:
        """What answers."""
        return CheckServicer(
            Authorizer(
                CheckRequestParser().parse,
                ResponseEncoder().encode,
                FixedSnapshot(self.snapshot),
                _NoRecord(),
                self.observer,
            )
        )

    def hold(self, payload: bytes) -> None:
        """Put `payload` to the service and judge the answer."""
        answer = self.servicer.check(payload)
        event = self.observer.events.pop()
        request, expected = _reference(self.snapshot, payload, event.started_ns / 1e9)
        assert read_answer(answer, request) is event.decision.allowed
        if expected.allowed and not event.decision.allowed:  # whom no header can name is told as a denial
            assert event.decision.reason is Reason.PEER_CERTIFICATE_MALFORMED
            assert not expected.identity.principal.isprintable()
        else:
            assert (event.decision.verdict, event.decision.reason) == (expected.verdict, expected.reason)
        assert self.servicer.internal_errors == 0
        if request is None:
            return
        identity_is_original(expected, known_claims(), _CERTIFICATES)
        if self.slow is not None:
            agrees_with_reference(self.slow, self.snapshot, request, expected)


class _NoRecord:
    def record(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
        table_digest: str = "",
    ) -> bool:
        del request, decision, decision_id, now
        return True


def _reference(snapshot: Snapshot, payload: bytes, now: float) -> tuple[RequestAttributes | None, Decision]:
    """The decision on the parsed request, without the servicer; its explanation must say the same."""
    try:
        request, evidence = parse_check_request(payload)
    except Refused as refused:
        return None, Decision(Verdict.DENY, refused.reason)
    decision = evaluate(snapshot, request, evidence, now)
    assert explain(snapshot, request, evidence, now).decision.reason is decision.reason
    return request, decision


_CERTIFICATES = {
    certificate.fingerprint(hashes.SHA256()): uri
    for certificate, uri in ((material.frontend(), FRONTEND), (material.orders(), material.ORDERS))
}


@functools.cache
def services() -> tuple[Service, ...]:
    """The strict reading, Istio's, and a service that decides for many workloads with all that our own kinds add."""
    slow = list(yaml.safe_load_all(RULES))
    shared = Options(
        workloads=(NamedWorkload(FRONTEND, Workload("default", {"app": "shop"})),),
        gateways=(Gateway("unix", ("default", "team-*")),),
    )
    extra = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: extra}
spec:
  action: ALLOW
  rules:
  - condition: >-
      request.path.startsWith('/orders') && 'x-a' in request.headers && request.headers['x-a'] != 'v2'
    response: {headers: {set: [{name: x-team, value: shop}, {name: x-who, claim: sub}], remove: [x-debug]}}
"""
    texts = [(Options(), RULES, slow), (Options.istio(), RULES, slow), (shared, RULES + "---" + extra, None)]
    return tuple(
        Service(compile_snapshot([SourceText("rules.yaml", rules), SourceText("keys.yaml", _KEYS)], options), documents)
        for options, rules, documents in texts
    )


def check(data: bytes) -> None:
    """Put the bytes to every service."""
    for service in services():
        service.hold(data)


def request_bytes(*headers: tuple[str, bytes], certificate: str = "", sni: str = "", **http: str) -> bytes:
    """A CheckRequest of the frontend."""
    message = check_request(headers, **http)
    message.attributes.source.certificate = certificate
    message.attributes.tls_session.sni = sni
    return message.SerializeToString()


def seeds() -> dict[str, bytes]:
    """What the real Envoy sent, and requests that reach every rule."""
    token = material.token().encode()
    leaf = presented(material.frontend())
    joined = check_request(path="/orders")
    joined.attributes.request.http.headers.update({"x-role": "banned,x", "x-a": "v1"})
    metadata = check_request([("x-a", b"v1")])
    held = metadata.attributes.metadata_context.filter_metadata["envoy.filters.f"]
    held.fields["k"].list_value.values.add().string_value = "admin"
    shared = check_request(path="/orders")
    shared.attributes.context_extensions.update({"namespace": "team-a", "app": "shop"})
    return {
        **{path.stem: path.read_bytes() for path in _RECORDED.glob("*.bin")},
        "allowed-peer": request_bytes(certificate=leaf, path="/orders/7", sni="a.example.com"),
        "orders-chain": request_bytes(certificate=presented(material.orders(), material.intermediate()), path="/orders"),
        "stranger": request_bytes(certificate=presented(material.stranger()), path="/orders"),
        "allowed-token": request_bytes(("authorization", b"Bearer " + token), ("x-forwarded-for", b"10.1.2.3")),
        "token-everywhere": request_bytes(("x-token", token), ("cookie", b"c=" + token), path=f"/?t={token.decode()}"),
        "forged-headers": request_bytes(("x-zta-principal", b"spiffe://x"), ("x_zta_role", b"root"), certificate=leaf, path="/orders"),
        "denied-path": request_bytes(certificate=leaf, path="/admin/x"),
        "grpc": request_bytes(("content-type", b"application/grpc"), method="POST", path="/orders/Buy", certificate=leaf),
        "joined": joined.SerializeToString(),
        "metadata": metadata.SerializeToString(),
        "shared": shared.SerializeToString(),
        "empty": b"",
    }  # fmt: skip


WORDS = (
    b"/admin", b"/orders", b"/vault/", b"%2e", b"//", b"/../", b";", b"x-role", b"banned", b"x-a", b"v1", b"x-token",
    b"authorization", b"Bearer ", b"cookie", b"c=", b"x-zta-principal", b"x_zta_decision_id", b"secret.example.com",
    b"spiffe://cluster.local/ns/default/sa/frontend", b"x-forwarded-for", b"10.0.0.1", b":path", b":authority",
    b"envoy.filters.f", b"GET", b"OPTIONS", b"CONNECT",
)  # fmt: skip


def within(data: bytes, random: Random, change: Change) -> bytes:
    """The CheckRequest with one of its texts changed; other bytes changed as they are."""
    try:
        message = CheckRequest.FromString(data)
    except DecodeError:
        return change(data)
    attributes = message.attributes
    lines = attributes.request.http.header_map.headers
    if lines and random.random() < 0.5:
        line = random.choice(lines)
        if random.random() < 0.3:
            line.key = change(line.key.encode()).decode("utf-8", "replace")
        else:
            line.raw_value = change(line.raw_value)
        return message.SerializeToString()
    http, source = attributes.request.http, attributes.source
    holder, name = random.choice((
        (http, "path"), (http, "path"), (http, "host"), (http, "method"), (source, "principal"), (source, "certificate"),
        (attributes.tls_session, "sni"), (source.address.socket_address, "address"), (attributes.destination, "principal"),
    ))  # fmt: skip
    setattr(holder, name, change(getattr(holder, name).encode()).decode("utf-8", "replace"))
    return message.SerializeToString()


TARGET = Target("check_request", INVARIANT, check, seeds, WORDS, within)
