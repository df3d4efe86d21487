"""The table of signals: one of each source and subject, and a version that changes exactly with what the table says."""

from __future__ import annotations

import pytest

from zta_authz.model.documents import Revoked
from zta_authz.model.signals import Signal, SignalKind, SourceState
from zta_authz.security_events.signal_table import SignalTable

NOW = 1_800_000_000.0
IDP = SourceState("root/idp", NOW, 600.0, frozenset(("https://i",)), frozenset((SignalKind.RISK,)))
ALICE = (SignalKind.RISK, Revoked.SUBJECT, "https://i", "alice")


def signal(value: str = "HIGH", name: str = "s1", source: str = "root/idp") -> Signal:
    return Signal(name, Revoked.SUBJECT, "https://i", "alice", SignalKind.RISK, value, NOW, source, "jti-1")


def filled() -> SignalTable:
    table = SignalTable(600.0)
    table.put_source(IDP)
    table.put(signal())
    table.confirm(NOW)
    return table


def test_a_signal_replaces_the_one_of_its_id_and_stands_beside_those_of_other_sources() -> None:
    table = filled()
    table.put(signal("LOW"))
    table.put(signal("MEDIUM", "s2", "root/other"))
    assert [(one.source, one.value) for one in table.find(*ALICE)] == [("root/idp", "LOW"), ("root/other", "MEDIUM")]
    table.remove("s1")
    table.remove("s2")
    assert table.find(*ALICE) == ()
    assert len(table) == 1


def test_sources_are_found_by_what_they_report_on() -> None:
    table = filled()
    more = IDP._replace(name="root/mdm", inventory="shop/fleet", spiffe_ids=True, issuers=frozenset())
    table.put_source(more)
    assert table.sources(SignalKind.RISK, Revoked.ISSUER, "https://i") == (IDP,)
    assert table.sources(SignalKind.RISK, Revoked.DEVICE, "shop/fleet") == (more,)
    assert table.sources(SignalKind.RISK, Revoked.SPIFFE_ID, "") == (more,)
    assert table.sources(SignalKind.ASSURANCE, Revoked.ISSUER, "https://i") == ()
    assert table.sources(SignalKind.RISK, Revoked.ISSUER, "https://other") == ()
    table.remove_source("root/mdm")
    assert table.sources(SignalKind.RISK, Revoked.SPIFFE_ID, "") == ()


@pytest.mark.parametrize(("now", "stale"), [(NOW, False), (NOW + 600, False), (NOW + 601, True), (NOW - 601, True)])
def test_a_source_is_stale_after_its_silence(now: float, stale: bool) -> None:
    table = filled()
    table.confirm(now)
    assert table.is_stale(IDP, now) is stale


@pytest.mark.parametrize(("now", "stale"), [(NOW + 600, False), (NOW + 601, True), (NOW - 601, True)])
def test_every_source_is_stale_if_the_administrator_is_silent(now: float, stale: bool) -> None:
    assert filled().is_stale(IDP._replace(heard_at=now), now) is stale


def test_nothing_counts_before_the_table_was_complete() -> None:
    table = SignalTable(600.0)
    table.put_source(IDP)
    assert table.is_stale(IDP, NOW)


def test_a_sign_of_life_changes_no_result_and_no_version() -> None:
    table = filled()
    before = table.version
    table.confirm(NOW + 5)
    table.put_source(IDP._replace(heard_at=NOW + 5))
    assert table.version == before
    [source] = table.sources(SignalKind.RISK, Revoked.ISSUER, "https://i")
    assert not table.is_stale(source, NOW + 605)
    assert table.stale_times(source, NOW) == (NOW - 595, NOW + 605, NOW - 595, NOW + 605)
    assert table.stale_times(source, NOW + 606) == (NOW + 606,)


def test_a_signal_alone_is_no_change_of_the_sources() -> None:
    table = filled()
    before = table.sources_version
    table.put(signal("LOW"))
    table.remove("s1")
    assert table.sources_version == before
    table.put_source(IDP._replace(kinds=frozenset()))
    table.replace(SignalTable(600.0))
    assert table.sources_version == before + 2


def test_every_other_change_changes_the_version() -> None:
    table = filled()
    versions = [table.version]
    for change in (
        lambda: table.put(signal("LOW")),
        lambda: table.remove("s1"),
        lambda: table.put_source(IDP._replace(heard_at=NOW - 1)),  # it was heard later
        lambda: table.put_source(IDP._replace(kinds=frozenset())),
        lambda: table.put_source(IDP._replace(max_silence=5.0)),
        lambda: table.remove_source("root/idp"),
        lambda: table.confirm(NOW - 1),  # the clock was set back
        lambda: table.replace(SignalTable(600.0)),
    ):
        change()
        versions.append(table.version)
    assert versions == sorted(set(versions))
