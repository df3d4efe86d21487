"""Makes the samples in `recorded/`: what the real Envoy sends for a handful of requests, byte for byte.

    ZTA_ENVOY=... python -m tests.e2e.record

The certificates in them are public and end after a day; no key, token or secret is recorded, and none may be added.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from envoy.demo.client import Request
from envoy.demo.stack import StackOptions, running

HERE = Path(__file__).parent
RECORDED = HERE / "recorded"
RECORDER = HERE / "recorder.py"

_REPEATED = (("x-colour", "red"), ("x-colour", "blue"), ("x-empty", ""), ("cookie", "a=1"), ("cookie", "b=2"))

SAMPLES: dict[str, tuple[str | None, Request]] = {
    "get-mtls": ("frontend", Request(path="/orders?next=%2Fhome&x=1")),
    "get-no-certificate": (None, Request(path="/orders")),
    "get-other-ca": ("frontend-other-ca", Request(path="/orders")),
    "get-repeated-headers": ("frontend", Request(path="/", headers=_REPEATED)),
    "get-not-utf8": ("frontend", Request(path="/", headers=(("x-bytes", b"\xff\xfe\x80".decode("latin-1")),))),
    "get-ambiguous-path": ("orders", Request(path="//a/.%252e/b;x=1")),
    "get-forged": ("attacker", Request(path="/", headers=(("x-zta-principal", "spiffe://cluster.local/admin"),))),
    "get-not-a-token": ("frontend", Request(path="/account", headers=(("authorization", "Bearer not-a-token"),))),
    "post-body": ("orders", Request("POST", "/payments/42", (("content-type", "text/plain"),), b"\x00\xff body")),
    "grpc-call": (
        "orders",
        Request("POST", "/shop.Shop/Buy", (("content-type", "application/grpc"), ("te", "trailers"))),
    ),
    "delete-long-header": ("frontend", Request("DELETE", "/orders/1", (("x-long", "v" * 8000),))),
}


def record(directory: Path, binary: Path | None = None) -> dict[str, bytes]:
    """Send every sample through a real Envoy, with everything made in `directory`; the Check calls by sample name."""
    raw = directory / "raw"
    raw.mkdir()
    command = (sys.executable, str(RECORDER), "{socket}", str(raw))
    with running(directory / "stack", StackOptions(authz_command=command, envoy=binary)) as stack:
        for peer, request in SAMPLES.values():
            stack.send(peer, request)
    calls = [path.read_bytes() for path in sorted(raw.glob("*.bin"))]
    return dict(zip(SAMPLES, calls, strict=True))


def main() -> int:
    """Replace the samples."""
    with tempfile.TemporaryDirectory() as directory:
        calls = record(Path(directory))
    shutil.rmtree(RECORDED, ignore_errors=True)
    RECORDED.mkdir()
    for name, payload in calls.items():
        (RECORDED / f"{name}.bin").write_bytes(payload)
    return 0


if __name__ == "__main__":
    sys.exit(main())
