"""Measure the cost of verifying identity: no credentials, an X.509-SVID, an SVID with an RS256 token; warm and cold.

Warm is every request of a caller except its first: signatures are cached, but time, audience, revocation and binding
are checked on each call. Cold is the first request, compared with the signature check alone. `--tokens N` decides on N
distinct tokens and shows the memory of the process.
"""

from __future__ import annotations

import argparse
import base64
import gc
import json
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from bench import scenario
from zta_authz.model.options import Options, Workload
from zta_authz.model.request import NO_EVIDENCE, Evidence, Headers, RequestAttributes
from zta_authz.pdp.decide import evaluate
from zta_authz.pdp.snapshot import SourceText, compile_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.x509 import Certificate

    from zta_authz.pdp.snapshot import Snapshot

TARGET_US = 15.0
_ROUNDS = 51
_CALLS = 200
_COLD = 60
_POLICIES = 1000
_EVERYBODY = {"action": "ALLOW", "rules": [{}]}


@dataclass(frozen=True, slots=True)
class World:
    """A snapshot with rules and keys, and the keys that sign credentials for it."""

    snapshot: Snapshot
    authority: Certificate
    authority_key: ec.EllipticCurvePrivateKey
    token_key: rsa.RSAPrivateKey

    def certificate(self) -> Certificate:
        """Issue an SVID for the frontend with a new key."""
        return scenario.certificate(scenario.FRONTEND, ec.generate_private_key(ec.SECP256R1()), self.authority_key)

    def token(self, number: int) -> str:
        """Issue a unique RS256 token."""
        claims = {"iss": scenario.ISSUER, "sub": "alice", "aud": "orders", "exp": int(time.time()) + 3600, "n": number}
        return jwt.encode(claims, self.token_key, algorithm="RS256", headers={"kid": "1"})


def _world() -> World:
    authority_key, token_key = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    authority = scenario.certificate("authority", authority_key, authority_key)
    documents = [scenario.policy(number) for number in range(_POLICIES)]
    documents.append(scenario.document("AuthorizationPolicy", "everybody", _EVERYBODY))
    documents += [scenario.trust_bundle(authority), scenario.request_authentication(token_key)]
    return World(_compiled(documents), authority, authority_key, token_key)


def _compiled(documents: list[dict[str, object]]) -> Snapshot:
    text = "\n---\n".join(json.dumps(document) for document in documents)
    return compile_snapshot([SourceText("bench.yaml", text)], Options(workload=Workload(labels={"app": "orders"})))


def _request(token: str = "") -> RequestAttributes:
    headers = {"accept": ("*/*",), "user-agent": ("bench",), "x-request-id": ("1",)}
    if token:
        headers["authorization"] = (f"Bearer {token}",)
    return RequestAttributes("GET", "/orders/7", "orders", headers=Headers(headers, exact=True))


def _evidence(certificate: Certificate) -> Evidence:
    return Evidence(scenario.FRONTEND, quote(certificate.public_bytes(Encoding.PEM).decode(), safe=""))


def _timed_us(call: Callable[[], object], count: int = 1) -> float:
    started = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - started) / count * 1e6


def warm(world: World) -> dict[str, float]:
    """Return the microseconds of a decision by credentials, measured in alternation."""
    now, evidence = time.time(), _evidence(world.certificate())
    bare, with_token = _request(), _request(world.token(0))
    cases: dict[str, Callable[[], Any]] = {
        "nothing presented": lambda: evaluate(world.snapshot, bare, NO_EVIDENCE, now),
        "SVID": lambda: evaluate(world.snapshot, bare, evidence, now),
        "SVID and RS256 token": lambda: evaluate(world.snapshot, with_token, evidence, now),
    }
    for name, call in cases.items():
        if not call().allowed:
            raise SystemExit(f"the scenario is broken: {name} is denied")
    gc.collect()
    gc.freeze()
    rounds = [{name: _timed_us(call, _CALLS) for name, call in cases.items()} for _ in range(_ROUNDS)]
    return {name: round(statistics.median(round_costs[name] for round_costs in rounds), 2) for name in cases}


def cold(world: World) -> dict[str, float]:
    """Return the microseconds of first decisions on new credentials, and of their signature checks alone."""
    now = time.time()
    known = _evidence(world.certificate())
    evaluate(world.snapshot, _request(), known, now)
    public = world.authority_key.public_key()
    costs: dict[str, list[float]] = {"SVID": [], "its signature": [], "token": [], "token's signature": []}
    for number in range(1, _COLD + 1):
        leaf, token = world.certificate(), world.token(number)
        evidence, request = _evidence(leaf), _request(token)
        costs["SVID"].append(_timed_us(lambda e=evidence: evaluate(world.snapshot, _request(), e, now)))  # type: ignore[misc]
        costs["its signature"].append(
            _timed_us(
                lambda c=leaf: public.verify(c.signature, c.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))  # type: ignore[misc]
            )
        )
        costs["token"].append(_timed_us(lambda r=request: evaluate(world.snapshot, r, known, now)))  # type: ignore[misc]
        costs["token's signature"].append(_timed_us(lambda t=token: _check_rs256(world.token_key.public_key(), t)))  # type: ignore[misc]
    return {name: round(statistics.median(cost), 1) for name, cost in costs.items()}


def _check_rs256(key: rsa.RSAPublicKey, token: str) -> None:
    message, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    key.verify(raw, message.encode(), padding.PKCS1v15(), hashes.SHA256())


def memory(count: int) -> list[tuple[int, float]]:
    """Return the resident megabytes after each tenth of `count` decisions on distinct EdDSA tokens."""
    key = ed25519.Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes_raw()
    jwks = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": _encoded(raw)}]}
    rule = {"issuer": scenario.ISSUER, "jwks": json.dumps(jwks)}
    snapshot = _compiled(
        [
            scenario.document("AuthorizationPolicy", "everybody", _EVERYBODY),
            scenario.document("RequestAuthentication", "tokens", {"jwtRules": [rule]}),
        ]
    )
    head = _encoded(b'{"alg":"EdDSA","kid":"1"}')
    now = int(time.time())
    rows = []
    for number in range(1, count + 1):
        claims = {"iss": scenario.ISSUER, "sub": f"user-{number}", "exp": now + 3600, "fill": "x" * 200}
        message = f"{head}.{_encoded(json.dumps(claims).encode())}"
        token = f"{message}.{_encoded(key.sign(message.encode()))}"
        if not evaluate(snapshot, _request(token), NO_EVIDENCE, now).identity.token:
            raise SystemExit("the scenario is broken: a token was not accepted")
        if number % max(1, count // 10) == 0:
            rows.append((number, int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6))
    return rows


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main() -> int:
    """Print the costs. Returns 1 if a warm identity costs more than the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=0, help="show the memory of this many distinct tokens instead")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    chosen = parser.parse_args()
    if chosen.tokens:
        rows = memory(chosen.tokens)
        text = "\n".join(f"{number:>12,} tokens {size:>8.1f} MB" for number, size in rows)
        print(json.dumps(rows) if chosen.output == "json" else text)
        return 0
    world = _world()
    costs = {"warm_us": warm(world), "cold_us": cold(world)}
    whole = costs["warm_us"]
    extra = whole["SVID and RS256 token"] - whole["nothing presented"]
    if chosen.output == "json":
        print(json.dumps(costs | {"extra_us": round(extra, 2)}, indent=2))
    else:
        for kind, by_case in costs.items():
            print(kind.removesuffix("_us"))
            for name, cost in by_case.items():
                print(f"  {name:22}{cost:>9} us")
        print(f"a warm SVID and token add {extra:.1f} us; target {TARGET_US:.0f} us")
    return int(extra > TARGET_US)


if __name__ == "__main__":
    sys.exit(main())
