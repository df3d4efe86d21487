"""Any file given as a request to the operator's commands is a request, or FaultsError that says where and what."""

from __future__ import annotations

import contextlib
import math
import tempfile
from pathlib import Path

from tests.fuzz.target import Target, assert_telling, split_mode
from zta_authz.cli.request_files import load_request, parse_time
from zta_authz.errors import FaultsError
from zta_authz.model.request import NO_EVIDENCE

INVARIANT = "any file is a request whose assumed parts are marked as assumed, or FaultsError that says what is wrong"
_EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "requests"


def check(data: bytes) -> None:
    """The first byte says whether the rest is said to be a CheckRequest."""
    mode, content = split_mode(data, 3)
    if mode == 2:
        _time(content)
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "request.yaml"
        path.write_bytes(content)
        try:
            subject = load_request(str(path), binary=mode == 1)
        except FaultsError as error:
            assert_telling(error.faults)
            return
    assert ("principal" in subject.assumed) is bool(subject.principal)
    assert ("claims" in subject.assumed) is (subject.claims is not None)
    if subject.principal:
        assert subject.evidence is NO_EVIDENCE


def _time(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert math.isfinite(parse_time(content.decode("utf-8", "replace")))


def seeds() -> dict[str, bytes]:
    """The examples that users are given, and everything that a request may say."""
    full = b"""
method: POST
path: /orders?x=1
host: shop.example
headers: {x-a: [v1, v2], cookie: c=d}
source: {ip: 10.0.0.1, port: 4}
destination: {ip: "::1", port: 65535}
sni: a.example
principal: spiffe://cluster.local/ns/default/sa/frontend
claims: {iss: a, sub: b, groups: [x], n: 1.5}
caller: spiffe://cluster.local/x
contextExtensions: {namespace: a}
metadata: {envoy.filters.f: {k: [1, {a: b}]}}
"""
    return {
        **{path.stem: b"\x00" + path.read_bytes() for path in _EXAMPLES.glob("*.yaml")},
        "full": b"\x00" + full,
        "token": b"\x00token: a.b.c\nheaders: {x: y}",
        "certificate": b'\x00certificate: "-----BEGIN CERTIFICATE-----"\nprincipal: x',
        "missing-file": b"\x00certificate: missing.pem",
        "a-folder": b"\x00certificate: ..",
        "nul-in-name": b'\x00certificate: "a\\0b"',
        "long-name": b"\x00certificate: " + b"a" * 5000,
        "binary": b"\x01\x0a\x02\x12\x00",
        "time": b"\x022027-01-31T18:00:00Z",
        "time-early": b"\x020001-01-01T00:00:00+23:59",
    }


WORDS = (
    b"method: ", b"path: ", b"host: ", b"headers: {", b"source: {ip: ", b"port: ", b"principal: ", b"certificate: ", b"token: ",
    b"claims: {", b"metadata: {", b"caller: ", b"sni: ", b"-----BEGIN ", b"65536", b"-1", b"0x1", b".inf", b".nan", b"null",
    b"&a ", b"*a", b"---\n", b'"\\0"', b'"\\ud800"', b"T", b"Z", b"+24:00", b"9999-12-31T23:59:59-23:59", b"/dev/stdin",
)  # fmt: skip

TARGET = Target("request_files", INVARIANT, check, seeds, WORDS)
