"""The bundles in force: one source for each trust domain, in whatever order bundles arrive."""

from __future__ import annotations

import itertools
from types import MappingProxyType
from typing import TYPE_CHECKING

from tests.support.pki import root
from zta_authz.authn.bundles import BundleSlot
from zta_authz.authn.chain import Authorities
from zta_authz.keys.bundle_store import BundleSource, BundleStore
from zta_authz.model.spiffe import TrustDomain

if TYPE_CHECKING:
    import pytest

A, B = "a.example", "b.example"


def authorities(domain: str, label: str = "root") -> Authorities:
    return Authorities(TrustDomain(domain), (root(label).certificate,))


def documents(*bundles: Authorities) -> BundleSlot:
    return BundleSlot(MappingProxyType({bundle.trust_domain.name: bundle for bundle in bundles}))


def test_a_new_bundle_is_in_force_at_once_in_the_bound_slot_too() -> None:
    store, slot = BundleStore({}), documents()
    store.bind(slot)
    given = authorities(A)
    store.put(BundleSource.ENDPOINT, given)
    assert slot.current is store.slot.current
    assert dict(slot.current) == {A: given}


def test_a_new_verifiers_slot_gets_the_current_bundles() -> None:
    store = BundleStore({})
    given = authorities(A)
    store.put(BundleSource.FILE, given)
    slot = documents(authorities(B))
    store.bind(slot)
    assert slot.current.keys() == {A, B}
    assert slot.current[A] is given


def test_the_stronger_source_wins_whichever_comes_first() -> None:
    strengths = list(BundleSource)
    for stronger, weaker in itertools.pairwise(strengths):
        strong, weak = authorities(A, "strong"), authorities(A, "weak")
        for order in ((stronger, strong), (weaker, weak)), ((weaker, weak), (stronger, strong)):
            store = BundleStore({})
            for source, given in order:
                store.put_all(source, {A: given})
            assert dict(store.slot.current) == {A: strong}


def test_a_trust_domain_of_a_file_or_endpoint_without_a_bundle_gets_none_from_a_weaker_source() -> None:
    store = BundleStore({A: BundleSource.ENDPOINT})
    store.put_all(BundleSource.WORKLOAD_API, {A: authorities(A), B: authorities(B)})
    assert store.slot.current.keys() == {B}
    given = authorities(A, "its own")
    store.put(BundleSource.ENDPOINT, given)
    assert store.slot.current[A] is given


def test_a_document_wins_over_a_configured_endpoint() -> None:
    store = BundleStore({A: BundleSource.ENDPOINT})
    given = authorities(A)
    store.bind(documents(given))
    store.put(BundleSource.ENDPOINT, authorities(A, "other"))
    assert store.slot.current[A] is given


def test_a_source_that_no_longer_names_a_domain_removes_its_bundle() -> None:
    store = BundleStore({})
    store.put_all(BundleSource.WORKLOAD_API, {A: authorities(A), B: authorities(B)})
    store.put_all(BundleSource.WORKLOAD_API, {A: store.slot.current[A]})
    assert store.slot.current.keys() == {A}


def test_documents_that_no_longer_name_a_domain_leave_it_to_the_next_source() -> None:
    store = BundleStore({})
    weaker = authorities(A, "weaker")
    store.put(BundleSource.FILE, weaker)
    store.bind(documents(authorities(A)))
    store.bind(documents())
    assert store.slot.current[A] is weaker


def test_the_set_in_force_is_the_same_object_while_nothing_changes() -> None:
    store = BundleStore({})
    given = authorities(A)
    store.put(BundleSource.FILE, given)
    before = store.slot.current
    store.put(BundleSource.FILE, given)
    assert store.slot.current is before
    store.put(BundleSource.FILE, authorities(A))
    assert store.slot.current is not before


def test_a_conflict_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    store = BundleStore({})
    for _ in range(3):
        store.put(BundleSource.FILE, authorities(A))
        store.put(BundleSource.WORKLOAD_API, authorities(A))
    (record,) = [record for record in caplog.records if record.getMessage() == "two sources for one trust domain"]
    assert (record.__dict__["used"], record.__dict__["ignored"]) == ("file", "Workload API")


def test_status_reports_the_source_and_the_arrival_time_of_each_bundle() -> None:
    times = iter((10.0, 20.0, 30.0))
    store = BundleStore({}, clock=lambda: next(times))
    given = authorities(A)
    store.put(BundleSource.FILE, given)
    store.put(BundleSource.ENDPOINT, authorities(B))
    store.put(BundleSource.FILE, given)
    assert [(status.trust_domain, status.source, status.authorities, status.since) for status in store.status()] == [
        (A, BundleSource.FILE, 1, 10.0),
        (B, BundleSource.ENDPOINT, 1, 20.0),
    ]
