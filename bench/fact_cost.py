"""What facts cost on a check: none asked, and all asked, against a set without any, in turns in one process.

The last two variants also have the risk of the caller in their trust model, among the signals of 10,000 subjects. In
the last one, a signal about somebody else comes before every tenth check.

CPU time of a whole check but the socket and HTTP/2: parsing, verification, rules, facts, record and answer. "All asked"
has a trust model, a device inventory, a classification whose demand must be met, three databases, a reputation list and
corporate ranges, all of which are read on each check. The differences are medians of pairs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from mmdb_writer import MMDBWriter
from netaddr import IPSet

from bench import scenario
from zta_authz.audit.outputs import PlainOutput
from zta_authz.audit.sinks import LineSink
from zta_authz.authorizer import Authorizer
from zta_authz.errors import Reason
from zta_authz.ext_authz.request import CheckRequestParser
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.facts.devices import DeviceRefresher
from zta_authz.facts.networks import ListSource, NetworkDatabases, NetworkSources
from zta_authz.model.decision import UNDECIDED
from zta_authz.model.documents import Revoked
from zta_authz.model.facts import FactSlot
from zta_authz.model.signals import Signal, SignalKind, SourceState
from zta_authz.policy_sources.files import SnapshotHolder, load_snapshot
from zta_authz.ports import CheckEvent
from zta_authz.security_events.signal_table import SignalTable
from zta_authz.settings import load_settings
from zta_authz.telemetry.observer import build_observer

if TYPE_CHECKING:
    from collections.abc import Callable

_CALLS = 300
CLIENT, ADDRESS = b"203.0.113.7", "81.2.69.160"
"""The client of `bench.scenario`, and one that the data know, of the same length: bytes are replaced in the request."""
_DECISION_ID = "0" * 32
USER = {"amr": ["pwd", "mfa"], "account_created_at": 1_500_000_000, "security_violations": 0}
_HEAD = "apiVersion: zta.dev/v1\nkind: %s\nmetadata: {name: bench, namespace: default}\nspec:\n"
MODELS = f"""---
{_HEAD % "TrustModel"}  allowedCountries: [GB]
  components: {{user: {{floor: 0}}, behavior: {{assume: 100}}}}
---
{_HEAD % "DeviceInventory"}  source: {{file: devices.jsonl}}
  id: spiffe
  identify: {{certificate: spiffeId}}
  fields: {{managed: managed, encrypted: encrypted, firewall: firewall, antivirus: antivirus, os: os}}
  times: {{posture: at, seen: at}}
---
{_HEAD % "ResourceClassification"}  default: internal
  rules: [{{class: restricted, to: [{{operation: {{paths: ["/payroll/*"]}}}}]}}]
  demands: {{internal: {{level: LOW, network: 50}}}}
"""

RISK = "signals: [{name: noMfa, points: -30}, {name: highRisk, points: -60, caps: DENY}]"
MODELS_WITH_RISK = MODELS.replace("{user: {floor: 0}", f"{{user: {{floor: 0, {RISK}}}")
SUBJECTS = 10_000
CHECKS_PER_EVENT = 10
"""100 events a second at 1,000 checks a second."""


def signal_of(number: int, value: str, now: float) -> Signal:
    """A signal about one of the subjects."""
    return Signal(
        str(number), Revoked.SUBJECT, scenario.ISSUER, f"user-{number}", SignalKind.RISK, value, now, "default/idp",
        str(number),
    )  # fmt: skip


def with_changes(check: Callable[[], None], table: SignalTable) -> Callable[[], None]:
    """`check`, and a changed signal before every tenth call."""
    calls = 0

    def changing() -> None:
        nonlocal calls
        calls += 1
        if calls % CHECKS_PER_EVENT == 0:
            table.put(signal_of(calls % SUBJECTS, ("LOW", "HIGH")[calls // CHECKS_PER_EVENT % 2], time.time()))
        check()

    return changing


def build_signals(now: float) -> SignalTable:
    """Signals of `SUBJECTS` subjects, of a source that was heard just now and says nothing about the caller."""
    table = SignalTable(86_400.0)
    table.confirm(now)
    kinds = frozenset((SignalKind.RISK,))
    table.put_source(SourceState("default/idp", now, 86_400.0, frozenset((scenario.ISSUER,)), kinds))
    for number in range(SUBJECTS):
        table.put(signal_of(number, "HIGH", now))
    return table


def write_data(directory: Path, prefixes: int, devices: int) -> NetworkSources:
    """Databases, a list of `prefixes` and an inventory of `devices`, all of which know the client."""
    for name, record in (("country", {"country": {"iso_code": "GB"}}), ("asn", {"autonomous_system_number": 64500})):
        writer = MMDBWriter(ip_version=6, database_type="Bench", ipv4_compatible=True)
        writer.insert_network(IPSet(["81.2.0.0/16"]), record)
        writer.to_db_file(str(directory / f"{name}.mmdb"))
    writer = MMDBWriter(ip_version=6, database_type="Bench", ipv4_compatible=True)
    writer.insert_network(IPSet(["185.220.101.0/24"]), {"is_anonymous": True})
    writer.to_db_file(str(directory / "anonymous.mmdb"))
    networks = (IPv4Network((IPv4Address(0x60000000 + number * 4096), 24)) for number in range(prefixes))
    (directory / "bad.txt").write_text("\n".join(map(str, networks)))
    good = {"managed": True, "encrypted": True, "firewall": True, "antivirus": True, "os": "macOS", "at": time.time()}
    with (directory / "devices.jsonl").open("w") as file:
        for number in range(devices):
            file.write(json.dumps({"spiffe": f"spiffe://cluster.local/device/{number}", **good}) + "\n")
        file.write(json.dumps({"spiffe": scenario.FRONTEND, **good}) + "\n")
    return NetworkSources(
        *(str(directory / f"{name}.mmdb") for name in ("country", "asn", "anonymous")),
        reputation=(ListSource(str(directory / "bad.txt"), 10, 86400.0),),
        corporate=(ip_network("10.0.0.0/8"),),
    )


def build_check(directory: Path, slot: FactSlot, log: int, models: str) -> Callable[[], None]:
    """A function that makes one check. Raises AssertionError if it does not end in an allow."""
    directory.mkdir()
    files = scenario.build("token", 100, directory, claims=USER)
    config = json.loads(files.config.read_text()) | {"client_address": {"xff_num_trusted_hops": 1}}
    files.config.write_text(json.dumps(config))
    if models:
        (directory / "policies" / "models.yaml").write_text(models.removeprefix("---\n"))
    settings = load_settings(str(files.config), {})
    holder = SnapshotHolder()
    holder.publish(load_snapshot(settings.policies, settings.options()))
    payload = files.request.replace(CLIENT, ADDRESS.encode())
    sink = LineSink(PlainOutput(log))
    parse, encode = CheckRequestParser().parse, ResponseEncoder().encode
    authorizer = Authorizer(parse, encode, holder, sink, build_observer(), facts=slot)

    def check() -> None:
        call = CheckEvent((), None, UNDECIDED, _DECISION_ID, time.time_ns())
        authorizer.check(call, payload)
        assert call.decision.reason is Reason.ALLOW_POLICY, call.decision
        assert (call.decision.facts is not None) is bool(models)

    return check


def cpu_us(check: Callable[[], None]) -> float:
    """CPU of one check, in microseconds."""
    started = time.process_time()
    for _ in range(_CALLS):
        check()
    return (time.process_time() - started) / _CALLS * 1e6


def _timed(name: str, load: Callable[[], object]) -> object:
    """Load, and print what it takes: seconds, and the growth of the process (maximum resident set)."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    loaded = load()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{name:<40} {time.perf_counter() - started:6.2f} s {grown:8.1f} MiB")
    return loaded


def main() -> None:
    """Print what loading takes, and the cost of a check in each of three variants."""
    parser = argparse.ArgumentParser(prog="python -m bench.fact_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--prefixes", type=int, default=220_000)
    parser.add_argument("--devices", type=int, default=200_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory, log = Path(name), os.open(os.devnull, os.O_WRONLY)
        sources = write_data(directory, chosen.prefixes, chosen.devices)
        nothing, loaded, signalled = FactSlot(), FactSlot(), FactSlot()
        variants = {
            "none": (nothing, ""),
            "loaded, none asked": (signalled, ""),
            "all asked": (loaded, MODELS),
            "all asked, and the risk": (signalled, MODELS_WITH_RISK),
        }
        checks = {
            variant: build_check(directory / variant.replace(" ", "-"), slot, log, models)
            for variant, (slot, models) in variants.items()
        }
        databases = _timed(f"databases, list of {chosen.prefixes} prefixes", lambda: NetworkDatabases(sources))
        assert isinstance(databases, NetworkDatabases)
        loaded.replace_networks(databases)
        policies = load_snapshot([str(directory / "all-asked" / "policies")], load_settings(None, {}).options())
        devices = DeviceRefresher(str(directory), loaded, lambda _: None)
        _timed(f"inventory of {chosen.devices} devices", lambda: devices.load(policies.models.inventories))
        table = build_signals(time.time())
        signalled.views = replace(loaded.views, signals=table)
        checks["the risk, and events"] = with_changes(checks["all asked, and the risk"], table)
        gc.freeze()  # as the service does with what it has loaded
        times: dict[str, list[float]] = {variant: [] for variant in checks}
        for number in range(chosen.rounds + 1):
            for variant in sorted(checks, reverse=bool(number % 2)):
                spent = cpu_us(checks[variant])
                if number:  # the first round warms everything up
                    times[variant].append(spent)
        base = times["none"]
        for variant, spent in times.items():
            more = statistics.median(after - before for after, before in zip(spent, base, strict=True))
            print(f"{variant:<24} {statistics.median(spent):6.1f} us a check, {more:+5.2f} us")


if __name__ == "__main__":
    main()
