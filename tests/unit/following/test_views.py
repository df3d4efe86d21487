"""A full view replaces the old one when it is complete; what can't be read is refused and the rest counts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from zta_authz._proto import administrator_pb2 as pb
from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.following import position, views as module
from zta_authz.following.items import InvalidItem, read_grant, read_revocation
from zta_authz.following.position import InvalidView
from zta_authz.following.views import FollowedViews
from zta_authz.model.access import Subject
from zta_authz.model.documents import Revoked
from zta_authz.model.facts import FactSlot
from zta_authz.model.signals import SignalKind

NOW = 1_800_000_000.0
ANN = Subject("https://i", "ann")


def grant(name: str, **changed: Any) -> pb.Item:
    fields: dict[str, Any] = {
        "id": name,
        "entitlement": "shop/db",
        "subject": pb.Subject(issuer="https://i", subject="ann"),
        "start": NOW - 1,
        "until": NOW + 60,
    }
    return pb.Item(key=f"grant/{name}", grant=pb.Grant(**fields | changed))


def revocation(name: str, **changed: Any) -> pb.Item:
    fields: dict[str, Any] = {"id": name, "what": "session", "value": name, "issuer": "https://i"}
    return pb.Item(key=f"revocation/{name}", revocation=pb.Revocation(**fields | changed))


def signal(key: str, **changed: Any) -> pb.Item:
    fields: dict[str, Any] = {
        "id": key,
        "what": "subject",
        "issuer": "https://i",
        "subject": "ann",
        "kind": "risk",
        "value": "HIGH",
        "observed_at": NOW - 9,
        "source": "root/idp",
        "jti": "jti-1",
    }
    return pb.Item(key=f"signal/{key}", signal=pb.Signal(**fields | changed))


def source(key: str = "root/idp", **changed: Any) -> pb.Item:
    fields: dict[str, Any] = {
        "name": key,
        "heard_at": NOW,
        "max_silence": 600.0,
        "issuers": ["https://i"],
        "kinds": ["risk", "later"],
    }
    return pb.Item(key=f"source/{key}", source=pb.SignalSourceState(**fields | changed))


class Followed:
    def __init__(self) -> None:
        self.slot, self.revocations = FactSlot(), DynamicRevocations()
        self.views = FollowedViews(self.slot, self.revocations, 600.0)

    def update(self, *items: pb.Item, revision: int = 1, epoch: str = "e", now: float = NOW, **more: Any) -> None:
        self.views.apply(pb.ViewUpdate(epoch=epoch, revision=revision, put=items, **more), now)

    def full(self, *items: pb.Item, **more: Any) -> None:
        self.update(*items, **{"full": True, "complete": True, **more})

    def holds(self, now: float = NOW) -> bool:
        view = self.slot.views.grants
        return view is not None and not view.is_stale(now) and view.find("shop/db", (ANN,), now) is not None

    def risks(self, now: float = NOW) -> list[str]:
        """The risks of ann by the sources of her issuer, `stale` for those of a silent one."""
        view = self.slot.views.signals
        assert view is not None
        known = view.find(SignalKind.RISK, Revoked.SUBJECT, "https://i", "ann")
        sources = view.sources(SignalKind.RISK, Revoked.ISSUER, "https://i")
        return [
            "stale" if view.is_stale(source, now) else one.value
            for source in sources
            for one in known
            if one.source == source.name
        ]


def test_grants_do_not_count_before_the_first_view_is_complete() -> None:
    followed = Followed()
    followed.update(grant("g1"), full=True)
    assert not followed.views.is_complete
    assert not followed.holds()
    followed.update(complete=True, revision=7)
    assert followed.views.is_complete
    assert (followed.views.epoch, followed.views.revision) == ("e", 7)
    assert followed.holds()


def test_changes_add_replace_and_remove() -> None:
    followed = Followed()
    followed.full(grant("g1"), revocation("r1"))
    followed.update(grant("g1", until=NOW - 1), revocation("r2"), revision=2, complete=True)
    assert not followed.holds()
    assert len(followed.revocations) == 2
    followed.update(removed=["grant/g1", "revocation/r1", "revocation/never", "signal/x"], revision=3, complete=True)
    assert (len(followed.views.grants), len(followed.revocations)) == (0, 1)


def test_signals_count_with_their_source() -> None:
    followed = Followed()
    followed.update(source(), signal("s1"), full=True)
    assert followed.risks() == []
    followed.update(complete=True)
    assert followed.risks() == ["HIGH"]
    followed.update(signal("s1", value="LOW"), revision=2, complete=True)
    assert followed.risks() == ["LOW"]
    followed.update(removed=["source/root/idp"], revision=3, complete=True)
    assert followed.risks() == []
    followed.update(source(), removed=["signal/s1"], revision=4, complete=True)
    assert followed.risks() == []
    followed.full(source(), signal("s2"), epoch="f")
    assert followed.risks() == ["HIGH"]
    followed.full(epoch="g")
    assert followed.risks() == []


def test_a_heartbeat_keeps_signals_fresh_but_not_those_of_a_silent_source() -> None:
    followed = Followed()
    followed.full(source(max_silence=900.0), signal("s1"))
    assert followed.risks(NOW + 601) == ["stale"]
    followed.update(complete=True, now=NOW + 590)
    assert followed.risks(NOW + 601) == ["HIGH"]
    assert followed.risks(NOW + 901) == ["stale"]
    followed.update(source(max_silence=900.0, heard_at=NOW + 901), revision=2, complete=True, now=NOW + 901)
    assert followed.risks(NOW + 901) == ["HIGH"]


def test_a_heartbeat_keeps_the_view_fresh() -> None:
    followed = Followed()
    followed.full(grant("g1", until=NOW + 5000))
    assert not followed.holds(NOW + 601)
    followed.update(revision=1, complete=True, now=NOW + 590)
    assert followed.holds(NOW + 1190)


def test_a_second_full_view_decides_only_when_it_is_complete_but_its_revocations_at_once() -> None:
    followed = Followed()
    followed.full(grant("g1"), revocation("r1"))
    followed.update(grant("g2", subject=pb.Subject(spiffe_id="spiffe://a/b")), revocation("r2"), full=True, epoch="f")
    assert followed.holds(), "the old grants count until the new view is complete"
    assert len(followed.revocations) == 2
    followed.update(removed=["grant/never", "revocation/never"], complete=True, epoch="f", revision=1)
    assert not followed.holds()
    assert len(followed.revocations) == 2, "another store does not lift what the first one revoked"
    assert followed.views.epoch == "f"


def test_a_stream_that_broke_within_a_full_view_leaves_the_old_one() -> None:
    followed = Followed()
    followed.full(grant("g1"), revocation("r1"))
    followed.update(revocation("r2"), full=True, epoch="f")
    followed.views.begin()
    assert followed.holds()
    assert (followed.views.epoch, followed.views.revision) == ("e", 1)
    followed.full(grant("g1"), epoch="f")
    assert len(followed.revocations) == 2, "refusing too much is safe"


def test_revocations_outlive_a_store_that_lost_them(caplog: pytest.LogCaptureFixture) -> None:
    followed = Followed()
    followed.full(grant("g1"), revocation("r1"), revocation("r2"), revocation("ended", until=NOW + 10))
    followed.full(revocation("r2"), epoch="f", now=NOW + 20)
    assert followed.revocations.in_force(NOW + 20) == {"r1", "r2"}
    assert len(followed.revocations) == 2
    assert not followed.holds(), "a grant that was lost is no grant"
    assert "lacks 1 revocations" in caplog.text
    followed.full(epoch="f", revision=2)
    assert followed.revocations.in_force(NOW + 20) == {"r1"}, "r2 was lifted, r1 was lost"
    followed.full(revocation("r1"), epoch="f", revision=3)
    followed.update(removed=["revocation/r1"], epoch="f", revision=4, complete=True)
    followed.full(epoch="g")
    assert len(followed.revocations) == 0, "r1 was made again, and lifted"


def test_a_lost_revocation_that_was_made_again_can_be_lifted() -> None:
    followed = Followed()
    followed.full(revocation("r1"))
    followed.full(epoch="f")
    followed.update(revocation("r1"), epoch="f", revision=2, complete=True)
    followed.full(epoch="f", revision=3)
    assert len(followed.revocations) == 0


def test_a_view_that_is_read_again_lifts_what_was_lifted_meanwhile() -> None:
    followed = Followed()
    followed.full(revocation("r1"))
    with pytest.raises(InvalidView):
        followed.update(epoch="f", revision=2)
    followed.views.forget_position()
    followed.full(epoch="e", revision=3)
    assert len(followed.revocations) == 0


def test_updates_that_do_not_continue_the_view_are_refused() -> None:
    followed = Followed()
    with pytest.raises(InvalidView, match="another epoch"):
        followed.update(grant("g1"), complete=True)
    followed.full(revision=5)
    with pytest.raises(InvalidView, match="older"):
        followed.update(revision=4, complete=True)
    with pytest.raises(InvalidView, match="another epoch"):
        followed.update(revision=6, epoch="f", complete=True)
    followed.views.forget_position()
    assert (followed.views.epoch, followed.views.revision, followed.views.is_complete) == ("", 0, True)


def test_a_view_with_too_many_items_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ITEMS", 2)
    followed = Followed()
    followed.full(grant("g1"), grant("g2"))
    with pytest.raises(InvalidView, match="more than 2 items"):
        followed.full(grant("g1"), grant("g2"), grant("g3"))


def test_a_replica_that_is_behind_does_not_take_back_what_is_in_force() -> None:
    followed = Followed()
    followed.full(grant("g1"), revision=5)
    followed.update(revocation("r1"), removed=["grant/g1"], revision=9, complete=True)
    followed.views.forget_position()
    for seconds in (1, 30, 60):
        with pytest.raises(InvalidView, match="older than the one in force"):
            followed.full(grant("g1"), revision=8, now=NOW + seconds)
    assert (followed.holds(), len(followed.revocations)) == (False, 1)
    followed.full(revocation("r1"), revision=9, now=NOW + 70)
    followed.views.forget_position()
    with pytest.raises(InvalidView, match="older than the one in force"):
        followed.full(revision=8, now=NOW + 80)


def test_a_store_that_lost_changes_is_accepted_after_a_while_and_revocations_stay() -> None:
    followed = Followed()
    followed.full(revocation("r1"), revision=9)
    with pytest.raises(InvalidView):
        followed.full(grant("g1"), revision=3, now=NOW + 1)
    followed.full(grant("g1", until=NOW + 500), revision=3, now=NOW + 62)
    assert (followed.views.revision, followed.holds(NOW + 62), len(followed.revocations)) == (3, True, 1)


def test_the_owner_is_called_when_a_full_view_adds_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROWTH_ITEMS", 2)
    grown = list[int]()
    views = FollowedViews(FactSlot(), DynamicRevocations(), 600.0, lambda: grown.append(1))
    items = [grant(f"g{number}") for number in range(5)]
    views.apply(pb.ViewUpdate(epoch="e", revision=1, put=items, full=True, complete=True), NOW)
    assert len(grown) == 3
    views.apply(pb.ViewUpdate(epoch="e", revision=2, put=items, complete=True), NOW)
    assert len(grown) == 3


def test_revocations_of_full_views_that_never_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ITEMS", 3)
    followed = Followed()
    followed.full(grant("g1"))
    for number in range(2):
        followed.update(revocation(f"r{number}"), full=True)
        followed.views.begin()
    followed.update(revocation("r2"), full=True)
    with pytest.raises(InvalidView, match="more than 3 items"):
        followed.update(revocation("r3"))
    assert len(followed.revocations) <= 3
    assert followed.holds()


def test_a_full_view_that_does_not_end_in_time_is_refused_and_keeps_nothing_fresh() -> None:
    followed = Followed()
    followed.full(grant("g1", until=NOW + 5000))
    followed.update(full=True, epoch="f", now=NOW + 1)
    with pytest.raises(InvalidView, match="not complete after 120 s"):
        followed.update(epoch="f", now=NOW + 122)
    assert followed.views.heard_at == NOW


@pytest.mark.parametrize(
    "item",
    [
        grant("g", entitlement=""),
        grant("g", subject=pb.Subject()),
        grant("g", subject=pb.Subject(issuer="https://i")),
        grant("g", subject=pb.Subject(issuer="https://i", subject="a", spiffe_id="spiffe://a/b")),
        grant("g", until=math.inf),
        grant("g", start=math.nan),
        grant("g", id="other"),
        revocation("r", what="everything"),
        revocation("r", value=""),
        revocation("r", before=math.nan),
        revocation("r", id="other"),
        signal("s", value="EXTREME"),
        signal("s", value=""),
        signal("s", kind="mood"),
        signal("s", kind="compliance"),
        signal("s", kind="assurance", value="x" * 1025),
        signal("s", what="everything"),
        signal("s", observed_at=math.nan),
        signal("s", source=""),
        signal("s", id="other"),
        source(max_silence=0.0),
        source(max_silence=math.inf),
        source(heard_at=math.nan),
        source("n", name="other"),
        revocation("r", reason="x" * position.MAX_ITEM_BYTES),
    ],
)
def test_an_item_that_makes_no_sense_is_refused_and_the_others_count(item: pb.Item) -> None:
    followed = Followed()
    followed.full(item, grant("good"))
    assert followed.views.refused == 1
    assert followed.holds()
    assert (len(followed.views.grants), len(followed.revocations), len(followed.views.signals)) == (1, 0, 0)


def test_an_item_of_a_later_version_is_ignored() -> None:
    followed = Followed()
    followed.full(pb.Item(key="later/1"), grant("good"))
    assert followed.holds()


def test_times_of_0_are_no_bounds() -> None:
    timed = read_revocation(revocation("r", reason="x" * 900).revocation)
    assert (timed.until, timed.revocation.before, timed.revocation.what) == (math.inf, math.inf, Revoked.SESSION)
    assert len(timed.revocation.comment) == 500
    bounded = read_revocation(revocation("r", before=5.0, until=9.0).revocation)
    assert (bounded.revocation.before, bounded.until) == (5.0, 9.0)
    with pytest.raises(InvalidItem):
        read_grant(pb.Grant())
