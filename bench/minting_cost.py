"""What minting a token costs on a check: a reused one, and a new one for each request, against none, in turns.

CPU time of a whole check but the socket and HTTP/2: parsing, verification, rules, minting, record and answer. The
differences are medians of pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench import scenario
from zta_authz.audit.outputs import PlainOutput
from zta_authz.audit.sinks import LineSink
from zta_authz.authorizer import Authorizer
from zta_authz.errors import Reason
from zta_authz.ext_authz.request import CheckRequestParser
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.minting.key_states import KeyRing, ScheduledKey
from zta_authz.minting.minter import Minter
from zta_authz.minting.signer import SigningKey
from zta_authz.model.decision import UNDECIDED
from zta_authz.policy_sources.files import SnapshotHolder, load_snapshot
from zta_authz.ports import CheckEvent
from zta_authz.settings import load_settings
from zta_authz.telemetry.observer import build_observer

if TYPE_CHECKING:
    from collections.abc import Callable

_CALLS: Final = 300
_DECISION_ID: Final = "0" * 32
ORDERS: Final[dict[str, dict[str, object] | None]] = {
    "none": None,
    "session": {"audience": "orders"},
    "transaction, ES256": {"audience": "orders", "kind": "transaction", "scope": "orders.read"},
    "transaction, EdDSA": {"audience": "orders", "kind": "transaction", "scope": "orders.read"},
}


def build_check(directory: Path, order: dict[str, object] | None, key: SigningKey, log: int) -> Callable[[], None]:
    """A function that makes one check. Raises AssertionError if it does not end in an allow with what is ordered."""
    directory.mkdir()
    files = scenario.build("token", 100, directory)
    policies = directory / "policies" / "policies.yaml"
    settings = load_settings(str(files.config), {})
    holder = SnapshotHolder()
    if order is not None:
        documents = [json.loads(part) for part in policies.read_text().split("\n---\n")]
        for document in documents:
            if document["metadata"]["name"] == "orders" and document["kind"] == "AuthorizationPolicy":
                document["apiVersion"], document["kind"] = "zta.dev/v1", "AccessPolicy"
                document["spec"]["response"] = {"mint": order}
        policies.write_text("\n---\n".join(map(json.dumps, documents)))
    holder.publish(load_snapshot(settings.policies, settings.options()))
    minter = Minter("https://zta.example", KeyRing([ScheduledKey(key)]))
    parse, encode = CheckRequestParser().parse, ResponseEncoder().encode
    authorizer = Authorizer(parse, encode, holder, LineSink(PlainOutput(log)), build_observer(), minter=minter)

    def check() -> None:
        call = CheckEvent((), None, UNDECIDED, _DECISION_ID, time.time_ns())
        authorizer.check(call, files.request)
        assert call.decision.reason is Reason.ALLOW_POLICY, call.decision
        assert (call.decision.minted is not None) is (order is not None)

    return check


def cpu_us(check: Callable[[], None]) -> float:
    """CPU of one check, in microseconds."""
    started = time.process_time()
    for _ in range(_CALLS):
        check()
    return (time.process_time() - started) / _CALLS * 1e6


def main() -> None:
    """Print the cost of a check in each variant, and what it adds to one that mints nothing."""
    parser = argparse.ArgumentParser(prog="python -m bench.minting_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    keys = {"EdDSA": SigningKey(Ed25519PrivateKey.generate()), "ES256": SigningKey(generate_private_key(SECP256R1()))}
    with tempfile.TemporaryDirectory() as name:
        log = os.open(os.devnull, os.O_WRONLY)
        checks = {
            variant: build_check(
                Path(name) / str(number), order, keys["EdDSA" if variant.endswith("EdDSA") else "ES256"], log
            )
            for number, (variant, order) in enumerate(ORDERS.items())
        }
        for check in checks.values():
            cpu_us(check)
        times: dict[str, list[float]] = {variant: [] for variant in checks}
        for _ in range(rounds):
            for variant, check in checks.items():
                times[variant].append(cpu_us(check))
    for variant, measured in times.items():
        added = statistics.median(own - base for own, base in zip(measured, times["none"], strict=True))
        print(f"{variant:<20} {statistics.median(measured):7.1f} us a check, {added:+6.1f} us")


if __name__ == "__main__":
    main()
