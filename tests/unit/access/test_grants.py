"""Grants overlap without ending each other, end by their time, and no longer count without a word of the administrator."""

from __future__ import annotations

from zta_authz.access.grants import GrantTable
from zta_authz.model.access import Grant, Subject

NOW = 1_800_000_000.0
ANN, WORKLOAD = Subject("https://i", "ann"), Subject(spiffe_id="spiffe://cluster.local/ns/a/sa/b")
NAME = "shop/db"


def grant(name: str, start: float = NOW - 10, until: float = NOW + 10, subject: Subject = ANN) -> Grant:
    return Grant(name, NAME, subject, start, until)


def table(*grants: Grant) -> GrantTable:
    filled = GrantTable(600.0)
    for one in grants:
        filled.put(one)
    filled.confirm(NOW)
    return filled


def test_the_active_grant_that_ends_last_counts() -> None:
    grants = table(grant("a", until=NOW + 5), grant("b", until=NOW + 50), grant("c", NOW + 60, NOW + 90))
    found = grants.find(NAME, (ANN,), NOW)
    assert found is not None
    assert found.id == "b"
    assert grants.find(NAME, (ANN,), NOW + 55) is None
    later = grants.find(NAME, (ANN,), NOW + 60)
    assert later is not None
    assert later.id == "c"


def test_any_of_the_callers_subjects_may_hold_it() -> None:
    grants = table(grant("a", subject=WORKLOAD))
    assert grants.find(NAME, (ANN, WORKLOAD), NOW) is not None
    assert grants.find(NAME, (ANN,), NOW) is None
    assert grants.find("shop/other", (WORKLOAD,), NOW) is None
    assert grants.find(NAME, (), NOW) is None


def test_a_grant_is_replaced_and_removed_by_its_id() -> None:
    grants = table(grant("a"), grant("b", until=NOW + 20))
    grants.put(grant("b", until=NOW - 1))
    found = grants.find(NAME, (ANN,), NOW)
    assert found is not None
    assert found.id == "a"
    grants.remove("a")
    grants.remove("never")
    assert grants.find(NAME, (ANN,), NOW) is None
    assert len(grants) == 1


def test_one_that_ended_is_still_named_in_explanations() -> None:
    former = table(grant("a", until=NOW - 5)).latest(NAME, (ANN,))
    assert former is not None
    assert former.id == "a"
    assert table().latest(NAME, (ANN,)) is None


def test_the_table_is_stale_before_the_first_view_and_after_its_age() -> None:
    assert GrantTable(600.0).is_stale(NOW)
    grants = table()
    assert not grants.is_stale(NOW + 600)
    assert grants.is_stale(NOW + 600.1)
    assert grants.is_stale(NOW - 601), "a clock that was set back by more proves nothing"
    assert not grants.is_stale(NOW - 5)


def test_a_whole_view_replaces_the_grants() -> None:
    grants = table(grant("a"))
    grants.replace(table(grant("b")))
    found = grants.find(NAME, (ANN,), NOW)
    assert found is not None
    assert (found.id, len(grants)) == ("b", 1)
