"""Facts that are kept for a caller are those that would be read now: whatever changed, in whatever order.

One long series of requests is read with and without the facts that are kept. Times lie at, just before and just after
every moment at which a fact changes its state, and go back and forth. The second test shows that the series notices each
part of the key, and each time, that is left out.
"""

from __future__ import annotations

import os
from ipaddress import ip_network
from math import inf, nextafter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.devices import LAPTOP, SPEC, inventory, record, table
from tests.support.policies import request, snapshot
from zta_authz.facts import networks as network_module
from zta_authz.facts.devices import DeviceTables
from zta_authz.facts.networks import ListSource, NetworkDatabases, NetworkSources
from zta_authz.model.documents import Revoked
from zta_authz.model.facts import FactViews
from zta_authz.model.identity import Binding, Identity, Peer, PeerTrust, Token
from zta_authz.model.options import Options, Workload
from zta_authz.model.signals import Signal, SignalKind, SourceState
from zta_authz.model.spiffe import SpiffeId
from zta_authz.policy.rules import device_identity, fact_reader, signal_facts
from zta_authz.policy.rules.fact_reader import FactOpener, KnownCallers
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.security_events.signal_table import SignalTable
from zta_authz.trust import assessment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zta_authz.policy.rules.facts import OpenFacts

NOW = 1_800_000_000.0
STEPS = 2000
OPTIONS = Options(xff_num_trusted_hops=0, use_remote_address=False)
INVENTORY = (
    "apiVersion: zta.dev/v1\nkind: DeviceInventory\nmetadata: {name: fleet, namespace: default}\nspec:\n"
    + SPEC
    + "  maxAge: {posture: 1h, seen: 2h}\n"
)
MODEL = """
apiVersion: zta.dev/v1
kind: TrustModel
metadata: {name: own, namespace: default}
spec:
  allowedCountries: [DE]
  components:
    user:
      floor: 0
      signals: [{name: newAccount, claimAge: {claim: created, below: 1h}, points: -20}, {name: highRisk, points: -9}]
    network: {floor: 0}
    behavior: {assume: 100}
---
apiVersion: zta.dev/v1
kind: TrustModel
metadata: {name: everywhere, namespace: istio-system}
spec: {components: {user: {floor: 10}, behavior: {assume: 90}}}
"""
SOURCE = SourceState("root/idp", NOW, 3600.0, frozenset(("https://i",)), frozenset(SignalKind), "default/fleet")
WORKLOADS = (None, Workload(namespace="default"), Workload(namespace="shop"))
TIMES = (NOW - 300, NOW, NOW + 100, NOW + 3600, NOW + 3700, NOW + 7200, NOW + 86400 * 2)
"""The times at which something changes its state."""


def moments() -> list[float]:
    return [at for time in TIMES for at in (time, nextafter(time, -inf), nextafter(time, inf), time - 1, time + 1)]


def lists(folder: Path, number: int) -> NetworkDatabases:
    """Two lists that are too old from `NOW + 3600` and `NOW + 7200` on."""
    sources = []
    for score, text in ((10, f"8.8.8.{number}\n"), (60, "9.9.9.0/24\n")):
        path = folder / f"{number}-{score}.txt"
        path.write_text(text)
        os.utime(path, (NOW, NOW))
        sources.append(ListSource(str(path), score, 3600.0 if score == 10 else 7200.0))
    return NetworkDatabases(NetworkSources(reputation=tuple(sources), corporate=(ip_network(f"1.1.1.{number}"),)))


def views(folder: Path) -> list[FactViews]:
    source = inventory().source
    other = "spiffe://cluster.local/device/laptop-2"
    good = record(checked=NOW, seen=NOW + 100)
    tables = [
        DeviceTables({"default/fleet": (source, table(good, record("laptop-2", spiffe=other, checked=NOW + 7200)))}),
        DeviceTables(
            {"default/fleet": (source, table(record(disk="off", checked=NOW + 100), record("laptop-2", spiffe="")))}
        ),
    ]
    networks = [lists(folder, number) for number in (1, 2)]
    signals = [None, SignalTable(3600.0), SignalTable(3600.0)]
    for table_of_signals in signals[1:]:
        table_of_signals.confirm(NOW + 100)
        table_of_signals.put_source(SOURCE)
    return [FactViews(networks=n, devices=d, signals=s) for n in networks for d in (*tables, None) for s in signals]


def change(table: SignalTable, random: Random) -> None:
    """What the administrator sends about the source, the caller or its device; or a sign of life."""
    about: tuple[Any, ...] = random.choice(
        (
            (Revoked.SUBJECT, "https://i", "u", SignalKind.RISK, random.choice(("LOW", "HIGH"))),
            (Revoked.SUBJECT, "https://i", "u", SignalKind.ASSURANCE, random.choice(("a/1", "a/2"))),
            (Revoked.DEVICE, "default/fleet", "laptop-1", SignalKind.RISK, random.choice(("LOW", "HIGH"))),
            (
                Revoked.DEVICE, "default/fleet", "laptop-1", SignalKind.COMPLIANCE,
                random.choice(("compliant", "not-compliant")),
            ),
        )
    )  # fmt: skip
    what, issuer, subject, kind, value = about
    match random.randrange(9):
        case 0:
            table.remove(f"{what} {kind}")
        case 1:
            table.confirm(random.choice((NOW, NOW + 100, NOW + 3600)))
        case 2:
            kinds = frozenset(random.choice((tuple(SignalKind), (SignalKind.RISK,))))
            heard = random.choice((NOW - 300, NOW, NOW + 100, NOW + 3600))
            table.put_source(SOURCE._replace(heard_at=heard, kinds=kinds))
        case _:
            at = random.choice((NOW - 300, NOW, NOW + 100))
            table.put(Signal(f"{what} {kind}", what, issuer, subject, kind, value, at, "root/idp", f"jti-{at}"))


def peers() -> list[Peer | None]:
    names = (LAPTOP, LAPTOP, "spiffe://cluster.local/device/laptop-2", "spiffe://cluster.local/other")
    trusts = (PeerTrust.CERTIFICATE, PeerTrust.PROXY, PeerTrust.CERTIFICATE, PeerTrust.CERTIFICATE)
    found = [Peer((name,), SpiffeId.parse(name), trust, bytes(32)) for name, trust in zip(names, trusts, strict=True)]
    return [None, *found]


def tokens() -> list[Token | None]:
    claims: list[dict[str, Any]] = [
        {"created": NOW, "amr": ["mfa"], "security_violations": 0, "device_id": "laptop-1"},
        {"created": NOW + 100, "amr": ["pwd"]},
        {"device_id": "laptop-2"},
    ]
    return [None, *(Token("https://i", "u", given) for given in claims)]


def read(opener: OpenFacts, inputs: Inputs, order: Sequence[str]) -> list[object]:
    facts = Inputs(inputs.request, inputs.identity, inputs.options, inputs.now, None, opener).facts
    return [*(getattr(facts, name) for name in order), facts.collected(allowed=bool(len(order) % 2))]


def compare(folder: Path, seed: int) -> None:
    """Read a series of requests with and without what is kept. Raises AssertionError where they differ."""
    random, compiled = Random(seed), snapshot(MODEL, INVENTORY, options=OPTIONS)
    callers, bearers, all_views, times = peers(), tokens(), views(folder), moments()
    addresses = ("8.8.8.1", "8.8.8.2", "9.9.9.9", "1.1.1.1", "::ffff:8.8.8.1", "x", "7.7.7.7, 8.8.8.1", None, None)
    in_force = all_views[0]
    recent: list[tuple[Identity, dict[str, str] | None, str]] = []
    for _ in range(STEPS):
        if random.random() < 0.005:
            in_force = random.choice(all_views)
        if isinstance(in_force.signals, SignalTable) and random.random() < 0.1:
            change(in_force.signals, random)
        if recent and random.random() < 0.7:
            who, headers, source = random.choice(recent[-4:])
        else:
            token, forwarded = random.choice(bearers), random.choice(addresses)
            binding = random.choice((None, Binding.DPOP, Binding.SPIFFE_ID))
            who = Identity(random.choice(callers), token, (token,) if token else (), binding=binding)
            headers = None if forwarded is None else {"x-forwarded-for": forwarded}
            source = random.choice(("8.8.8.1", "9.9.9.9"))
            recent.append((who, headers, source))
        asked = Inputs(request(headers=headers, source_ip=source), who, OPTIONS, random.choice(times))
        workload = random.choice(WORKLOADS)
        order = random.choice(
            (
                ("network",), ("device",), ("signals",), ("trust",), ("trust", "device"),
                ("device", "trust", "network"), ("signals", "trust", "signals"),
            )
        )  # fmt: skip
        kept = compiled.models.opener(workload, in_force)
        anew = FactOpener(compiled.models.select(workload or OPTIONS.workload), in_force)
        assert read(kept, asked, order) == read(anew, asked, order)


def compare_all(folder: Path) -> None:
    """Read several series. Raises AssertionError where they differ."""
    for seed in range(8):
        compare(folder, seed)


@pytest.mark.parametrize("seed", range(2))
def test_facts_that_are_kept_are_those_that_would_be_read_now(tmp_path: Path, seed: int) -> None:
    compare(tmp_path, seed)


@pytest.mark.parametrize("part", range(6))
def test_the_series_notices_each_part_of_the_key_that_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    class Forgetful(KnownCallers):
        __slots__ = ()

        def __getitem__(self, key: Any) -> Any:
            return self.get(key)

        def get(self, key: Any, default: Any = None) -> Any:
            return dict.get(self, (*key[:part], *key[part + 1 :]), default)

        def put(self, key: Any, value: Any, weight: int = 0) -> None:
            super().put((*key[:part], *key[part + 1 :]), value, weight)

    monkeypatch.setattr(fact_reader, "KnownCallers", Forgetful)
    with pytest.raises(AssertionError):
        compare(tmp_path, 0)


@pytest.mark.parametrize("module", [network_module, device_identity, signal_facts, assessment])
def test_the_series_notices_times_that_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    monkeypatch.setattr(module, "steady_around", lambda *_: (-inf, inf))
    with pytest.raises(AssertionError):
        compare(tmp_path, 0)


def test_the_series_notices_changes_of_signals_that_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SignalTable, "version", property(lambda _: 1, lambda _self, _value: None))
    with pytest.raises(AssertionError):
        compare_all(tmp_path)


@pytest.mark.parametrize("name", ["signals_about_caller", "signals_about_device"])
def test_the_series_notices_signals_that_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(fact_reader, name, lambda *_: ())
    with pytest.raises(AssertionError):
        compare_all(tmp_path)


def test_the_series_notices_sources_that_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SignalTable, "sources_version", property(lambda _: 1, lambda _self, _value: None))
    with pytest.raises(AssertionError):
        compare_all(tmp_path)


def test_the_series_notices_views_that_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_reader, "_say_the_same", lambda *_: True)
    with pytest.raises(AssertionError):
        compare(tmp_path, 0)
